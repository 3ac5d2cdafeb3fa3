"""Which cell of a simplicial mesh holds a point, and whether any does; it may be graded, and have holes and walls."""

from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.fields.base import blocks

if TYPE_CHECKING:
    from scipy.spatial import KDTree

type Cells = NDArray[np.int64]

_FIRST_TRIES = 4  # nearest centroids that are tried at once; more of them where none of these cells holds the point
_ROUNDING = 1e-10


def barycentric_gradients(inverse_jacobian: Floats) -> Floats:
    """Gradients (n, dim+1, dim) of the barycentric coordinates, from d(reference)/d(physical) (n, dim, dim)."""
    return np.concatenate([-inverse_jacobian.sum(axis=1, keepdims=True), inverse_jacobian], axis=1)


@final
class Barycentric:
    """Barycentric coordinates in the cells of a mesh.

    Args:
        vertices: (C, dim+1, dim) of the cells.

    Attributes:
        gradients: (C, dim+1, dim) of the coordinates.
    """

    def __init__(self, vertices: Floats) -> None:
        self._origins: Floats = vertices[:, 0]
        inverse = np.linalg.inv(vertices[:, 1:] - vertices[:, :1])
        self.gradients: Floats = barycentric_gradients(np.swapaxes(inverse, 1, 2))

    def __call__(self, points: Floats, cells: Cells) -> Floats:
        """(..., dim+1) of points (..., dim) in cells (...), negative beyond the face opposite to a vertex."""
        weights = np.einsum("...d,...id->...i", points - self._origins[cells], self.gradients[cells])
        weights[..., 0] += 1.0
        return np.asarray(weights)


@final
class CellFinder:
    """Finds the cells of points among all cells of a mesh. Local: every rank needs the whole mesh.

    A cell holds no point that is further from its centroid than its vertices. Cells are sorted by this radius into
    classes within a factor of two, so that few cells of a class have to be tried for a point, however graded the mesh.

    Args:
        vertices: (C, dim+1, dim) vertices of the cells.
    """

    def __init__(self, vertices: Floats) -> None:
        from scipy.spatial import KDTree  # takes its time to load, and not every run asks for the cells of points

        self._barycentric = Barycentric(vertices)
        gradients = self._barycentric.gradients
        # Far from the origin the coordinates themselves carry fewer digits.
        lost = 4.0 * np.finfo(float).eps * np.abs(vertices).max(initial=0.0)
        self._rounding = float(max(_ROUNDING, lost * np.linalg.norm(gradients, axis=2).max(initial=0.0)))
        centroids = vertices.mean(axis=1)
        radii = np.linalg.norm(vertices - centroids[:, None], axis=2).max(axis=1)
        size = np.floor(np.log2(radii)).astype(np.int64)
        members = sorted((np.flatnonzero(size == value) for value in np.unique(size)), key=len, reverse=True)
        self._classes = [
            (cells, KDTree(centroids[cells]), radii[cells].max() * (1 + self._rounding)) for cells in members
        ]
        self._all = KDTree(centroids)

    def find(self, points: Floats, guess: Cells | None = None) -> tuple[Cells, Floats]:
        """The cell of each point and barycentric coordinates there.

        Args:
            points: (n, dim).
            guess: (n,) cells that are tried first, as those of points that have moved a little; -1 for none.

        Returns:
            Cells (n,), -1 outside the mesh; barycentric coordinates (n, dim+1), zero outside. A point is inside up to
            rounding: no coordinate is below -1e-10, or what the rounding of the vertices makes of it. Points that are
            not finite are outside.
        """
        found = np.full(len(points), -1, dtype=np.int64)
        weights = np.zeros((len(points), points.shape[1] + 1))
        finite = np.isfinite(points).all(axis=1)
        if not np.all(finite):
            found[finite], weights[finite] = self.find(points[finite], None if guess is None else guess[finite])
            return found, weights
        if guess is not None:
            trial = self._barycentric(points, guess)
            held = (guess >= 0) & (trial.min(axis=1) >= -self._rounding)
            found[held], weights[held] = guess[held], trial[held]
        for part in blocks(len(points), 8 * weights.shape[1]):
            for members in self._classes:
                self._search(points[part], found[part], weights[part], *members)
        return found, weights

    def find_all(self, points: Floats) -> tuple[Cells, Cells, Floats]:
        """All cells that hold points, up to rounding: several, where a point is where cells meet.

        Returns:
            Rows of the points (s,), cells (s,), and barycentric coordinates there (s, dim+1).
        """
        found: list[tuple[Cells, Cells, Floats]] = []
        for members, tree, radius in self._classes:
            near = [np.array(each, dtype=np.int64) for each in tree.query_ball_point(points, radius)]
            rows = np.repeat(np.arange(len(points)), [len(each) for each in near])
            cells = members[np.concatenate([np.zeros(0, dtype=np.int64), *near])]
            weights = self._barycentric(points[rows], cells)
            inside = weights.min(axis=1) >= -self._rounding
            found.append((rows[inside], cells[inside], weights[inside]))
        rows, cells, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return rows, cells, weights

    def holds(self, points: Floats, cells: Cells) -> NDArray[np.bool_]:
        """Whether each of the cells (n,) holds its point (n, dim), up to rounding: (n,)."""
        return np.asarray(self._barycentric(points, cells).min(axis=1) >= -self._rounding)

    def nearest(self, points: Floats, guess: Cells | None = None) -> tuple[Cells, Floats]:
        """Like ``find``, but a point outside is drawn into the cell of the nearest centroid."""
        found, weights = self.find(points, guess)
        outside = np.flatnonzero(found < 0)
        if len(outside):
            _, cells = self._all.query(points[outside])
            found[outside] = cells
            inside = np.maximum(self._barycentric(points[outside], found[outside]), 0.0)
            weights[outside] = inside / inside.sum(axis=1, keepdims=True)
        return found, weights

    def _search(self, x: Floats, found: Cells, weights: Floats, cells: Cells, tree: "KDTree", radius: float) -> None:
        """Look for the points x that are not found yet among some cells; fill in ``found`` and ``weights``."""
        missing, count = np.flatnonzero(found < 0), _FIRST_TRIES
        while len(missing):
            count = min(count, len(cells))
            distance, near = tree.query(x[missing], k=np.arange(1, count + 1), distance_upper_bound=radius)
            candidates = cells[np.minimum(near, len(cells) - 1)]
            trial = self._barycentric(x[missing, None], candidates)
            depth = np.where(np.isfinite(distance), trial.min(axis=2), -np.inf)
            best = depth.argmax(axis=1)
            row = np.arange(len(missing))
            inside = depth[row, best] >= -self._rounding
            found[missing[inside]] = candidates[row, best][inside]
            weights[missing[inside]] = trial[row, best][inside]
            # Those go on of which even the furthest candidate was near enough to have a better one behind it.
            missing = missing[~inside & np.isfinite(distance[:, -1])] if count < len(cells) else missing[:0]
            count *= 4


@final
class BoxRegion:
    """A box with corners (dim,), its boundary included."""

    def __init__(self, lower: Floats, upper: Floats) -> None:
        room = _ROUNDING * (upper - lower)
        self._lower, self._upper = lower - room, upper + room

    def contains(self, x: Floats, guess: Cells | None = None) -> tuple[NDArray[np.bool_], Cells | None]:
        """Which of the points x (n, dim) are in it, (n,); there is nothing to guess."""
        return np.asarray(np.all((x >= self._lower) & (x <= self._upper), axis=1)), guess


@final
class MeshRegion:
    """The cells of a mesh, all of which this rank has."""

    def __init__(self, finder: CellFinder) -> None:
        self._finder = finder

    def contains(self, x: Floats, guess: Cells | None = None) -> tuple[NDArray[np.bool_], Cells | None]:
        """Which of the points x (n, dim) are in it, (n,), and their cells, which are tried first for points nearby."""
        cells, _ = self._finder.find(x, guess)
        return np.asarray(cells >= 0), cells
