"""Costs along the way: kinetic energy and Jacobian of the velocity, weighted by the density; a potential."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats, require_finite
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.objective.cost_at import LayerEnd
from eulerian.objective.costs import VelocityTerm, VelocityTerms
from eulerian.objective.entropy import EntropyBalance
from eulerian.objective.point_functions import PointFunction
from eulerian.objective.squares import SquareCosts
from eulerian.objective.terminal import Terminal
from eulerian.transport.density_cost import DensityCost
from eulerian.transport.velocity_space import VelocitySpace


@dataclass(frozen=True)
class VelocityCost:
    """∫c(v, ∇v)ρ per time, for the discrete velocity and the terms c of ``Costs``.

    The gradient is that of the finite-element velocity, not the network's: the transport sees nothing else, every field
    has one (nodal velocities too), and a network and a free field are charged alike on the same mesh.

    Attributes:
        space: the space of v.
        terms: with their weights.
    """

    space: VelocitySpace
    terms: VelocityTerms

    def densities(self, v: Floats) -> dict[str, Floats]:
        """Per part, the vector (n_owned, nd) whose product with ρ's coefficients is the cost per time."""
        rule = self._rule
        return {
            term.name: (weight * rule.weights * term.value(self._argument(term, v))) @ rule.basis
            for term, weight in self.terms
        }

    def velocity_gradient(self, v: Floats, occupation: Floats) -> Floats:
        """This rank's contribution (n_nodes, dim) to d/dv of the cost of an occupation ∫ρ dt, (n_owned, nd)."""
        rule, gradient = self._rule, np.zeros_like(v)
        mass = rule.weights * (occupation @ rule.basis.T) if self.terms else np.zeros(0)
        for term, weight in self.terms:
            back = self.space.gradient_at_transpose if term.of_gradient else self.space.at_transpose
            of_mass = weight * mass[(..., *(None,) * (2 if term.of_gradient else 1))]
            gradient += back(of_mass * term.slope(self._argument(term, v)), rule.reference)
        return gradient

    def _argument(self, term: VelocityTerm, v: Floats) -> Floats:
        """What a term is a function of, at the quadrature points."""
        return (self.space.gradient_at if term.of_gradient else self.space.at)(v, self._rule.reference)

    @property
    def _rule(self) -> Quadrature:
        # Exact for |v|²ρ. ∇v is constant or linear in a cell, so it is for |∇v|²ρ too.
        density_space = self.space.density_space
        return density_space.quadrature(density_space.kinetic_degree)


@dataclass(frozen=True)
class EntropyCosts:
    """Costs of ∫ρ log ρ by its balance, which follow from what it is at the start, and from what the flow does to it.

    Attributes:
        balance: d/dt ∫ρ log ρ.
        ends: where ∫ρ log ρ counts, which functionals at ends of layers leave to the balance.
        running: σ, the weight of ∫∫ρ log ρ dt; 0 unless all labels have one velocity.
        initial: ∫ρ₀ log ρ₀ of all labels together, where σ > 0.
        by_label: its sum over the labels, each by itself, where there are ends; these have counted it already.
    """

    balance: EntropyBalance
    ends: tuple[LayerEnd, ...] = ()
    running: float = 0.0
    initial: float = 0.0
    by_label: float = 0.0

    def weight(self, layer: int, part: str | None = None) -> float:
        """How much the change of ∫ρ log ρ in a layer counts, in all parts of J or in one, without the running cost."""
        # What happens in a layer is there at all later ends.
        return float(sum(e.weight for e in self.ends if layer < e.layer and part in (None, e.part)))


class PotentialCost:
    """∫∫Vρ, whose V may have parameters that are trained.

    Args:
        space: of ρ.
        potential: V.

    Raises:
        InputError: V is not finite somewhere in the domain; the same on all ranks.
    """

    def __init__(self, space: DensitySpace, potential: PointFunction) -> None:
        """Collective."""
        self._space, self._rule = space, space.quadrature(space.objective_degree)
        self._x, self.potential = self._rule.points.reshape(-1, space.dim), potential
        # V may be a user's function, which fails on one rank only.
        with parallel.agreed(space.comm):
            values = potential.value(self._x)
            require_finite(values, self._x, "the potential", "costs.potential")
        # What is not trained is integrated once and for all.
        self._fixed = None if potential.n_readout else self._integrated(values)

    def vector(self, readout: Floats) -> Floats:
        """(n_owned, nd) whose product with ρ's coefficients is ∫Vρ, the last of these being V's. Collective."""
        if self._fixed is not None:
            return self._fixed
        with parallel.agreed(self._space.comm), np.errstate(all="ignore"):
            return self._integrated(self.potential.at(readout).value(self._x))

    def readout_slope(self, readout: Floats, occupation: Floats) -> Floats:
        """The derivative (r,) by V's parameters, for ∫ρ dt (n_owned, nd), the same on all ranks. Collective."""
        if self._fixed is not None:
            return np.zeros(0)
        mass = self._rule.weights * (occupation @ self._rule.basis.T)
        with parallel.agreed(self._space.comm), np.errstate(all="ignore"):
            local = self.potential.at(readout).readout_vjp(self._x, mass.ravel())
        return parallel.sum_all(self._space.comm, local)

    def _integrated(self, values: Floats) -> Floats:
        rule = self._rule
        return np.asarray((rule.weights * values.reshape(rule.weights.shape)) @ rule.basis)


@dataclass(frozen=True)
class RunningCosts:
    """Costs per time of a flow.

    Attributes:
        velocity: kinetic and Jacobian cost.
        potential: of ∫Vρ, or None.
        nonlinear: congestion and entropy, or None.
        entropy: the costs of ∫ρ log ρ by its balance, or None.
        squares: the costs of ∫ρ² by squares that move beside the densities, or None.
        functionals: of the density as a whole, whose integrals over time are charged, by part of J.
    """

    velocity: VelocityCost
    potential: PotentialCost | None = None
    nonlinear: DensityCost | None = None
    entropy: EntropyCosts | None = None
    squares: SquareCosts | None = None
    functionals: Mapping[str, Terminal] = field(default_factory=dict)

    def linear(self, v: Floats, potential: Floats | None) -> dict[str, Floats]:
        """By part, the vector (n_owned, nd) whose product with ρ's coefficients is the cost per time.

        Args:
            v: (n_nodes, dim).
            potential: that of the potential, where there is one.
        """
        vectors = self.velocity.densities(v)
        if potential is not None:
            vectors["potential"] = potential
        return vectors

    @property
    def counts_time_left(self) -> bool:
        """Whether there is a cost per time that is (T − t) times something."""
        return self.entropy is not None and self.entropy.running > 0.0

    def velocity_gradient(self, v: Floats, layer: int, occupation: Floats, moment: Floats | None) -> Floats:
        """This rank's contribution (n_nodes, dim) to the derivative by v of the costs.

        Args:
            v: (n_nodes, dim).
            layer: whose velocity it is.
            occupation: ∫ρ dt, (n_owned, nd).
            moment: ∫(T − t)ρ dt, where it counts.
        """
        gradient, entropy = self.velocity.velocity_gradient(v, occupation), self.entropy
        if entropy is None:
            return gradient
        weighted = entropy.weight(layer) * occupation
        if moment is not None:
            weighted = weighted + entropy.running * moment
        return gradient + entropy.balance.velocity_gradient(v, weighted)
