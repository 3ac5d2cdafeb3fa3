"""Fields that are linear in θ: v(x, θ) = W φ(x) + b with fixed features φ.

This is the regime in which a minimiser exists as soon as ε > 0 (Isobe & Okumura 2024, doi:10.4208/jml.231210).
θ = (W row by row, b); a label-dependent field has one such block per label: θ = (block of label 0, of label 1, …).
To add a field of your own, give ``n_features``, ``features`` and ``gradients``; values and derivatives in θ follow.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from eulerian.arrays import Floats
from eulerian.fields.activations import activation
from eulerian.fields.base import blocks, check_box, check_dimension, check_sizes, checked, label_block, quiet


@dataclass(frozen=True)
class FeatureField(ABC):
    """v(x, θ) = W φ(x) + b with m features φ; subclasses say what φ is.

    Attributes:
        dim: space dimension.
        n_labels: number K of labels that the field distinguishes; 0 for a label-independent field.
        zero_init: start from θ = 0, else from independent normal numbers of standard deviation 0.1.
    """

    dim: int
    n_labels: int = field(default=0, kw_only=True)
    zero_init: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_sizes(dim=self.dim, n_labels=self.n_labels)

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number m of features."""

    @abstractmethod
    def features(self, x: Floats) -> Floats:
        """φ (n, m) at points x (n, dim)."""

    @abstractmethod
    def gradients(self, x: Floats) -> Floats:
        """∂φ_k/∂x_j as entry [n, j, k] of an array (n, dim, m)."""

    def n_params(self, dim: int, /) -> int:
        """dim·(m + 1) for each label."""
        check_dimension(self.dim, dim)
        return self._block * max(self.n_labels, 1)

    def init(self, rng: np.random.Generator, /) -> Floats:
        """Zero or small random θ (p,)."""
        p = self.n_params(self.dim)
        return np.zeros(p) if self.zero_init else 0.1 * rng.standard_normal(p)

    @quiet
    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        x = checked("x", x, (None, self.dim))
        weights, bias = self._split(theta, label)
        v = np.empty_like(x)
        for rows in blocks(len(x), self.n_features):
            np.matmul(self.features(x[rows]), weights.T, out=v[rows])
        v += bias
        return v

    @quiet
    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n, θ), w (n, dim)."""
        x = checked("x", x, (None, self.dim))
        w = checked("w", w, x.shape)
        gradient, weights, bias = self._zeros(theta, label)
        for rows in blocks(len(x), self.n_features):
            weights += w[rows].T @ self.features(x[rows])
        bias += w.sum(axis=0)
        return gradient

    @quiet
    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """∂v_i/∂x_j as entry [n, i, j] of an array (n, dim, dim)."""
        x = checked("x", x, (None, self.dim))
        weights, _ = self._split(theta, label)
        transposed = np.empty((len(x), self.dim, self.dim))
        for rows in blocks(len(x), self.dim * self.n_features):
            slopes = self._slopes(x[rows])
            np.matmul(slopes, weights.T, out=transposed[rows].reshape(-1, self.dim))
        return np.ascontiguousarray(transposed.swapaxes(1, 2))

    @quiet
    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n : ∇v(x_n, θ), w (n, dim, dim)."""
        x = checked("x", x, (None, self.dim))
        w = checked("w", w, (len(x), self.dim, self.dim))
        gradient, weights, _ = self._zeros(theta, label)
        for rows in blocks(len(x), self.dim * self.n_features):
            slopes = self._slopes(x[rows])
            weights += w[rows].swapaxes(1, 2).reshape(-1, self.dim).T @ slopes
        return gradient

    def _slopes(self, x: Floats) -> Floats:
        """``gradients`` as a matrix (n·dim, m)."""
        return self.gradients(x).reshape(len(x) * self.dim, self.n_features)

    @property
    def _block(self) -> int:
        return self.dim * (self.n_features + 1)

    def _split(self, theta: Floats, label: int | None) -> tuple[Floats, Floats]:
        """W (dim, m) and b (dim,) of this label, as views."""
        theta = checked("theta", theta, (self.n_params(self.dim),))
        start = label_block(label, self.n_labels) * self._block
        block = theta[start : start + self._block]
        return block[: -self.dim].reshape(self.dim, self.n_features), block[-self.dim :]

    def _zeros(self, theta: Floats, label: int | None) -> tuple[Floats, Floats, Floats]:
        """A zero gradient (p,) with views of its W and b parts."""
        gradient = np.zeros_like(checked("theta", theta, (self.n_params(self.dim),)))
        return gradient, *self._split(gradient, label)


@dataclass(frozen=True)
class Translation(FeatureField):
    """v = θ: the whole density moves as one."""

    @property
    def n_features(self) -> int:
        """None: only the constant is there."""
        return 0

    def features(self, x: Floats) -> Floats:
        """An array (n, 0)."""
        return np.empty((len(x), 0))

    def gradients(self, x: Floats) -> Floats:
        """An array (n, dim, 0)."""
        return np.empty((len(x), self.dim, 0))


@dataclass(frozen=True)
class Affine(FeatureField):
    """v = A x + b with θ = (A row by row, b)."""

    @property
    def n_features(self) -> int:
        """One per coordinate."""
        return self.dim

    def features(self, x: Floats) -> Floats:
        """The coordinates themselves."""
        return x

    def gradients(self, x: Floats) -> Floats:
        """The unit matrix at every point."""
        return np.broadcast_to(np.eye(self.dim), (len(x), self.dim, self.dim))


@dataclass(frozen=True)
class _BoxFeatures(FeatureField):
    """Features laid out in a box: ``width`` of them, between the corners ``lower`` and ``upper`` of the domain."""

    width: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(width=self.width)
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", tuple(low.tolist()))
        object.__setattr__(self, "upper", tuple(high.tolist()))

    @property
    def n_features(self) -> int:
        """The width."""
        return self.width

    @cached_property
    def _scale(self) -> Floats:
        """Factors (dim,) from x to box coordinates u in [-1, 1]^dim."""
        return np.divide(2.0, np.subtract(self.upper, self.lower))

    @cached_property
    def _middle(self) -> Floats:
        return np.multiply(0.5, np.add(self.upper, self.lower))


@dataclass(frozen=True)
class Rbf(_BoxFeatures):
    """Gaussian radial basis functions φ_k = exp(-|u - c_k|²/(2h²)) in box coordinates u ∈ [-1, 1]^dim.

    The centres are the points of the R_d sequence (Kronecker sequence of the generalised golden ratio), which fills the
    box evenly at every width; h is their mean distance 2/width^(1/dim).
    """

    @cached_property
    def centres(self) -> Floats:
        """Centres (width, dim) in box coordinates."""
        golden = 2.0
        for _ in range(60):  # the positive root of g^(dim + 1) = g + 1, by a contraction
            golden = (1.0 + golden) ** (1.0 / (self.dim + 1))
        steps = golden ** -np.arange(1.0, self.dim + 1)
        return 2.0 * ((0.5 + np.outer(np.arange(1, self.width + 1), steps)) % 1.0) - 1.0

    @property
    def _spread(self) -> float:
        return float(2.0 / self.width ** (1.0 / self.dim))

    def features(self, x: Floats) -> Floats:
        """The bumps (n, width)."""
        u = (x - self._middle) * self._scale / self._spread
        centres = self.centres / self._spread
        phi = u @ centres.T
        phi -= 0.5 * np.einsum("nj,nj->n", u, u)[:, None]
        phi -= 0.5 * np.einsum("kj,kj->k", centres, centres)
        return np.exp(phi, out=phi)

    def gradients(self, x: Floats) -> Floats:
        """φ_k (c_k - u)_j/h² · du_j/dx_j as an array (n, dim, width)."""
        u = (x - self._middle) * self._scale
        offsets = (self.centres.T - u[:, :, None]) * (self._scale / self._spread**2)[:, None]
        return offsets * self.features(x)[:, None, :]


@dataclass(frozen=True)
class _RidgeFeatures(_BoxFeatures):
    """Features φ_k = f(a_k · x + c_k) with frozen inner weights a, c drawn from ``seed``."""

    seed: int = field(default=0, kw_only=True)

    @cached_property
    def inner(self) -> tuple[Floats, Floats]:
        """Frozen a (width, dim) and c (width,), drawn in box coordinates and then scaled to x."""
        # A stream of its own: θ drawn from the same seed must not repeat the inner weights.
        rng = np.random.default_rng([self.seed, 1])
        directions, offsets = self._draw(rng)
        a = directions * self._scale
        return a, offsets - a @ self._middle

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Weights (width, dim) and offsets (width,) for box coordinates."""

    def _inner_value(self, x: Floats) -> Floats:
        a, c = self.inner
        z = x @ a.T
        z += c
        return z


@dataclass(frozen=True)
class RandomFeatures(_RidgeFeatures):
    """Random Fourier features φ_k = √(2/m) cos(a_k·x + c_k), a_k normal: they approximate the Gaussian kernel.

    With the standard deviation taken here the kernel is exp(-2|u - u'|²) in box coordinates.

    Source: Rahimi & Recht, Random Features for Large-Scale Kernel Machines, NeurIPS 2007.
    """

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        return 2.0 * rng.standard_normal((self.width, self.dim)), rng.uniform(0.0, 2.0 * np.pi, self.width)

    def features(self, x: Floats) -> Floats:
        """The waves (n, width)."""
        z = self._inner_value(x)
        np.cos(z, out=z)
        z *= (2.0 / self.width) ** 0.5
        return z

    def gradients(self, x: Floats) -> Floats:
        """Slopes (n, dim, width)."""
        slopes = np.sin(self._inner_value(x))
        slopes *= -((2.0 / self.width) ** 0.5)
        return slopes[:, None, :] * self.inner[0].T


@dataclass(frozen=True)
class Residual(_RidgeFeatures):
    """v = W σ(A x + c) + b with frozen A, c and θ = (W row by row, b): a residual block whose outer weights learn.

    Every ridge A_k·x + c_k = 0 crosses the box; its slope is about 2 in box coordinates.
    """

    activation: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        activation(self.activation)

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        directions = 2.0 * rng.standard_normal((self.width, self.dim))
        points = rng.uniform(-1.0, 1.0, (self.width, self.dim))
        return directions, -np.einsum("kj,kj->k", directions, points)

    def features(self, x: Floats) -> Floats:
        """The ridge functions (n, width)."""
        return activation(self.activation).value(self._inner_value(x))

    def gradients(self, x: Floats) -> Floats:
        """Slopes (n, dim, width)."""
        slopes = activation(self.activation).slope(self.features(x))
        return slopes[:, None, :] * self.inner[0].T
