"""Costs along the way: kinetic energy and Jacobian of the velocity, weighted by the density; a potential."""

from dataclasses import dataclass

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats, require_finite
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.objective.entropy import EntropyBalance
from eulerian.objective.point_functions import PointFunction
from eulerian.objective.squares import SquareCosts
from eulerian.transport.density_cost import DensityCost
from eulerian.transport.velocity_space import VelocitySpace


@dataclass(frozen=True)
class VelocityCost:
    """λ/2 ∫|v|²ρ + η/2 ∫|∇v|²ρ per time, for the discrete velocity.

    The gradient is that of the finite-element velocity, not the network's: the transport sees nothing else, every field
    has one (nodal velocities too), and a network and a free field are charged alike on the same mesh.

    Attributes:
        space: the space of v.
        kinetic: λ.
        jacobian: η.
    """

    space: VelocitySpace
    kinetic: float
    jacobian: float

    def densities(self, v: Floats) -> dict[str, Floats]:
        """Per active part, the vector (n_owned, nd) whose product with ρ's coefficients is the cost per time."""
        rule = self._rule
        parts = {}
        if self.kinetic > 0.0:
            square = np.sum(self.space.at(v, rule.reference) ** 2, axis=2)
            parts["kinetic"] = (0.5 * self.kinetic * rule.weights * square) @ rule.basis
        if self.jacobian > 0.0:
            square = np.sum(self.space.gradient_at(v, rule.reference) ** 2, axis=(2, 3))
            parts["jacobian"] = (0.5 * self.jacobian * rule.weights * square) @ rule.basis
        return parts

    def velocity_gradient(self, v: Floats, occupation: Floats) -> Floats:
        """This rank's contribution (n_nodes, dim) to d/dv of the cost of an occupation ∫ρ dt, (n_owned, nd)."""
        # ∇v is constant or linear in a cell, so the rule that is exact for |v|²ρ is for |∇v|²ρ too.
        rule = self._rule
        gradient = np.zeros_like(v)
        if self.kinetic <= 0.0 and self.jacobian <= 0.0:
            return gradient
        mass = rule.weights * (occupation @ rule.basis.T)
        if self.kinetic > 0.0:
            momentum = self.kinetic * mass[..., None] * self.space.at(v, rule.reference)
            gradient += self.space.at_transpose(momentum, rule.reference)
        if self.jacobian > 0.0:
            stress = self.jacobian * mass[..., None, None] * self.space.gradient_at(v, rule.reference)
            gradient += self.space.gradient_at_transpose(stress, rule.reference)
        return gradient

    @property
    def _rule(self) -> Quadrature:
        density_space = self.space.density_space
        return density_space.quadrature(density_space.kinetic_degree)


@dataclass(frozen=True)
class EntropyCosts:
    """Costs of ∫ρ log ρ by its balance, which follow from what it is at the start, and from what the flow does to it.

    Attributes:
        balance: d/dt ∫ρ log ρ.
        terminal: the weight of ∫ρ log ρ at T, which the terminal cost leaves to the balance: 1 for kl, or 0.
        running: σ, the weight of ∫∫ρ log ρ dt; 0 unless all labels have one velocity.
        initial: ∫ρ₀ log ρ₀ of all labels together, where σ > 0.
    """

    balance: EntropyBalance
    terminal: float = 0.0
    running: float = 0.0
    initial: float = 0.0


@dataclass(frozen=True)
class RunningCosts:
    """Costs per time of a flow.

    Attributes:
        velocity: kinetic and Jacobian cost.
        potential: (n_owned, nd) derivative of ∫Vρ by the coefficients of ρ, or None.
        nonlinear: congestion and entropy, or None.
        entropy: the costs that the balance of ∫ρ log ρ tells, or None.
        squares: the costs of ∫ρ² by squares that move beside the densities, or None.
    """

    velocity: VelocityCost
    potential: Floats | None = None
    nonlinear: DensityCost | None = None
    entropy: EntropyCosts | None = None
    squares: SquareCosts | None = None

    def linear(self, v: Floats) -> dict[str, Floats]:
        """By part, the vector (n_owned, nd) whose product with ρ's coefficients is the cost per time."""
        vectors = self.velocity.densities(v)
        if self.potential is not None:
            vectors["potential"] = self.potential
        return vectors

    @property
    def counts_time_left(self) -> bool:
        """Whether there is a cost per time that is (T − t) times something."""
        return self.entropy is not None and self.entropy.running > 0.0

    def velocity_gradient(self, v: Floats, occupation: Floats, moment: Floats | None) -> Floats:
        """This rank's contribution (n_nodes, dim) to the derivative by v of the costs.

        Args:
            v: (n_nodes, dim).
            occupation: ∫ρ dt, (n_owned, nd).
            moment: ∫(T − t)ρ dt, where it counts.
        """
        gradient, entropy = self.velocity.velocity_gradient(v, occupation), self.entropy
        if entropy is None:
            return gradient
        weighted = entropy.terminal * occupation
        if moment is not None:
            weighted = weighted + entropy.running * moment
        return gradient + entropy.balance.velocity_gradient(v, weighted)


def potential_vector(space: DensitySpace, potential: PointFunction, key: str = "costs.potential") -> Floats:
    """(n_owned, nd) whose product with ρ's coefficients is ∫Vρ. **Collective**.

    Args:
        space: of ρ.
        potential: V.
        key: what it is called in messages.

    Raises:
        InputError: V is not finite somewhere in the domain; the same on all ranks.
    """
    rule = space.quadrature(space.objective_degree)
    with parallel.agreed(space.comm):
        x = rule.points.reshape(-1, space.dim)
        values = potential.value(x)
        require_finite(values, x, "the potential", key)
    return np.asarray((rule.weights * values.reshape(rule.weights.shape)) @ rule.basis)
