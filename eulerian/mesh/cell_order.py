"""Rows of cells in the order of the mesh's input, whoever owns the cells.

That order belongs to the mesh alone: a box counts its cells by itself, and a file is read and refined on rank 0 before
anything is distributed. So do the numbers of the vertices, by which a cell orders its own.
"""

import hashlib
from functools import cached_property
from typing import Any, final

import dolfinx
import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.mesh.geometry import SimplexGeometry


@final
class CellOrder:
    """Between this rank's owned cells and all cells in input order, which are on rank 0.

    Args:
        mesh: whose cells these are.

    Attributes:
        comm: of the mesh.
        n_cells: of the mesh, over all ranks.
    """

    def __init__(self, mesh: dolfinx.mesh.Mesh) -> None:
        cells = mesh.topology.index_map(mesh.topology.dim)
        self.comm = parallel.lasting(mesh.comm)
        self.n_cells, self._n_owned = int(cells.size_global), int(cells.size_local)
        self._numbers = np.asarray(mesh.topology.original_cell_index[: self._n_owned], dtype=np.int64)

    @cached_property
    def _places(self) -> list[NDArray[np.int64]] | None:
        """On rank 0: the numbers of the owned cells of each rank. Collective."""
        places: list[NDArray[np.int64]] | None = self.comm.gather(self._numbers, 0)
        return places

    def gather(self, rows: NDArray[Any]) -> NDArray[Any] | None:
        """Rows (n_owned, ...) of all ranks as (n_cells, ...) on rank 0; None elsewhere. Collective."""
        places = self._places
        parts = self.comm.gather(np.ascontiguousarray(rows), 0)
        if places is None or parts is None:
            return None
        gathered = np.empty((self.n_cells, *rows.shape[1:]), dtype=rows.dtype)
        for place, part in zip(places, parts, strict=True):
            gathered[place] = part
        return gathered

    def scatter(self, gathered: NDArray[Any] | None) -> NDArray[Any]:
        """The inverse of ``gather``: rows (n_owned, ...) of this rank. Collective."""
        places, parts = self._places, None
        if places is not None and gathered is not None:
            parts = [gathered[place] for place in places]
        rows: NDArray[Any] = self.comm.scatter(parts, 0)
        return rows

    def vertices(self, geometry: SimplexGeometry) -> Floats | None:
        """Vertices (n_cells, dim+1, dim) of all cells, each cell's in the order of their numbers. Collective."""
        order = geometry.vertex_order[: self._n_owned, :, None]
        return self.gather(np.take_along_axis(geometry.vertices[: self._n_owned], order, axis=1))

    def fingerprint(self, geometry: SimplexGeometry) -> str:
        """A hash of the mesh, the same on all ranks and on any number of them. Collective."""
        vertices = self.vertices(geometry)
        return parallel.on_root(self.comm, lambda: digest(vertices))


def digest(array: NDArray[Any] | None) -> str:
    """The SHA-256 of an array's numbers; signs of zeros do not count."""
    return hashlib.sha256(b"" if array is None else np.ascontiguousarray(array + 0.0).data).hexdigest()
