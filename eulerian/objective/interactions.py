"""Costs of the density as a whole that are quadratic in it, ½∬W(x − y) ρ(x) ρ(y): interactions, MMD to a target.

All of them are ½ (c − c*)ᵀ S (c − c*), quadratic in a few numbers c_k = ∫f_k ρ: moments, or integrals against narrow
Gaussians on a lattice (``lattice_sums``). So densities and particles on many ranks need one reduction of c; the
potential Φ(x) = Σ_k (S(c − c*))_k f_k(x) and its gradient are then local. Nothing here knows a mesh.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.shape import LabelledShape
from eulerian.objective.distances import DensityFunctional, Distance
from eulerian.objective.kernels import (
    GaussianInteraction,
    Interaction,
    KernelSums,
    PointSums,
    as_kernels,
    require_number,
)

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
        require_number(self.width, "width", positive=True)
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
