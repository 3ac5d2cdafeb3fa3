"""Ghost rows and their owners, connected by a PETSc star forest."""

import weakref
from functools import cached_property

from mpi4py import MPI

import dolfinx
import numpy as np
from petsc4py import PETSc

from eulerian.base.arrays import Floats, Ints
from eulerian.base.parallel import lasting


class GhostRows:
    """Copies rows owned by other ranks into the ghost rows behind the owned ones, and adds ghost rows to their owners'.

    Args:
        index_map: distribution of the rows (cells or nodes).
    """

    def __init__(self, index_map: dolfinx.common.IndexMap) -> None:
        comm = index_map.comm
        n_owned, n_ghosts = index_map.size_local, index_map.num_ghosts
        starts = np.array(lasting(comm).allgather(index_map.local_range[0]))
        owners = np.asarray(index_map.owners)
        remote = np.stack([owners, index_map.ghosts - starts[owners]], axis=1).astype(PETSc.IntType)
        leaves = np.arange(n_owned, n_owned + n_ghosts, dtype=PETSc.IntType)
        self.serial = comm.size == 1
        self._forest = PETSc.SF().create(comm)
        self._forest.setGraph(n_owned, leaves, remote.ravel())
        self._forest.setUp()
        # Left to petsc4py the forest would wait for PETSc.garbage_cleanup of this very communicator, which is gone by
        # then: every mesh would cost one of the some 2000 communicators that MPI has.
        weakref.finalize(self, self._forest.destroy).atexit = False
        self._units: dict[int, MPI.Datatype] = {}

    def update(self, rows: Floats) -> None:
        """Overwrite the ghost rows of a C-contiguous array (n_rows, ...) by their owners' values. Collective."""
        if self.serial:
            return
        unit = self._unit(rows)
        self._forest.bcastBegin(unit, rows, rows, MPI.REPLACE)
        self._forest.bcastEnd(unit, rows, rows, MPI.REPLACE)

    def accumulate(self, rows: Floats) -> None:
        """Add up the copies of every row of a C-contiguous array (n_rows, ...); all of them get the sum. Collective."""
        if self.serial:
            return
        unit, roots = self._unit(rows), self._copied_rows
        copies = np.empty((len(roots), *rows.shape[1:]))
        self._forest.gatherBegin(unit, rows, copies)  # a reduction of the forest would need an MPI operation on rows
        self._forest.gatherEnd(unit, rows, copies)
        np.add.at(rows, roots, copies)
        self.update(rows)

    @cached_property
    def _copied_rows(self) -> Ints:
        """The owned row of every copy that other ranks hold, in the forest's order. Collective."""
        degrees = np.asarray(self._forest.computeDegree())
        return np.repeat(np.arange(len(degrees), dtype=np.int32), degrees)

    def _unit(self, rows: Floats) -> MPI.Datatype:
        """The type of one row."""
        width = int(np.prod(rows.shape[1:], dtype=int))
        if width not in self._units:
            self._units[width] = MPI.DOUBLE.Create_contiguous(width).Commit()
        return self._units[width]
