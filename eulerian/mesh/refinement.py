"""Adaptive mesh refinement: a mesh that all ranks know, finer where an indicator is large.

Which cells are cut is decided on one rank, by their numbers in the whole mesh: the finer mesh is the same on any number
of ranks.
"""

import dolfinx
import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.parallel import on_root
from eulerian.mesh.bisection import bisect
from eulerian.mesh.cell_order import CellOrder
from eulerian.mesh.simplices import Simplices

# Cells whose indicators differ by less than this, relatively, are marked alike: in a symmetric problem they differ by
# rounding, which is another one on every number of ranks.
_TIE = 1e-6


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


def refined(
    simplices: Simplices, mesh: dolfinx.mesh.Mesh, indicator: Floats, share: float, times: int = 1
) -> Simplices:
    """A mesh with the cells cut that have a share of the sum of an indicator. **Collective**.

    Args:
        simplices: the mesh, known to all ranks.
        mesh: what DOLFINx has made of it, distributed over them.
        indicator: (n_owned,) of this rank's cells, not negative.
        share: of the sum, in (0, 1].
        times: how often they are cut in halves; as often as there are dimensions, and all their edges are halved.
    """
    gathered = CellOrder(mesh).gather(indicator)

    def work() -> Simplices:
        assert gathered is not None  # on rank 0 it is there
        finer, marked = simplices, doerfler_marking(gathered, share)
        for _ in range(times):
            finer, parents = bisect(finer, marked)
            marked = marked[parents]
        return finer

    return on_root(mesh.comm, work)
