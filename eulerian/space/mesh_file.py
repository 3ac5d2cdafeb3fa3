"""Mesh files: everything that meshio reads, as checked arrays of simplices. Not collective: call it on one rank."""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.space.mesh_checks import check_mesh
from eulerian.space.simplices import FacetTable, Indices, Simplices

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


def read_file(path: Path) -> Any:
    """Read a file with meshio, quietly; return a ``meshio.Mesh``.

    Raises:
        InputError: the file is missing or meshio cannot read it.
    """
    import meshio

    if not path.is_file():
        what = "it is not a file" if path.exists() else "there is no such file"
        raise InputError(f"cannot read the mesh: {what}", key=str(path), remedy="Give the path of a mesh file.")
    try:
        with path.open("rb") as file:
            start = file.read(11)
    except OSError as error:
        raise InputError(f"cannot read the mesh: {error.strerror}", key=str(path)) from error
    if not start:
        raise InputError("the mesh file is empty", key=str(path))
    # Fluent also uses .msh: without this, every message on a broken gmsh file would speak of Fluent.
    kind = "gmsh" if start == b"$MeshFormat" else None
    return quietly(lambda: meshio.read(path, file_format=kind), f"cannot read the mesh {path.name}", path)


def quietly[T](work: Callable[[], T], what: str, path: Path) -> T:
    """Run a meshio call without its printing; its failures, even ``sys.exit``, become one InputError."""
    import meshio

    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except (Exception, SystemExit) as error:
        text = said.getvalue() if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        formats = ", ".join(sorted(meshio.extension_to_filetypes))
        known = path.suffix.lower() in meshio.extension_to_filetypes
        remedy = "Is the file complete?" if known else f"Known formats: {formats}"
        reason = " ".join(text.split())[:300]
        raise InputError(f"{what} ({reason})" if reason else what, key=str(path), remedy=remedy) from error


def _simplices(raw: Any) -> Simplices:
    """The cells of highest dimension and their tagged facets, without orphan nodes and spare coordinates."""
    blocks = [(i, block) for i, block in enumerate(raw.cells) if len(block.data)]
    dim = max((block.dim for _, block in blocks), default=0)
    _check_types([block.type for _, block in blocks if block.dim == dim], dim)
    tags = _tag_arrays(raw)
    n = len(raw.points)
    cells, cell_tags = _stack(blocks, tags, dim, n)
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
    )


def _with_real_facets(mesh: Simplices, table: FacetTable) -> Simplices:
    """Keep the tag of every facet once, and none of lower-dimensional cells that are not facets."""
    index = table.find(mesh.facets)
    keep = np.unique(index, return_index=True)[1]
    keep = np.sort(keep[index[keep] >= 0])
    return replace(mesh, facets=mesh.facets[keep], facet_tags=mesh.facet_tags[keep])


def _check_types(types: list[str], dim: int) -> None:
    """Refuse everything but one kind of simplex with straight edges."""
    remedy = "Use intervals, triangles or tetrahedra with straight edges (first order)."
    if dim == 0:
        raise InputError("the mesh has no cells", remedy=remedy)
    kinds = sorted(set(types))
    if kinds == [SIMPLEX[dim]]:
        return
    if len(kinds) > 1:
        raise InputError("the mesh mixes cells of several types", value=", ".join(kinds), remedy=remedy)
    if SIMPLEX[dim] in kinds[0].lower():
        raise InputError("the mesh has curved cells (of higher order)", value=kinds[0], remedy=remedy)
    raise InputError("the mesh has cells that are not simplices", value=kinds[0], remedy=remedy)


def _stack(blocks: list[Any], tags: list[Any] | None, dim: int, n: int) -> tuple[Indices, NDArray[np.int32]]:
    """All simplices of one dimension and their tags: (m, dim + 1) and (m,), 0 for no tag."""
    chosen = [(i, block) for i, block in blocks if block.type == SIMPLEX[dim]]
    empty = np.empty((0, dim + 1), dtype=np.int64)
    cells = np.concatenate([empty] + [np.asarray(b.data, dtype=np.int64).reshape(-1, dim + 1) for _, b in chosen])
    if cells.size and (cells.min() < 0 or cells.max() >= n):
        raise InputError(f"cells refer to nodes that do not exist (there are {n})", value=int(cells.max()))
    given = [np.zeros(0, dtype=np.int64)]
    given += [np.zeros(len(b.data), dtype=np.int64) if tags is None else tags[i] for i, b in chosen]
    # gmsh writes a negative tag where a physical group reverses the orientation.
    values = np.abs(np.concatenate(given).astype(np.int64))
    if values.max(initial=0) > np.iinfo(np.int32).max:
        raise InputError("tags must fit into 32 bits", value=int(values.max()))
    return cells, values.astype(np.int32)


def _tag_arrays(raw: Any) -> list[Any] | None:
    """The cell data that holds the tags, one array per block; None if there is none."""
    integral = {
        name: [np.ravel(a) for a in data]
        for name, data in raw.cell_data.items()
        if all(np.asarray(a).dtype.kind in "iu" for a in data)
    }
    integral = {name: data for name, data in integral.items() if [a.size for a in data] == [len(b) for b in raw.cells]}
    for name in _TAG_NAMES:
        if name in integral:
            return integral[name]
    others = [data for name, data in integral.items() if not name.startswith(("gmsh:", "vtk"))]
    return others[0] if len(others) == 1 else None


def _tag_names(raw: Any) -> dict[str, tuple[int, int]]:
    """Names of the physical groups: name -> (dimension, tag)."""
    pairs = {str(name): np.ravel(value) for name, value in raw.field_data.items()}
    return {
        name: (int(pair[1]), int(pair[0]))
        for name, pair in pairs.items()
        if len(pair) == 2 and pair.dtype.kind in "iu" and 0 <= pair[1] <= 3
    }


def _flatten(points: Floats, dim: int) -> Floats:
    """Drop the coordinates beyond ``dim``, which must be constant.

    Raises:
        InputError: a curve that does not lie along x, or a surface that does not lie in a plane z = constant.
    """
    if points.shape[1] < dim:
        raise InputError(f"{SIMPLEX[dim]} cells need {dim} coordinates", value=points.shape[1])
    spread = np.ptp(points, axis=0) if np.isfinite(points).all() else np.zeros(points.shape[1])
    if np.any(spread[dim:] > _FLAT * spread.max()):
        shape = "a line along x" if dim == 1 else "flat (z constant)"
        missing = "surface" if dim == 1 else "volume"
        raise InputError(
            f"the cells are {SIMPLEX[dim]}s, but the mesh is not {shape}",
            value=f"extent {' × '.join(f'{s:.6g}' for s in spread)}",
            remedy=f"If this is the boundary of a domain, mesh its {missing} too; otherwise rotate it.",
        )
    return np.ascontiguousarray(points[:, :dim])
