"""Which features a field that is linear in θ has: the coordinates, or functions laid out in the domain's box."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.quasirandom import even_points
from eulerian.fields.activations import activation
from eulerian.fields.base import check_sizes
from eulerian.fields.frame import AffineUnits, Frame, NormalisedField
from eulerian.fields.linear import FeatureField


@dataclass(frozen=True)
class _InUserUnits(FeatureField):
    """A field whose θ means the same whatever the domain is: its features are the user's coordinates.

    Attributes:
        frame: of the domain: random starts are drawn, and descents are made, in its units; None for those of the user.
    """

    frame: Frame | None = field(default=None, kw_only=True)

    def init(self, rng: np.random.Generator, /) -> Floats:
        """Zero or, in units of the frame, small random θ (p,)."""
        theta = super().init(rng)
        return theta if self.units is None else self.units.absolute(theta)

    def in_box(self, lower: Sequence[float], upper: Sequence[float], horizon: float) -> Self:
        """The same field, whose random starts and descents are in units of a domain's box."""
        return replace(self, frame=Frame.of_box(lower, upper, horizon))

    @property
    def units(self) -> AffineUnits | None:
        """From θ to numbers relative to the frame."""
        return None if self.frame is None else AffineUnits(self.frame, self.dim, self.n_features, self.frame.velocity)


@dataclass(frozen=True)
class Translation(_InUserUnits):
    """v = θ: the whole density moves as one."""

    row_layout: ClassVar[str] = "the velocity"

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

    def bends(self, x: Floats, c: Floats) -> Floats:  # noqa: ARG002
        """Zero."""
        return np.zeros_like(x)


@dataclass(frozen=True)
class Affine(_InUserUnits):
    """v = A x + b with θ = (A row by row, b)."""

    row_layout: ClassVar[str] = "A row by row, then b"

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

    def bends(self, x: Floats, c: Floats) -> Floats:  # noqa: ARG002
        """Zero."""
        return np.zeros_like(x)


@dataclass(frozen=True)
class _BoxFeatures(FeatureField):
    """``width`` features laid out in the box [-1, 1]^dim, which ``in_box`` brings to that of a domain."""

    width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(width=self.width)

    def in_box(self, lower: Sequence[float], upper: Sequence[float], horizon: float) -> NormalisedField:
        """The field whose features are laid out in a domain's box."""
        return NormalisedField(self, Frame.of_box(lower, upper, horizon))

    @property
    def n_features(self) -> int:
        """The width."""
        return self.width


@dataclass(frozen=True)
class Rbf(_BoxFeatures):
    """Gaussian radial basis functions φ_k = exp(-|x - c_k|²/(2h²)).

    The centres fill the box evenly at every width; h is their mean distance 2/width^(1/dim).
    """

    @cached_property
    def centres(self) -> Floats:
        """Centres (width, dim)."""
        return 2.0 * even_points(self.width, self.dim) - 1.0

    @property
    def _spread(self) -> float:
        return float(2.0 / self.width ** (1.0 / self.dim))

    def features(self, x: Floats) -> Floats:
        """The bumps (n, width)."""
        u = x / self._spread
        centres = self.centres / self._spread
        phi = u @ centres.T  # |u − c|² multiplied out: one product instead of an array (n, width, dim)
        phi -= 0.5 * np.einsum("nj,nj->n", u, u)[:, None]
        phi -= 0.5 * np.einsum("kj,kj->k", centres, centres)
        return np.exp(phi, out=phi)

    def gradients(self, x: Floats) -> Floats:
        """φ_k (c_k - x)_j/h² as an array (n, dim, width)."""
        return self._offsets(x) * self.features(x)[:, None, :]

    def bends(self, x: Floats, c: Floats) -> Floats:
        """From ∂²φ/∂x_j∂x_l = φ (a_j a_l - δ_jl/h²), a = ∇ log φ."""
        a, phi = self._offsets(x), self.features(x)
        along = np.einsum("njk,njk->nk", c, a)
        bends = np.einsum("nk,nlk->nl", along * phi, a)
        bends -= np.einsum("nlk,nk->nl", c, phi) / self._spread**2
        return np.asarray(bends)

    def _offsets(self, x: Floats) -> Floats:
        """∇ log φ_k, (n, dim, width)."""
        return np.asarray((self.centres.T - x[:, :, None]) / self._spread**2)


@dataclass(frozen=True)
class _RidgeFeatures(_BoxFeatures):
    """Features φ_k = f(a_k · x + c_k) with frozen inner weights a, c drawn from ``seed``."""

    seed: int = field(default=0, kw_only=True)

    @cached_property
    def inner(self) -> tuple[Floats, Floats]:
        """Frozen a (width, dim) and c (width,)."""
        # A stream of its own: θ drawn from the same seed must not repeat the inner weights.
        return self._draw(np.random.default_rng([self.seed, 1]))

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Weights (width, dim) and offsets (width,)."""

    def _inner_value(self, x: Floats) -> Floats:
        a, c = self.inner
        z = x @ a.T
        z += c
        return z

    def bends(self, x: Floats, c: Floats) -> Floats:
        """From ∂²φ/∂x_j∂x_l = f'' a_j a_l."""
        a, _ = self.inner
        along = np.einsum("njk,kj->nk", c, a)
        along *= self._second(x)
        return np.asarray(along @ a)

    @abstractmethod
    def _second(self, x: Floats) -> Floats:
        """Second derivative f'' at a_k · x + c_k, (n, width)."""


@dataclass(frozen=True)
class RandomFeatures(_RidgeFeatures):
    """Random Fourier features φ_k = √(2/m) cos(a_k·x + c_k), a_k normal: they approximate the Gaussian kernel.

    With the standard deviation taken here the kernel is exp(-2|x - x'|²).

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

    def _second(self, x: Floats) -> Floats:
        return -self.features(x)


@dataclass(frozen=True)
class Residual(_RidgeFeatures):
    """v = W σ(A x + c) + b with frozen A, c and θ = (W row by row, b): a residual block whose outer weights learn.

    Every ridge A_k·x + c_k = 0 crosses the box; its slope is about 2.
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

    def _second(self, x: Floats) -> Floats:
        sigma, a = activation(self.activation), self.features(x)
        return sigma.bend(a, sigma.slope(a))


def Linear(
    dim: int, features: str = "affine", width: int = 16, *, seed: int = 0, n_labels: int = 0, zero_init: bool = True
) -> FeatureField:
    """A field that is linear in θ: v(x, θ) = W φ(x) + b, the regime in which a minimiser is known to exist.

    Args:
        dim: space dimension.
        features: what φ is: "affine" (φ = x, θ = (A row by row, b)), "translation" (none, θ = v), "rbf" (Gaussian
            bumps), "random" (random Fourier features) or "residual" (a frozen hidden layer of tanh).
        width: number of bumps, waves or hidden units; the first two have no use for it.
        seed: of the frozen random numbers of "random" and "residual".
        n_labels: number K of labels that the field distinguishes; 0 for a label-independent field.
        zero_init: start from θ = 0, else from independent normal numbers of standard deviation 0.1.

    Raises:
        InputError: there are no such features, or a size is too small.
    """
    make: dict[str, Callable[[], FeatureField]] = {
        "affine": lambda: Affine(dim, n_labels=n_labels, zero_init=zero_init),
        "translation": lambda: Translation(dim, n_labels=n_labels, zero_init=zero_init),
        "rbf": lambda: Rbf(dim, width, n_labels=n_labels, zero_init=zero_init),
        "random": lambda: RandomFeatures(dim, width, seed=seed, n_labels=n_labels, zero_init=zero_init),
        "residual": lambda: Residual(dim, width, seed=seed, n_labels=n_labels, zero_init=zero_init),
    }
    if features not in make:
        raise InputError(f"must be one of {', '.join(make)}", key="field.features", value=features)
    return make[features]()
