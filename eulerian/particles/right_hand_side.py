"""How fast a particle moves, gathers costs and is compressed: the right-hand side that is integrated in time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.piecewise import PiecewiseField
from eulerian.objective.costs import VelocityTerms
from eulerian.objective.parts import part_names
from eulerian.objective.point_functions import PointFunction

COSTS = part_names("velocity", "potential")  # what a point of the flow can be charged for
(POTENTIAL,) = part_names("potential")
LOG_DENSITY = "log_density"


@dataclass(frozen=True)
class RightHandSide:
    """d/dt of (x, q), where q are the integrals over time that a particle carries, as far as they are wanted.

    Columns of q: the costs of the velocity, V, and −div v, by which log ρ changes along the path (change of variables).

    Attributes:
        field: v.
        dim: of space.
        terms: the costs of the velocity with their weights.
        potential: V, or None.
        log_density: whether −div v is integrated.
    """

    field: PiecewiseField
    dim: int
    terms: VelocityTerms = ()
    potential: PointFunction | None = None
    log_density: bool = False

    @property
    def n_readout(self) -> int:
        """Number of parameters of the potential that are trained: they stand behind the θ of every layer."""
        return 0 if self.potential is None else self.potential.n_readout

    def initial_readout(self) -> Floats:
        """Where these start, (r,)."""
        return np.zeros(0) if self.potential is None else self.potential.initial_readout()

    def extended(self, theta: Floats, readout: Floats) -> Floats:
        """θ (L, p) with these behind every row, (L, p + r); they are the last of a readout."""
        return np.hstack([theta, np.tile(readout[readout.size - self.n_readout :], (len(theta), 1))])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the columns of q are, in their order."""
        others = ((POTENTIAL, self.potential is not None), (LOG_DENSITY, self.log_density))
        return (*(term.name for term, _ in self.terms), *(name for name, wanted in others if wanted))

    @property
    def width(self) -> int:
        """Number of columns of (x, q)."""
        return self.dim + len(self.names)

    @property
    def uses_jacobian(self) -> bool:
        """Whether q needs ∇v."""
        return self.charges_gradient or self.log_density

    @property
    def charges_gradient(self) -> bool:
        """Whether a cost is one of ∇v."""
        return any(term.of_gradient for term, _ in self.terms)


@dataclass(frozen=True)
class Motion:
    """The rates of one layer, for particles of one label.

    Law, for every change (ξ, δ) of (x, θ):
        ⟨w, value(x + ξ; θ + δ) − value(x; θ)⟩ = ⟨x̄, ξ⟩ + ⟨θ̄, δ⟩ + O(|(ξ, δ)|²), where (x̄, θ̄) = vjp(x, v, w).

    Attributes:
        rates: what is integrated.
        layer: its number.
        theta: (p,) of the layer, and behind it the trained parameters of the potential.
        label: of the particles; None where the field does not depend on it.
        sign: −1 to go back in time.
    """

    rates: RightHandSide
    layer: int
    theta: Floats
    label: int | None = None
    sign: float = 1.0

    def velocity(self, x: Floats) -> Floats:
        """The velocity at points (n, dim)."""
        return self.sign * np.asarray(self.rates.field.value(self.layer, self.row, x, self.label), dtype=np.float64)

    def value(self, x: Floats) -> Floats:
        """d/dt (x, q) at points (n, dim), (n, width)."""
        rates = self.rates
        divergence = gradient = np.empty(0)
        if rates.log_density and not rates.charges_gradient:  # the trace alone is cheaper than ∇v
            v, divergence = (self.sign * each for each in self._value_and_divergence(x))
        else:
            v = self.velocity(x)
            gradient = self._jacobian(x) if rates.uses_jacobian else gradient
            divergence = np.einsum("nii->n", gradient) if rates.log_density else divergence
        columns = [v]
        for term, weight in rates.terms:
            columns.append((weight * term.value(gradient if term.of_gradient else v))[:, None])
        if rates.potential is not None:
            columns.append(rates.potential.at(self.theta).value(x)[:, None])
        if rates.log_density:
            columns.append(-divergence[:, None])
        return np.concatenate(columns, axis=1)

    def vjp(self, x: Floats, v: Floats, w: Floats) -> tuple[Floats, Floats]:
        """Derivatives (n, dim) by x and (p,) by θ of Σ w · value(x), w (n, width); v is the velocity at x."""
        rates, dim = self.rates, self.rates.dim
        by_name = dict(zip(rates.names, w.T[dim:], strict=True))
        by_velocity = w[:, :dim]
        for term, weight in rates.terms:
            if not term.of_gradient:
                by_velocity = by_velocity + (weight * by_name[term.name])[:, None] * term.slope(v)
        by_velocity = np.ascontiguousarray(self.sign * by_velocity)  # fields may hand it to other frameworks
        by_theta, by_point = rates.field.pull_back(self.layer, self.row, x, by_velocity, self.label)
        if rates.potential is not None:
            potential, charged = rates.potential.at(self.theta), np.ascontiguousarray(by_name[POTENTIAL])
            by_point = by_point + charged[:, None] * potential.gradient(x)
        if rates.uses_jacobian:
            by_jacobian = np.zeros((len(x), dim, dim))
            gradient = self._jacobian(x) if rates.charges_gradient else by_jacobian
            for term, weight in rates.terms:
                if term.of_gradient:
                    by_jacobian += (weight * by_name[term.name])[:, None, None] * term.slope(gradient)
            if rates.log_density:
                # A writable view of the diagonals.
                np.einsum("nii->ni", by_jacobian)[:] -= by_name[LOG_DENSITY][:, None]
            by_jacobian *= self.sign
            more = rates.field.jacobian_pull_back(self.layer, self.row, x, by_jacobian, self.label)
            by_theta, by_point = by_theta + more[0], by_point + more[1]
        if rates.n_readout:
            by_theta = np.concatenate([by_theta, potential.readout_vjp(x, charged)])
        return by_point, by_theta

    @property
    def row(self) -> Floats:
        """The θ of the field."""
        return self.theta[: self.theta.size - self.rates.n_readout]

    def _value_and_divergence(self, x: Floats) -> tuple[Floats, Floats]:
        return self.rates.field.value_and_divergence(self.layer, self.row, x, self.label)

    def _jacobian(self, x: Floats) -> Floats:
        return self.sign * np.asarray(self.rates.field.jacobian(self.layer, self.row, x, self.label))
