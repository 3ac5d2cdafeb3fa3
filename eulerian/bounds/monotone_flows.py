"""The best that a flow on the line can do that does not see the label.

Flows on the line keep the order of points. One that does not see the label takes x to z(x), increasing, at a cost of at
least α/2 ∫|z − x|² dμ, α = λ/T: straight paths, which do not cross when z increases. So its best value is

    min over increasing z of  Σ_y ∫ {ℓ(z(x), y) + α/2 |z(x) − x|²} ρ_y(x) dx,

an infimum where z is constant on an interval, because then it is no homeomorphism.

Here z is constant on small cells of the line, whose masses and moments are known, and takes its values on a grid: this
is solved exactly by dynamic programming from the left to the right, for losses of any shape. (For quadratic ones it is
isotonic regression: Barlow, Bartholomew, Bremner and Brunk 1972; for convex ones: Best and Chakravarti 1990,
doi:10.1007/BF01580873.) What both restrictions may hide is bounded:

* *Cells.* In a cell z runs through an interval J. With the mass m, the standard deviation s of x, and shares p_y of the
  labels that differ from their mean in the cell by d_y (root mean square), the covariances of z with x and of ℓ(z, y)
  with p_y are at most α m s |J|/2 and Σ_y m d_y V_J(ℓ_y)/2 (Cauchy and Schwarz; V_J is the variation in J, of ℓ_y less
  its mean over the labels). The intervals of different cells do not overlap: all cells together may hide no more than
  α/2 max(m s) |I| + ½ Σ_y max(m d_y) V_I(ℓ_y) in the interval I. Cells are halved where this is large.
* *Grid.* See ``LineGrid``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.line_grid import LineGrid, line_grids
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import PointDensity
from eulerian.ideal.functionals import KEY, Loss
from eulerian.ideal.problem import IdealProblem

CELLS = 3000
"""As soon as there are so many cells, only those are halved that are worse than all the others were; about."""

_FIRST = 1024  # cells to begin with
_DEGREE = 5  # exactness of the rule in a cell
# It is compared with Simpson's, which sees the ends: a jump near one of them is overlooked by rules with points inside.
_SIMPSON = basis.Rule(np.array([[0.0], [0.5], [1.0]]), np.array([1.0, 4.0, 1.0]) / 6.0)
_SHARE = 0.25  # of the worst one: what is as bad as that is halved with it
_ENOUGH = 1e-12  # of the largest cost: what is better than that is not halved
_NARROW = 1e-8  # of the domain: nothing is made finer than that
_ROUNDS = 150
_BLOCK = 256  # cells at a time


@final
@dataclass(frozen=True)
class MonotoneFlow:
    """The best increasing map. The same on all ranks, arrays included.

    Attributes:
        value: terminal + kinetic; less ``error`` it is a lower bound for every flow that does not see the label.
        error: the exact value differs by no more, up to losses with features finer than 1/4000 of the domain.
        terminal: Σ_y ∫ℓ(z(x), y) ρ_y.
        kinetic: λ/(2T) ∫|z − x|² dμ.
        horizon: T.
        points: (n,) means x of cells, ascending.
        masses: (n, K) of the labels in these cells.
        destinations: (n,) z, ascending in each interval of the domain.
    """

    value: float
    error: float
    terminal: float
    kinetic: float
    horizon: float
    points: Floats = field(repr=False)
    masses: Floats = field(repr=False)
    destinations: Floats = field(repr=False)

    def positions(self, t: float) -> Floats:
        """Where the mass of ``points`` is at time t, (n,)."""
        share = t / self.horizon
        return (1.0 - share) * self.points + share * self.destinations


def monotone_bound(problem: IdealProblem, initial: PointDensity | None = None) -> MonotoneFlow:
    """The best value of flows on the line that do not see the label. **Collective**.

    The velocity may depend on time and place as it likes, but is the same for all labels. In a domain of several
    intervals no mass changes intervals. For example::

        space = eu.DensitySpace(eu.box_mesh([-4.0], [4.0], [200]), labels=2)
        rho0 = space.project({0: eu.Gaussian(-0.5, std=0.5), 1: eu.Gaussian(0.5, std=0.5)})
        problem = eu.IdealProblem(space, rho0, eu.QuadraticLoss([[1.0], [-1.0]]), kinetic=1.0)
        best = eu.monotone_bound(problem)
        print(best.value - best.error, "≤ J of any one flow for both labels")

    Args:
        problem: on the line, with a terminal loss Σ_y ∫ℓ(x, y) ρ_y(T, x) dx and no running costs of the density.
        initial: ρ_0, of total mass 1; by default that of the problem.

    Raises:
        InputError: the domain is not on the line, the functional is not ∫ℓρ_T, there are running costs of the density,
            or ℓ is not finite on the domain; the same on all ranks.
    """
    space, loss = problem.space, _required_loss(problem)
    initial = problem.initial if initial is None else initial
    stiffness = problem.kinetic / problem.horizon
    ends = parallel.gather_rows(space.comm, np.sort(space.vertices[:, :, 0], axis=1))
    everything = np.zeros((0, 2)) if ends is None else ends
    grids = parallel.on_root(space.comm, lambda: line_grids(everything, loss, stiffness))
    prices = _Prices.of(grids, stiffness)
    cells = _resolved(space, initial, prices)
    columns = [parallel.gather_rows(space.comm, column) for column in cells]
    mass = initial.mass

    def solve() -> MonotoneFlow:
        whole = _Cells(*(column for column in columns if column is not None)).sorted().scaled(mass)
        return _solved(whole, grids, prices, stiffness, problem.horizon)

    return parallel.on_root(space.comm, solve)


def _required_loss(problem: IdealProblem) -> Loss:
    if problem.space.dim != 1:
        raise InputError("flows keep the order of points on the line only", key="domain", value=problem.space.dim)
    if problem.functional.loss is None:
        raise InputError("the terminal functional is not linear in ρ(T)", key=KEY)
    if problem.running is not None:
        what = "there are running costs of the density, under which the best paths are not straight"
        raise InputError(what, key="objective")
    return problem.functional.loss


# -- the cells of the density ----------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Prices:
    """What it may cost at most to know cells only by their masses and moments.

    Attributes:
        spread: for a unit of m s.
        labels: (K,) for units of m d_y.
        mass: for a unit of mass at the wrong place.
    """

    spread: float
    labels: Floats
    mass: float

    @classmethod
    def of(cls, grids: list[LineGrid], stiffness: float) -> "_Prices":
        """Those of all intervals together."""
        far = max(grid.length for grid in grids)
        losses = np.concatenate([grid.losses for grid in grids])
        labels = 0.5 * sum((grid.variation for grid in grids), np.zeros(losses.shape[1]))
        spread = 0.5 * stiffness * sum(grid.length for grid in grids)
        return cls(spread, labels, float(np.ptp(losses)) + 0.5 * stiffness * far**2)

    def hidden(self, cells: "_Cells") -> Floats:
        """The sizes of the cells' indicators, (n,)."""
        return np.asarray(self.spread * cells.spread + cells.apart @ self.labels + self.mass * cells.doubt.sum(axis=1))

    def error(self, cells: "_Cells") -> float:
        """What all cells together may hide."""
        apart = cells.apart.max(axis=0, initial=0.0)
        return float(self.spread * cells.spread.max(initial=0.0) + apart @ self.labels + self.mass * cells.doubt.sum())


class _Cells(NamedTuple):
    """Pieces of the line, and the density in them.

    Attributes:
        ends: (n, 2).
        masses: (n, K).
        mean: (n,) of x.
        spread: (n,) m s, with the mass m and the standard deviation s of x.
        apart: (n, K) m d_y, d_y the root mean square of p_y less its mean.
        doubt: (n, K) by how much the masses by two rules differ.
    """

    ends: Floats
    masses: Floats
    mean: Floats
    spread: Floats
    apart: Floats
    doubt: Floats

    def only(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "_Cells":
        """Some of them."""
        return _Cells(*(column[rows] for column in self))

    def sorted(self) -> "_Cells":
        """From the left to the right."""
        return self.only(np.argsort(self.ends[:, 0], kind="stable"))

    def scaled(self, mass: Floats) -> "_Cells":
        """With the labels' masses (K,); what was missing is doubtful."""
        total = self.masses.sum(axis=0)
        factor = mass / np.where(total > 0.0, total, 1.0)
        missing = np.abs(mass - total) / len(self.ends)
        return self._replace(masses=self.masses * factor, doubt=self.doubt + missing)


def _resolved(space: DensitySpace, density: PointDensity, prices: _Prices) -> _Cells:
    """The owned cells, cut until little is hidden in any. **Collective**."""
    comm = space.comm
    parts = -(-_FIRST // comm.allreduce(space.n_owned))
    ends = _cut(np.sort(space.vertices[:, :, 0], axis=1), parts)
    with parallel.agreed(comm):
        cells = _integrated(density, ends)
    level = np.inf
    for _ in range(_ROUNDS):
        hidden = np.where(np.diff(cells.ends)[:, 0] > _NARROW * np.ptp(space.bounding_box), prices.hidden(cells), 0.0)
        worst = comm.allreduce(hidden.max(initial=0.0), MPI.MAX)
        if comm.allreduce(len(cells.ends)) < CELLS:
            level = _SHARE * worst
        if worst <= max(level, _ENOUGH * prices.mass):
            break
        rough = hidden > level
        with parallel.agreed(comm):
            finer = _integrated(density, _cut(cells.ends[rough], 2))
        cells = _Cells(*(np.concatenate(pair) for pair in zip(cells.only(~rough), finer, strict=True)))
    return cells


def _cut(ends: Floats, parts: int) -> Floats:
    """Each piece of the line (n, 2) in equal parts, (n · parts, 2)."""
    shares = np.linspace(0.0, 1.0, parts + 1)
    # Written so that neighbours share their ends to the last bit.
    corners = ends[:, :1] * (1.0 - shares) + ends[:, 1:] * shares
    return np.stack([corners[:, :-1].ravel(), corners[:, 1:].ravel()], axis=1)


def _integrated(density: PointDensity, ends: Floats) -> _Cells:
    """Masses and moments of pieces (n, 2) of the line."""
    x, weights, rho = _sampled(density, ends, basis.quadrature_rule(1, _DEGREE))
    _, simpson, again = _sampled(density, ends, _SIMPSON)
    masses = np.einsum("nq,nqk->nk", weights, rho)
    both, m = weights * rho.sum(axis=2), masses.sum(axis=1)
    safe = np.where(m > 0.0, m, 1.0)
    mean = np.where(m > 0.0, (both * x).sum(axis=1) / safe, ends.mean(axis=1))
    variance = (both * (x - mean[:, None]) ** 2).sum(axis=1)
    total = rho.sum(axis=2, keepdims=True)
    shares = np.divide(rho, total, out=np.zeros_like(rho), where=total > 0.0)
    apart = np.einsum("nq,nqk->nk", both, (shares - (masses / safe[:, None])[:, None]) ** 2)
    doubt = np.abs(masses - np.einsum("nq,nqk->nk", simpson, again))
    return _Cells(ends, masses, mean, np.sqrt(m * variance), np.sqrt(m[:, None] * apart), doubt)


def _sampled(density: PointDensity, ends: Floats, rule: basis.Rule) -> tuple[Floats, Floats, Floats]:
    """Points (n, q) of a rule, their weights (n, q), and ρ there, (n, q, K)."""
    width = np.diff(ends)
    x = ends[:, :1] + width * rule.points.T
    rho = np.maximum(density.values(x.reshape(-1, 1)), 0.0)
    return x, width * rule.weights, rho.reshape(*x.shape, rho.shape[1])


# -- the best map ----------------------------------------------------------------------------------------------------


def _solved(cells: _Cells, grids: list[LineGrid], prices: _Prices, stiffness: float, horizon: float) -> MonotoneFlow:
    """The best map of cells from the left to the right."""
    heavy = cells.only(cells.masses.sum(axis=1) > 0.0)
    z, losses = np.empty(len(heavy.mean)), np.empty(heavy.masses.shape)
    sag = 0.0
    for grid, here in _by_interval(heavy, grids):
        costs = _costs(heavy.only(here), grid, stiffness)
        nodes = increasing_minimiser(costs, here.stop - here.start, len(grid.z))
        z[here], losses[here] = grid.z[nodes], grid.losses[nodes]
        sag += grid.sag * float(heavy.masses[here].sum())
    m = heavy.masses.sum(axis=1)
    terminal, kinetic = float(np.vdot(heavy.masses, losses)), 0.5 * stiffness * float(m @ (z - heavy.mean) ** 2)
    # Steps, which the exact value is not above, cost more by α/2 Σ m s², at most half of what cells may hide: s ≤ h/2.
    error = prices.error(cells) + sag
    return MonotoneFlow(terminal + kinetic, error, terminal, kinetic, horizon, heavy.mean, heavy.masses, z)


def _by_interval(cells: _Cells, grids: list[LineGrid]) -> Iterator[tuple[LineGrid, slice]]:
    """The grids with the cells of their intervals."""
    for grid in grids:
        first, last = np.searchsorted(cells.mean, [grid.z[0], grid.z[-1]])
        yield grid, slice(int(first), int(last))


def increasing_minimiser(costs: Iterable[Floats], n: int, nodes: int) -> NDArray[np.intp]:
    """The numbers k_1 ≤ k_2 ≤ .. (n,) for which Σ_i costs_i[k_i] is least, for costs of any shape.

    By V_i(k) = costs_i[k] + min V_{i−1}(j) over j ≤ k; of equal ones the greatest j.

    Args:
        costs: n arrays (nodes,), one after the other.
        n: how many.
        nodes: ≥ 1.
    """
    least, total = np.zeros(nodes), np.empty(nodes)
    attained = np.empty((n, nodes), dtype=bool)  # whether V_i is as low as anywhere to the left
    for i, cost in enumerate(costs):
        np.add(cost, least, out=total)
        np.minimum.accumulate(total, out=least)
        np.less_equal(total, least, out=attained[i])
    chosen, last = np.empty(n, dtype=np.intp), nodes - 1
    for i in range(n - 1, -1, -1):
        last -= int(attained[i, last::-1].argmax())
        chosen[i] = last
    return chosen


def _costs(cells: _Cells, grid: LineGrid, stiffness: float) -> Iterator[Floats]:
    """What each cell costs at all nodes, (M,), cell by cell."""
    middle = 0.5 * (grid.z[0] + grid.z[-1])  # moments about it lose few digits
    z, x, m = grid.z - middle, cells.mean - middle, 0.5 * stiffness * cells.masses.sum(axis=1)
    table = np.concatenate([grid.losses.T, [z**2, z, np.ones(len(z))]])
    weights = np.column_stack([cells.masses, m, -2.0 * m * x, m * x**2])
    for start in range(0, len(x), _BLOCK):
        yield from weights[start : start + _BLOCK] @ table
