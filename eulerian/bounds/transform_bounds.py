"""Both sides of the idealised problem for functionals of a target density: a potential from below, its map from above.

On a convex domain and without running costs of the density, the value of the *continuous* problem lies between

    D(φ) = Σ_y ∫φ_y^c dμ_0y − F_y*(φ_y)   and   D(φ) + Σ_y (α + M_y)/2 w_y²,    α = λ/T,

for any potentials φ_y, with φ^c(x) = min_z {φ(z) + α/2 |x − z|²}. The second one is what a flow costs that moves μ_0
straight to the minimisers z(x), and from there to the density that F* asks for (``target_correction`` has w and M): its
F is ∫φρ − F*(φ). Or the flow ends at the minimisers, if that costs less. No mesh comes in but as the place of
quadrature points.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.bounds.convexity import straight_domain
from eulerian.bounds.dual_ascent import LEAST_DAMPING, DualAscent, Source
from eulerian.bounds.hopf_lax import Accuracy
from eulerian.bounds.splines import Jets, SplineFunction, SplineSpace
from eulerian.bounds.target_correction import Arrived, missing_cost
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import DensityRule, density_rules
from eulerian.ideal.final_costs import TOLERANCE, DomainRule, FinalCost, domain_rules
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import box_mesh

_FIRST = {1: 8, 2: 4, 3: 4}  # intervals of the splines along the longest side
_MOST = {1: 256, 2: 64, 3: 16}
_CLOSE = 5e-4  # of the value: a gap that no finer splines are needed for
_WORTH = 0.7  # of the gap: what halved intervals must leave of it to go on
_RISE = {False: 5e-3, True: 2e-2}  # of a lower bound without an upper one: likewise; and where no upper one is wanted
_SHARES = (1.0, 0.9, 0.7, 0.4, 0.1)  # of the way to ρ*, for a start
_LEAST_SPREAD = 1e-3  # of the domain: standard deviation of a density, for the start
_CLIMB = {False: 1e-5, True: 1e-3}  # of the value: Newton's method ends where it has no more to gain
_DAMPING = {False: LEAST_DAMPING, True: 1e-2}  # of the first step, which is a long one
_COARSENING = 10.0  # of rules, where their error turns out to be small enough all the same
_FIRST_CLIMB = 10.0  # of the latter, for the first splines, where a bound is all that is wanted
_ROUNDING = 1e-6  # of the value: points of next to no mass are left out of all sums
_PER_INTERVAL = 2  # cells along an axis, of a rule to climb by
_LOST = 1e-6  # of the mass: more than that may not end beyond a wall
_ASTRAY = 1e-3  # of the mass: what the density at the minimisers may have too much or too little
_AT_WALL = 1e-12  # of the domain's diameter
_WIDEST = {1: 2.0**-7, 2: 2.0**-4, 3: 2.0**-3}  # of the domain: parts of cells, if intervals of the splines are wider
_JUMPS = {1: 2.0**-20, 2: 2.0**-9, 3: 2.0**-6}  # of the domain: extent of what cells are cut into where densities jump


type Moments = tuple[Floats, Floats]
"""A mean (dim,) and a covariance (dim, dim)."""


@final
@dataclass(frozen=True)
class Bracket:
    """Two numbers that the value of a continuous problem lies between, up to an error.

    Attributes:
        lower: a bound from below.
        upper: the cost of a flow and the error of its quadrature, +∞ where none is known.
        error: of the lower bound, by quadrature and search.
    """

    lower: float
    upper: float
    error: float

    @property
    def gap(self) -> float:
        """Between them, +∞ where there is no upper one."""
        return self.upper - self.lower

    def hardly_better(self, before: "Bracket | None", rise: float) -> bool:
        """Whether another bracket is hardly wider, or the lower bound has hardly risen where there is no upper one."""
        if before is None:
            return False
        if np.isfinite(self.upper):
            return self.gap > _WORTH * before.gap
        return self.lower - before.lower <= rise * abs(self.lower)

    def __add__(self, other: "Bracket") -> "Bracket":
        """Of two problems that have nothing to do with one another."""
        return Bracket(self.lower + other.lower, self.upper + other.upper, self.error + other.error)


def transform_bounds(problem: IdealProblem, *, lower_only: bool = False, accuracy: Accuracy | None = None) -> Bracket:
    """Bounds for a distance from a target density. **Collective**.

    The lower one holds in any domain, and the upper one where the straight paths stay in it.

    Args:
        problem: without running costs of the density, whose functional has a target.
        lower_only: do without the upper one, and be content with the lower one sooner.
        accuracy: tells what is small enough an error of the lower one, of about what it is.
    """
    if accuracy is not None:
        rough = _of_all_labels(problem, lower_only=lower_only, coarsening=_COARSENING)
        if rough.error <= accuracy(rough.lower):
            return rough
    return _of_all_labels(problem, lower_only=lower_only, coarsening=1.0)


def _of_all_labels(problem: IdealProblem, *, lower_only: bool, coarsening: float) -> Bracket:
    """Collective."""
    total = Bracket(0.0, 0.0, 0.0)
    for label, mass in enumerate(problem.initial.mass):
        if mass > 0.0:
            total += _LabelBounds(problem, label, lower_only=lower_only, coarsening=coarsening).bracket()
    return total


class _Rules(NamedTuple):
    """Points of ρ_0 with their densities, points of the domain, and F by these."""

    source: DensityRule
    domain: DomainRule
    cost: FinalCost


@final
class _LabelBounds:
    """The bounds of one label. Making one is collective.

    Args:
        problem: of all labels.
        label: y.
        lower_only: see ``transform_bounds``.
        coarsening: by what the rules may be worse than they usually are.
    """

    def __init__(self, problem: IdealProblem, label: int, *, lower_only: bool = False, coarsening: float = 1.0) -> None:
        space, self._lower_only, self._coarsening = problem.space, lower_only, coarsening
        self._problem, self._label, self._space, self._comm = problem, label, space, space.comm
        self._alpha = problem.kinetic / problem.horizon
        self._mass = float(problem.initial.mass[label])
        self._domain = straight_domain(space)
        self._side = float(np.max(np.subtract(*space.bounding_box[::-1])))
        self._jumps = _JUMPS[space.dim] * self._side

    def bracket(self) -> Bracket:
        """Collective."""
        splines = self._splines()
        rules, own = self._climbing_rules(splines)
        start, scale = self._start(splines, rules)
        best: Bracket | None = None
        damping, in_vain = _DAMPING[self._lower_only], 0
        while True:
            ascent = self._ascent(splines, rules)
            climb = _CLIMB[self._lower_only] * (_FIRST_CLIMB if best is None and self._lower_only else 1.0)
            potential, damping = ascent.run(start, climb * scale, damping)
            if self._lower_only:  # until the last splines what has been climbed to tells enough
                bracket = Bracket(ascent.evaluate(potential.coefficients, follow=1)[0], np.inf, 0.0)
            else:
                bracket = self._bracket(potential, *(own or self._rules(splines)))
            before, best = best, bracket if best is None else _better(best, bracket)
            scale = abs(best.lower)
            in_vain = in_vain + 1 if best.hardly_better(before, _RISE[self._lower_only]) else 0
            if self._enough(best, in_vain, splines):
                return self._bracket(potential, *(own or self._rules(splines))) if self._lower_only else best
            start, splines = splines.prolong(potential.coefficients), splines.refined()
            rules, own = self._climbing_rules(splines)

    def _enough(self, best: Bracket, in_vain: int, splines: SplineSpace) -> bool:
        """Whether finer splines are not worth their time, after so many that were hardly better than the last ones."""
        # The first gaps are a matter of luck.
        close, hardly = best.gap <= _CLOSE * abs(best.lower), in_vain >= (1 if np.isinf(best.upper) else 2)
        return close or hardly or max(splines.intervals) >= _MOST[self._space.dim]

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _splines(self) -> SplineSpace:
        lower, upper = self._space.bounding_box
        sides = upper - lower
        intervals = np.maximum(np.rint(_FIRST[self._space.dim] * sides / sides.max()), 2).astype(int)
        return SplineSpace(lower, upper, tuple(intervals.tolist()))

    def _rules(self, splines: SplineSpace) -> tuple[_Rules, _Rules]:
        """Two rules, as fine as the splines: a potential that is finer would adapt to the points. Collective."""
        largest = min(float(splines.width.max()), _WIDEST[self._space.dim] * self._side)
        return self._rules_on(self._space, largest)

    def _rules_on(self, space: DensitySpace, largest: float) -> tuple[_Rules, _Rules]:
        """Two rules on the cells of a space, or parts of them. Collective."""
        problem, label = self._problem, self._label
        target = problem.functional.exact
        assert target is not None
        tolerance = self._coarsening * TOLERANCE[space.dim]
        of_source = density_rules(space, problem.initial, [label], tolerance, largest, self._jumps)
        of_domain = domain_rules(space, problem.initial, target, label, largest, self._jumps, tolerance)
        costs = [problem.functional.on_domain(rule, label, self._mass) for rule in of_domain]
        fine, coarse = (_Rules(*rules) for rules in zip(of_source, of_domain, costs, strict=True))
        return fine, coarse

    def _climbing_rules(self, splines: SplineSpace) -> tuple[_Rules, tuple[_Rules, _Rules] | None]:
        """A rule to climb by, with the two of ``_rules`` if it is one of them. Collective.

        In a box it is on cells that are not much finer than the splines, even if those of the mesh are.
        """
        space, cells = self._space, [_PER_INTERVAL * n for n in splines.intervals]
        number, is_box = math.prod(cells) * math.factorial(space.dim), self._domain is not None and self._domain.is_box
        if not is_box or number >= space.mesh.topology.index_map(space.dim).size_global:
            own = self._rules(splines)
            return own[1], own
        lower, upper = space.bounding_box
        wide = DensitySpace(box_mesh(lower.tolist(), upper.tolist(), cells, self._comm), 0)
        return self._rules_on(wide, float(splines.width.max()))[1], None

    def _ascent(self, splines: SplineSpace, rules: _Rules) -> DualAscent:
        source = Source(rules.source.x, rules.source.weights[:, 0])
        return DualAscent(splines, self._alpha, source, rules.cost, self._comm)

    def _start(self, splines: SplineSpace, rules: _Rules) -> tuple[Floats, float]:
        """The best of the quadratic potentials whose maps lead some part of the way to the target's moments.

        With the size of its bound. Collective.
        """
        ascent = self._ascent(splines, rules)
        begin = self._moments(rules.source.x, rules.source.weights[:, 0])
        end = self._moments(rules.domain.x, rules.domain.weights * rules.domain.target)
        trials = [splines.interpolate(*_quadratic(begin, end, share, self._alpha)) for share in _SHARES]
        values = [ascent.evaluate(trial, follow=1)[0] for trial in trials]
        best = int(np.argmax(values))
        return trials[best], abs(values[best])

    def _moments(self, x: Floats, weights: Floats) -> Moments:
        """Mean (dim,) and covariance (dim, dim), kept away from zero. Collective."""
        dim = self._space.dim
        local = np.concatenate([[weights.sum()], weights @ x, (weights[:, None] * x).T @ x], axis=None)
        sums = parallel.sum_all(self._comm, local)
        mean = sums[1 : dim + 1] / sums[0]
        lower, upper = self._space.bounding_box
        least = _LEAST_SPREAD * float(np.max(upper - lower))
        return mean, sums[dim + 1 :].reshape(dim, dim) / sums[0] - np.outer(mean, mean) + least**2 * np.eye(dim)

    def _bracket(self, potential: SplineFunction, fine: _Rules, coarse: _Rules) -> Bracket:
        """What a potential and its map prove, by two rules. Collective."""
        (lower, upper, missed), (rough, above, _) = (self._sides(potential, rules) for rules in (fine, coarse))
        doubt = abs(upper - above) if np.isfinite(upper) and np.isfinite(above) else 0.0
        return Bracket(lower, upper + doubt + missed, abs(lower - rough) + missed + _ROUNDING * abs(lower))

    def _sides(self, potential: SplineFunction, rules: _Rules) -> tuple[float, float, float]:
        """Lower and upper bound, and what the mass that the rules miss may change them by. Collective."""
        lower, z = self._ascent(potential.space, rules).evaluate(potential.coefficients)
        x, weights, domain = rules.source.x, rules.source.weights[:, 0], rules.domain
        with parallel.agreed(self._comm):
            jets = potential.jets(domain.x)
            arrived = self._arrived(domain.x, jets)
            # Zero at a minimum, but for walls that hold it back.
            push = potential.jets(z).gradient + self._alpha * (z - x)
            outside, held = self._beyond(z)
        squares = np.stack([np.sum((z - x) ** 2, axis=1), np.sum(push**2, axis=1), outside, held])
        asked = rules.cost.conjugate(jets.value).weights
        missed = domain.missed * self._spread(jets.value, asked)
        transformed = potential.jets(z).value + 0.5 * self._alpha * np.sum((z - x) ** 2, axis=1)
        missed += float(rules.source.missed[0]) * self._spread(transformed, weights)
        distance, pressure, lost, stuck = parallel.sum_all(self._comm, squares @ weights).tolist()
        astray = abs(float(domain.sum(domain.weights * arrived)[0]) - self._mass)
        if self._lower_only or lost > _LOST * self._mass:
            return lower, np.inf, missed
        wanted = asked / domain.weights
        densities = Arrived(z, weights, domain.x, domain.weights, arrived, wanted, astray > _ASTRAY * self._mass)
        upper = lower + missing_cost(self._comm, potential, self._alpha, pressure, densities)
        # What ends at a wall has no density, and where the map tears, what is arrived at points counts too much.
        if stuck <= _LOST * self._mass and not densities.torn:
            upper = min(upper, 0.5 * self._alpha * distance + rules.cost.value(arrived))
        return lower, upper, missed

    def _spread(self, values: Floats, weights: Floats) -> float:
        """The standard deviation of values (n,), times the sum of their weights. Collective."""
        total, mean = parallel.sum_all(self._comm, np.array([weights.sum(), weights @ values]))
        away = values - mean / total
        return float(np.sqrt(total * parallel.sum_all(self._comm, (weights @ away**2)[None])[0]))

    def _beyond(self, z: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which points z (n, dim) are outside the domain, and which are outside or at a wall."""
        if self._domain is None:
            return np.ones(len(z), dtype=bool), np.ones(len(z), dtype=bool)
        depth, size = self._domain.depth(z), _AT_WALL * self._domain.diameter
        return depth < -size, depth < size

    def _arrived(self, z: Floats, jets: Jets) -> Floats:
        """The density (n,) that the map of a potential leads to, at points z (n, dim) with the potential's jets."""
        origin, unit = z + jets.gradient / self._alpha, np.eye(self._space.dim)
        volume = np.linalg.det(unit + jets.hessian / self._alpha)
        # Where the potential bends too much nothing arrives, up to what the potential's error does.
        density = self._problem.initial.values(origin)[:, self._label]
        return np.asarray(density * np.maximum(volume, 0.0))


def _quadratic(begin: Moments, end: Moments, share: float, alpha: float) -> tuple[Jets, Floats]:
    """The potential whose map leads a share of the way between densities of given moments; at a point.

    The map between Gaussians is affine (Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X).
    """
    root = matrix_root(begin[1])
    inverse = np.linalg.inv(root)
    unit = np.eye(len(root))
    map_ = (1.0 - share) * unit + share * inverse @ matrix_root(root @ end[1] @ root) @ inverse
    middle = (1.0 - share) * begin[0] + share * end[0]
    return Jets(np.zeros(()), alpha * (begin[0] - middle), alpha * (np.linalg.inv(map_) - unit)), middle


def matrix_root(matrix: Floats) -> Floats:
    """The symmetric square root of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)


def _better(one: Bracket, other: Bracket) -> Bracket:
    """Both sides' better ones."""
    below = max(one, other, key=lambda each: each.lower - each.error)
    return Bracket(below.lower, min(one.upper, other.upper), below.error)
