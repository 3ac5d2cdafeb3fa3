"""Adaptive mesh refinement: a mesh that all ranks know, finer where an indicator is large.

Which cells are cut is decided on one rank, by their numbers in the whole mesh: the finer mesh is the same on any number
of ranks.
"""

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.app.config import Domain
from eulerian.app.config.levels import LEAST_CELLS, halved_box
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.density.cell_order import CellOrder
from eulerian.density.space import DensitySpace
from eulerian.mesh.bisection import bisect, without_tags
from eulerian.mesh.box import box_simplices
from eulerian.mesh.importing import read_simplices
from eulerian.mesh.simplices import Simplices, part_corners

# Cells along the longest side of a box at the start, by dimension: few enough to cost nothing, enough for a flow to be
# seen at all.
COARSEST = {1: 16, 2: 16, 3: 8}

# Cells whose indicators differ by less than this, relatively, are marked alike: in a symmetric problem they differ by
# rounding, which is another one on every number of ranks.
_TIE = 1e-6


def coarse_mesh(comm: MPI.Comm, domain: Domain) -> Simplices:
    """Where adaptive refinement begins, known to all ranks. Collective.

    A box has as many cells as the configuration wants, halved until there are at most ``COARSEST`` along every side; a
    file's cells are taken as they are. ``domain.refine`` is left out.

    Raises:
        InputError: as for ``create_mesh``.
    """

    def make() -> Simplices:
        if domain.box is not None:
            box = domain.box
            while max(box.cells) > max(COARSEST[box.dim], LEAST_CELLS):
                box = halved_box(box)
            return box_simplices(box)
        if domain.file is None:
            raise InputError("needs a box or a file", key="domain")
        return without_tags(part_corners(*read_simplices(domain.file)))

    return on_root(comm, make)


def doerfler_marking(indicator: Floats, share: float) -> NDArray[np.bool_]:
    """The fewest cells (n,) that together have a share of the sum of their indicators (n,), and all like the last one.

    Dörfler (1996), doi:10.1137/0733054.
    """
    order = np.argsort(-indicator, kind="stable")
    sums = np.cumsum(indicator[order])
    if not len(sums) or not sums[-1] > 0.0:
        return np.zeros(len(indicator), dtype=bool)
    last = min(int(np.searchsorted(sums, share * sums[-1])), len(sums) - 1)
    return np.asarray(indicator >= (1.0 - _TIE) * indicator[order[last]])


def refined(space: DensitySpace, indicator: Floats, share: float, times: int = 1) -> Simplices:
    """The mesh of a space, with the cells cut that have a share of the sum of an indicator. Collective.

    Args:
        space: on a mesh of simplices that all ranks know.
        indicator: (n_owned,) of this rank's cells, not negative.
        share: of the sum, in (0, 1].
        times: how often they are cut in halves; as often as there are dimensions, and all their edges are halved.
    """
    mesh, whole = space.simplices, CellOrder(space).gather(indicator)
    assert mesh is not None

    def work() -> Simplices:
        assert whole is not None
        finer, marked = mesh, doerfler_marking(whole, share)
        for _ in range(times):
            finer, parents = bisect(finer, marked)
            marked = marked[parents]
        return finer

    return on_root(space.comm, work)
