"""Adaptive mesh refinement: the conforming bisection of a mesh that all ranks have, where an indicator is large.

Which cells are cut is decided on rank 0, by their numbers in the gathered mesh: the finer mesh is the same on any
number of ranks.

A simplex is cut at the middles of its marked edges one after another, in one order that all edges of the mesh share:
the longest first. Two cells then cut their common face alike, whatever else is marked in them, so that no node hangs.
That every cell with a marked edge has its longest one marked, too, keeps the shapes: on triangles this is the 4T
partition of Rivara (1984, doi:10.1002/nme.1620200412), on tetrahedra close to the skeleton based one of Plaza & Carey
(2000, doi:10.1016/S0168-9274(99)00022-7).

New nodes are the middles of straight edges: they never leave a domain, and a curved boundary stays the polygon that
it was.
"""

from dataclasses import replace
from itertools import combinations

import dolfinx
import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.parallel import lasting, on_root
from eulerian.mesh.cell_order import CellOrder
from eulerian.mesh.simplices import Indices, Simplices

# Cells whose indicators differ by less than this, relatively, are marked alike: in a symmetric problem they differ by
# rounding, and differently on every number of ranks.
_TIE = 1e-6

# Edges whose lengths differ by less than about this, relatively, count as equally long: their numbers decide, and not
# the last bit of a sum of squares.
_SAME_LENGTH = 1e-8


def doerfler_marking(indicator: Floats, share: float) -> NDArray[np.bool_]:
    """The fewest cells (n,) that together have a share of the sum of their indicators (n,), and all like the last one.

    Dörfler (1996), doi:10.1137/0733054.
    """
    order = np.argsort(-indicator, kind="stable")  # ties by the cells' numbers, which no rank count changes
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
        simplices: the mesh, the same on all ranks.
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

    return on_root(lasting(mesh.comm), work)


def bisect(mesh: Simplices, marked: NDArray[np.bool_]) -> tuple[Simplices, Indices]:
    """Cut the marked cells in halves at their longest edges, and whatever else must be cut so that no node hangs.

    Args:
        mesh: without tags on facets.
        marked: (n_cells,).

    Returns:
        The finer mesh, in which the children of a cell stand together and cells are in the order of their parents, and
        the parent (m,) of each of its cells.
    """
    edges, of_cell = edge_table(mesh.cells)
    rank = _by_length(mesh.points, edges)
    cut = np.zeros(len(edges), dtype=bool)
    longest = _longest(of_cell, rank)
    cut[longest[marked]] = True
    _close(cut, of_cell, longest)
    n = len(mesh.points)
    points = np.concatenate([mesh.points, mesh.points[edges[cut]].mean(axis=1)])
    middle = np.where(cut, n + np.cumsum(cut) - 1, -1)
    cells, parents = _halved(mesh.cells, edges, np.where(cut, rank, len(edges)), middle, n)
    tags = None if mesh.cell_tags is None else mesh.cell_tags[parents]
    nothing = np.empty((0, 2), dtype=np.int64)
    return replace(mesh, points=points, cells=cells, cell_tags=tags, more_tags=nothing), parents


def edge_table(cells: Indices) -> tuple[Indices, Indices]:
    """The edges (n, 2) of cells, nodes ascending and edges in lexicographic order, and those of each cell (m, e)."""
    pairs = np.array(list(combinations(range(cells.shape[1]), 2)))
    ends = np.sort(cells[:, pairs], axis=2)
    size = int(cells.max(initial=0)) + 1
    keys, inverse = np.unique(ends[..., 0] * size + ends[..., 1], return_inverse=True)
    return np.column_stack([keys // size, keys % size]), inverse.reshape(len(cells), len(pairs))


def without_tags(mesh: Simplices) -> Simplices:
    """Points and cells alone."""
    return Simplices.untagged(mesh.points, mesh.cells)


def _by_length(points: Floats, edges: Indices) -> Indices:
    """The place of each edge (n,) in the order in which edges are cut: the longest is 0."""
    squares = ((points[edges[:, 0]] - points[edges[:, 1]]) ** 2).sum(axis=1)
    classes = np.round(np.log(squares) / _SAME_LENGTH)
    rank = np.empty(len(edges), dtype=np.int64)
    rank[np.lexsort((np.arange(len(edges)), -classes))] = np.arange(len(edges))
    return rank


def _longest(of_cell: Indices, rank: Indices) -> Indices:
    """The longest edge of each cell, (m,)."""
    return np.asarray(np.take_along_axis(of_cell, np.argmin(rank[of_cell], axis=1)[:, None], axis=1)[:, 0])


def _close(cut: NDArray[np.bool_], of_cell: Indices, longest: Indices) -> None:
    """Cut the longest edge of every cell of which an edge is cut, in place, until there is no other."""
    while True:
        lacking = cut[of_cell].any(axis=1) & ~cut[longest]
        if not lacking.any():
            return
        cut[longest[lacking]] = True


def _halved(cells: Indices, edges: Indices, rank: Indices, middle: Indices, n: int) -> tuple[Indices, Indices]:
    """Cut cells until none has an edge that is to be cut; the cells and their parents.

    Args:
        cells: (m, d + 1).
        edges: (k, 2) all edges, in lexicographic order.
        rank: (k,) in which order they are cut; k for those that are not.
        middle: (k,) nodes in their middles.
        n: number of nodes without these.
    """
    keys, pairs = edges[:, 0] * n + edges[:, 1], np.array(list(combinations(range(cells.shape[1]), 2)))
    done: list[tuple[Indices, Indices]] = []
    parents, path = np.arange(len(cells)), np.zeros(len(cells), dtype=np.int64)
    while len(cells):
        ends = np.sort(cells[:, pairs], axis=2)
        # Edges with a new node are none of the table: they are never cut.
        old = ends[..., 1] < n
        place = np.where(old, np.searchsorted(keys, np.where(old, ends[..., 0] * n + ends[..., 1], keys[0])), 0)
        order = np.where(old, rank[place], len(edges))
        best = np.argmin(order, axis=1)
        rows = np.arange(len(cells))
        ready = order[rows, best] >= len(edges)
        done.append((cells[ready], np.column_stack([parents, path])[ready]))
        cells, parents, path, best, place = (each[~ready] for each in (cells, parents, path, best, place))
        new = middle[place[np.arange(len(cells)), best]]
        halves = [_with_node(cells, pairs[best][:, side], new) for side in (1, 0)]
        cells = np.stack(halves, axis=1).reshape(-1, cells.shape[1])
        path = np.stack([3 * path + 1, 3 * path + 2], axis=1).ravel()
        parents = np.repeat(parents, 2)
    found, origin = (np.concatenate(each) for each in zip(*done, strict=True))
    along = np.lexsort((origin[:, 1], origin[:, 0]))
    return found[along], origin[along, 0]


def _with_node(cells: Indices, position: Indices, node: Indices) -> Indices:
    """Cells with another node at one of their positions."""
    changed = cells.copy()
    changed[np.arange(len(cells)), position] = node
    return changed
