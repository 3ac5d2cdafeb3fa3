"""Convex functionals of the final density and their conjugates, for densities at vertices.

The dual of the idealised problem is sup ∫φ_0 dμ_0 − F*(φ_T). With F(ρ) = Σ M_i f_i(ρ_i) over the vertices also
F*(w) = Σ M_i f_i*(w_i), and the splitting method needs its proximal map only.
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
from eulerian.objective.continuous import FunctionDensity
from eulerian.objective.distances import FixedDensity, KullbackLeibler, SquaredDistance
from eulerian.objective.floored_entropy import entropy
from eulerian.objective.losses import as_loss
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


class VertexFunctional(ABC):
    """F of the final density of one label, ρ ≥ 0 at the vertices; arrays (n_nodes,).

    Attributes:
        loss: ℓ where F is ΣM_i ℓ_i ρ_i, else None.
        fixed: ∫φ_i dρ_T where F is finite for that density alone, else None.
    """

    loss: Floats | None = None
    fixed: Floats | None = None

    @abstractmethod
    def value(self, rho: Floats) -> float:
        """F(ρ), +∞ where it is not finite. Collective."""

    @abstractmethod
    def conjugate(self, w: Floats) -> float:
        """F*(w) = sup over ρ ≥ 0 of ΣM_i w_i ρ_i − F(ρ), for w that the best ``shift`` is taken off. Collective."""

    @abstractmethod
    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """Where f*(w) + weight/2 (w − z)² is smallest, vertex by vertex."""

    @abstractmethod
    def shift(self, w: Floats, mass: float) -> float:
        """The c for which −c·mass − F*(w − c) is largest: the best constant to take off a potential. Collective."""


@final
class LinearAtVertices(VertexFunctional):
    """ΣM_i ℓ_i ρ_i. F* is 0 where w ≤ ℓ and +∞ elsewhere."""

    loss: Floats

    def __init__(self, grid: SpaceTime, loss: Floats) -> None:
        self._grid, self.loss = grid, loss

    def value(self, rho: Floats) -> float:
        """ΣM_i ℓ_i ρ_i. Collective."""
        return self._grid.integrate(self.loss * rho)

    def conjugate(self, w: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """0."""
        return 0.0

    def proximal(self, z: Floats, weight: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """min(z, ℓ)."""
        return np.minimum(z, self.loss)

    def shift(self, w: Floats, mass: float) -> float:  # noqa: ARG002 - the protocol's argument
        """max(w − ℓ). Collective."""
        return self._grid.max(w - self.loss)


@final
class KullbackLeiblerAtVertices(VertexFunctional):
    """ΣM_i ((ρ+δ) log((ρ+δ)/(ρ*+δ)) − ρ + ρ*) with the floor δ > 0 of the space of densities: finite for every ρ ≥ 0.

    F*(w) = ΣM_i ((ρ*+δ)(eᵘ − 1) − δu) with u = max(w, log(δ/(ρ*+δ))): below that w not even the first mass pays.
    """

    def __init__(self, grid: SpaceTime, target: Floats) -> None:
        """Collective."""
        self._grid, self._target, self._floor = grid, target, grid.space.floor
        self._raised = target + self._floor
        self._least = np.log(self._floor / self._raised)

    def value(self, rho: Floats) -> float:
        """The divergence. Collective."""
        logarithm = entropy(rho, self._floor) - (rho + self._floor) * np.log(self._raised)
        return self._grid.integrate(logarithm - rho + self._target)

    def conjugate(self, w: Floats) -> float:
        """F*(w). Collective."""
        u = np.maximum(w, self._least)
        return self._grid.integrate(self._raised * np.expm1(u) - self._floor * u)

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """The w with w + ((ρ*+δ) eʷ − δ)/weight = z, by Wright's omega function, or z where it is below u."""
        moved = z + self._floor / weight
        from scipy.special import wrightomega  # takes its time to load: only where it is wanted

        solved = moved - wrightomega(moved + np.log(self._raised / weight))
        return np.asarray(np.where(z > self._least, solved, z))

    def shift(self, w: Floats, mass: float) -> float:
        """The c with ΣM_i max((ρ*+δ) eʷ⁻ᶜ − δ, 0) = mass: Newton's method for e⁻ᶜ (convex). Collective."""
        grid = self._grid
        top = grid.max(w)
        # Relative to the largest w: no exponential overflows.
        slope = self._raised * np.exp(w - top)
        scale = (mass + self._floor * grid.volume) / grid.integrate(slope)  # above the root
        for _ in range(100):
            # Vertices where not even the first mass pays have none, and no part in the derivative.
            above = slope * scale > self._floor
            found = grid.integrate(np.where(above, slope * scale - self._floor, 0.0))
            step = (found - mass) / grid.integrate(np.where(above, slope, 0.0))
            scale -= step
            if abs(step) <= 1e-14 * scale:
                break
        return top - float(np.log(scale))


@final
class SquaredDistanceAtVertices(VertexFunctional):
    """ΣM_i ½(ρ − ρ*)². F*(w) = ΣM_i ½(max(w + ρ*, 0)² − ρ*²)."""

    def __init__(self, grid: SpaceTime, target: Floats) -> None:
        self._grid, self._target = grid, target

    def value(self, rho: Floats) -> float:
        """½‖ρ − ρ*‖². Collective."""
        return self._grid.integrate(0.5 * (rho - self._target) ** 2)

    def conjugate(self, w: Floats) -> float:
        """ΣM_i ½(max(w + ρ*, 0)² − ρ*²). Collective."""
        return self._grid.integrate(0.5 * (np.maximum(w + self._target, 0.0) ** 2 - self._target**2))

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """(weight z − ρ*)/(1 + weight) where z + ρ* > 0, else z."""
        return np.where(z + self._target > 0.0, (weight * z - self._target) / (1.0 + weight), z)

    def shift(self, w: Floats, mass: float) -> float:
        """The c with ΣM_i max(w + ρ* − c, 0) = mass: Newton's method, convex and decreasing. Collective."""
        grid, height = self._grid, w + self._target
        c = -grid.max(-height) - mass / grid.volume  # below the root
        for _ in range(100):
            above = height > c
            step = (grid.integrate(np.where(above, height - c, 0.0)) - mass) / grid.integrate(above.astype(float))
            c += step
            if abs(step) <= 1e-14 * (abs(c) + mass / grid.volume):
                break
        return c


@final
class FixedAtVertices(VertexFunctional):
    """0 for one density, whose loads are ``fixed``, and +∞ for all others. F*(w) = ∫w dρ_T."""

    fixed: Floats

    def __init__(self, grid: SpaceTime, fixed: Floats) -> None:
        self._grid, self.fixed = grid, fixed

    def value(self, rho: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """0: no other density is ever priced."""
        return 0.0

    def conjugate(self, w: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """0, which the shift has made of ∫w dρ_T."""
        return 0.0

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """The w = z − ρ_T/weight."""
        return np.asarray(z - self.fixed / (self._grid.masses * weight))

    def shift(self, w: Floats, mass: float) -> float:
        """The mean of w over ρ_T: any constant is as good, because ρ_T has the mass. Collective."""
        return self._grid.total(self.fixed * w) / mass


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
        density: ρ*.
    """

    target: Floats

    def __init__(self, density: Density) -> None:
        self.target, self._density = density.coefficients, density

    @cached_property
    def exact(self) -> FunctionDensity:
        """See ``Functional``. **Collective** the first time."""
        return exact_density(self._density)

    def on(self, space: DensitySpace) -> Self:
        """See ``Functional``. **Collective**."""
        return type(self)(projected_again(self._density.exact, space, f"{KEY}.target"))

    def _values(self, grid: SpaceTime, label: int) -> Floats:
        """∫φ_i dρ*/M_i, (n_nodes,). Collective."""
        return grid.load(self.target, label) / grid.masses


@final
class KullbackLeiblerFunctional(_ToTarget):
    """KL(ρ_T | ρ*), with a floor (see ``KullbackLeiblerAtVertices``)."""

    @cached_property
    def log_floor(self) -> Floats:
        """What log ρ* counts at least in the continuous problem, (K,). **Collective** the first time."""
        return log_floor(self._density.space, self.exact)

    def at_vertices(self, grid: SpaceTime, label: int, source: Floats) -> KullbackLeiblerAtVertices:  # noqa: ARG002
        """See ``Functional``."""
        return KullbackLeiblerAtVertices(grid, self._values(grid, label))

    def on_domain(self, rule: DomainRule, label: int, mass: float) -> FinalCost:
        """See ``Functional``."""
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
            remedy="Set trainable = false and give the weights of the readout",
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
    raise InputError("no bound is known for this terminal functional", key=KEY, value=type(terminal).__name__)


@functional_of.register
def _(terminal: KullbackLeibler, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return KullbackLeiblerFunctional(_target(terminal.target, space))


@functional_of.register
def _(terminal: SquaredDistance, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return SquaredDistanceFunctional(_target(terminal.target, space))


@functional_of.register
def _(terminal: FixedDensity, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return FixedFunctional(_target(terminal.target, space))


@functional_of.register
def _(terminal: LinearLoss, space: DensitySpace, readout: Floats | None = None) -> Functional:
    return functional_of(terminal.loss, space, readout)


@functional_of.register
def _(terminal: RelativeEntropy, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return KullbackLeiblerFunctional(Density(space, terminal.target, terminal.exact))


@functional_of.register
def _(terminal: SquaredDistanceLoss, space: DensitySpace, readout: Floats | None = None) -> Functional:  # noqa: ARG001
    return SquaredDistanceFunctional(Density(space, terminal.target, terminal.exact))


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
