"""Which cell of a simplicial mesh holds a point, found by walking there from cell to cell."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from eulerian.base.arrays import Floats
from eulerian.mesh.point_location import Barycentric, Cells

_LONGEST_WALK = 1000  # cells; a walk in a mesh that is not Delaunay can go around in circles
_MOST_WALLS = 6  # along which a point slides in one move
_ROUNDING = 1e-12


class CellWalk:
    """Points that move in a mesh and never leave it: they slide along the walls that they meet.

    No walk passes a wall, be it to places of the domain behind it. Local: every rank needs the whole mesh.

    Args:
        x: (N, dim) vertices.
        cells: (n, dim+1) vertex numbers of the cells.
    """

    def __init__(self, x: Floats, cells: NDArray[np.integer]) -> None:
        self.cells: Cells = cells.astype(np.int64)
        self._corners: Floats = x[self.cells]
        self._barycentric = Barycentric(self._corners)
        self._neighbours = _neighbours(self.cells)

    def enter(self, points: Floats) -> tuple[Floats, Cells, Floats]:
        """Like ``move``, for points (m, dim) without a cell: they start from the nearest centroid."""
        _, cells = KDTree(self._corners.mean(axis=1)).query(points)
        return self.move(points, np.asarray(cells, dtype=np.int64))

    def move(self, points: Floats, cells: Cells) -> tuple[Floats, Cells, Floats]:
        """Walk from cells (m,) straight towards points (m, dim), and where a wall is met along it.

        Returns:
            Where the walk ends, (m, dim); the cells there (m,); barycentric coordinates (m, dim+1).
        """
        points, cells = points.copy(), cells.copy()
        for _ in range(_MOST_WALLS):
            weights = self._walk(points, cells)
            blocked = np.flatnonzero(weights.min(axis=1) < -_ROUNDING)
            if not len(blocked):
                break
            wall = weights[blocked].argmin(axis=1)
            normal = self._barycentric.gradients[cells[blocked], wall]
            beyond = weights[blocked, wall] / np.sum(normal**2, axis=1)
            points[blocked] -= beyond[:, None] * normal
        weights = np.maximum(self._walk(points, cells), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("mi,mid->md", weights, self._corners[cells]), cells, weights

    def _walk(self, points: Floats, cells: Cells) -> Floats:
        """Replace the cells by those where the walks end; barycentric coordinates there, negative beyond walls."""
        weights = self._barycentric(points, cells)
        active = np.arange(len(points))
        for _ in range(_LONGEST_WALK):
            ahead = np.where(self._neighbours[cells[active]] >= 0, weights[active], np.inf)
            face = ahead.argmin(axis=1)
            on = ahead[np.arange(len(active)), face] < -_ROUNDING
            active, face = active[on], face[on]
            if not len(active):
                break
            cells[active] = self._neighbours[cells[active], face]
            weights[active] = self._barycentric(points[active], cells[active])
        return weights


def _neighbours(cells: Cells) -> Cells:
    """The cell across the face opposite to each vertex, (n, dim+1); -1 at a wall."""
    n, corners = cells.shape
    faces = np.stack([np.delete(cells, i, axis=1) for i in range(corners)], axis=1)
    _, number = np.unique(np.sort(faces.reshape(n * corners, -1), axis=1), axis=0, return_inverse=True)
    order = np.argsort(number, kind="stable")
    twice = np.flatnonzero(np.diff(number[order]) == 0)
    one, other = order[twice], order[twice + 1]
    result = np.full(n * corners, -1, dtype=np.int64)
    result[one], result[other] = other // corners, one // corners
    return result.reshape(n, corners)
