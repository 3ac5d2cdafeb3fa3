"""Simplicial meshes as NumPy arrays: boxes, geometry, facets and uniform refinement, before anything is distributed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from math import factorial, sqrt
from typing import Self

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError

type Indices = NDArray[np.int64]

KINDS = {1: "intervals", 2: "triangles", 3: "tetrahedra"}


@dataclass(frozen=True)
class Simplices:
    """A mesh of intervals (d = 1), triangles (d = 2) or tetrahedra (d = 3) in d-dimensional space, as arrays.

    Points and cells of your own are enough: ``Simplices(points, cells)``. Nothing here is collective; what takes such a
    mesh on several ranks says whether all of them must have it.

    Attributes:
        points: (n_nodes, d) coordinates, every one a vertex of a cell.
        cells: (n_cells, d + 1) nodes of each cell.
        cell_tags: (n_cells,) or None; 0 means no tag.
        facets: (n_facets, d) nodes of the facets that carry a tag.
        facet_tags: (n_facets,) tags of ``facets``.
        names: name -> (dimension, tag).
        n_orphans: how many nodes of the file belong to no cell.
        more_tags: (m, 2) pairs (cell, tag) for cells with several tags, all but the one in ``cell_tags``.
        more_facet_tags: (m, 2) likewise for ``facets``.

    Raises:
        InputError: the cells are no simplices of these points.
    """

    points: Floats
    cells: Indices
    cell_tags: NDArray[np.int32] | None = None
    facets: Indices = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    facet_tags: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    n_orphans: int = 0
    more_tags: Indices = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    more_facet_tags: Indices = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))

    def __post_init__(self) -> None:
        points, cells = np.asarray(self.points), np.asarray(self.cells)
        dim = points.shape[1] if points.ndim == 2 else 0
        numbers = points.dtype.kind in "iuf" and cells.dtype.kind in "iu"
        if not (dim in KINDS and numbers and cells.ndim == 2 and cells.shape[1] == dim + 1):
            given, remedy = (points.shape, cells.shape), "Give points (n, dim) and whole numbers (m, dim + 1) of these."
            raise InputError("points and cells do not fit together", key="simplices", value=given, remedy=remedy)
        low, high = cells.min(initial=0), cells.max(initial=-1)
        if low < 0 or high >= len(points):
            what = f"there are {len(points)} points, numbered from 0"
            raise InputError(what, key="simplices", value=int(low if low < 0 else high))
        object.__setattr__(self, "points", points.astype(np.float64, copy=False))
        object.__setattr__(self, "cells", cells.astype(np.int64, copy=False))
        if not len(self.facets):
            object.__setattr__(self, "facets", np.empty((0, dim), dtype=np.int64))

    @classmethod
    def untagged(cls, points: Floats, cells: Indices) -> Self:
        """Points and cells alone."""
        return cls(points, cells)

    @property
    def dim(self) -> int:
        """Dimension of cells and space."""
        return int(self.cells.shape[1]) - 1


@dataclass(frozen=True)
class FacetTable:
    """All facets of a mesh.

    Attributes:
        vertices: (n, d) sorted nodes of each facet, in lexicographic order.
        cells: (n, 2) its one or two cells, -1 for none.
        side: (n, 2) the sign of the side on which each of these cells lies, 0 for none.
    """

    vertices: Indices
    cells: Indices
    side: NDArray[np.int8]

    @property
    def boundary(self) -> NDArray[np.bool_]:
        """Which facets have one cell only."""
        return self.cells[:, 1] < 0

    def find(self, facets: Indices) -> Indices:
        """Positions of ``facets`` (m, d), in any order of their vertices, in the table: (m,), -1 where absent."""
        wanted = np.sort(facets, axis=1)
        n = 1 + max(self.vertices.max(initial=0), wanted.max(initial=0))
        ours, theirs = self.vertices[:, 0], wanted[:, 0]
        for column in range(1, facets.shape[1]):
            # Pairs are numbered anew for every column, or three of them would not fit into 64 bits.
            ours, theirs = ours * n + self.vertices[:, column], theirs * n + wanted[:, column]
            pairs = np.unique(ours)
            place = np.minimum(np.searchsorted(pairs, theirs), len(pairs) - 1)
            ours, theirs = np.searchsorted(pairs, ours), np.where(pairs[place] == theirs, place, len(pairs))
        place = np.minimum(np.searchsorted(ours, theirs), len(ours) - 1)
        return np.where(ours[place] == theirs, place, -1)


def box_simplices(lower: Sequence[float], upper: Sequence[float], cells: Sequence[int]) -> Simplices:
    """A box in the triangulation of Freudenthal (1942, doi:10.2307/1968813), whose longest edges are the diagonals.

    Not collective: every rank that calls it has the same mesh.

    Every little box is cut into d! simplices along the diagonal from its lowest to its highest corner: those that go
    from the one to the other along one axis after another.

    Args:
        lower: (dim,) one corner.
        upper: (dim,) the opposite one.
        cells: (dim,) number of little boxes along each axis.
    """
    dim, counts = len(cells), np.array(cells)
    axes = [np.linspace(low, high, n + 1) for low, high, n in zip(lower, upper, cells, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    strides = np.array([np.prod(counts[axis + 1 :] + 1) for axis in range(dim)], dtype=np.int64)
    corners = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, dim) @ strides
    ways = np.array([np.concatenate([[0], np.cumsum(strides[list(order)])]) for order in permutations(range(dim))])
    corners_of_cells = (corners[:, None, None] + ways).reshape(-1, dim + 1)
    return Simplices.untagged(points, corners_of_cells)


def signed_volumes(points: Floats, cells: Indices) -> Floats:
    """Volume of each cell (length, area), negative where the vertices are in reverse order: (n_cells,)."""
    corners = points[cells]
    edges = corners[:, 1:] - corners[:, :1]
    return np.asarray(np.linalg.det(edges) / factorial(points.shape[1]))


def squared_edges(points: Floats, cells: Indices) -> Floats:
    """Squared lengths of all edges of each cell: (n_cells, d (d + 1) / 2)."""
    pairs = np.array(list(combinations(range(cells.shape[1]), 2)))
    difference = points[cells[:, pairs[:, 0]]] - points[cells[:, pairs[:, 1]]]
    return np.asarray((difference**2).sum(axis=-1))


def qualities(mesh: Simplices) -> Floats:
    """Mean-ratio quality of each cell, 1 for a regular simplex and 0 for a degenerate one: (n_cells,).

    Liu & Joe, BIT 34 (1994), doi:10.1007/BF01955874.
    """
    d = mesh.dim
    relative = np.abs(signed_volumes(mesh.points, mesh.cells)) / regular_volume(d)
    return np.asarray(relative ** (2 / d) / squared_edges(mesh.points, mesh.cells).mean(axis=1))


def facet_table(points: Floats, cells: Indices) -> FacetTable:
    """Find the facets of a mesh and their cells.

    Raises:
        InputError: a facet has more than two cells.
    """
    d = cells.shape[1] - 1
    ordered = np.sort(cells, axis=1)
    orientation = np.sign(signed_volumes(points, ordered)).astype(np.int8)
    facets = np.concatenate([np.delete(ordered, i, axis=1) for i in range(d + 1)])
    # Moving vertex i behind the others takes d - i exchanges: the sign of the side of the facet on which it lies.
    sides = np.concatenate([orientation * (-1) ** (d - i) for i in range(d + 1)])
    owners = np.tile(np.arange(len(cells)), d + 1)

    order = np.lexsort(facets.T[::-1])
    facets, sides, owners = facets[order], sides[order], owners[order]
    same = np.concatenate([[False], (facets[1:] == facets[:-1]).all(axis=1)])
    if np.any(same[1:] & same[:-1]):
        third = int(np.flatnonzero(same[1:] & same[:-1])[0]) + 1
        raise InputError(
            f"cells {', '.join(map(str, owners[third - 2 : third + 1]))} share one facet, which has at most two",
            remedy="Remove the cells that overlap, or the branch.",
        )
    first = np.flatnonzero(~same)
    second = np.flatnonzero(same)
    n = len(first)
    cell_pairs = np.full((n, 2), -1, dtype=np.int64)
    side_pairs = np.zeros((n, 2), dtype=np.int8)
    row = np.cumsum(~same)[second] - 1
    cell_pairs[:, 0], side_pairs[:, 0] = owners[first], sides[first]
    cell_pairs[row, 1], side_pairs[row, 1] = owners[second], sides[second]
    return FacetTable(facets[first], cell_pairs, side_pairs)


def halve_edges(mesh: Simplices) -> Simplices:
    """Halve all edges: every cell becomes 2^d cells, numbers 2^d i to 2^d i + 2^d - 1 for cell i.

    The octahedron that remains inside a tetrahedron is split along its shortest diagonal, which bounds the quality
    under repeated refinement (Zhang 1995, Houston J. Math. 21, 541-556).
    """
    pairs = np.array(list(combinations(range(mesh.dim + 1), 2)))
    n = len(mesh.points)
    edges = np.sort(mesh.cells[:, pairs], axis=2)
    # One integer per edge: its cells find the middle that they share by it.
    keys, inverse = np.unique(edges[..., 0] * n + edges[..., 1], return_inverse=True)
    points = np.concatenate([mesh.points, (mesh.points[keys // n] + mesh.points[keys % n]) / 2])
    middles = n + inverse.reshape(len(mesh.cells), len(pairs))
    nodes = np.concatenate([mesh.cells, middles], axis=1)
    cells = _children(points, nodes, mesh.dim)

    facets = mesh.facets
    if mesh.dim > 1:
        facet_pairs = np.array(list(combinations(range(mesh.dim), 2)))
        facet_edges = np.sort(facets[:, facet_pairs], axis=2)
        middles = n + np.searchsorted(keys, facet_edges[..., 0] * n + facet_edges[..., 1])
        facets = _children(points, np.concatenate([facets, middles], axis=1), mesh.dim - 1)
    return replace(
        mesh,
        points=points,
        cells=cells,
        cell_tags=None if mesh.cell_tags is None else np.repeat(mesh.cell_tags, 2**mesh.dim),
        more_tags=_tags_of_children(mesh.more_tags, 2**mesh.dim),
        facets=facets,
        facet_tags=np.repeat(mesh.facet_tags, 2 ** (mesh.dim - 1)),
        more_facet_tags=_tags_of_children(mesh.more_facet_tags, 2 ** (mesh.dim - 1)),
    )


def _tags_of_children(pairs: Indices, n: int) -> Indices:
    """Pairs (cell, tag) for the n children of every cell, or of every facet."""
    cells = pairs[:, :1] * n + np.arange(n)
    return np.column_stack([cells.ravel(), np.repeat(pairs[:, 1], n)])


# Children in terms of a simplex's vertices followed by the middles of its edges in lexicographic order.
_HALVES = np.array([[0, 2], [2, 1]])
_QUARTERS = np.array([[0, 3, 4], [1, 3, 5], [2, 4, 5], [3, 4, 5]])
_CORNERS = np.array([[0, 4, 5, 6], [1, 4, 7, 8], [2, 5, 7, 9], [3, 6, 8, 9]])
# The middles of opposite edges (a diagonal of the octahedron), and the four others in turn around it.
_DIAGONALS = np.array([[4, 9], [5, 8], [6, 7]])
_EQUATORS = np.array([[5, 6, 8, 7], [4, 6, 9, 7], [4, 5, 9, 8]])


def _children(points: Floats, nodes: Indices, dim: int) -> Indices:
    """Cells (2^d n, d + 1) that halving the edges makes of n simplices with ``nodes`` (n, d + 1 + edges)."""
    if dim == 1:
        return nodes[:, _HALVES].reshape(-1, 2)
    if dim == 2:
        return nodes[:, _QUARTERS].reshape(-1, 3)
    ends = points[nodes[:, _DIAGONALS]]
    # Rounded, so that diagonals of equal length are chosen by their number and not by the last bit.
    lengths = ((ends[:, :, 0] - ends[:, :, 1]) ** 2).sum(axis=-1)
    shortest = np.argmin(lengths > lengths.min(axis=1, keepdims=True) * (1 + 1e-10), axis=1)
    diagonal = np.take_along_axis(nodes, _DIAGONALS[shortest], axis=1)
    equator = np.take_along_axis(nodes, _EQUATORS[shortest], axis=1)
    around = np.stack([equator, np.roll(equator, -1, axis=1)], axis=2)
    inner = np.concatenate([np.broadcast_to(diagonal[:, None], around.shape), around], axis=2)
    return np.concatenate([nodes[:, _CORNERS], inner], axis=1).reshape(-1, 4)


def part_of_cell(table: FacetTable, n_cells: int) -> tuple[int, Indices]:
    """How many sets of cells are connected through facets, and the number of its set for each cell (n_cells,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = table.cells[~table.boundary]
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n_cells, n_cells))
    count, numbers = connected_components(graph, directed=False)
    return int(count), np.asarray(numbers, dtype=np.int64)


def part_corners(mesh: Simplices, table: FacetTable) -> Simplices:
    """Give every part nodes of its own where parts touch in a node or an edge: no mass passes there."""
    count, part = part_of_cell(table, len(mesh.cells))
    if count == 1:
        return mesh
    n = len(mesh.points)
    keys, inverse = np.unique(mesh.cells * count + part[:, None], return_inverse=True)
    if len(keys) == n:
        return mesh
    cells = inverse.reshape(mesh.cells.shape)
    # A facet with a tag gets the nodes of its first cell: a boundary facet has no other.
    owner = table.cells[table.find(mesh.facets), 0]
    facets = np.searchsorted(keys, mesh.facets * count + part[owner][:, None])
    return replace(mesh, points=mesh.points[keys // count], cells=cells, facets=facets)


def regular_volume(d: int) -> float:
    """Volume of the regular simplex with edges of length 1."""
    return sqrt(d + 1) / (factorial(d) * 2 ** (d / 2))
