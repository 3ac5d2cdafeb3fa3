"""Global minimisation of a loss and the cost of the way there, around walls: the Hopf–Lax formula in a polygon.

φ_0(x) = min_z {ℓ(z) + α/2 d(x, z)²}, d the length of the shortest path inside. From x such a path leads straight to z,
or over bends, the last one p with a way s behind it, and costs ℓ(z) + α/2 (s + |z − p|)². Where the best z of all is
visible from x, it is the answer. Elsewhere the candidates are

* for every bend the best points of a grid and of the walls behind it, all s at once (``Envelopes``);
* the best ones that x sees itself;
* x.

They are polished: points of the grid in the plane, points of walls along the wall; then the shortest way to where they
went is looked for again, in turns.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats, require_finite
from eulerian.bounds.cloud import Cloud, Envelopes, Places
from eulerian.bounds.convexity import ConvexDomain
from eulerian.bounds.geodesics import Geodesics, Ways
from eulerian.bounds.local_search import LocalSearch
from eulerian.bounds.straight_search import Found, StraightSearch, tabulate
from eulerian.ideal.functionals import KEY, Loss

_CANDIDATES = 3  # of each kind
_TURNS = 6  # of polishing and looking for the way
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
_SECTIONS = 42  # of an interval of two spacings: to 1e-9 of it
_COARSE = 2  # points of the grid apart are those that a point looks for by itself
_BLOCK = 2**12  # points at a time


@dataclass
class _Tries:
    """Candidates of points: rows of equal length m.

    Attributes:
        who: number of the point.
        z: (m, 2).
        edges: wall that z may move along, -1 for none.
        shares: where on it.
        lengths: d(x, z).
        bends: the last one on the way, -1 for none.
        costs: ℓ + α/2 d².
    """

    who: NDArray[np.int64]
    z: Floats
    edges: NDArray[np.int64]
    shares: Floats
    lengths: Floats
    bends: NDArray[np.int64]
    costs: Floats

    @classmethod
    def of(cls, places: Places, who: NDArray[np.int64], which: NDArray[np.int64]) -> "_Tries":
        """Some places, the way there unknown."""
        m = len(who)
        edges = places.edges[which].astype(np.int64)
        none = np.full(m, -1, dtype=np.int64)
        return cls(
            who,
            places.z[which].copy(),
            edges,
            places.shares[which].copy(),
            np.full(m, np.inf),
            none,
            np.full(m, np.inf),
        )

    @classmethod
    def staying(cls, x: Floats) -> "_Tries":
        """Points (n, 2) that stay where they are."""
        m = len(x)
        none, zero = np.full(m, -1, dtype=np.int64), np.zeros(m)
        return cls(np.arange(m), x.copy(), none, zero, zero.copy(), none.copy(), zero.copy())

    @classmethod
    def joined(cls, parts: "list[_Tries]") -> "_Tries":
        """All of them."""
        return cls(*(np.concatenate([getattr(one, f.name) for one in parts]) for f in fields(cls)))

    def where(self, rows: NDArray[Any]) -> "_Tries":
        """Some of them, copied."""
        return _Tries(*(getattr(self, f.name)[rows] for f in fields(self)))

    def put(self, rows: NDArray[np.int64], others: "_Tries") -> None:
        """Others in place of some of them."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(others, f.name)


@final
@dataclass(frozen=True)
class WalledSearch:
    """The search in a polygon; without communication.

    Attributes:
        straight: the search without walls, whose tables know the points of the grid inside only.
        geodesics: shortest paths.
        grid: places inside, all.
        coarse: (c,) which of them points look for by themselves.
        walls: places on walls.
        losses_there: of the grid (K, c), and of the walls (K, w).
    """

    straight: StraightSearch
    geodesics: Geodesics
    grid: Places
    coarse: NDArray[np.bool_]
    walls: Places
    losses_there: tuple[Floats, Floats]

    @property
    def accuracy(self) -> float:
        """Of minima that the grid sees: rounding."""
        return self.straight.accuracy

    def spread(self, label: int) -> float:
        """By how much ℓ(·, label) varies over the grid."""
        return self.straight.spread(label)

    def within(self, error: float) -> "WalledSearch":  # noqa: ARG002 - the face of a search
        """The same search: most of its time is for the ways around walls."""
        return self

    def rough(self, label: int, x: Floats) -> None:
        """Nothing is known of φ_0 before these ways are."""

    def losses(self, label: int, z: Floats) -> Floats:
        """ℓ(z, label) for z (n, 2), +∞ where it has no value; (n,)."""
        return self.straight.losses(label, z)

    @cached_property
    def _envelopes(self) -> tuple[Envelopes, Envelopes]:
        kinds = zip((self.grid, self.walls), self.losses_there, strict=True)
        return tuple(Envelopes(self.geodesics, *kind, self.straight.stiffness) for kind in kinds)  # type: ignore[return-value]

    @cached_property
    def _clouds(self) -> list[list[tuple[Places, Cloud]]]:
        """By label, of the grid and of the walls."""
        kept = self.coarse
        coarse = self.grid.where(kept, _COARSE * self.grid.spacing)
        found = []
        for y, table in enumerate(self.straight.tables):
            rises = _rises(table.values)[np.isfinite(table.values)][kept]
            inner = Cloud(coarse, self.losses_there[0][y][kept], _COARSE * rises, self.straight.stiffness)
            loss = self.losses_there[1][y]
            steps = np.abs(np.diff(loss, append=loss[-1:]))
            outer = Cloud(self.walls, loss, np.maximum(steps, np.roll(steps, 1)), self.straight.stiffness)
            found.append([(coarse, inner), (self.walls, outer)])
        return found

    def one_label(self, label: int, x: Floats) -> Found:
        """The best destinations of points (n, 2) for one label."""
        z, losses, transport, _ = self.straight.one_label(label, x)
        via = np.full((len(x), 2), -1.0)
        _, moved = self.geodesics.inside(x)
        behind = np.flatnonzero(~self._sees(moved, z))
        for start in range(0, len(behind), _BLOCK):
            some = behind[start : start + _BLOCK]
            z[some], losses[some], transport[some], via[some] = self._around(label, x[some], moved[some])
        return Found(z, losses, transport, via)

    def route(self, x: Floats, found: Found) -> Floats:
        """The corners of the paths of points (n, 2), from x over the bends to z and staying there, (n, M, 2)."""
        first, last = found.via.astype(np.int64).T
        chains, bends = self.geodesics.bends_between(first, last), self.geodesics.polygon.bends
        corners = np.repeat(found.z[:, None], 2 + max(map(len, chains), default=0), axis=1)
        corners[:, 0] = x
        for row, chain in zip(corners, chains, strict=True):
            row[1 : 1 + len(chain)] = bends[chain]
        return corners

    def _sees(self, moved: Floats, z: Floats) -> NDArray[np.bool_]:
        """Whether z (n, 2) are inside and seen from points that were moved off the walls."""
        inside, target = self.geodesics.inside(z)
        return inside & self.geodesics.see(moved, target)

    def _around(self, label: int, x: Floats, moved: Floats) -> Found:
        """The best destinations of points (n, 2) whose best ones of all are hidden."""
        ways = self.geodesics.ways(x, moved)
        bound, places = self._over_bends(label, ways, self.losses(label, x))
        tries = _Tries.joined([_Tries.staying(x), *places, *self._in_sight(label, moved, bound)])
        self._locate(label, x, moved, ways, tries)
        tries = tries.where(np.isfinite(tries.costs))
        tries = tries.where(self._worth(label, x, ways, tries))
        best = self._improved(label, x, moved, ways, tries)
        order = np.lexsort((best.costs, best.who))
        _, first = np.unique(best.who[order], return_index=True)
        best = best.where(order[first])
        over = np.full(len(x), -1, dtype=np.int64)
        bent = np.flatnonzero(best.bends >= 0)
        over[bent] = ways.first[bent, best.bends[bent]]
        transport = 0.5 * self.straight.stiffness * best.lengths**2
        via = np.stack([over, best.bends], axis=1).astype(np.float64)
        return Found(best.z, self.losses(label, best.z), transport, via)

    def _over_bends(self, label: int, ways: Ways, bound: Floats) -> tuple[Floats, list[_Tries]]:
        """The best places over some bends, and the least costs (n,) that they or the bound promise."""
        found = []
        for places, envelopes in zip((self.grid, self.walls), self._envelopes, strict=True):
            costs, which = envelopes.best(label, ways.lengths)
            most = min(_CANDIDATES, costs.shape[1])
            order = np.argsort(costs, axis=1, kind="stable")[:, :most]
            who = np.repeat(np.arange(len(costs)), most)
            place = which[who, order.ravel()]
            found.append(_Tries.of(places, who[place >= 0], place[place >= 0]))
            bound = np.minimum(bound, costs.min(axis=1, initial=np.inf))
        return bound, found

    def _in_sight(self, label: int, moved: Floats, bound: Floats) -> list[_Tries]:
        """The best places that points see themselves."""
        found = []
        for places, cloud in self._clouds[label]:
            which = cloud.nearest(self.geodesics, moved, bound, _CANDIDATES)
            who, number = np.nonzero(which >= 0)
            found.append(_Tries.of(places, who, which[who, number]))
        return found

    def _improved(self, label: int, x: Floats, moved: Floats, ways: Ways, tries: _Tries) -> _Tries:
        """The best that candidates come by: polished, with the shortest way to where they then are, in turns."""
        best, active = tries.where(np.arange(len(tries.who))), np.arange(len(tries.who))
        for _ in range(_TURNS):
            if not len(active):
                break
            now = tries.where(active)
            bends = now.bends
            self._move(label, x, ways, now)
            self._locate(label, x, moved, ways, now)
            tries.put(active, now)
            better = now.costs < best.costs[active]
            best.put(active[better], now.where(better))
            # A straight line that another bend cuts short: from there the best place may be another one.
            active = active[np.isfinite(now.costs) & (now.bends != bends)]
        return best

    def _move(self, label: int, x: Floats, ways: Ways, tries: _Tries) -> None:
        """Polish candidates; the last bend stays, and no wall is considered."""
        wall = tries.edges >= 0
        origin, before = self._origins(x, ways, tries)
        tries.z[~wall] = self._polished(label, origin[~wall], before[~wall], tries.z[~wall])
        tries.shares[wall], tries.z[wall] = self._slid(
            label, origin[wall], before[wall], tries.edges[wall], tries.shares[wall]
        )

    def _locate(self, label: int, x: Floats, moved: Floats, ways: Ways, tries: _Tries) -> None:
        """The shortest way to where candidates are, and what they cost."""
        who, z = tries.who, tries.z
        inside, target = self.geodesics.inside(z)
        lengths, bends = self.geodesics.last_bends(ways, who, z, target)
        straight = np.linalg.norm(z - x[who], axis=1)
        shorter = straight < lengths
        shorter[shorter] = self.geodesics.see(moved[who[shorter]], target[shorter])
        tries.lengths = np.where(inside, np.where(shorter, straight, lengths), np.inf)
        tries.bends = np.where(shorter, -1, bends)
        known = np.isfinite(tries.lengths)
        tries.costs = np.full(len(who), np.inf)
        tries.costs[known] = self.losses(label, z[known]) + 0.5 * self.straight.stiffness * tries.lengths[known] ** 2

    def _worth(self, label: int, x: Floats, ways: Ways, tries: _Tries) -> NDArray[np.bool_]:
        """Which candidates may come to be the best of their point: they gain no more than what changes near by."""
        least = np.full(len(x), np.inf)
        np.minimum.at(least, tries.who, tries.costs)
        origin, before = self._origins(x, ways, tries)
        wall = tries.edges >= 0
        axes = self.grid.spacing * np.eye(2)[:, None] * np.ones((len(tries.who), 1))
        axes[:, wall] = (
            self.walls.spacing * self.geodesics.polygon.along[tries.edges[wall]] * np.array([1.0, 0.0])[:, None, None]
        )
        gain = np.zeros(len(tries.who))
        for axis in axes:
            sides = [self._cost(label, origin, before, tries.z + sign * axis) for sign in (-1.0, 1.0)]
            changes = [np.where(np.isfinite(side), np.abs(side - tries.costs), 0.0) for side in sides]
            gain += np.maximum(*changes)
        return np.asarray(tries.costs - gain <= least[tries.who])

    def _origins(self, x: Floats, ways: Ways, tries: _Tries) -> tuple[Floats, Floats]:
        """Where the last straight lines begin, (m, 2), and how long the ways there are, (m,)."""
        origin, before = x[tries.who].copy(), np.zeros(len(tries.who))
        over = np.flatnonzero(tries.bends >= 0)
        bends = tries.bends[over]
        origin[over], before[over] = self.geodesics.polygon.bends[bends], ways.lengths[tries.who[over], bends]
        return origin, before

    def _cost(self, label: int, origin: Floats, before: Floats, z: Floats) -> Floats:
        away = before + np.linalg.norm(z - origin, axis=1)
        return np.asarray(self.losses(label, z) + 0.5 * self.straight.stiffness * away**2)

    def _polished(self, label: int, origin: Floats, before: Floats, z: Floats) -> Floats:
        """Local minimisers (m, 2) near z, no wall considered."""

        def function(which: NDArray[np.intp], target: Floats) -> Floats:
            return self._cost(label, origin[which], before[which], target)

        search: LocalSearch = self.straight.polish
        return search.minimise(function, z, np.arange(len(z)))[0] if len(z) else z

    def _slid(
        self, label: int, origin: Floats, before: Floats, edges: NDArray[np.int64], shares: Floats
    ) -> tuple[Floats, Floats]:
        """Local minimisers along walls, as shares (m,) and points (m, 2): golden sections."""
        polygon = self.geodesics.polygon
        reach = self.walls.spacing / polygon.lengths[edges]
        low, high = np.maximum(shares - reach, 0.0), np.minimum(shares + reach, 1.0)

        def cost(at: Floats) -> Floats:
            return self._cost(label, origin, before, polygon.at(edges, at))

        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        costs = np.stack([cost(low), cost(left), cost(right), cost(high)])
        ends, end_costs = np.stack([low, high]), costs[[0, 3]]
        for _ in range(_SECTIONS if len(edges) else 0):
            down = costs[1] <= costs[2]
            low, high = np.where(down, low, left), np.where(down, right, high)
            new = np.where(down, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
            value = cost(new)
            left, right = np.where(down, new, right), np.where(down, left, new)
            costs[1], costs[2] = np.where(down, value, costs[2]), np.where(down, costs[1], value)
        options = np.concatenate([ends, [left, right]])
        best = np.argmin(np.concatenate([end_costs, costs[1:3]]), axis=0)
        chosen = options[best, np.arange(len(edges))]
        return chosen, polygon.at(edges, chosen)


def walled_search(geodesics: Geodesics, loss: Loss, n_labels: int, stiffness: float, around: Floats) -> WalledSearch:
    """The search in the domain of some geodesics. Not collective.

    Args:
        geodesics: of the domain.
        loss: ℓ.
        n_labels: K.
        stiffness: α.
        around: as for ``StraightSearch``.

    Raises:
        InputError: ℓ is not finite somewhere in the domain.
    """
    polygon, unit = geodesics.polygon, np.eye(2)
    lower, upper = polygon.corners.min(axis=0), polygon.corners.max(axis=0)
    box = ConvexDomain(
        np.concatenate([-unit, unit]), np.concatenate([-lower, upper]), lower, upper, (lower + upper) / 2
    )
    tables = tabulate(box, loss, n_labels, lambda x: geodesics.inside(x)[0])
    inside = np.isfinite(tables[0].values)
    nodes = np.argwhere(inside)
    z = np.stack([axis[i] for axis, i in zip(tables[0].axes, nodes.T, strict=True)], axis=1)
    spacing = float(tables[0].spacing.max())
    none = np.full(len(z), -1, dtype=np.int32)
    grid = Places(z, geodesics.inside(z)[1], none, np.zeros(len(z)), spacing)
    on, edges, shares = polygon.walls(spacing)
    walls = Places(on, geodesics.inside(on)[1], edges, shares, spacing)
    with np.errstate(all="ignore"):
        at_walls = loss(on).T
    require_finite(at_walls.T, on, "the loss", KEY)
    straight = StraightSearch(box, loss, stiffness, tables, around)
    losses = np.stack([table.values[inside] for table in tables]), np.ascontiguousarray(at_walls)
    return WalledSearch(straight, geodesics, grid, np.all(nodes % _COARSE == 0, axis=1), walls, losses)


def _rises(values: Floats) -> Floats:
    """Largest change of a table (n, m) to a neighbour; +∞ are no neighbours."""
    found = np.zeros_like(values)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            change = np.abs(np.diff(values, axis=axis))
            change[~np.isfinite(change)] = 0.0
            pad = [(0, 0), (0, 0)]
            for side in ((1, 0), (0, 1)):
                pad[axis] = side
                found = np.maximum(found, np.pad(change, pad))
    return found
