"""A distributed density at points anywhere: each point goes to the ranks that may hold it, and its values come back."""

from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.parallel import agreed
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.point_location import CellFinder

_MARGIN = 1e-9  # of the domain's size, about each rank's cells: more than by what rounding may miss a cell
_BLOCK = 2**15  # points whose basis is tabulated at a time


@final
class PointValues:
    """Evaluates densities of a space at points that may be anywhere, different ones on every rank.

    Args:
        space: whose owned cells every rank looks at.
    """

    def __init__(self, space: DensitySpace) -> None:
        """Collective."""
        self._space = space
        vertices = space.vertices.reshape(-1, space.dim)
        low, high = space.bounding_box
        margin = _MARGIN * (high - low)
        own = np.stack([vertices.min(axis=0, initial=np.inf) - margin, vertices.max(axis=0, initial=-np.inf) + margin])
        self._boxes = np.array(space.comm.allgather(own))
        with agreed(space.comm):
            self._finder = CellFinder(space.vertices) if space.n_owned else None

    def values(self, rho: Floats, x: Floats) -> Floats:
        """ρ_y (n, K) of a density (n_cells, nd, K) at this rank's points x (n, dim); 0 outside. **Collective**."""
        comm = self._space.comm
        inside = np.all((x >= self._boxes[:, :1]) & (x <= self._boxes[:, 1:]), axis=2)
        sent = [np.flatnonzero(row) for row in inside]
        received = comm.alltoall([x[rows] for rows in sent])
        with agreed(comm):
            answers = [self._own_values(rho, points) for points in received]
        result = np.zeros((len(x), self._space.n_labels))
        missing = np.ones(len(x), dtype=bool)
        for rows, (held, values) in zip(sent, comm.alltoall(answers), strict=True):
            new = held & missing[rows]  # a point on a facet may be in cells of two ranks: the first one counts
            result[rows[new]] = values[new]
            missing[rows[new]] = False
        return result

    def _own_values(self, rho: Floats, x: Floats) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Floats]:
        """Which points lie in this rank's cells (n,), and the values there (n, K)."""
        space = self._space
        values = np.zeros((len(x), space.n_labels))
        if self._finder is None:
            return np.zeros(len(x), dtype=bool), values
        cells, weights = self._finder.find(x)
        rows = np.flatnonzero(cells >= 0)
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            table = basis.legendre(space.dim, space.degree, weights[part, 1:])
            values[part] = np.einsum("ni,nik->nk", table, rho[cells[part]])
        return cells >= 0, values
