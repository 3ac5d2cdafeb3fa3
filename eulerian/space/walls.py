"""The walls of the domain for points that move: whoever has left it comes back to the closest point of it."""

from typing import Any, Protocol, final

from eulerian import parallel

# isort: split
import numpy as np
from numpy.typing import NDArray

from eulerian.arrays import Floats
from eulerian.space.density import DensitySpace
from eulerian.space.outside import Domain

type Flags = NDArray[np.bool_]

_ROUNDING = 1e-12  # of the domain's size: nearer to a wall than that is at it
_TIE = 1e-9  # relative: facets that are equally far share the closest point, a vertex or an edge


class Walls(Protocol):
    """A domain with walls, the same on all ranks; nothing is collective."""

    def keep(self, x: Floats) -> "Kept":
        """Start to watch points x (n, dim) that lie in the domain."""
        ...


class Kept(Protocol):
    """Points that are watched."""

    def projected(self, x: Floats) -> tuple[Floats, Flags]:
        """The closest points (n, dim) of the domain to where the points have moved, and who had left it (n,)."""
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

    def keep(self, x: Floats) -> "BoxWalls":  # noqa: ARG002 - the protocol's argument
        """There is nothing to know of the points."""
        return self

    def projected(self, x: Floats) -> tuple[Floats, Flags]:
        """See ``Kept``."""
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

    def keep(self, x: Floats) -> "_FarFromWalls":
        """See ``Walls``."""
        return _FarFromWalls(self, x)

    def distance_bound(self, x: Floats) -> Floats:
        """No more than the distance (n,) of points (n, dim) to the boundary."""
        return np.asarray(np.maximum(self.tree.query(x)[0] - self.radius, 0.0)) if len(x) else np.zeros(0)

    def closest(self, x: Floats) -> tuple[Floats, Flags]:
        """The closest points (n, dim) of the boundary, and which of the points x (n, dim) lie outside (n,)."""
        if not len(x):
            return x.copy(), np.zeros(0, dtype=bool)
        reach = (self.tree.query(x)[0] + self.radius) * (1.0 + _TIE)
        lists: Any = self.tree.query_ball_point(x, reach, return_sorted=True)
        counts = np.array([len(near) for near in lists])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        row, facet = np.repeat(np.arange(len(x)), counts), np.concatenate(lists).astype(np.intp)
        candidates = closest_on_simplices(x[row], self.facets[facet])
        distance = np.linalg.norm(candidates - x[row], axis=1)
        least = np.minimum.reduceat(distance, starts)
        best = np.flatnonzero(distance <= least[row])
        points = candidates[best[np.unique(row[best], return_index=True)[1]]]
        tied = np.flatnonzero(np.linalg.norm(candidates - points[row], axis=1) <= _TIE * self.size)
        angles = _angles(self.facets[facet[tied]], points[row[tied]], _TIE * self.size)
        direction = np.zeros_like(x)
        np.add.at(direction, row[tied], angles[:, None] * self.normals[facet[tied]])
        return points, np.einsum("nd,nd->n", x - points, direction) > 0.0


@final
class _FarFromWalls:
    """Points with a bound of their distance to the walls: who cannot have come there is not looked at."""

    def __init__(self, walls: FacetWalls, x: Floats) -> None:
        self.walls, self.last = walls, x
        self.room = walls.distance_bound(x)

    def projected(self, x: Floats) -> tuple[Floats, Flags]:
        """See ``Kept``."""
        self.room = self.room - np.linalg.norm(x - self.last, axis=1)
        touched = np.zeros(len(x), dtype=bool)
        near = np.flatnonzero(~(self.room > 0.0))
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
    """The angle (m,) that each facet (m, dim, dim) has about a point of it; all alike for dim < 3."""
    angles = np.full(len(facets), np.pi)  # on an edge; where a point is inside its facet, there is no other one
    if facets.shape[1] < 3:
        return angles
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
    order = np.lexsort(np.round(facets.mean(axis=1), 12).T[::-1])
    return facets[order], normals[order]
