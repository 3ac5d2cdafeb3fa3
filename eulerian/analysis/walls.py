"""The walls of the domain for points that move: whoever has left it comes back to the closest point of it."""

from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.outside import Domain
from eulerian.density.space import DensitySpace

type Flags = NDArray[np.bool_]

_ROUNDING = 1e-12  # of the domain's size: nearer to a wall than that is at it
_FIRST_TRIES = 6  # nearest facets that are looked at; more where one behind them might be nearer
_TIE = 1e-9  # relative: facets that are equally far share the closest point, a vertex or an edge


class Walls(Protocol):
    """A domain with walls, the same on all ranks; nothing is collective."""

    def track(self, x: Floats) -> "TrackedPoints":
        """Start to follow points x (n, dim) that lie in the domain."""
        ...


class TrackedPoints(Protocol):
    """Points that move, whose last places are in the domain."""

    def projected(self, x: Floats) -> tuple[Floats, Flags]:
        """The closest points (n, dim) of the domain to where the points have moved, and who had left it (n,)."""
        ...

    def joined(self, x: Floats) -> "TrackedPoints":
        """These points, and behind them more (m, dim) that lie in the domain."""
        ...


def walls_of(space: DensitySpace) -> Walls:
    """The walls of the domain that the cells of a space cover. **Collective**."""
    low, high = space.bounding_box
    if Domain(space).is_a_box:
        return BoxWalls(low, high)
    return FacetWalls(boundary_facets(space))


@final
class BoxWalls:
    """Of a box: coordinates are clipped."""

    def __init__(self, low: Floats, high: Floats) -> None:
        self.low, self.high = low, high

    def track(self, x: Floats) -> "BoxWalls":  # noqa: ARG002 - the protocol's argument
        """There is nothing to know of the points."""
        return self

    def joined(self, x: Floats) -> "BoxWalls":  # noqa: ARG002 - the protocol's argument
        """See ``TrackedPoints``."""
        return self

    def projected(self, x: Floats) -> tuple[Floats, Flags]:
        """See ``TrackedPoints``."""
        inside = np.clip(x, self.low, self.high)
        return inside, np.abs(inside - x).max(axis=1, initial=0.0) > _ROUNDING * np.max(self.high - self.low)


@final
class FacetWalls:
    """Of any domain, by its boundary's facets: points, segments or triangles with outward normals.

    The closest point of the boundary tells the side by its normal; where several facets share it (a vertex, an edge)
    by the sum of their normals, each with the angle that its facet has there (Bærentzen & Aanæs 2005,
    doi:10.1109/TVCG.2005.49).

    Args:
        boundary: facets (m, dim, dim) and outward unit normals (m, dim), see ``boundary_facets``.
    """

    def __init__(self, boundary: tuple[Floats, Floats]) -> None:
        from scipy.spatial import KDTree  # takes its time to load, and a box needs none

        self.facets, self.normals = boundary
        centroids = self.facets.mean(axis=1)
        self.tree = KDTree(centroids)
        self.radius = float(np.linalg.norm(self.facets - centroids[:, None], axis=2).max())
        self.size = float(np.ptp(self.facets.reshape(-1, self.facets.shape[2]), axis=0).max())

    def track(self, x: Floats) -> "_FarFromWalls":
        """See ``Walls``."""
        return _FarFromWalls(self, x)

    def distance_bound(self, x: Floats) -> Floats:
        """No more than the distance (n,) of points (n, dim) to the boundary."""
        return np.asarray(np.maximum(self.tree.query(x)[0] - self.radius, 0.0)) if len(x) else np.zeros(0)

    def closest(self, x: Floats) -> tuple[Floats, Flags]:
        """The closest points (n, dim) of the boundary, and which of the points x (n, dim) lie outside (n,)."""
        points, outside = np.empty_like(x), np.zeros(len(x), dtype=bool)
        left, count = np.arange(len(x)), _FIRST_TRIES
        while len(left):
            count = min(count, len(self.facets))
            reach, near = self.tree.query(x[left], k=np.arange(1, count + 1))
            found, side, distance = self._closest_of(x[left], near)
            # A facet that is nearer, or as near, has a centroid no further than this.
            certain = (distance + self.radius) * (1.0 + _TIE) < reach[:, -1]
            certain |= count == len(self.facets)
            points[left[certain]], outside[left[certain]] = found[certain], side[certain]
            left, count = left[~certain], 4 * count
        return points, outside

    def _closest_of(self, x: Floats, near: NDArray[np.intp]) -> tuple[Floats, Flags, Floats]:
        """The same among some facets (n, k) of each point, and the distances (n,)."""
        n, k = near.shape
        facets = near.ravel()
        flat = closest_on_simplices(np.repeat(x, k, axis=0), self.facets[facets])
        candidates = flat.reshape(n, k, -1)
        distance = np.linalg.norm(candidates - x[:, None], axis=2)
        best = distance.argmin(axis=1)
        points, least = candidates[np.arange(n), best], distance[np.arange(n), best]
        tied = np.linalg.norm(candidates - points[:, None], axis=2) <= _TIE * self.size
        angles = np.where(tied, 1.0, 0.0)
        if x.shape[1] > 2:
            angles *= _angles(self.facets[facets], flat, _TIE * self.size).reshape(n, k)
        direction = np.einsum("nk,nkd->nd", angles, self.normals[near])
        return points, np.einsum("nd,nd->n", x - points, direction) > 0.0, least


@final
class _FarFromWalls:
    """Points with a lower bound of their distance to the walls: only those that may have reached one are looked at."""

    def __init__(self, walls: FacetWalls, x: Floats) -> None:
        self.walls, self.last = walls, x
        self.room = walls.distance_bound(x)

    def joined(self, x: Floats) -> "_FarFromWalls":
        """See ``TrackedPoints``."""
        more = _FarFromWalls(self.walls, x)
        more.room = np.concatenate([self.room, more.room])
        more.last = np.concatenate([self.last, x])
        return more

    def projected(self, x: Floats) -> tuple[Floats, Flags]:
        """See ``TrackedPoints``."""
        way = np.linalg.norm(x - self.last, axis=1)
        self.room = self.room - way  # whoever has moved by less than its distance is still inside
        touched = np.zeros(len(x), dtype=bool)
        near = np.flatnonzero(~(self.room > 0.0))
        # Cheaply first: where a point was, it was inside.
        self.room[near] = self.walls.distance_bound(self.last[near]) - way[near]
        near = near[~(self.room[near] > 0.0)]
        if len(near):
            points, outside = self.walls.closest(x[near])
            away = np.linalg.norm(points - x[near], axis=1)
            x = x.copy()
            x[near[outside]] = points[outside]
            self.room[near] = np.where(outside, 0.0, away)
            touched[near[outside]] = away[outside] > _ROUNDING * self.walls.size
        self.last = x
        return x, touched


def closest_on_simplices(x: Floats, simplices: Floats) -> Floats:
    """The closest point (m, dim) to each x (m, dim) on its point, segment or triangle (m, 1..3, dim)."""
    if simplices.shape[1] == 1:
        return np.asarray(simplices[:, 0])
    origin, edges = simplices[:, 0], simplices[:, 1:] - simplices[:, :1]
    if simplices.shape[1] == 2:
        edge = edges[:, 0]
        along = np.einsum("md,md->m", edge, x - origin) / np.einsum("md,md->m", edge, edge)
        return np.asarray(origin + np.clip(along, 0.0, 1.0)[:, None] * edge)
    gram = np.einsum("mid,mjd->mij", edges, edges)
    at = np.linalg.solve(gram, np.einsum("mid,md->mi", edges, x - origin)[..., None])[..., 0]
    inside = (at.min(axis=1) >= 0.0) & (at.sum(axis=1) <= 1.0)
    points = origin + np.einsum("mi,mid->md", at, edges)
    rest = np.flatnonzero(~inside)
    if len(rest):  # there it is on one of the simplex' own facets
        some = simplices[rest]
        sides = np.array([closest_on_simplices(x[rest], np.delete(some, i, axis=1)) for i in range(some.shape[1])])
        nearest = np.linalg.norm(sides - x[rest], axis=2).argmin(axis=0)
        points[rest] = sides[nearest, np.arange(len(rest))]
    return np.asarray(points)


def _angles(facets: Floats, points: Floats, near: float) -> Floats:
    """The angle (m,) that each triangle (m, 3, 3) has about a point of it."""
    angles = np.full(len(facets), np.pi)  # on an edge; where a point is inside its facet, there is no other one
    for corner in range(3):
        at = np.linalg.norm(facets[:, corner] - points, axis=1) <= near
        a, b = (facets[at, (corner + i) % 3] - facets[at, corner] for i in (1, 2))
        cosine = np.einsum("md,md->m", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        angles[at] = np.arccos(np.clip(cosine, -1.0, 1.0))
    return angles


def boundary_facets(space: DensitySpace) -> tuple[Floats, Floats]:
    """Vertices (m, dim, dim) and outward unit normals (m, dim) of the boundary's facets on all ranks. **Collective**.

    Their order does not depend on the number of ranks.
    """
    geometry, dim, n = space.geometry, space.dim, space.n_owned
    cells, opposite = np.nonzero(geometry.neighbours[:n] < 0)
    corners = np.array([[v for v in range(dim + 1) if v != f] for f in range(dim + 1)])
    facets = geometry.vertices[cells[:, None], corners[opposite]]
    normals = geometry.facet_normals[cells, opposite]
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    gathered = [parallel.gather_rows(space.comm, rows) for rows in (facets, normals)]
    facets, normals = space.comm.bcast(gathered, 0)
    # By rounded centroids: the last bits of a mean depend on the order of a facet's vertices in its cell.
    order = np.lexsort(np.round(facets.mean(axis=1), 12).T[::-1])
    return facets[order], normals[order]
