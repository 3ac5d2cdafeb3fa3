"""Rows of cells in the order of the mesh's input, whoever owns the cells.

That order belongs to the mesh alone: a box counts its cells by itself, and a file is read and refined on rank 0 before
anything is distributed. So do the numbers of the vertices, by which a cell orders its own.
"""

import hashlib
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace


@final
class CellOrder:
    """Between this rank's owned cells and all cells in input order, which are on rank 0.

    Args:
        space: whose cells these are.

    Attributes:
        n_cells: of the whole mesh.
    """

    def __init__(self, space: DensitySpace) -> None:
        self.space, self.comm = space, space.comm
        self.n_cells: int = space.mesh.topology.index_map(space.dim).size_global

    @cached_property
    def _places(self) -> list[NDArray[np.int64]] | None:
        """On rank 0: where the owned cells of each rank stand. Collective."""
        places: list[NDArray[np.int64]] | None = self.comm.gather(
            np.asarray(self.space.mesh.topology.original_cell_index[: self.space.n_owned], dtype=np.int64), 0
        )
        return places

    def gather(self, rows: NDArray[Any]) -> NDArray[Any] | None:
        """Rows (n_owned, ...) of all ranks as (n_cells, ...) on rank 0; None elsewhere. Collective."""
        places = self._places
        parts = self.comm.gather(np.ascontiguousarray(rows), 0)
        if places is None or parts is None:
            return None
        whole = np.empty((self.n_cells, *rows.shape[1:]), dtype=rows.dtype)
        for place, part in zip(places, parts, strict=True):
            whole[place] = part
        return whole

    def scatter(self, whole: NDArray[Any] | None) -> NDArray[Any]:
        """The inverse of ``gather``: rows (n_owned, ...) of this rank. Collective."""
        places, parts = self._places, None
        if places is not None and whole is not None:
            parts = [whole[place] for place in places]
        rows: NDArray[Any] = self.comm.scatter(parts, 0)
        return rows

    def vertices(self) -> Floats | None:
        """Vertices (n_cells, dim+1, dim) of all cells, each cell's in the order of their numbers. Collective."""
        order = self.space.geometry.vertex_order[: self.space.n_owned, :, None]
        return self.gather(np.take_along_axis(self.space.vertices, order, axis=1))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the mesh, the same on all ranks and on any number of them. Collective."""
        vertices = self.vertices()
        return parallel.on_root(self.comm, lambda: digest(vertices))


def digest(array: NDArray[Any] | None) -> str:
    """The SHA-256 of an array's numbers; signs of zeros do not count."""
    return hashlib.sha256(b"" if array is None else np.ascontiguousarray(array + 0.0).data).hexdigest()
