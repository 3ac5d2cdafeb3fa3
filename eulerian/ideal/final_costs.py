"""Functionals F of one label's final density in the continuous problem, known by their conjugates F*.

Integrals are taken by rules of points on all ranks; no finite-element function comes in. At any potential φ the density
ρ_φ that F* asks for has F(ρ_φ) = ∫φρ_φ − F*(φ).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import PointDensity, density_rules
from eulerian.objective.continuous import FunctionDensity

TOLERANCE = {1: 1e-3, 2: 1e-3, 3: 1e-2}
"""By how much of a cell's mass two rules may differ where a cell stays whole, by dimension; see ``density_rules``."""

_MOST_NEWTON = 100


class Conjugate(NamedTuple):
    """F* at a potential, for densities of the label's mass.

    Attributes:
        value: F*(φ).
        weights: (n,) its derivative by φ at the points: quadrature weights times the density that φ asks for.
        curvature: (n,) c ≥ 0 of its second derivative v ↦ c v − c (c·v)/Σc.
    """

    value: float
    weights: Floats
    curvature: Floats


class FinalCost(Protocol):
    """F of the final density of one label.

    Attributes:
        points: (n, dim) of this rank, where potentials are asked.
    """

    @property
    def points(self) -> Floats:
        """See above."""
        ...

    def conjugate(self, phi: Floats) -> Conjugate:
        """F* for a potential's values at the points. **Collective**."""
        ...

    def value(self, density: Floats) -> float:
        """F of a density (n,) at the points. **Collective**."""
        ...


@final
@dataclass(frozen=True)
class DomainRule:
    """A rule for ∫f dx over the domain, with ρ* of one label: this rank's points.

    Attributes:
        x: (n, dim).
        weights: (n,), without any density.
        target: (n,) ρ*.
        missed: the share of ρ*'s mass that the rule misses: what jumps of ρ* cost it.
        comm: who has the others.
    """

    x: Floats
    weights: Floats
    target: Floats
    missed: float
    comm: MPI.Comm

    def sum(self, *columns: Floats) -> Floats:
        """Σ of some columns (n,) over all ranks. **Collective**."""
        return parallel.sum_all(self.comm, np.array([column.sum() for column in columns]))


@final
@dataclass(frozen=True)
class _Mixture:
    """One label of several densities and of a uniform one together: where rules of all of them have points.

    Attributes:
        densities: whose masses may differ.
        label: y.
        volume: of the domain.
    """

    densities: Sequence[PointDensity]
    label: int
    volume: float

    @property
    def mass(self) -> Floats:
        """One for each of them."""
        return np.array([1.0 + len(self.densities)])

    def values(self, x: Floats) -> Floats:
        """(n, 1)."""
        total = np.full((len(x), 1), 1.0 / self.volume)
        for density in self.densities:
            mass = density.mass[self.label]
            if mass > 0.0:
                total += density.values(x)[:, self.label, None] / mass
        return total


def domain_rules(
    space: DensitySpace,
    initial: PointDensity,
    target: PointDensity,
    label: int,
    largest: float,
    jumps: float | None = None,
    tolerance: float | None = None,
) -> tuple[DomainRule, DomainRule]:
    """Rules over the domain for what ρ_0 and ρ* of a label lead to, and a coarser one for its error. **Collective**.

    A density that moves from one to the other may be anywhere: cells without mass count as well. ``largest``,
    ``jumps`` and ``tolerance`` as for ``density_rules``; the last one is by default TOLERANCE.
    """
    found = []
    tolerance = tolerance or TOLERANCE[space.dim]
    mixture = _Mixture((initial, target), label, space.volume)
    for rule in density_rules(space, mixture, [0], tolerance, largest, jumps):
        with parallel.agreed(space.comm):
            values = target.values(rule.x)[:, label]
        weights = rule.weights[:, 0] / rule.density[:, 0]
        # They were scaled to the mass of the mixture, whose jumps are no concern of the volume's.
        sums = parallel.sum_all(space.comm, np.array([weights.sum(), weights @ np.maximum(values, 0.0)]))
        weights *= space.volume / sums[0]
        mass = float(target.mass[label])
        missed = abs(mass - float(sums[1] * space.volume / sums[0])) / mass if mass > 0.0 else 0.0
        found.append(DomainRule(rule.x, weights, np.maximum(values, 0.0), missed, space.comm))
    return found[0], found[1]


@final
class FixedCost:
    """0 for ρ_T = ρ*, else +∞: F*(φ) = ∫φ dρ*. Making one is **collective**.

    Args:
        rule: the domain.
        mass: of the label; ρ* is scaled to it.

    Attributes:
        points: see ``FinalCost``.
    """

    def __init__(self, rule: DomainRule, mass: float) -> None:
        self._rule, self.points = rule, rule.x
        weights = rule.weights * rule.target
        self._weights: Floats = weights * (mass / rule.sum(weights)[0])

    def conjugate(self, phi: Floats) -> Conjugate:
        """See ``FinalCost``. **Collective**."""
        return Conjugate(float(self._rule.sum(self._weights * phi)[0]), self._weights, np.zeros_like(phi))

    def value(self, density: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """Infinite: hardly any density is ρ* exactly."""
        return np.inf


@final
class KullbackLeiblerCost:
    """∫ρ log(ρ/ρ*): among densities of mass m F*(φ) = m log(∫ρ* e^φ/m) (Donsker and Varadhan 1975).

    The rule's errors in the masses of ρ* and of ρ would enter F as they are, however small F is: both are scaled to
    their exact masses.

    Args:
        rule: the domain.
        mass: m.
        target: ρ*.
        label: y.
        log_floor: what log ρ* counts at least, softly.

    Attributes:
        points: see ``FinalCost``.
    """

    def __init__(self, rule: DomainRule, mass: float, target: FunctionDensity, label: int, log_floor: float) -> None:
        """Collective."""
        self._rule, self._mass, self.points = rule, mass, rule.x
        with parallel.agreed(rule.comm):
            logarithm = np.logaddexp(target.log_values(rule.x)[:, label], log_floor)
        volume, total = rule.sum(rule.weights, rule.weights * np.exp(logarithm))
        exact = float(target.mass[label]) + np.exp(log_floor) * volume
        self._logarithm: Floats = logarithm + np.log(exact / total)

    def conjugate(self, phi: Floats) -> Conjugate:
        """See ``FinalCost``. **Collective**."""
        rule, exponent = self._rule, self._logarithm + phi
        top = rule.comm.allreduce(float(np.max(exponent, initial=-np.inf)), MPI.MAX)
        asked = rule.weights * np.exp(exponent - top)
        total = float(rule.sum(asked)[0])
        weights = asked * (self._mass / total)
        return Conjugate(self._mass * (top + float(np.log(total / self._mass))), weights, weights)

    def value(self, density: Floats) -> float:
        """See ``FinalCost``. **Collective**."""
        seen = density > 0.0
        weights = (self._rule.weights * density)[seen]
        apart = np.log(density[seen]) - self._logarithm[seen]
        total, value = self._rule.sum(weights, weights * apart)
        return float(self._mass * (value / total + np.log(self._mass / total)))


@final
@dataclass(frozen=True)
class SquaredDistanceCost:
    """½∫(ρ − ρ*)²: the density that φ asks for is (ρ* + φ − c)⁺, with the c that gives it the mass.

    Args:
        rule: the domain.
        mass: m.
    """

    rule: DomainRule
    mass: float

    @property
    def points(self) -> Floats:
        """See ``FinalCost``."""
        return self.rule.x

    def conjugate(self, phi: Floats) -> Conjugate:
        """See ``FinalCost``. **Collective**."""
        rule = self.rule
        height = rule.target + phi
        asked = np.maximum(height - self._shift(height), 0.0)
        weights = rule.weights * asked
        (value,) = rule.sum(weights * phi - 0.5 * rule.weights * (asked - rule.target) ** 2)
        return Conjugate(float(value), weights, np.where(asked > 0.0, rule.weights, 0.0))

    def value(self, density: Floats) -> float:
        """See ``FinalCost``. **Collective**."""
        return 0.5 * float(self.rule.sum(self.rule.weights * (density - self.rule.target) ** 2)[0])

    def _shift(self, height: Floats) -> float:
        """The c with ∫(height − c)⁺ = m: Newton's method for a convex, decreasing function, from the left."""
        rule = self.rule
        volume, integral = rule.sum(rule.weights, rule.weights * height)
        c = float((integral - self.mass) / volume)
        for _ in range(_MOST_NEWTON):
            above = np.where(height > c, rule.weights, 0.0)
            space, mass = rule.sum(above, above * (height - c))
            step = float((mass - self.mass) / space)
            c += step
            if abs(step) <= 1e-14 * (abs(c) + self.mass / float(volume)):
                break
        return c
