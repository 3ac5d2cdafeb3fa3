"""The best that any velocity can do for losses at several times: the Hopf–Lax formula, once for each of them.

Between two times paths are straight, so that what is to come after t_k costs, from z at t_k,
ψ_k(z) = min_w {ℓ_{k+1}(w) + ψ_{k+1}(w) + λ|z − w|²/(2(t_{k+1} − t_k))}, and J* is that of one loss, ℓ_1 + ψ_1, at t_1.

Quadratic losses with targets in the domain stay quadratic. Any other ψ is tabulated. ψ − α/2|z|² is concave, a minimum
of affine functions: what is interpolated linearly between its values is nowhere above it, and the affine functions of
the nodes are nowhere below it. So both together bracket J*, whatever the grid is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.convexity import ConvexDomain, straight_domain
from eulerian.bounds.hopf_lax import Accuracy, HopfLax, hopf_lax
from eulerian.bounds.straight_search import StraightSearch, tabulate
from eulerian.ideal.functionals import Functional, LinearFunctional, Loss, functional_of
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.cost_at import CostAt

KEY = "at"

_NODES = {1: 2**15 + 1, 2: 513}  # along every axis
_BLOCK = 2**15  # nodes at a time
_ENOUGH = 1e-12  # of the losses' range: a smooth minimum may be missed by so much


@final
@dataclass(frozen=True)
class TimedFunctional:
    """A functional of the density at a time, with its weight."""

    time: float
    weight: float
    functional: Functional


@final
@dataclass(frozen=True)
class TimesBound:
    """lower − error ≤ J* ≤ upper + error, for losses at several times.

    Attributes:
        lower: from below.
        upper: from above; the same where all losses are quadratic.
        error: of both: quadrature and search (see ``HopfLax``).
        first: the solution until the first of the times, of which what comes later is the terminal loss.
    """

    lower: float
    upper: float
    error: float
    first: HopfLax


def hopf_lax_at(problem: IdealProblem, at: Sequence[CostAt], accuracy: Accuracy | None = None) -> TimesBound:
    """J* of an idealised problem with losses at several times. **Collective**.

    For example, data in the middle of the way::

        import eulerian as eu

        space = eu.DensitySpace(eu.box_mesh([-5.0], [5.0], [64]))
        rho0 = space.project(eu.Gaussian([-0.4], std=0.6))
        problem = eu.IdealProblem(space, rho0, eu.QuadraticLoss([1.3], 2.0), kinetic=0.7, horizon=1.5)
        print(eu.hopf_lax_at(problem, [eu.CostAt(0.75, eu.QuadraticLoss([-0.2]))]).lower)  # 0.72682783

    Args:
        problem: with a loss at T; what its search may miss ``hopf_lax`` says.
        at: losses at other times, which need not end layers, or at T too.
        accuracy: as for ``hopf_lax``.

    Raises:
        InputError: a cost is no loss, or its time no time; there are running costs of the density, the domain is not
            convex, or has dimension 3 and the losses are not quadratic with targets in it; the same on all ranks.
    """
    costs = [TimedFunctional(each.time, each.weight, functional_of(each.cost, problem.space)) for each in at]
    for index, cost in enumerate(costs):
        if cost.time > problem.horizon:
            raise InputError(f"is after T = {problem.horizon:g}", key=f"{KEY}[{index}].time", value=cost.time)
    lower = composed(problem, costs)
    found = hopf_lax(lower.problem, accuracy=accuracy)
    if lower.exact:
        return TimesBound(found.value, found.value, found.error, found)
    above = hopf_lax(composed(problem, costs, upper=True).problem, accuracy=accuracy)
    return TimesBound(found.value, above.value, float(max(found.error, above.error)), found)


@final
@dataclass(frozen=True)
class Composed:
    """The problem until the first of several times.

    Attributes:
        problem: whose terminal loss is all that is paid from then on.
        exact: whether its value is that of the whole problem, and not only a bound.
    """

    problem: IdealProblem
    exact: bool


def composed(problem: IdealProblem, at: Sequence[TimedFunctional], *, upper: bool = False) -> Composed:
    """A problem with losses at several times as one with a single loss. **Collective**.

    Args:
        problem: with a loss at T.
        at: other costs; those without a weight are left out.
        upper: its value is to be a bound from above, and not from below.

    Raises:
        InputError: see ``hopf_lax_at``.
    """
    space = problem.space
    if problem.running is not None:
        what = "there are running costs of the density, under which the best paths are not straight"
        raise InputError(what, key="objective")
    costs = [TimedFunctional(problem.horizon, 1.0, problem.functional), *(each for each in at if each.weight > 0.0)]
    for cost in costs:
        if cost.functional.loss is None:
            raise InputError(f"the cost at t = {cost.time:g} is not linear in the density", key=KEY)
    domain = straight_domain(space)
    if domain is None:
        raise InputError("the domain is not convex, and there are costs at several times", key=KEY)
    times = sorted({cost.time for cost in costs}, reverse=True)
    tail: _Tail | None = None
    for time, before in zip(times, [*times[1:], None], strict=True):
        here = _sum([(cost.weight, cost.functional) for cost in costs if cost.time == time], domain, space.n_labels)
        tail = here if tail is None else tail.plus(here)
        if before is None:
            break
        tail = _moved(tail, problem.kinetic / (time - before), problem, domain, upper=upper)
    assert tail is not None
    first = problem.with_functional(LinearFunctional(tail.loss))
    first.horizon = times[-1]  # of the copy
    return Composed(first, tail.exact)


@final
@dataclass(frozen=True)
class _Quadratics:
    """κ_y/2 |z − c_y|² + a_y of every label.

    Attributes:
        weights: κ, (K,).
        targets: c, (K, dim).
        constants: a, (K,).
    """

    weights: Floats
    targets: Floats
    constants: Floats

    def __call__(self, z: Floats) -> Floats:
        """At points (n, dim), (n, K)."""
        away = np.sum((z[:, None] - self.targets) ** 2, axis=2)
        return np.asarray(0.5 * self.weights * away + self.constants)

    def plus(self, other: Self) -> "_Quadratics":
        """Their sum."""
        weights = self.weights + other.weights
        share = np.divide(other.weights, weights, out=np.zeros_like(weights), where=weights > 0.0)
        targets = self.targets + share[:, None] * (other.targets - self.targets)
        apart = np.sum((other.targets - self.targets) ** 2, axis=1)
        return _Quadratics(weights, targets, self.constants + other.constants + 0.5 * self.weights * share * apart)

    def moved(self, stiffness: float) -> "_Quadratics":
        """min_w {their value at w + α/2 |z − w|²}, without walls."""
        total = self.weights + stiffness
        weights = np.divide(stiffness * self.weights, total, out=np.zeros_like(total), where=total > 0.0)
        return _Quadratics(weights, self.targets, self.constants)


@final
@dataclass(frozen=True)
class _Tail:
    """What is paid from some time on, from z then.

    Attributes:
        loss: z (n, dim) to (n, K).
        quadratics: the same, where it is quadratic with targets in the domain.
        exact: whether nothing was tabulated.
    """

    loss: Loss
    quadratics: _Quadratics | None = None
    exact: bool = True

    def plus(self, other: Self) -> "_Tail":
        """Both."""
        if self.quadratics is not None and other.quadratics is not None:
            both = self.quadratics.plus(other.quadratics)
            return _Tail(both, both)
        return _Tail(_added([(1.0, self.loss), (1.0, other.loss)]), exact=self.exact and other.exact)


def _sum(costs: Sequence[tuple[float, Functional]], domain: ConvexDomain, n_labels: int) -> _Tail:
    """Losses at one time with their weights."""
    found: _Tail | None = None
    for weight, functional in costs:
        assert functional.loss is not None
        loss, curvature = functional.point_loss, None
        if loss is not None and loss.goals is not None and domain.contains(np.atleast_2d(loss.goals)).all():
            curvature = loss.curvature
        if loss is None or loss.goals is None or curvature is None:
            own = _Tail(_added([(weight, functional.loss)]))
        else:
            zero = np.zeros(n_labels)
            quadratics = _Quadratics(zero + weight * curvature, loss.goals, zero)
            own = _Tail(quadratics, quadratics)
        found = own if found is None else found.plus(own)
    assert found is not None
    return found


def _added(terms: Sequence[tuple[float, Loss]]) -> Loss:
    return lambda z: np.asarray(sum(weight * np.asarray(loss(z), dtype=float) for weight, loss in terms))


def _moved(tail: _Tail, stiffness: float, problem: IdealProblem, domain: ConvexDomain, *, upper: bool) -> _Tail:
    """min_w {tail at w + α/2 |z − w|²}. **Collective**."""
    if tail.quadratics is not None:  # the best w is between z and the target, and so in the domain
        moved = tail.quadratics.moved(stiffness)
        return _Tail(moved, moved)
    if domain.dim not in _NODES:
        what = "costs at several times are known in space only where all are quadratic, with targets in the domain"
        raise InputError(what, key=KEY)
    table = _Table.of(tail.loss, stiffness, problem, domain)
    return _Tail(table.above if upper else table.below, exact=False)


@final
@dataclass(frozen=True)
class _Table:
    """ψ(z) = min_w {ℓ(w) + α/2 |z − w|²} by its minimisers for the nodes of a grid.

    Attributes:
        axes: coordinates of the grid, one array per axis.
        stiffness: α.
        losses: (N, K) ℓ(w).
        best: (N, K, dim) w.
    """

    axes: tuple[Floats, ...]
    stiffness: float
    losses: Floats
    best: Floats

    @classmethod
    def of(cls, loss: Loss, stiffness: float, problem: IdealProblem, domain: ConvexDomain) -> Self:
        """Every rank searches for some of the nodes. **Collective**."""
        comm, n_labels = problem.space.comm, problem.space.n_labels
        number = _NODES[domain.dim]
        axes = tuple(np.linspace(low, high, number) for low, high in zip(domain.lower, domain.upper, strict=True))
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, domain.dim)
        with parallel.agreed(comm):
            tables = tabulate(domain, loss, n_labels)
            search = StraightSearch(domain, loss, stiffness, tables, np.stack([domain.lower, domain.upper]))
            search = search.within(_ENOUGH * max(search.spread(y) for y in range(n_labels)))
            found = [_searched(search, y, np.array_split(nodes, comm.size)[comm.rank]) for y in range(n_labels)]
        z = np.concatenate(comm.allgather(np.stack([each[0] for each in found], axis=1)))
        losses = np.concatenate(comm.allgather(np.stack([each[1] for each in found], axis=1)))
        return cls(axes, stiffness, losses, z)

    def below(self, z: Floats) -> Floats:
        """From below, at points (n, dim) of the grid's box, (n, K)."""
        found = np.zeros((len(z), self.losses.shape[1]))
        for share, nodes, place in self._corners(z):
            # ψ − α/2 |z − o|² is concave, with o = z here: the part of the nodes' own distances from z is taken off.
            away = np.sum((place - z) ** 2, axis=1)
            values = self._values(nodes, place) - 0.5 * self.stiffness * away[:, None]
            found += share[:, None] * values
        return found

    def above(self, z: Floats) -> Floats:
        """From above: the least that the minimisers of the nodes around cost."""
        return np.asarray(np.min([self._values(nodes, z) for _, nodes, _ in self._corners(z)], axis=0))

    def _values(self, nodes: Floats, z: Floats) -> Floats:
        """ℓ(w) + α/2 |z − w|² for the minimisers of some nodes, (n, K)."""
        away = np.sum((z[:, None] - self.best[nodes]) ** 2, axis=2)
        return np.asarray(self.losses[nodes] + 0.5 * self.stiffness * away)

    def _corners(self, z: Floats) -> list[tuple[Floats, Floats, Floats]]:
        """Of the simplices around points (n, dim), of which every cell has dim!: shares (n,), numbers, places."""
        lower = np.array([axis[0] for axis in self.axes])
        width = np.array([axis[1] - axis[0] for axis in self.axes])
        sizes = np.array([len(axis) for axis in self.axes])
        inside = (z - lower) / width
        cell = np.clip(np.floor(inside).astype(np.int64), 0, sizes - 2)
        inside = np.clip(inside - cell, 0.0, 1.0)
        order = np.argsort(-inside, axis=1, kind="stable")
        sorted_down = np.take_along_axis(inside, order, axis=1)
        ends = np.concatenate([np.ones((len(z), 1)), sorted_down, np.zeros((len(z), 1))], axis=1)
        found, corner, rows = [], cell, np.arange(len(z))
        for step in range(z.shape[1] + 1):
            number = np.ravel_multi_index(tuple(corner.T), tuple(sizes))
            found.append((ends[:, step] - ends[:, step + 1], number, lower + width * corner))
            if step < z.shape[1]:
                corner = corner.copy()
                corner[rows, order[:, step]] += 1
        return found


def _searched(search: StraightSearch, label: int, x: Floats) -> tuple[Floats, Floats]:
    """Minimisers (n, dim) and losses there (n,)."""
    blocks = [search.one_label(label, x[start : start + _BLOCK]) for start in range(0, max(len(x), 1), _BLOCK)]
    return np.concatenate([each.z for each in blocks]), np.concatenate([each.losses for each in blocks])
