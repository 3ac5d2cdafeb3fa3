"""Costs along the way: kinetic energy and Jacobian of the velocity, weighted by the density; a potential."""

from dataclasses import dataclass

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.formula import Expression
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.objective.losses import COORDINATES
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


def potential_vector(space: DensitySpace, formula: str) -> Floats:
    """(n_owned, nd) whose product with ρ's coefficients is ∫Vρ, for V given as a formula in x, y, z. Collective.

    Raises:
        InputError: V is not finite somewhere in the domain; the same on all ranks.
    """
    key, rule = "objective.potential", space.quadrature(space.objective_degree)
    with parallel.agreed(space.comm):
        expression = Expression.parse(formula, COORDINATES[: space.dim], key)
        values = expression(dict(zip(COORDINATES, np.moveaxis(rule.points, 2, 0), strict=False)))
        if not np.all(np.isfinite(values)):
            raise InputError(
                "the potential is not finite everywhere in the domain",
                key=key,
                value=f"a non-finite value at {rule.points[~np.isfinite(values)][0].tolist()}",
                remedy="Use a formula that is defined on the whole domain",
            )
    return (rule.weights * np.broadcast_to(values, rule.weights.shape)) @ rule.basis
