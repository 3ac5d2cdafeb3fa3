"""Integrals of densities along straight lines: how three dimensions get into a picture."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.cell_nodes import EDGES
from eulerian.base.arrays import Floats

_POINTS = 32  # along a line


@final
class LineIntegrals:
    """Integrals along one axis, by the midpoint rule.

    Args:
        points: (N, m, 3) nodes of all cells (see ``CellNodes``).
        pixels: (n_x, n_y, 2) where the lines are, in the other two axes in their order.
        axis: along which they go.

    Attributes:
        inside: (n_x, n_y) which of them meet the domain.
    """

    def __init__(self, points: Floats, pixels: Floats, axis: int = 2) -> None:
        from eulerian.mesh.point_location import CellFinder  # stands on SciPy, which takes its time to load

        corners = points[:, :4]
        low, high = float(corners[..., axis].min()), float(corners[..., axis].max())
        self._step = (high - low) / _POINTS
        self._shape = (*pixels.shape[:2], _POINTS)
        on_lines = np.empty((*self._shape, 3))
        on_lines[..., [i for i in range(3) if i != axis]] = pixels[:, :, None]
        on_lines[..., axis] = low + (np.arange(_POINTS) + 0.5) * self._step
        cells, weights = CellFinder(corners).find(on_lines.reshape(-1, 3))
        self.inside: NDArray[np.bool_] = np.any(cells.reshape(self._shape) >= 0, axis=2)
        self._held = np.flatnonzero(cells >= 0)
        self._cells, self._weights = cells[self._held], _nodal_weights(weights[self._held], points.shape[1])

    def integrals(self, density: Floats) -> Floats:
        """Integrals (n_x, n_y, K) of densities (N, m, K) at the nodes of all cells; mass per area."""
        values = np.zeros((int(np.prod(self._shape)), density.shape[2]))
        values[self._held] = np.einsum("pm,pmk->pk", self._weights, density[self._cells])
        return np.asarray(values.reshape(*self._shape, -1).sum(axis=2) * self._step)


def _nodal_weights(barycentric: Floats, nodes: int) -> Floats:
    """Values of the nodes' shape functions, from barycentric coordinates (p, 4)."""
    if nodes == 4:
        return barycentric
    middles = [4.0 * barycentric[:, i] * barycentric[:, j] for i, j in EDGES[3]]
    return np.concatenate([barycentric * (2.0 * barycentric - 1.0), np.stack(middles, axis=1)], axis=1)
