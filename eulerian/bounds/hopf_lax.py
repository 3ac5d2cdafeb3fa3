"""The best that any velocity can do for a terminal loss ∫ℓρ_T: the Hopf–Lax formula, in polygons also around walls.

φ_0(x, y) = min_z {ℓ(z, y) + λ|x − z|²/(2T)} is the value of the idealised problem that starts at x with label y, and
x moves straight to the minimiser z (Evans, Partial Differential Equations, 2nd ed. 2010, section 3.3). In a domain with
walls |x − z| is the length of the shortest path inside, which x follows at constant speed. Labels are
independent of each other: the velocity may depend on them, so for one that may not J* is only a lower bound.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self, final

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.adaptive_rule import MOST_POINTS, AdaptiveRule, adaptive_rule
from eulerian.bounds.convexity import convex_domain
from eulerian.bounds.geodesics import Geodesics
from eulerian.bounds.polygon import Polygon
from eulerian.bounds.straight_search import Found, StraightSearch, tabulate
from eulerian.bounds.walled_search import walled_search
from eulerian.density.space import DensitySpace
from eulerian.ideal.functionals import KEY
from eulerian.ideal.problem import IdealProblem

TOLERANCE = {1: 1e-10, 2: 1e-6, 3: 3e-4}
"""Of the quadrature of φ_0 ρ_0, relative to Σ_y ∫|φ_0 ρ_0|, by dimension."""

NEGLIGIBLE = 1e-15
"""Points are not searched for that hold less than this share of the total mass, all of them together."""


type Accuracy = Callable[[float], float]
"""About what J* is, to the error of it that is small enough, absolute."""

_SHARES = {"quadrature": 0.8, "search": 0.1, "points": 0.05}
"""Of an error that is small enough."""


class Search(Protocol):
    """Finds min_z {ℓ(z, y) + α/2 d(x, z)²} in one kind of domain."""

    @property
    def accuracy(self) -> float:
        """By how much the minimum of a loss without features finer than the search may be missed."""
        ...

    def spread(self, label: int) -> float:
        """By how much ℓ(·, label) varies over the domain."""
        ...

    def within(self, error: float) -> Self:
        """The same search, which may miss the minima of a loss by so much; absolute. Not collective."""
        ...

    def rough(self, label: int, x: Floats) -> Floats | None:
        """The minima for points (n, dim) of one label, a little too large; None if that takes long. Not collective."""
        ...

    def one_label(self, label: int, x: Floats) -> Found:
        """The best destinations of points (n, dim) for one label. Not collective."""
        ...

    def route(self, x: Floats, found: Found) -> Floats:
        """The corners (n, M, dim) of the paths of points (n, dim), from x to z; the last ones may all be z."""
        ...

    def losses(self, label: int, z: Floats) -> Floats:
        """ℓ(z, label) for z (n, dim), +∞ where it has no value; (n,)."""
        ...


@dataclass(frozen=True)
class HopfLax:
    """The solution of the idealised problem for a loss that is linear in ρ_T.

    ``points``, ``masses``, ``potentials`` and ``destinations`` are this rank's; the numbers are the same on all ranks.

    Attributes:
        value: J* = terminal + kinetic; an infimum, not attained, where λ = 0 or ℓ jumps.
        terminal: Σ_y ∫ℓ(z(x, y), y) dρ_{0,y}.
        kinetic: λ/(2T) Σ_y ∫|z(x, y) − x|² dρ_{0,y}.
        error: of the value, absolute: what two quadrature rules differ by (see ``adaptive_rule``), and the search's
            rounding. What the search may miss altogether is not in it (see ``hopf_lax``).
        horizon: T.
        points: (n, dim) quadrature points x.
        masses: (n, K) their weights times ρ_0.
        potentials: (n, K) φ_0; ℓ where the mass is negligible.
        destinations: (n, K, dim) minimisers z; x itself where the mass is negligible.
    """

    value: float
    terminal: float
    kinetic: float
    error: float
    horizon: float
    points: Floats = field(repr=False)
    masses: Floats = field(repr=False)
    potentials: Floats = field(repr=False)
    destinations: Floats = field(repr=False)
    _via: Floats = field(repr=False)
    _search: Search = field(repr=False)

    @property
    def velocities(self) -> Floats:
        """At the start; their size is constant along each path, d(x, z)/T, and so is v without walls. (n, K, dim)."""
        found = np.empty_like(self.destinations)
        for y, corners in enumerate(self._routes):
            legs = np.diff(corners, axis=1)
            sizes = np.linalg.norm(legs, axis=2)
            first = np.argmax(sizes > 0.0, axis=1)
            rows = np.arange(len(legs))
            length = np.where(sizes[rows, first] > 0.0, sizes[rows, first], 1.0)
            found[:, y] = legs[rows, first] * (sizes.sum(axis=1) / length / self.horizon)[:, None]
        return found

    def positions(self, t: float) -> Floats:
        """Where the mass of ``points`` is at time t, (n, K, dim)."""
        share = np.array([t / self.horizon])
        return np.stack([walk(corners, share)[:, 0] for corners in self._routes], axis=1)

    def paths_of(self, x: Floats, times: Floats) -> Floats:
        """Where points (n, dim) are at times (s,), at constant speed along shortest paths, (n, K, s, dim)."""
        routes = [self._search.route(x, found) for found in self._found(x)]
        return np.stack([walk(corners, times / self.horizon) for corners in routes], axis=1)

    @cached_property
    def _routes(self) -> list[Floats]:
        """By label, the corners (n, M, dim) of the paths of ``points``."""
        nothing = np.zeros(len(self.points))
        labels = range(self.masses.shape[1])
        found = [Found(self.destinations[:, y], nothing, nothing, self._via[:, y]) for y in labels]
        return [self._search.route(self.points, one) for one in found]

    def destinations_of(self, x: Floats) -> Floats:
        """The optimal map: points (n, dim) to their minimisers z, (n, K, dim)."""
        return np.stack([found.z for found in self._found(x)], axis=1)

    def potential(self, x: Floats) -> Floats:
        """φ_0 at points (n, dim), (n, K)."""
        return np.stack([found.losses + found.transport for found in self._found(x)], axis=1)

    def _found(self, x: Floats) -> list[Found]:
        return [self._search.one_label(y, x) for y in range(self.masses.shape[1])]


def hopf_lax(problem: IdealProblem, tolerance: float | None = None, accuracy: Accuracy | None = None) -> HopfLax:
    """The solution of an idealised problem with a loss, Σ_y ∫ℓ(x, y) ρ_y(T, x) dx. **Collective**.

    ℓ may have kinks, jumps and many minima. The search sees those wider than about three cells of its grid (4096, 512
    or 64 cells per axis of the bounding box in dimension 1, 2 or 3); among minima at kinks or jumps whose values differ
    by less than ℓ changes over one cell it may miss the best. φ_0 is then too large by no more than that difference.

    The domain is convex; one in the plane may have walls and holes (see ``WalledSearch``).
    There points that do not see their best z look for another one on every other point of the grid, and on points of
    the walls as far apart as those of the grid. φ_0 is never too small.

    Args:
        problem: with λ = 0 the value is the infimum, φ_0 = min ℓ.
        tolerance: of the quadrature, relative to Σ_y ∫|φ_0 ρ_0|; by default TOLERANCE.
        accuracy: tells an error of J* that is small enough in any case, of about what J* is; the smaller it is the
            better that is known. The error that comes out may still be larger: ``HopfLax.error`` knows.

    Raises:
        InputError: the functional is not ∫ℓρ_T, there are running costs of the density, the domain is neither convex
            nor a polygon whose walls do not touch, or ℓ is not finite on it; the same on all ranks.
    """
    space, loss = problem.space, problem.functional.loss
    if loss is None:
        raise InputError("the terminal functional is not linear in ρ(T)", key=KEY)
    if problem.running is not None:
        what = "there are running costs of the density, under which the best paths are not straight"
        raise InputError(what, key="objective")
    return _transported(_search(problem), problem, tolerance or TOLERANCE[space.dim], accuracy)


def try_hopf_lax(problem: IdealProblem, accuracy: Accuracy | None = None) -> tuple[HopfLax | None, str]:
    """The solution by the Hopf–Lax formula, or why it does not apply. **Collective**."""
    try:
        return hopf_lax(problem, accuracy=accuracy), ""
    except InputError as error:
        return None, error.what


def _search(problem: IdealProblem) -> Search:
    """Collective.

    Raises:
        InputError: the domain is neither convex nor a polygon, or ℓ is not finite on it; the same on all ranks.
    """
    space, loss, stiffness = problem.space, problem.functional.loss, problem.kinetic / problem.horizon
    assert loss is not None
    low, high = space.bounding_box
    x = space.vertices.reshape(-1, space.dim)
    # An empty rank will not ask for any points.
    around = np.stack([x.min(axis=0), x.max(axis=0)] if len(x) else [low, high])
    try:
        domain = convex_domain(space)
    except InputError:  # on all ranks
        if space.dim != 2:
            raise
        geodesics = Geodesics(Polygon.of_space(space), space.comm)
        with parallel.agreed(space.comm):
            return walled_search(geodesics, loss, space.n_labels, stiffness, around)
        raise AssertionError("unreachable: agreed raises") from None
    with parallel.agreed(space.comm):
        tables = tabulate(domain, loss, space.n_labels)
    return StraightSearch(domain, loss, stiffness, tables, around)


def walk(corners: Floats, shares: Floats) -> Floats:
    """Points (n, s, dim) at shares (s,) of the lengths of broken lines with corners (n, M, dim)."""
    legs = np.diff(corners, axis=1)
    sizes = np.linalg.norm(legs, axis=2)
    ends = np.cumsum(sizes, axis=1)
    gone = shares * ends[:, -1:]
    leg = np.minimum((ends[:, None] < gone[..., None]).sum(axis=2), legs.shape[1] - 1)
    rows = np.arange(len(corners))[:, None]
    size = sizes[rows, leg]
    part = (gone - (ends[rows, leg] - size)) / np.where(size > 0.0, size, 1.0)
    part = np.clip(part, 0.0, 1.0)[..., None]
    return np.asarray((1.0 - part) * corners[rows, leg] + part * corners[rows, leg + 1])


def _transported(search: Search, problem: IdealProblem, tolerance: float, accuracy: Accuracy | None) -> HopfLax:
    """The masses of quadrature points, each moved to the best place. Collective."""
    space, initial = problem.space, problem.initial
    weight, small = float(np.abs(initial.mass).sum()), 0.0
    if accuracy is not None:
        small = _small_enough(search, problem, accuracy)
        search = search.within(_SHARES["search"] * small / weight) if small > 0.0 else search
    potentials = _Potentials(search, space, initial.mass, _SHARES["points"] * small)
    rule = adaptive_rule(space, initial, potentials, tolerance, _SHARES["quadrature"] * small)
    terminal, kinetic, weight = _sums(space, rule)
    left_out = float(parallel.sum_all(space.comm, np.array([potentials.left_out]))[0])
    return HopfLax(
        terminal + kinetic,
        terminal,
        kinetic,
        rule.error + search.accuracy * weight + left_out,
        problem.horizon,
        rule.x,
        rule.masses,
        rule.values,
        np.ascontiguousarray(rule.others[..., 1:-2]),
        rule.others[..., -2:],
        search,
    )


def _small_enough(search: Search, problem: IdealProblem, accuracy: Accuracy) -> float:
    """An error that is small enough, by a rough J*; 0 where none is at hand. Collective."""

    def potential(x: Floats, masses: Floats) -> tuple[Floats, Floats]:
        found = [search.rough(label, x) for label in range(masses.shape[1])]
        values = np.column_stack([np.full(len(x), np.nan) if column is None else column for column in found])
        return values, values[..., None]

    rule = adaptive_rule(problem.space, problem.initial, potential, np.inf)
    about = float(parallel.sum_all(problem.space.comm, np.array([np.vdot(rule.masses, rule.values)]))[0])
    return accuracy(about) if np.isfinite(about) else 0.0


def _sums(space: DensitySpace, rule: AdaptiveRule) -> tuple[float, float, float]:
    """Terminal loss, kinetic energy, and Σ|masses|. Collective."""
    losses = rule.others[..., 0]
    local = np.array(
        [np.vdot(rule.masses, losses), np.vdot(rule.masses, rule.values - losses), np.abs(rule.masses).sum()]
    )
    terminal, kinetic, weight = parallel.sum_all(space.comm, local).tolist()
    return terminal, kinetic, weight


@final
class _Potentials:
    """φ_0 at points, with what is worth knowing beside: the losses at the destinations, and these.

    Args:
        search: for the destinations.
        space: of the densities.
        mass: (K,) of the labels.
        error: that all points which are not searched for may cause, absolute.

    Attributes:
        left_out: what this rank's points that were not searched for may have caused, if an error was allowed.
    """

    def __init__(self, search: Search, space: DensitySpace, mass: Floats, error: float) -> None:
        self._search, self.left_out = search, 0.0
        self._least = NEGLIGIBLE / MOST_POINTS[space.dim] * float(np.abs(mass).sum())
        self._errors = [error / MOST_POINTS[space.dim] / max(search.spread(y), 1e-300) for y in range(len(mass))]

    def __call__(self, x: Floats, masses: Floats) -> tuple[Floats, Floats]:
        """φ_0 (n, K), and losses, destinations and bends (n, K, 1 + dim + 2), of points (n, dim) with masses (n, K)."""
        others = np.full((*masses.shape, 3 + x.shape[1]), -1.0)
        potentials = np.empty_like(masses)
        for y in range(masses.shape[1]):
            sizes = np.abs(masses[:, y])  # ρ_h may be negative between the limiter's points
            heavy = sizes > max(self._least, self._errors[y])
            if self._errors[y] > 0.0:
                self.left_out += float(sizes[~heavy].sum()) * self._search.spread(y)
            z, losses, transport, via = self._search.one_label(y, x[heavy])
            potentials[heavy, y] = losses + transport
            others[heavy, y] = np.column_stack([losses, z, via])
            stay = self._search.losses(y, x[~heavy])
            potentials[~heavy, y], others[~heavy, y, 0], others[~heavy, y, 1:-2] = stay, stay, x[~heavy]
        return potentials, others
