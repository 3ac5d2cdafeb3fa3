"""Is this array of simplices the triangulation of a domain?"""

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.mesh.simplices import (
    FacetTable,
    Indices,
    Simplices,
    facet_table,
    regular_volume,
    signed_volumes,
    squared_edges,
)

_DEGENERATE = 1e-12  # relative to the volume of a regular simplex with the cell's longest edge
_HUGE = 1e60  # the sixth power is still finite
_ON_FACET = 1e-9  # in barycentric coordinates
_CHUNK = 100_000
_PAIRS = 2_000_000  # of a cell and a point near it, at a time


def check_mesh(mesh: Simplices) -> FacetTable:
    """Refuse what is not the triangulation of a domain, and return its facets.

    The order of the vertices within a cell does not matter.

    Raises:
        InputError: coordinates that are not finite; degenerate, repeated, folded or overlapping cells; facets with more
            than two cells; hanging nodes.
    """
    _check_cells(mesh)
    table = facet_table(mesh.points, mesh.cells)
    folded = np.flatnonzero(table.side[:, 0] == table.side[:, 1])
    if len(folded):
        i, j = table.cells[folded[0]]
        raise InputError(
            f"cells {i} and {j} overlap: they lie on the same side of their common facet (an inverted cell)",
            remedy="Mesh the domain again.",
        )
    _check_overlap(mesh, table)
    return table


def _check_cells(mesh: Simplices) -> None:
    """Refuse nodes that are not finite, and degenerate and repeated cells."""
    bad = np.flatnonzero(~(np.abs(mesh.points) < _HUGE).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad)} nodes have coordinates that are not finite or beyond {_HUGE:g}",
            value=mesh.points[bad[0]].tolist(),
            remedy="Mesh the domain again, or write the file again.",
        )
    volumes = np.abs(signed_volumes(mesh.points, mesh.cells))
    longest = squared_edges(mesh.points, mesh.cells).max(axis=1) ** (mesh.dim / 2)
    flat = np.flatnonzero(~(volumes > _DEGENERATE * regular_volume(mesh.dim) * longest))
    if len(flat):
        raise InputError(
            f"{len(flat)} degenerate cells (no volume), the first is cell {flat[0]}",
            value=mesh.points[mesh.cells[flat[0]]].tolist(),
            remedy="Mesh the domain again, or remove these cells.",
        )
    ordered = np.sort(mesh.cells, axis=1)
    order = np.lexsort(ordered.T[::-1])
    twice = np.flatnonzero((ordered[order[1:]] == ordered[order[:-1]]).all(axis=1))
    if len(twice):
        raise InputError(
            f"{len(twice)} cells occur twice, the first are cells {order[twice[0]]} and {order[twice[0] + 1]}",
            remedy="Remove one of them: a cell may be there once for each of its tags, but not twice with one tag.",
        )


def _check_overlap(mesh: Simplices, table: FacetTable) -> None:
    """Look for cells that overlap without sharing a facet, and for hanging nodes.

    Where neighbours lie on opposite sides of their facet, the number of cells that cover a point changes only across
    the boundary. So it is enough to test the boundary's nodes and facets and the cells along it, against all cells.
    """
    from scipy.spatial import cKDTree

    edge = table.boundary
    nodes = np.unique(table.vertices[edge])
    along = np.unique(table.cells[edge, 0])
    corners = mesh.points[mesh.cells]
    centres = corners.mean(axis=1)
    radii = np.sqrt(((corners - centres[:, None]) ** 2).sum(axis=-1).max(axis=1)) * (1 + 1e-6)
    probes = np.concatenate([mesh.points[nodes], mesh.points[table.vertices[edge]].mean(axis=1), centres[along]])
    own = np.concatenate([np.full(len(nodes), -1), table.cells[edge, 0], along])
    tree = cKDTree(probes)
    for start in range(0, len(mesh.cells), _CHUNK):
        cells = np.arange(start, min(start + _CHUNK, len(mesh.cells)))
        # Most cells are far from the boundary: counting is cheap, lists are not.
        counts = tree.query_ball_point(centres[cells], radii[cells], return_length=True)
        cells, counts = cells[counts > 0], counts[counts > 0]
        # In a heap of cells all are near to all. A few at a time: that they overlap shows among the first.
        for part in np.split(cells, np.flatnonzero(np.diff(np.cumsum(counts) // _PAIRS)) + 1):
            if len(part) == 0:
                continue
            near = tree.query_ball_point(centres[part], radii[part])
            cell = np.repeat(part, [len(row) for row in near])
            probe = np.concatenate([np.asarray(row, dtype=np.int64) for row in near])
            other = own[probe] != cell
            _refuse_inside(mesh, cell[other], probes[probe[other]], probe[other] < len(nodes))


def _refuse_inside(mesh: Simplices, cell: Indices, x: Floats, is_node: NDArray[np.bool_]) -> None:
    """Refuse points ``x`` (n, d) inside the cells ``cell`` (n,), and nodes on their facets."""
    corners = mesh.points[mesh.cells[cell]]
    jacobian = np.swapaxes(corners[:, 1:] - corners[:, :1], 1, 2)
    weights = np.linalg.solve(jacobian, (x - corners[:, 0])[..., None])[..., 0]
    weights = np.column_stack([1 - weights.sum(axis=1), weights])
    least, greatest = weights.min(axis=1), weights.max(axis=1)
    inside = np.flatnonzero(least > _ON_FACET)
    if len(inside):
        raise InputError(
            f"cell {cell[inside[0]]} overlaps another cell",
            value=x[inside[0]].tolist(),
            remedy="Parts that overlap must be united before meshing.",
        )
    # A node may coincide with a vertex of a cell to which it does not belong: a slit, or parts that touch.
    hanging = np.flatnonzero(is_node & (least > -_ON_FACET) & (greatest < 1 - _ON_FACET))
    if len(hanging):
        raise InputError(
            f"a node lies on a facet of cell {cell[hanging[0]]} without being one of its vertices (a hanging node)",
            value=x[hanging[0]].tolist(),
            remedy="Cells must share whole facets: join the parts that touch before meshing.",
        )
