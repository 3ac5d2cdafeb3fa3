"""Kernels W(x − y) of interactions as sums of a few products: W(x − y) = Σ_kl f_k(x) S_kl f_l(y), without a mesh.

The f_k are moments of a quadratic kernel, and narrow Gaussians on a lattice of a Gaussian one (``lattice_sums``).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from numbers import Real
from typing import Any, Protocol, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.shape import DensityShape
from eulerian.density.shapes import Gaussian, Samples, Uniform
from eulerian.objective.lattice_sums import Lattice, LatticeSums


class PointSums(Protocol):
    """Sums over points, this rank's, that stay where they are. Nothing is collective.

    Law: ⟨dual, sums(m)⟩ = ⟨m, potential(dual)⟩ for all dual (size,) and m (n,).
    """

    def sums(self, masses: Floats) -> Floats:
        """c_k = Σ_j m_j f_k(x_j), (size,), of masses (n,)."""
        ...

    def potential(self, dual: Floats) -> Floats:
        """Σ_k dual_k f_k at the points, (n,)."""
        ...

    def gradient(self, dual: Floats) -> Floats:
        """Its gradient, (n, d)."""
        ...


class KernelSums(Protocol):
    """W(x − y) = Σ_kl f_k(x) S_kl f_l(y) for points x and y in a box."""

    @property
    def size(self) -> int:
        """Number of functions f_k."""

    def at(self, x: Floats) -> PointSums:
        """The f_k at points x (n, d) in the box."""

    def dual(self, c: Floats) -> Floats:
        """S c, (size,)."""

    def of_shape(self, shape: DensityShape, key: str) -> Floats:
        """∫f_k of a shape's density on all of R^d, (size,); ``key``: what it is called in messages.

        Raises:
            InputError: it is not known.
        """


class Interaction(ABC):
    """W(x − y), symmetric."""

    @abstractmethod
    def within(self, low: Floats, high: Floats, key: str) -> KernelSums:
        """Sums for points from ``low`` to ``high``, (d,) both; ``key``: what the kernel is called in messages.

        Raises:
            InputError: it is too narrow for the box.
        """


@final
@dataclass(frozen=True)
class QuadraticInteraction(Interaction):
    """W(x − y) = weight/2 |x − y|²: attraction for weight > 0, repulsion for weight < 0.

    ½∬Wρρ is weight/2 times the variance, for mass 1: it takes the moments of ρ up to the second ones.

    Attributes:
        weight: dimensionless, of any sign.

    Raises:
        InputError: the weight is not finite.
    """

    weight: float

    def __post_init__(self) -> None:
        require_number(self.weight, "weight")

    def within(self, low: Floats, high: Floats, key: str) -> KernelSums:  # noqa: ARG002 - it fits any box
        """See ``Interaction``."""
        # Moments about the middle: coordinates far from the origin keep their digits.
        return _Moments(float(self.weight), 0.5 * (low + high))


@final
@dataclass(frozen=True)
class GaussianInteraction(Interaction):
    """W(x − y) = weight exp(−|x − y|²/(2 width²)): repulsion for weight > 0, attraction for weight < 0.

    Sums are right to 1e-11 of the total mass. In boxes of sides a_i they take Π_i (2.3 a_i/width + 16) numbers, which
    are summed up over the ranks; wider kernels are cheaper.

    Attributes:
        weight: dimensionless, of any sign.
        width: > 0, in units of x.

    Raises:
        InputError: the weight is not finite, or the width is not positive.
    """

    weight: float
    width: float

    def __post_init__(self) -> None:
        require_number(self.weight, "weight")
        require_number(self.width, "width", positive=True)

    def within(self, low: Floats, high: Floats, key: str) -> KernelSums:
        """See ``Interaction``."""
        return _OnLattice(float(self.weight), Lattice.of(low, high, float(self.width), f"{key}.width"))


@final
@dataclass(frozen=True)
class _OnLattice:
    """A Gaussian kernel: S is a multiple of the identity."""

    weight: float
    lattice: Lattice

    @property
    def size(self) -> int:
        return self.lattice.size

    def at(self, x: Floats) -> PointSums:
        return LatticeSums(self.lattice, x)

    def dual(self, c: Floats) -> Floats:
        return self.weight * c

    def of_shape(self, shape: DensityShape, key: str) -> Floats:
        return self.lattice.integral * blurred(shape, self.lattice.nodes, self.lattice.blur, key)


@final
@dataclass(frozen=True)
class _Moments:
    """A quadratic kernel: c is the mass, the first moments, and the trace of the second ones about the middle."""

    weight: float
    middle: Floats

    @property
    def size(self) -> int:
        return len(self.middle) + 2

    def at(self, x: Floats) -> PointSums:
        return _MomentSums(x - self.middle)

    def dual(self, c: Floats) -> Floats:
        # weight/2 (|x|² − 2x·y + |y|²)
        return self.weight * np.concatenate([[0.5 * c[-1]], -c[1:-1], [0.5 * c[0]]])

    def of_shape(self, shape: DensityShape, key: str) -> Floats:
        raise NotImplementedError("no distance is made of moments")


@final
@dataclass(frozen=True)
class _MomentSums:
    """1, x and |x|² at points (n, d)."""

    x: Floats

    def sums(self, masses: Floats) -> Floats:
        second = np.einsum("n,ni,ni->", masses, self.x, self.x, optimize=True)
        return np.concatenate([[masses.sum()], masses @ self.x, [second]])

    def potential(self, dual: Floats) -> Floats:
        return np.asarray(dual[0] + self.x @ dual[1:-1] + dual[-1] * np.sum(self.x**2, axis=1))

    def gradient(self, dual: Floats) -> Floats:
        return np.asarray(dual[1:-1] + 2.0 * dual[-1] * self.x)


@singledispatch
def blurred(shape: Any, x: Floats, std: float, key: str = "density") -> Floats:  # noqa: ARG001 - for those that know it
    """A shape's convolution with the normal density of a standard deviation, (n,), at points x (n, d).

    Args:
        shape: whose.
        x: the points.
        std: the standard deviation.
        key: what the shape is called in messages.

    Raises:
        InputError: it is not known.
    """
    raise InputError(
        "its integrals against Gaussians are not known",
        key=key,
        value=type(shape).__name__,
        remedy="Take Gaussian, Samples or Uniform, or project it: space.project(…).",
    )


@blurred.register
def _(shape: Gaussian, x: Floats, std: float, key: str = "density") -> Floats:  # noqa: ARG001
    return Gaussian(shape.mean, shape.covariance + std**2 * np.eye(shape.dim)).values(x)


@blurred.register
def _(shape: Samples, x: Floats, std: float, key: str = "density") -> Floats:  # noqa: ARG001
    return Samples(shape.samples, np.hypot(shape.bandwidth, std)).values(x)


@blurred.register
def _(shape: Uniform, x: Floats, std: float, key: str = "density") -> Floats:  # noqa: ARG001
    from scipy.special import ndtr  # takes its time to load

    share = ndtr((shape.upper - x) / std) - ndtr((shape.lower - x) / std)
    return np.asarray(np.prod(share / (shape.upper - shape.lower), axis=1))


def as_kernels(what: Any, key: str) -> tuple[Interaction, ...]:
    """One or several kernels, as many of them.

    Raises:
        InputError: it is nothing of this.
    """
    kernels = tuple(what) if isinstance(what, Sequence) else (what,)
    for kernel in kernels:
        if not isinstance(kernel, Interaction):
            remedy = "Give QuadraticInteraction(weight), GaussianInteraction(weight, width), or a list of these."
            raise InputError("is no interaction", key=key, value=type(kernel).__name__, remedy=remedy)
    if not kernels:
        raise InputError("needs at least one kernel", key=key)
    return kernels


def require_number(value: Any, name: str, *, positive: bool = False) -> None:
    """Raise InputError unless a value is a number, or one > 0."""
    number = isinstance(value, Real) and math.isfinite(value)
    if not number or (positive and not value > 0.0):
        raise InputError(f"must be a number{' > 0' if positive else ''}", key=name, value=value)
