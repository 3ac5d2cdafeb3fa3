"""Costs along the way: kinetic energy and Jacobian of the velocity, weighted by the density; size of the parameters."""

from dataclasses import dataclass

from eulerian.arrays import Floats

# isort: split
import numpy as np

from eulerian.space.density import Quadrature
from eulerian.space.velocity import VelocitySpace


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
            energy = 0.5 * self.kinetic * np.sum(self.space.at(v, rule.reference) ** 2, axis=2)
            parts["kinetic"] = (rule.weights * energy) @ rule.basis
        if self.jacobian > 0.0:
            energy = 0.5 * self.jacobian * np.sum(self.space.gradient_at(v, rule.reference) ** 2, axis=(2, 3))
            parts["jacobian"] = (rule.weights * energy) @ rule.basis
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


@dataclass(frozen=True)
class ParameterCost:
    """ε/2 ∫|θ_t|² dt + ε₁/2 ∫|θ̇_t|² dt for θ constant in layers of length ``layer_time``.

    The time derivative is the difference quotient between layers; a trained readout r counts as a parameter that is
    constant in time, ε/2 T |r|².

    Attributes:
        l2: ε.
        h1: ε₁.
        layer_time: T/L.
    """

    l2: float
    h1: float
    layer_time: float

    def value(self, theta: Floats, readout: Floats) -> float:
        """The cost of θ (L, p) and readout (r,)."""
        time = self.layer_time * len(theta)
        total = 0.5 * self.l2 * (self.layer_time * np.sum(theta**2) + time * np.sum(readout**2))
        return float(total + 0.5 * self.h1 / self.layer_time * np.sum(np.diff(theta, axis=0) ** 2))

    def gradient(self, theta: Floats, readout: Floats) -> tuple[Floats, Floats]:
        """Derivatives (L, p) and (r,)."""
        layers = self.l2 * self.layer_time * theta
        slope = self.h1 / self.layer_time * np.diff(theta, axis=0)
        layers[1:] += slope
        layers[:-1] -= slope
        return layers, self.l2 * self.layer_time * len(theta) * readout
