"""How fast a particle moves, gathers costs and is compressed: the right-hand side that is integrated in time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.piecewise import PiecewiseField
from eulerian.objective.parts import part_names
from eulerian.objective.point_functions import PointFunction

COSTS = part_names("velocity", "potential")  # what a point of the flow can be charged for
LOG_DENSITY = "log_density"


@dataclass(frozen=True)
class RightHandSide:
    """d/dt of (x, q), where q are the integrals over time that a particle carries along, as far as they are asked for.

    Columns of q: λ/2|v|², η/2|∇v|_F², V, and −div v, by which log ρ changes along the path (change of variables).

    Attributes:
        field: v.
        dim: of space.
        kinetic: λ.
        jacobian: η.
        potential: V, or None.
        log_density: whether −div v is integrated.
    """

    field: PiecewiseField
    dim: int
    kinetic: float = 0.0
    jacobian: float = 0.0
    potential: PointFunction | None = None
    log_density: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the columns of q are, in their order."""
        active = (self.kinetic > 0.0, self.jacobian > 0.0, self.potential is not None, self.log_density)
        return tuple(name for name, wanted in zip((*COSTS, LOG_DENSITY), active, strict=True) if wanted)

    @property
    def width(self) -> int:
        """Number of columns of (x, q)."""
        return self.dim + len(self.names)

    @property
    def uses_jacobian(self) -> bool:
        """Whether q needs ∇v."""
        return self.jacobian > 0.0 or self.log_density


@dataclass(frozen=True)
class Motion:
    """The rates of one layer, for particles of one label.

    Law, for every change (ξ, δ) of (x, θ):
        ⟨w, value(x + ξ; θ + δ) − value(x; θ)⟩ = ⟨x̄, ξ⟩ + ⟨θ̄, δ⟩ + O(|(ξ, δ)|²), where (x̄, θ̄) = vjp(x, v, w).

    Attributes:
        rates: what is integrated.
        layer: its number.
        theta: (p,) of the layer.
        label: of the particles; None where the field does not ask.
        sign: −1 to go back in time.
    """

    rates: RightHandSide
    layer: int
    theta: Floats
    label: int | None = None
    sign: float = 1.0

    def velocity(self, x: Floats) -> Floats:
        """V at points (n, dim)."""
        return self.sign * np.asarray(self.rates.field.value(self.layer, self.theta, x, self.label), dtype=np.float64)

    def value(self, x: Floats) -> Floats:
        """d/dt (x, q) at points (n, dim), (n, width)."""
        rates = self.rates
        divergence = gradient = np.empty(0)
        if rates.log_density and not rates.jacobian > 0.0:
            v, divergence = (self.sign * each for each in self._value_and_divergence(x))
        else:
            v = self.velocity(x)
            gradient = self._jacobian(x) if rates.uses_jacobian else gradient
            divergence = np.einsum("nii->n", gradient) if rates.log_density else divergence
        columns = [v]
        if rates.kinetic > 0.0:
            columns.append(0.5 * rates.kinetic * np.einsum("ni,ni->n", v, v)[:, None])
        if rates.jacobian > 0.0:
            columns.append(0.5 * rates.jacobian * np.einsum("nij,nij->n", gradient, gradient)[:, None])
        if rates.potential is not None:
            columns.append(rates.potential.value(x)[:, None])
        if rates.log_density:
            columns.append(-divergence[:, None])
        return np.concatenate(columns, axis=1)

    def vjp(self, x: Floats, v: Floats, w: Floats) -> tuple[Floats, Floats]:
        """Derivatives (n, dim) by x and (p,) by θ of Σ w · value(x), w (n, width); v is the velocity at x."""
        rates, dim = self.rates, self.rates.dim
        by_name = dict(zip(rates.names, w.T[dim:], strict=True))
        by_velocity = w[:, :dim]
        if rates.kinetic > 0.0:
            by_velocity = by_velocity + (rates.kinetic * by_name["kinetic"])[:, None] * v
        by_velocity = np.ascontiguousarray(self.sign * by_velocity)
        by_theta, by_point = rates.field.pull_back(self.layer, self.theta, x, by_velocity, self.label)
        if rates.potential is not None:
            by_point = by_point + by_name["potential"][:, None] * rates.potential.gradient(x)
        if rates.uses_jacobian:
            by_jacobian = np.zeros((len(x), dim, dim))
            if rates.jacobian > 0.0:
                by_jacobian += (rates.jacobian * by_name["jacobian"])[:, None, None] * self._jacobian(x)
            if rates.log_density:
                np.einsum("nii->ni", by_jacobian)[:] -= by_name[LOG_DENSITY][:, None]
            by_jacobian *= self.sign
            more = rates.field.jacobian_pull_back(self.layer, self.theta, x, by_jacobian, self.label)
            by_theta, by_point = by_theta + more[0], by_point + more[1]
        return by_point, by_theta

    def _value_and_divergence(self, x: Floats) -> tuple[Floats, Floats]:
        return self.rates.field.value_and_divergence(self.layer, self.theta, x, self.label)

    def _jacobian(self, x: Floats) -> Floats:
        return self.sign * np.asarray(self.rates.field.jacobian(self.layer, self.theta, x, self.label))
