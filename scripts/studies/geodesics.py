"""Shortest paths in the plane around walls, and the best value of a quadratic loss in a domain that is not convex.

In any domain the value of the idealised problem for a loss ℓ is ∫φ₀ dμ₀ with φ₀(x) = min_z {ℓ(z) + λ d(x, z)²/(2T)}, d
the length of the shortest path inside: Hopf and Lax with walls. In a polygon shortest paths bend at corners only, those
that point into the domain: d comes from a graph of the corners that see each other.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csgraph

type Floats = NDArray[np.float64]
type Mask = NDArray[np.bool_]

_INWARDS = 1e-9  # corners and points of walls are moved off the wall by this much: no sight line grazes an edge
_STRAIGHT = 1e-9  # sine of a bend that is none
_BLOCK = 2**22  # pairs of a sight line and an edge at a time


@dataclass(frozen=True)
class Polygon:
    """A polygonal domain, with holes or without: the vertices (n, 2) of its boundary, the domain on the left.

    Attributes:
        corners: (n, 2).
        following: (n,) the next corner along the boundary.
    """

    corners: Floats
    following: NDArray[np.int64]

    @classmethod
    def of_mesh(cls, x: Floats, cells: NDArray[np.integer]) -> "Polygon":
        """The domain of a triangle mesh with vertices (N, 2) and cells (m, 3); vertices of straight walls are left out.

        Raises:
            ValueError: two parts of the boundary meet in a vertex.
        """
        a, b, c = (x[cells[:, i]] for i in range(3))
        cells = np.where((_cross(b - a, c - a) > 0.0)[:, None], cells, cells[:, ::-1])
        edges = np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]])
        _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
        begin, end = edges[first[count == 1]].T
        if len(np.unique(begin)) < len(begin):
            raise ValueError("two parts of the boundary meet in a vertex")
        after, before = (np.full(len(x), -1) for _ in range(2))
        after[begin], before[end] = end, begin
        back, forth = x[begin] - x[before[begin]], x[after[begin]] - x[begin]
        bend = _cross(back, forth) / np.linalg.norm(back, axis=1) / np.linalg.norm(forth, axis=1)
        kept = np.zeros(len(x), dtype=bool)
        kept[begin[np.abs(bend) > _STRAIGHT]] = True
        for _ in range(len(begin)):
            skip = np.flatnonzero((after >= 0) & ~kept[after])
            if not len(skip):
                break
            after[skip] = after[after[skip]]
        number = np.cumsum(kept) - 1
        return cls(x[kept], number[after[kept]])

    @property
    def ends(self) -> Floats:
        """Where the edge that starts at each corner ends, (n, 2)."""
        return self.corners[self.following]

    @cached_property
    def normals(self) -> Floats:
        """Unit normals of the edges into the domain, (n, 2)."""
        along = self.ends - self.corners
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        return np.stack([-along[:, 1], along[:, 0]], axis=1)

    @cached_property
    def bends(self) -> Floats:
        """The corners around which shortest paths can bend, a little inside, (r, 2)."""
        before = np.empty_like(self.following)
        before[self.following] = np.arange(len(before))
        inwards = self.normals + self.normals[before]
        reflex = _cross(self.normals[before], self.normals) < 0.0
        return (self.corners + _INWARDS * inwards)[reflex]

    def walls(self, spacing: float) -> Floats:
        """Points of all edges, a little inside and at most ``spacing`` apart, (w, 2)."""
        points = []
        for begin, end, normal in zip(self.corners, self.ends, self.normals, strict=True):
            n = int(np.ceil(np.linalg.norm(end - begin) / spacing)) + 1
            shares = np.linspace(0.0, 1.0, n + 1)[1:-1, None]
            points.append((1.0 - shares) * begin + shares * end + _INWARDS * normal)
        return np.concatenate(points)

    def see(self, p: Floats, q: Floats) -> Mask:
        """Whether points p and q of the domain see each other, for arrays (..., 2) that broadcast; (...)."""
        p, q = np.broadcast_arrays(p, q)
        flat_p, flat_q = p.reshape(-1, 2), q.reshape(-1, 2)
        free = np.empty(len(flat_p), dtype=bool)
        step = max(1, _BLOCK // len(self.corners))
        for start in range(0, len(free), step):
            block = slice(start, start + step)
            free[block] = ~self._crossed(flat_p[block, None], flat_q[block, None]).any(axis=1)
        return free.reshape(p.shape[:-1])

    def _crossed(self, p: Floats, q: Floats) -> Mask:
        a, b = self.corners, self.ends
        apart = _cross(q - p, a - p) * _cross(q - p, b - p) <= 0.0
        return apart & (_cross(b - a, p - a) * _cross(b - a, q - a) < 0.0)

    @cached_property
    def between_bends(self) -> Floats:
        """Lengths of shortest paths from bend to bend, (r, r)."""
        p, q = self.bends[:, None], self.bends
        lengths = np.linalg.norm(p - q, axis=2)
        return np.asarray(csgraph.dijkstra(np.where(self.see(p, q), lengths, 0.0)))

    def last_leg(self, z: Floats) -> Floats:
        """Lengths of straight lines from points (m, 2) to the bends, infinite where a wall is between: (m, r)."""
        lengths = np.linalg.norm(z[:, None] - self.bends, axis=2)
        lengths[~self.see(z[:, None], self.bends)] = np.inf
        return lengths

    def to_bends(self, x: Floats) -> Floats:
        """Lengths of shortest paths from points (m, 2) to all bends, (m, r)."""
        return _least_sums(self.last_leg(x), self.between_bends)

    def distances(self, x: Floats, z: Floats) -> Floats:
        """Lengths of shortest paths from points x (m, 2) to points z (k, 2), (m, k)."""
        straight = np.linalg.norm(x[:, None] - z, axis=2)
        straight[~self.see(x[:, None], z)] = np.inf
        return np.minimum(straight, _least_sums(self.to_bends(x), self.last_leg(z).T))


def least_cost(domain: Polygon, x: Floats, target: Floats, weight: float, alpha: float, spacing: float) -> Floats:
    """φ₀(x) = min_z {κ/2|z − c|² + α/2 d(x, z)²} at points x (m, 2) of the domain, α = λ/T: (m,).

    From the last bend p (or x itself) a shortest path is straight, and s long before: the cost of going on to z is
    convex in z, κ/2|z − c|² + α/2(s + |z − p|)², least on the line from p to c. If p does not see that point, the best
    z lies behind another bend or on a wall. Walls are searched on points ``spacing`` apart; elsewhere the result is
    exact.

    Args:
        domain: where paths run.
        x: starting points.
        target: c (2,), in the domain.
        weight: κ.
        alpha: α.
        spacing: between the points of walls.
    """

    def onwards(p: Floats, before: Floats) -> tuple[Floats, Floats]:
        """The best z from p (..., 2) and its cost, no wall considered."""
        away = np.linalg.norm(target - p, axis=-1)
        length = np.clip((weight * away - alpha * before) / (weight + alpha), 0.0, away)
        z = p + (length / away)[..., None] * (target - p)
        return z, 0.5 * weight * (away - length) ** 2 + 0.5 * alpha * (before + length) ** 2

    z, cost = onwards(x, np.zeros(len(x)))
    best = np.where(domain.see(x, z), cost, np.inf)
    behind = np.flatnonzero(np.isinf(best))  # elsewhere nothing can be better
    if not len(behind):
        return best
    reach = domain.to_bends(x[behind])
    corners = np.broadcast_to(domain.bends, (len(behind), *domain.bends.shape))
    z, cost = onwards(corners, reach)
    best[behind] = np.where(domain.see(corners, z), cost, np.inf).min(axis=1)
    walls = domain.walls(spacing)
    loss = 0.5 * weight * np.sum((walls - target) ** 2, axis=1)
    around = loss + 0.5 * alpha * _least_sums(reach, domain.last_leg(walls).T) ** 2
    best[behind] = np.minimum(best[behind], around.min(axis=1))
    straight = loss + 0.5 * alpha * np.sum((x[behind, None] - walls) ** 2, axis=2)
    point, wall = np.nonzero(straight < best[behind, None])
    seen = domain.see(x[behind[point]], walls[wall])
    np.minimum.at(best, behind[point[seen]], straight[point[seen], wall[seen]])
    return best


def _least_sums(a: Floats, b: Floats) -> Floats:
    """min_j a_ij + b_jk for (m, r) and (r, k), (m, k)."""
    result = np.full((len(a), b.shape[1]), np.inf)
    for j in range(a.shape[1]):
        np.minimum(result, a[:, j, None] + b[j], out=result)
    return result


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
