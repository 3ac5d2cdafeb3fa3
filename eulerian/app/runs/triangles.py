"""A triangle mesh whose cells have their own nodes: values at points between them, and its boundary."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.pixel_grid import Box
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from matplotlib.tri import TriFinder

type Indices = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Triangles:
    """The triangles of a mesh, and which of them share a vertex.

    Attributes:
        corners: (N, 3, 2) vertices of the cells.
        vertices: (N, 3) their numbers in the mesh.
    """

    corners: Floats
    vertices: Indices

    @classmethod
    def of_nodes(cls, points: Floats) -> Self:
        """From the nodes of all cells (N, m, 2), vertices first."""
        corners = points[:, :3]
        flat = corners.reshape(-1, 2)
        # An odd unit: the nodes of regular meshes must not lie half-way between two whole numbers.
        whole = np.rint(flat / np.ptp(flat, axis=0).max() * 0.7390851332e9)
        _, numbers = np.unique(whole, axis=0, return_inverse=True)
        return cls(corners, numbers.reshape(-1, 3))

    @property
    def box(self) -> Box:
        """The bounding box."""
        return Box.around(self.corners)

    def locate(self, points: Floats) -> "Located":
        """The cell and the barycentric coordinates of points (..., 2)."""
        cells = np.asarray(self._finder(points[..., 0], points[..., 1]))
        a, b, c = np.moveaxis(self.corners[cells], -2, 0)
        area = _cross(b - a, c - a)
        second, third = _cross(points - a, c - a) / area, _cross(b - a, points - a) / area
        return Located(cells, np.stack([1.0 - second - third, second, third], axis=-1))

    @cached_property
    def _finder(self) -> "TriFinder":
        from matplotlib.tri import Triangulation  # only figures ask for it, and it finds pixels 3 × as fast as trees

        _, first = np.unique(self.vertices, return_index=True)
        x, y = self.corners.reshape(-1, 2)[first].T
        return Triangulation(x, y, self.vertices).get_trifinder()

    def outline(self) -> Floats:
        """Edges of the boundary, (n, 2, 2): those that only one cell has."""
        local = np.arange(self.vertices.size).reshape(-1, 3)
        edges = np.concatenate([local[:, [0, 1]], local[:, [1, 2]], local[:, [2, 0]]])
        numbers = np.sort(self.vertices.ravel()[edges], axis=1)
        _, first, count = np.unique(numbers, axis=0, return_index=True, return_counts=True)
        return np.asarray(self.corners.reshape(-1, 2)[edges[first[count == 1]]])


@final
@dataclass(frozen=True)
class Located:
    """Points in a mesh: ``cells`` (...,), -1 outside, and ``barycentric`` (..., 3)."""

    cells: Indices
    barycentric: Floats

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which points the mesh holds, (...,)."""
        return np.asarray(self.cells >= 0)

    def interpolate(self, values: Floats) -> Floats:
        """From values (N, 3) at the vertices, or (N, 6) with edge midpoints in VTK's order; NaN outside."""
        weights = self.barycentric
        if values.shape[1] == 6:
            following = np.roll(weights, -1, axis=-1)
            weights = np.concatenate([weights * (2.0 * weights - 1.0), 4.0 * weights * following], axis=-1)
        return np.where(self.inside, np.sum(values[self.cells] * weights, axis=-1), np.nan)

    def interpolate_labels(self, values: Floats) -> Floats:
        """The same for values (N, m, K) of every label: (..., K)."""
        return np.stack([self.interpolate(values[:, :, k]) for k in range(values.shape[2])], axis=-1)


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
