"""Fields that are linear in θ: v(x, θ) = W φ(x) + b with fixed features φ.

This is the regime in which a minimiser exists as soon as ε > 0 (Isobe & Okumura 2024, doi:10.4208/jml.231210).
θ = (W row by row, b); a label-dependent field has one such block per label: θ = (block of label 0, of label 1, …).
To add a field of your own, give ``n_features``, ``features``, ``gradients`` and ``bends``; all of a field follows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.base import (
    KEPT,
    blocks,
    check_dimension,
    check_sizes,
    checked,
    column_sums,
    label_block,
    quiet,
)


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

    @abstractmethod
    def bends(self, x: Floats, c: Floats) -> Floats:
        """Σ_jk c_njk ∂²φ_k/∂x_j∂x_l as entry [n, l] of an array (n, dim), c (n, dim, m)."""

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
        bias += column_sums(w)
        return gradient

    @quiet
    def value_and_vjp(
        self, theta: Floats, x: Floats, label: int | None = None
    ) -> tuple[Floats, Callable[[Floats], Floats]]:
        """``value``, and ``vjp`` as a function of w; for few points it does not compute the features again."""
        if len(x) * self.n_features > KEPT:
            return self.value(theta, x, label), lambda w: self.vjp(theta, x, w, label)
        x = checked("x", x, (None, self.dim))
        weights, bias = self._split(theta, label)
        features = self.features(x)

        @quiet
        def vjp(w: Floats) -> Floats:
            w = checked("w", w, x.shape)
            gradient, by_weights, by_bias = self._zeros(theta, label)
            by_weights += w.T @ features
            by_bias += column_sums(w)
            return gradient

        return features @ weights.T + bias, vjp

    @quiet
    def theta_jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """∂v_i/∂θ_k as entry [n, i, k] of an array (n, dim, p)."""
        x = checked("x", x, (None, self.dim))
        jacobian = np.zeros((len(x), self.dim, len(checked("theta", theta, (self.n_params(self.dim),)))))
        m, start = self.n_features, label_block(label, self.n_labels) * self._block
        features = self.features(x)
        for axis in range(self.dim):
            jacobian[:, axis, start + axis * m : start + (axis + 1) * m] = features
            jacobian[:, axis, start + self.dim * m + axis] = 1.0
        return jacobian

    @quiet
    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """∂v_i/∂x_j as entry [n, i, j] of an array (n, dim, dim)."""
        x = checked("x", x, (None, self.dim))
        weights, _ = self._split(theta, label)
        transposed = np.empty((len(x), self.dim, self.dim))  # entry [n, j, i]: one product of all slopes with Wᵀ
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

    @quiet
    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradients (n, dim) of w_n : ∇v(x_n, θ) with respect to x_n, w (n, dim, dim)."""
        x = checked("x", x, (None, self.dim))
        w = checked("w", w, (len(x), self.dim, self.dim))
        weights, _ = self._split(theta, label)
        gradient = np.empty_like(x)
        for rows in blocks(len(x), 3 * self.dim * self.n_features):
            gradient[rows] = self.bends(x[rows], w[rows].swapaxes(1, 2) @ weights)
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
