"""Convex functionals of the final density: at vertices for the discrete problem, on the domain for the continuous one.

The dual of the idealised problem is sup ∫φ_0 dμ_0 − F*(φ_T).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, singledispatch
from typing import Any, NoReturn, Self, final

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats, require_finite
from eulerian.base.errors import InputError
from eulerian.density.density import Density
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace
from eulerian.ideal.final_costs import DomainRule, FinalCost, FixedCost, KullbackLeiblerCost, SquaredDistanceCost
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.vertex_functionals import (
    FixedAtVertices,
    KullbackLeiblerAtVertices,
    LinearAtVertices,
    SquaredDistanceAtVertices,
    VertexFunctional,
)
from eulerian.objective.continuous import FunctionDensity
from eulerian.objective.distances import (
    DensityFunctional,
    FixedDensity,
    KullbackLeibler,
    SquaredDistance,
    UserFunctional,
)
from eulerian.objective.interactions import QuadraticFunctional
from eulerian.objective.losses import as_loss
from eulerian.objective.mean_field import QuadraticTerminal
from eulerian.objective.point_loss import PointLoss
from eulerian.objective.terminal import (
    LinearLoss,
    RelativeEntropy,
    SquaredDistanceLoss,
    Terminal,
    exact_density,
    log_floor,
)

KEY = "terminal"
_NO_TARGET = 1e-9  # of the mass: a part of the domain with less of a target has none

type Loss = Callable[[Floats], Floats]
"""x (n, dim) ↦ ℓ (n, K)."""


class Functional(ABC):
    """A convex functional F of the final densities ρ_T of all labels, a sum over the labels.

    Attributes:
        loss: ℓ where F(ρ_T) = ∫ℓρ_T, else None.
        point_loss: what ℓ was made of, where that is known.
        target: ρ* (n_cells, nd, K) where F is least for it, else None.
        is_constraint: whether F is finite for ρ_T = ρ* alone.
    """

    loss: Loss | None = None
    point_loss: PointLoss | None = None
    target: Floats | None = None
    is_constraint = False

    @abstractmethod
    def at_vertices(self, grid: SpaceTime, label: int, source: Floats) -> VertexFunctional:
        """F of one label on a space-time. **Collective**.

        Args:
            grid: of the domain, or of a part of it.
            label: y.
            source: ∫φ_i dρ_0 of the label there, (n_nodes,): its mass is that of ρ_T.

        Raises:
            InputError: ℓ is not finite at a vertex; the same on all ranks.
        """

    def tells_labels_apart(self, space: DensitySpace) -> bool:  # noqa: ARG002 - for those that have to look
        """Whether F differs from label to label, as far as that is known. **Collective**."""
        return True

    @property
    def exact(self) -> FunctionDensity | None:
        """ρ* of the continuous problem, where F is least for it, else None. **Collective** the first time."""
        return None

    @abstractmethod
    def on(self, space: DensitySpace) -> "Functional":
        """The same for densities of another space on the same domain. **Collective**.

        Raises:
            InputError: what a target on the mesh stands for is not known.
        """

    def on_domain(self, rule: DomainRule, label: int, mass: float) -> FinalCost:
        """F of one label's density in the continuous problem, where it has a target. **Collective**.

        Args:
            rule: points of the domain.
            label: y.
            mass: of the label.
        """
        raise NotImplementedError


@final
class LinearFunctional(Functional):
    """∫ℓρ_T.

    Args:
        loss: x (n, dim) ↦ ℓ (n, K), finite in the domain.
        point_loss: what ℓ was made of.
    """

    loss: Loss

    def __init__(self, loss: Loss, point_loss: PointLoss | None = None) -> None:
        self.loss, self.point_loss = loss, point_loss

    def at_vertices(self, grid: SpaceTime, label: int, source: Floats) -> LinearAtVertices:  # noqa: ARG002
        """See ``Functional``."""
        with parallel.agreed(grid.comm), np.errstate(all="ignore"):
            values = self.loss(grid.x)[:, label]
            require_finite(values, grid.x, "the loss", KEY, "the whole domain, its boundary included")
        return LinearAtVertices(grid, grid.of_owners(values))

    def on(self, space: DensitySpace) -> Functional:  # noqa: ARG002 - the same in any space
        """See ``Functional``."""
        return self

    def tells_labels_apart(self, space: DensitySpace) -> bool:
        """Whether ℓ differs from label to label, up to rounding. **Collective**."""
        points = space.quadrature(space.objective_degree).points.reshape(-1, space.dim)
        with parallel.agreed(space.comm), np.errstate(all="ignore"):
            values = self.loss(points)
            # Up to rounding: formulas of several labels need not be evaluated alike.
            apart = bool(np.any(np.abs(values - values[:, :1]) > 1e-12 * np.max(np.abs(values), initial=0.0)))
        return bool(space.comm.allreduce(apart, MPI.LOR))


class _ToTarget(Functional):
    """What functionals of a target density share.

    Args:
        target: ρ* (n_cells, nd, K).
        density: whose coefficients they are; without it nothing is known of the continuous problem.
    """

    target: Floats

    def __init__(self, target: Floats, density: Density | None = None) -> None:
        self.target, self._density = target, density

    @classmethod
    def of(cls, density: Density) -> Self:
        """Of a target that knows its space."""
        return cls(density.coefficients, density)

    @cached_property
    def exact(self) -> FunctionDensity | None:
        """See ``Functional``. **Collective** the first time."""
        return None if self._density is None else exact_density(self._density)

    def on(self, space: DensitySpace) -> Self:
        """See ``Functional``. **Collective**."""
        return self.of(projected_again(self._density and self._density.exact, space, f"{KEY}.target"))

    def _values(self, grid: SpaceTime, label: int) -> Floats:
        """∫φ_i dρ*/M_i, (n_nodes,). Collective."""
        return grid.load(self.target, label) / grid.masses


@final
class KullbackLeiblerFunctional(_ToTarget):
    """KL(ρ_T | ρ*), with a floor (see ``KullbackLeiblerAtVertices``)."""

    @cached_property
    def log_floor(self) -> Floats:
        """What log ρ* counts at least in the continuous problem, (K,). **Collective** the first time."""
        assert self._density is not None
        return log_floor(self._density.space, exact_density(self._density))

    def at_vertices(self, grid: SpaceTime, label: int, source: Floats) -> KullbackLeiblerAtVertices:  # noqa: ARG002
        """See ``Functional``."""
        return KullbackLeiblerAtVertices(grid, self._values(grid, label))

    def on_domain(self, rule: DomainRule, label: int, mass: float) -> FinalCost:
        """See ``Functional``."""
        assert self.exact is not None
        return KullbackLeiblerCost(rule, mass, self.exact, label, float(self.log_floor[label]))


@final
class SquaredDistanceFunctional(_ToTarget):
    """½‖ρ_T − ρ*‖² in L²."""

    def at_vertices(self, grid: SpaceTime, label: int, source: Floats) -> SquaredDistanceAtVertices:  # noqa: ARG002
        """See ``Functional``."""
        return SquaredDistanceAtVertices(grid, self._values(grid, label))

    def on_domain(self, rule: DomainRule, label: int, mass: float) -> FinalCost:  # noqa: ARG002
        """See ``Functional``."""
        return SquaredDistanceCost(rule, mass)


@final
class FixedFunctional(_ToTarget):
    """0 for ρ_T = ρ*, else +∞: dynamic optimal transport."""

    is_constraint = True

    def at_vertices(self, grid: SpaceTime, label: int, source: Floats) -> FixedAtVertices:
        """See ``Functional``."""
        load, mass = grid.load(self.target, label), grid.total(source)
        total = grid.total(load)
        # In a part of the domain without a target the little that is there stays where it is.
        return FixedAtVertices(grid, load * (mass / total) if total > _NO_TARGET * mass else source)

    def on_domain(self, rule: DomainRule, label: int, mass: float) -> FinalCost:  # noqa: ARG002
        """See ``Functional``."""
        return FixedCost(rule, mass)


@singledispatch
def functional_of(terminal: Any, space: DensitySpace, readout: Floats | None = None) -> Functional:
    """The convex functional of a terminal cost. **Collective**.

    Args:
        terminal: a loss ℓ(x) or ℓ(x, label): an object like ``QuadraticLoss``, a formula, or a function of points; a
            distance from a target density (``KullbackLeibler``, ``SquaredDistance``) or the density itself
            (``FixedDensity``); a terminal functional on the mesh; a ``Functional``.
        space: of the densities.
        readout: (r,) the parameters of a loss that is trained.

    Raises:
        InputError: the loss is not finite somewhere, or is trained and its parameters are not given; the idealised
            problem knows no such functional; the same on all ranks.
    """
    loss = as_loss(terminal).bind(space.dim, space.n_labels, KEY)
    if readout is None and loss.n_readout:
        raise InputError(
            "the idealised problem needs a loss that is not trained",
            key=f"{KEY}.trainable",
            value=True,
            remedy="Set trainable = false (in Python trained=False) and give its parameters",
        )
    values, points = np.zeros(0) if readout is None else readout, space.quadrature(space.objective_degree).points
    x = points.reshape(-1, space.dim)
    with parallel.agreed(space.comm), np.errstate(all="ignore"):
        require_finite(loss.value(x, values), x, "the loss", KEY)
    return LinearFunctional(lambda x: loss.value(x, values), loss)


@functional_of.register
def _(terminal: Functional, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return terminal


@functional_of.register
def _(terminal: Terminal, space: DensitySpace, readout: Floats | None = None) -> NoReturn:  # noqa: ARG001
    raise InputError(f"no bound is known for {terminal.title}: {UserFunctional.ideal_cannot}", key=KEY)


@functional_of.register
def _(terminal: DensityFunctional, space: DensitySpace, readout: Floats | None = None) -> NoReturn:  # noqa: ARG001
    raise InputError(f"no bound is known for it: {terminal.ideal_cannot}", key=KEY, value=terminal.kind)


@functional_of.register
def _(terminal: KullbackLeibler, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return KullbackLeiblerFunctional.of(_target(terminal.target, space))


@functional_of.register
def _(terminal: SquaredDistance, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return SquaredDistanceFunctional.of(_target(terminal.target, space))


@functional_of.register
def _(terminal: FixedDensity, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return FixedFunctional.of(_target(terminal.target, space))


@functional_of.register
def _(terminal: LinearLoss, space: DensitySpace, readout: Floats | None = None) -> Functional:
    return functional_of(terminal.loss, space, readout)


@functional_of.register
def _(terminal: RelativeEntropy, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return KullbackLeiblerFunctional.of(Density(space, terminal.target, terminal.exact))


@functional_of.register
def _(terminal: SquaredDistanceLoss, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return SquaredDistanceFunctional.of(Density(space, terminal.target, terminal.exact))


@functional_of.register
def _(terminal: QuadraticFunctional, space: DensitySpace, readout: Floats | None = None) -> NoReturn:  # noqa: ARG001
    raise InputError(terminal.no_bound, key=f"{KEY}.kind", value=terminal.kind)


@functional_of.register
def _(terminal: QuadraticTerminal, space: DensitySpace, readout: Floats | None = None) -> Functional:
    return functional_of(terminal.functional, space, readout)


def _target(target: Any, space: DensitySpace) -> Density:
    """ρ*. Collective."""
    return space.project(target, key=f"{KEY}.target")


def projected_again(exact: Any, space: DensitySpace, key: str) -> Density:
    """A density in another space than it was given in. **Collective**.

    Args:
        exact: what it stands for, an ``ExactDensity``, where that is known.
        space: where to.
        key: what it is called in messages.

    Raises:
        InputError: it is known on one mesh only.
    """
    if not isinstance(exact, ExactDensity) or any(term.shape.modes is not None for term, _ in exact.terms):
        raise InputError("is known on one mesh only", key=key)
    return Density(space, *ExactDensity.with_projection(space, [term for term, _ in exact.terms]))
