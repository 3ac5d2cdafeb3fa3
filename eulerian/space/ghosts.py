"""Update of ghost rows through a PETSc star forest."""

from mpi4py import MPI

from eulerian import parallel  # noqa: F401 - starts MPI before PETSc

# isort: split
import dolfinx
import numpy as np
from petsc4py import PETSc

from eulerian.arrays import Floats


class GhostExchange:
    """Copies rows owned by other ranks into the ghost rows behind the owned ones.

    Args:
        index_map: distribution of the rows (cells or nodes).
    """

    def __init__(self, index_map: dolfinx.common.IndexMap) -> None:
        comm = index_map.comm
        n_owned, n_ghosts = index_map.size_local, index_map.num_ghosts
        starts = np.array(comm.allgather(index_map.local_range[0]))
        owners = np.asarray(index_map.owners)
        remote = np.stack([owners, index_map.ghosts - starts[owners]], axis=1).astype(PETSc.IntType)
        leaves = np.arange(n_owned, n_owned + n_ghosts, dtype=PETSc.IntType)
        self.serial = comm.size == 1
        self._forest = PETSc.SF().create(comm)
        self._forest.setGraph(n_owned, leaves, remote.ravel())
        self._forest.setUp()
        self._units: dict[int, MPI.Datatype] = {}

    def update(self, rows: Floats) -> None:
        """Overwrite the ghost rows of a C-contiguous array (n_rows, ...) by their owners' values. Collective."""
        if self.serial:
            return
        width = int(np.prod(rows.shape[1:], dtype=int))
        if width not in self._units:
            self._units[width] = MPI.DOUBLE.Create_contiguous(width).Commit()
        unit = self._units[width]
        self._forest.bcastBegin(unit, rows, rows, MPI.REPLACE)
        self._forest.bcastEnd(unit, rows, rows, MPI.REPLACE)
