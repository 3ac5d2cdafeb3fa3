"""The best that any velocity can do for a terminal loss ∫ℓρ_T on a convex domain: the Hopf–Lax formula.

φ_0(x, y) = min_z {ℓ(z, y) + λ|x − z|²/(2T)} is the value of the idealised problem that starts at x with label y, and
x moves straight to the minimiser z (Evans, Partial Differential Equations, 2nd ed. 2010, section 3.3). Labels are
independent of each other: the velocity may depend on them, so for one that may not J* is only a lower bound.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats, require_finite
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.ideal.convexity import ConvexDomain, convex_domain
from eulerian.ideal.functionals import KEY, Loss
from eulerian.ideal.grid_search import Candidates, LossTable, tabulation_grid
from eulerian.ideal.local_search import LocalSearch
from eulerian.ideal.problem import IdealProblem

# φ_0 is smooth but for kinks, which cells meet one by one in 1-D and in great number, with errors that cancel, beyond.
QUADRATURE_DEGREE = {1: 30, 2: 6, 3: 4}
"""Exactness of the rule for ∫φ_0 ρ_0, by dimension; never below that of the scheme's own terminal loss."""

NEGLIGIBLE = 1e-15
"""Points are not searched for that hold less than this share of the total mass, all of them together."""

_BLOCK = 2**15  # points at a time


@dataclass(frozen=True)
class HopfLax:
    """The solution of the idealised problem for a loss that is linear in ρ_T.

    ``points``, ``masses``, ``potentials`` and ``destinations`` are this rank's; the numbers are the same on all ranks.

    Attributes:
        value: J* = terminal + kinetic; an infimum, not attained, where λ = 0 or ℓ jumps.
        terminal: Σ_y ∫ℓ(z(x, y), y) ρ_{0,y}.
        kinetic: λ/(2T) Σ_y ∫|z(x, y) − x|² ρ_{0,y}.
        horizon: T.
        points: (n_owned, nq, dim) quadrature points x.
        masses: (n_owned, nq, K) their weights times ρ_0.
        potentials: (n_owned, nq, K) φ_0; ℓ where the mass is negligible.
        destinations: (n_owned, nq, K, dim) minimisers z; x itself where the mass is negligible.
    """

    value: float
    terminal: float
    kinetic: float
    horizon: float
    points: Floats
    masses: Floats
    potentials: Floats
    destinations: Floats
    _search: "_Search" = field(repr=False)

    @property
    def velocities(self) -> Floats:
        """Constant along each path: v = (z − x)/T, (n_owned, nq, K, dim)."""
        return (self.destinations - self.points[:, :, None]) / self.horizon

    def positions(self, t: float) -> Floats:
        """Where the mass of ``points`` is at time t, (n_owned, nq, K, dim)."""
        share = t / self.horizon
        return (1.0 - share) * self.points[:, :, None] + share * self.destinations

    def destinations_of(self, x: Floats) -> Floats:
        """The optimal map: points (n, dim) to their minimisers z, (n, K, dim)."""
        return self._search.all_labels(x)[0]

    def potential(self, x: Floats) -> Floats:
        """φ_0 at points (n, dim), (n, K)."""
        destinations, losses = self._search.all_labels(x)
        return losses + self._search.transport(x, destinations)


@dataclass(frozen=True)
class _Search:
    """Global minimisation of ℓ(z, y) + α/2 |x − z|² over the domain, by grid and polish; without communication."""

    domain: ConvexDomain
    loss: Loss
    stiffness: float
    tables: tuple[LossTable, ...]

    @cached_property
    def polish(self) -> LocalSearch:
        # The size of ℓ, by which rounding is judged; outside the domain it is +∞.
        finite = [np.abs(table.values[np.isfinite(table.values)]).max() for table in self.tables]
        return LocalSearch(self.domain, float(self.tables[0].spacing.max()), max(*finite, 1e-300))

    def all_labels(self, x: Floats) -> tuple[Floats, Floats]:
        """Minimisers (n, K, dim) of points (n, dim), and the losses there, (n, K)."""
        found = [self.one_label(y, x) for y in range(len(self.tables))]
        return np.stack([z for z, _ in found], axis=1), np.stack([losses for _, losses in found], axis=1)

    def one_label(self, label: int, x: Floats) -> tuple[Floats, Floats]:
        """Minimisers (n, dim) of points (n, dim) for one label, and the losses there, (n,)."""
        z, losses = x.copy(), np.empty(len(x))
        if len(x):
            minimisers = self.tables[label].minimise(x, self.stiffness)
            for start in range(0, len(x), _BLOCK):
                block = slice(start, start + _BLOCK)
                z[block], losses[block] = self._polished(label, x[block], minimisers.candidates(x[block]))
        return z, losses

    def transport(self, x: Floats, z: Floats) -> Floats:
        """α/2 |x − z|² for points (n, dim) and minimisers (n, K, dim), (n, K)."""
        away = x[:, None] - z
        return np.asarray(0.5 * self.stiffness * np.einsum("nkd,nkd->nk", away, away))

    def losses(self, label: int, z: Floats) -> Floats:
        """ℓ(z, label) for z (n, dim), +∞ where it has no value; (n,)."""
        with np.errstate(all="ignore"):
            values = self.loss(z)[:, label]
        # A place at +∞ is forbidden, but −∞ would be everybody's destination.
        sunk = values == -np.inf
        require_finite(values[sunk], z[sunk], "the loss", KEY)
        return np.asarray(np.where(np.isnan(values), np.inf, values))

    def _polished(self, label: int, x: Floats, candidates: Candidates) -> tuple[Floats, Floats]:
        """The best of all polished candidates, and of x itself, which makes φ_0 ≤ ℓ true to the last bit."""
        half = 0.5 * self.stiffness
        stay = self.losses(label, x)
        # Staying is worth a closer look only where it beats the grid.
        worth = stay < candidates.values[:, 0]
        values = np.column_stack([candidates.values, np.where(worth, stay, np.inf)])
        z = np.concatenate([candidates.z, x[:, None]], axis=1)
        point, which = np.nonzero(np.isfinite(values))
        origin = x[point]

        def function(who: NDArray[np.intp], target: Floats) -> Floats:
            away = origin[who] - target
            return np.asarray(self.losses(label, target) + half * np.einsum("ij,ij->i", away, away))

        z[point, which], values[point, which] = self.polish.minimise(function, z[point, which], point)
        rows, best = np.arange(len(x)), values.argmin(axis=1)
        chosen = z[rows, best]
        return chosen, self.losses(label, chosen)


def hopf_lax(problem: IdealProblem) -> HopfLax:
    """The solution of an idealised problem with a loss, Σ_y ∫ℓ(x, y) ρ_y(T, x) dx, on a convex domain. **Collective**.

    ℓ may have kinks, jumps and many minima. The search sees those wider than about three cells of its grid (4096, 512
    or 64 cells per axis of the bounding box in dimension 1, 2 or 3); among minima at kinks or jumps whose values differ
    by less than ℓ changes over one cell it may miss the best. φ_0 is then too large by no more than that difference.

    Args:
        problem: with λ = 0 the value is the infimum, φ_0 = min ℓ.

    Raises:
        InputError: the functional is not ∫ℓρ_T, there are running costs of the density, the domain is not convex, or ℓ
            is not finite on it; the same on all ranks.
    """
    space, loss = problem.space, problem.functional.loss
    if loss is None:
        raise InputError("the terminal functional is not linear in ρ(T)", key=KEY)
    if problem.running is not None:
        what = "there are running costs of the density, under which the best paths are not straight"
        raise InputError(what, key="objective")
    domain = convex_domain(space)
    with parallel.agreed(space.comm):
        tables = _tabulate(domain, loss, space.n_labels)
    search = _Search(domain, loss, problem.kinetic / problem.horizon, tables)
    rule = space.quadrature(max(space.objective_degree, QUADRATURE_DEGREE[space.dim]))
    density = np.einsum("qi,cik->cqk", rule.basis, problem.rho0[: space.n_owned], optimize=True)
    return _transported(search, space, rule, rule.weights[:, :, None] * density, problem.horizon)


def try_hopf_lax(problem: IdealProblem) -> tuple[HopfLax | None, str]:
    """The solution by the Hopf–Lax formula, or why it does not apply. **Collective**."""
    try:
        return hopf_lax(problem), ""
    except InputError as error:
        return None, error.what


def _transported(search: "_Search", space: DensitySpace, rule: Quadrature, masses: Floats, horizon: float) -> HopfLax:
    """The masses (n_owned, nq, K) of quadrature points, each moved to the best place. Collective."""
    # Ρ_h may be negative between the limiter's points.
    total = float(parallel.sum_all(space.comm, np.abs(masses).sum()[None])[0])
    number = float(parallel.sum_all(space.comm, np.array([masses.size], dtype=float))[0])
    with parallel.agreed(space.comm):
        destinations, losses = _search_points(search, rule, np.abs(masses) > NEGLIGIBLE / number * total)
        flat = (-1, space.n_labels, space.dim)
        transport = search.transport(rule.points.reshape(-1, space.dim), destinations.reshape(flat))
    transport = transport.reshape(masses.shape)
    local = np.array([np.vdot(masses, losses), np.vdot(masses, transport)])
    terminal, kinetic = map(float, parallel.sum_all(space.comm, local))
    potentials = losses + transport
    return HopfLax(
        terminal + kinetic, terminal, kinetic, horizon, rule.points, masses, potentials, destinations, search
    )


def _tabulate(domain: ConvexDomain, loss: Loss, n_labels: int) -> tuple[LossTable, ...]:
    """ℓ on the grid of the domain, a table per label.

    Raises:
        InputError: ℓ is not finite somewhere in the domain.
    """
    axes, points, inside = tabulation_grid(domain)
    values = np.full((n_labels, len(points)), np.inf)
    with np.errstate(all="ignore"):
        values[:, inside] = loss(points[inside]).T
    require_finite(values[:, inside].T, points[inside], "the loss", KEY)
    sizes = tuple(len(axis) for axis in axes)
    return tuple(LossTable(axes, table.reshape(sizes)) for table in values)


def _search_points(search: _Search, rule: Quadrature, wanted: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Destinations (n_owned, nq, K, dim) and the losses there (n_owned, nq, K); points not ``wanted`` stay."""
    n_labels, dim = wanted.shape[2], rule.points.shape[2]
    destinations = np.repeat(rule.points[:, :, None], n_labels, axis=2)
    losses = np.zeros(wanted.shape)
    for y in range(n_labels):
        here = wanted[:, :, y]
        destinations[here, y], losses[here, y] = search.one_label(y, rule.points[here])
        if not here.all():
            losses[~here, y] = search.losses(y, rule.points[~here].reshape(-1, dim))
    return destinations, losses
