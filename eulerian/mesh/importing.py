"""Mesh files: everything that meshio reads, as checked arrays of simplices. Not collective: call it on one rank."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import GMSH_SAVES, InputError
from eulerian.mesh.checks import check_mesh
from eulerian.mesh.raw_mesh import AGAIN, Block, RawMesh, read_file
from eulerian.mesh.simplices import FacetTable, Indices, Simplices

SIMPLEX = {0: "vertex", 1: "line", 2: "triangle", 3: "tetra"}
_TAG_NAMES = ("gmsh:physical", "medit:ref", "cell_tags", "CellEntityIds", "avsucd:material")
_FLAT = 1e-10  # relative to the size of the mesh


def read_simplices(path: str | Path) -> tuple[Simplices, FacetTable]:
    """Read and check a mesh file.

    Cells are those of the highest dimension; those one dimension lower give tags to facets. Nodes without a cell are
    dropped, and so are constant coordinates beyond the dimension of the cells.

    Raises:
        InputError: the file is missing, broken or empty, or not the triangulation of a domain in 1-D, 2-D or 3-D.
    """
    path = Path(path)
    try:
        mesh = _simplices(read_file(path))
        table = check_mesh(mesh)
        return _with_real_facets(mesh, table), table
    except InputError as error:
        if error.key is not None:
            raise
        raise InputError(error.what, key=str(path), value=error.value, remedy=error.remedy) from error


def _simplices(raw: RawMesh) -> Simplices:
    """The cells of highest dimension and their tagged facets, without orphan nodes and spare coordinates."""
    _check_shapes(raw)
    blocks = [(i, block) for i, block in enumerate(raw.cells) if len(block.data)]
    dim = max((block.dim for _, block in blocks), default=0)
    _check_types([block.type for _, block in blocks if block.dim == dim], dim)
    tags = _tag_arrays(raw)
    n = len(raw.points)
    cells, cell_tags = _stack(blocks, tags, dim, n)
    cells, cell_tags, more_tags = _once(cells, cell_tags)
    facets, facet_tags = _stack(blocks, tags, dim - 1, n)
    used = np.zeros(n, dtype=bool)
    used[cells] = True
    number = np.cumsum(used) - 1
    points = _flatten(np.asarray(raw.points, dtype=np.float64)[used], dim)
    keep = used[facets].all(axis=1) & (facet_tags != 0)
    return Simplices(
        points=points,
        cells=number[cells],
        cell_tags=cell_tags if cell_tags.any() else None,
        facets=number[facets[keep]],
        facet_tags=facet_tags[keep],
        names=_tag_names(raw),
        n_orphans=int(n - used.sum()),
        more_tags=more_tags,
    )


def _check_shapes(raw: RawMesh) -> None:
    """Refuse arrays that are no lists of points, or of cells."""
    if raw.points.ndim != 2:
        value = f"an array of shape {raw.points.shape}"
        raise InputError("the points are no list of coordinates", value=value, remedy=AGAIN)
    for block in raw.cells:
        nodes = block.data.shape[1] if block.data.ndim == 2 else -1
        if nodes < 0 or (block.type == SIMPLEX.get(block.dim) and nodes != block.dim + 1):
            what = f"the cells of type {block.type} have a wrong number of nodes"
            raise InputError(what, value=block.data.shape, remedy=AGAIN)


def _with_real_facets(mesh: Simplices, table: FacetTable) -> Simplices:
    """Keep every facet once, with its further tags apart, and no lower-dimensional cells that are not facets."""
    index = table.find(mesh.facets)
    keep = np.unique(index, return_index=True)[1]
    keep = np.sort(keep[index[keep] >= 0])
    place = np.full(len(table.vertices), -1)
    place[index[keep]] = np.arange(len(keep))
    pairs = np.column_stack([place[index], mesh.facet_tags])[index >= 0]
    more = np.unique(pairs[pairs[:, 1] != mesh.facet_tags[keep][pairs[:, 0]]], axis=0)
    return replace(mesh, facets=mesh.facets[keep], facet_tags=mesh.facet_tags[keep], more_facet_tags=more)


def _check_types(types: list[str], dim: int) -> None:
    """Refuse everything but one kind of simplex with straight edges."""
    remedy = "Use intervals, triangles or tetrahedra with straight edges (first order)."
    if dim == 0:
        remedy += f" Note that {GMSH_SAVES.format('domain')}."
        raise InputError("the file holds no cells but single points, or none at all", remedy=remedy)
    kinds = sorted(set(types))
    if kinds == [SIMPLEX[dim]]:
        return
    if len(kinds) > 1:
        raise InputError("the mesh mixes cells of several types", value=", ".join(kinds), remedy=remedy)
    if SIMPLEX[dim] in kinds[0].lower():
        raise InputError("the mesh has curved cells (of higher order)", value=kinds[0], remedy=remedy)
    raise InputError("the mesh has cells that are not simplices", value=kinds[0], remedy=remedy)


def _stack(
    blocks: list[tuple[int, Block]], tags: list[NDArray[Any]] | None, dim: int, n: int
) -> tuple[Indices, NDArray[np.int32]]:
    """All simplices of one dimension and their tags: (m, dim + 1) and (m,), 0 for no tag."""
    chosen = [(i, block) for i, block in blocks if block.type == SIMPLEX[dim]]
    empty = np.empty((0, dim + 1), dtype=np.int64)
    cells = np.concatenate([empty] + [np.asarray(b.data, dtype=np.int64).reshape(-1, dim + 1) for _, b in chosen])
    if cells.size and (cells.min() < 0 or cells.max() >= n):
        what, far = f"cells refer to nodes that do not exist (there are {n})", cells[(cells < 0) | (cells >= n)]
        raise InputError(what, value=int(far[0]), remedy=AGAIN)
    given = [np.zeros(0, dtype=np.int64)]
    given += [np.zeros(len(b.data), dtype=np.int64) if tags is None else tags[i] for i, b in chosen]
    # gmsh writes a negative tag where a physical group reverses the orientation.
    values = np.abs(np.concatenate(given).astype(np.int64))
    if values.max(initial=0) > np.iinfo(np.int32).max:
        raise InputError("tags must fit into 32 bits", value=int(values.max()), remedy="Use smaller tags.")
    return cells, values.astype(np.int32)


def _once(cells: Indices, tags: NDArray[np.int32]) -> tuple[Indices, NDArray[np.int32], Indices]:
    """Cells that occur once for each of several tags, once; their first tags; and pairs (cell, tag) of the others.

    Cells that occur twice with one tag stay: they are a mistake.
    """
    nothing = np.empty((0, 2), dtype=np.int64)
    if len(tags) == 0 or (tags == tags[0]).all():
        return cells, tags, nothing
    ordered = np.sort(cells, axis=1)
    order = np.lexsort(ordered.T[::-1])  # stable: of the same cells in the order of the file
    new = np.concatenate([[True], (ordered[order[1:]] != ordered[order[:-1]]).any(axis=1)])
    group = np.empty(len(cells), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    if new.all() or len(np.unique(np.column_stack([group, tags]), axis=0)) < len(cells):
        return cells, tags, nothing
    # Of each cell the first with a tag is kept, at the place where the cell comes first.
    first = np.unique(group, return_index=True)[1]
    ranked = np.lexsort((tags == 0, group))
    best = ranked[np.unique(group[ranked], return_index=True)[1]]
    place = np.argsort(np.argsort(first))[group]
    further = np.flatnonzero((tags != 0) & (best[group] != np.arange(len(cells))))
    along = np.argsort(first)
    return cells[first[along]], tags[best[along]], np.column_stack([place[further], tags[further]]).astype(np.int64)


def _tag_arrays(raw: RawMesh) -> list[NDArray[Any]] | None:
    """The cell data that holds the tags, one array per block; None if there is none."""
    sizes = [len(block) for block in raw.cells]
    integral = {name: data for name, data in raw.cell_data.items() if [a.size for a in data] == sizes}
    for name in _TAG_NAMES:
        if name in integral:
            return integral[name]
    others = [data for name, data in integral.items() if not name.startswith(("gmsh:", "vtk"))]
    return others[0] if len(others) == 1 else None


def _tag_names(raw: RawMesh) -> dict[str, tuple[int, int]]:
    """Names of the physical groups: name -> (dimension, tag)."""
    return {name: (dim, tag) for name, (tag, dim) in raw.field_data.items() if 0 <= dim <= 3}


def _flatten(points: Floats, dim: int) -> Floats:
    """Drop the coordinates beyond ``dim``, which must be constant.

    Raises:
        InputError: a curve that does not lie along x, or a surface that does not lie in a plane z = constant.
    """
    if points.shape[1] < dim:
        raise InputError(f"{SIMPLEX[dim]} cells need {dim} coordinates", value=points.shape[1], remedy=AGAIN)
    spread = np.ptp(points, axis=0) if np.isfinite(points).all() else np.zeros(points.shape[1])
    if np.any(spread[dim:] > _FLAT * spread.max()):
        shape = "a line along x" if dim == 1 else "flat (z constant)"
        missing = "surface" if dim == 1 else "volume"
        found = "lines, no triangles" if dim == 1 else "triangles, no tetrahedra"
        raise InputError(
            f"the file holds only {found}, and the mesh is not {shape}",
            value=f"extent {' × '.join(f'{s:.6g}' for s in spread)}",
            remedy=f"If this is the boundary of a domain, mesh its {missing} too ({GMSH_SAVES.format(missing)}); "
            "otherwise rotate it.",
        )
    return np.ascontiguousarray(points[:, :dim])
