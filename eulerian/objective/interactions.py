"""Costs of the density as a whole that are quadratic in it, ½∬W(x − y) ρ(x) ρ(y): interactions, MMD to a target.

All of them are ½ (c − c*)ᵀ S (c − c*), quadratic in a few numbers c_k = ∫f_k ρ: moments, or integrals against narrow
Gaussians on a lattice (``lattice_sums``). So densities and particles on many ranks need one reduction of c; the
potential Φ(x) = Σ_k (S(c − c*))_k f_k(x) and its gradient are then local. Nothing here knows a mesh.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Protocol, Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.shape import DensityShape, LabelledShape
from eulerian.objective.distances import DensityFunctional, Distance
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
        _require_number(self.weight, "weight")

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
        _require_number(self.weight, "weight")
        _require_number(self.width, "width", positive=True)

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
        return self.lattice.integral * shape.blurred(self.lattice.nodes, self.lattice.blur, key)


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


# -- what a user hands to a problem ------------------------------------------------------------------------------------


class QuadraticFunctional(DensityFunctional):
    """What costs of a terminal density that are quadratic in it share.

    Attributes:
        kernels: W is their sum.
        by_label: whether densities of labels interact with themselves only, else their sum does.
        target: ρ*, or None.
        resolution: length that rules for integrals against ρ* have to resolve.
        no_bound: why no bound of the idealised problem is known with it.
    """

    kernels: tuple[Interaction, ...]
    by_label: ClassVar[bool]
    target: Any
    resolution: float = math.inf
    no_bound: ClassVar[str] = (
        "no bound is known where points of the density interact: the idealised problem is solved for costs that are "
        "paid point by point, and an attraction makes it non-convex"
    )

    def within(self, low: Floats, high: Floats, key: str) -> "QuadraticForm":
        """The functional of points from ``low`` to ``high``, without its target; ``key``: its name in messages.

        Raises:
            InputError: a kernel is too narrow for the box.
        """
        return QuadraticForm(tuple(kernel.within(low, high, key) for kernel in self.kernels), self.by_label)


@final
@dataclass(frozen=True, init=False)
class InteractionEnergy(QuadraticFunctional):
    """½∬W(x − y) ρ(x) ρ(y), ρ the density of all labels together: as terminal cost, or of a ``CostAt``.

    For example, ``eu.InteractionEnergy(eu.GaussianInteraction(2.0, width=0.3))`` keeps points apart.

    Args:
        kernels: one or several, whose sum is W.

    Raises:
        InputError: one of them is no kernel.
    """

    kernels: tuple[Interaction, ...]

    kind = "interaction"
    by_label = False
    target = None

    def __init__(self, *kernels: Interaction) -> None:
        object.__setattr__(self, "kernels", as_kernels(kernels, "terminal"))


@final
@dataclass(frozen=True)
class MaximumMeanDiscrepancy(QuadraticFunctional, Distance):
    """weight · ½∬k(x − y) (ρ − ρ*)(x) (ρ − ρ*)(y), k = exp(−|x − y|²/(2 width²)), summed over the labels.

    Half of the square of the distance that Gretton et al. (2012, JMLR 13, 723–773) call so. It has no logarithm, wants
    no floor, and particles can have it. It sees what is wider than ``width``.

    On particles a target of shapes (Gaussian, Samples, Uniform) is taken on all of R^d, to all digits; a projected
    ``Density`` by a quadrature rule on its mesh.

    Attributes:
        width: > 0, in units of x.
        weight: ≥ 0.

    Raises:
        InputError: a number is out of its range.
    """

    kind = "mmd"
    by_label = True
    no_bound = "no bound is known for this distance: the convex solver takes costs that are paid point by point"

    width: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        _require_number(self.width, "width", positive=True)
        if not (isinstance(self.weight, Real) and 0.0 <= float(self.weight) < math.inf):
            raise InputError("must be a number >= 0", key="terminal.weight", value=self.weight)

    @property
    def kernels(self) -> tuple[Interaction, ...]:  # type: ignore[override]
        """A Gaussian one."""
        return (GaussianInteraction(self.weight, self.width),)

    @property
    def resolution(self) -> float:  # type: ignore[override]
        """The width."""
        return self.width


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


def _require_number(value: Any, name: str, *, positive: bool = False) -> None:
    number = isinstance(value, Real) and math.isfinite(value)
    if not number or (positive and not value > 0.0):
        raise InputError(f"must be a number{' > 0' if positive else ''}", key=name, value=value)


# -- in a box ----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class QuadraticForm:
    """½ (c − c*)ᵀ S (c − c*) for points in a box. Sums c are (size, m): m = 1, or K where labels count one by one.

    Attributes:
        parts: the kernels, their functions behind one another.
        by_label: whether labels count one by one.
        target: c*, or None for 0.
    """

    parts: tuple[KernelSums, ...]
    by_label: bool
    target: Floats | None = None

    def with_target(self, c: Floats) -> Self:
        """The distance from a density with these sums over all ranks."""
        return replace(self, target=c)

    def at(self, x: Floats) -> "FormAtPoints":
        """At this rank's points (n, d)."""
        return FormAtPoints(tuple(part.at(x) for part in self.parts), self.parts, self.by_label)

    def value(self, c: Floats) -> float:
        """The functional of sums over all points of all ranks."""
        return 0.5 * float(np.vdot(self._rest(c), self.dual(c)))

    def dual(self, c: Floats) -> Floats:
        """S (c − c*), (size, m): what the potential is made of."""
        rest = self._rest(c)
        columns = [
            np.concatenate([part.dual(own) for part, own in zip(self.parts, cut(self.parts, column), strict=True)])
            for column in rest.T
        ]
        return np.stack(columns, axis=1)

    def _rest(self, c: Floats) -> Floats:
        return c if self.target is None else c - self.target

    def of_shapes(self, terms: Sequence[tuple[LabelledShape, float]], n_labels: int) -> Floats:
        """Sums (size, K) of a density on all of R^d: shapes with the factors that they count with.

        Raises:
            InputError: one of them has no integrals against Gaussians that are known.
        """
        result = np.zeros((sum(part.size for part in self.parts), n_labels))
        for term, factor in terms:
            found = [part.of_shape(term.shape, term.key) for part in self.parts]
            result[:, term.label] += factor * np.concatenate(found)
        return result


@final
@dataclass(frozen=True)
class FormAtPoints:
    """A quadratic form at points of this rank that stay where they are. Nothing is collective.

    Attributes:
        points: by kernel.
        parts: the kernels.
        by_label: as in ``QuadraticForm``.
    """

    points: tuple[PointSums, ...]
    parts: tuple[KernelSums, ...]
    by_label: bool

    def sums(self, masses: Floats) -> Floats:
        """This rank's share of the sums (size, m), of the labels' masses (n, K)."""
        columns = masses.T if self.by_label else [masses.sum(axis=1)]
        return np.stack([np.concatenate([each.sums(own) for each in self.points]) for own in columns], axis=1)

    def potential(self, dual: Floats) -> Floats:
        """Φ = δF/δρ (n, m) of a dual (size, m)."""
        return np.stack([sum(each.potential(own) for each, own in self._with(one)) for one in dual.T], axis=1)

    def gradient(self, dual: Floats) -> Floats:
        """∇Φ, (n, m, d)."""
        return np.stack([sum(each.gradient(own) for each, own in self._with(one)) for one in dual.T], axis=1)

    def _with(self, dual: Floats) -> Iterator[tuple[PointSums, Floats]]:
        return zip(self.points, cut(self.parts, dual), strict=True)


def cut(parts: Sequence[KernelSums], c: Floats) -> list[Floats]:
    """Numbers (size,) by kernel."""
    return np.split(c, np.cumsum([part.size for part in parts])[:-1])
