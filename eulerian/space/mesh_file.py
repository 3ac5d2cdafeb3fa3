"""Mesh files: everything that meshio reads, as checked arrays of simplices. Not collective: call it on one rank."""

import io
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.machine import require_readable
from eulerian.space.mesh_checks import check_mesh
from eulerian.space.simplices import FacetTable, Indices, Simplices

SIMPLEX = {0: "vertex", 1: "line", 2: "triangle", 3: "tetra"}
_TAG_NAMES = ("gmsh:physical", "medit:ref", "cell_tags", "CellEntityIds", "avsucd:material")
_AGAIN = "Write the file again with the program that made the mesh."
_FLAT = 1e-10  # relative to the size of the mesh

_LEAST_EXPANSION = 2.0  # bytes in memory, over all that is done with a mesh, for a byte of its file
_READER = Path(__file__).with_name("mesh_reader.py")


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


@final
@dataclass(frozen=True)
class Block:
    """Cells of one type.

    Attributes:
        type: meshio's name of it.
        dim: of the cells.
        data: (n, nodes) as the file numbers them.
    """

    type: str
    dim: int
    data: NDArray[Any]

    def __len__(self) -> int:
        return len(self.data)


@final
@dataclass(frozen=True)
class RawMesh:
    """What a file holds, unchecked.

    Attributes:
        points: (n, coordinates).
        cells: in blocks.
        cell_data: whole numbers on cells by name, one array per block.
        field_data: names of physical groups: (tag, dimension).
    """

    points: Floats
    cells: list[Block]
    cell_data: dict[str, list[NDArray[Any]]]
    field_data: dict[str, list[int]]


def read_file(path: Path) -> RawMesh:
    """Read a file with meshio, in a process of its own with limits on memory and time (see ``mesh_reader``).

    Raises:
        InputError: the file is missing or cannot be read within the limits.
    """
    _require_file(path)
    command = [sys.executable, "-P", str(_READER), str(path.absolute())]
    with subprocess.Popen(
        command, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as reader:
        assert reader.stdout is not None
        try:
            return _received(reader.stdout, path)
        except ValueError as error:  # it ended before its answer did
            raise _unreadable(path, "its reader crashed or took too long: is it what it claims to be?") from error
        finally:
            reader.kill()


def _require_file(path: Path) -> None:
    """Refuse what is no file, and an empty one."""
    try:
        if not path.is_file():
            what = "it is not a file" if path.exists() else "there is no such file"
            raise InputError(f"cannot read the mesh: {what}", key=str(path), remedy="Give the path of a mesh file.")
        require_readable(path, _LEAST_EXPANSION, str(path))
        with path.open("rb") as file:
            start = file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the mesh: {reason}", key=str(path), remedy="Give another file.") from error
    if not start:
        raise InputError("the mesh file is empty", key=str(path), remedy="Write it again, or give another file.")


def _environment() -> dict[str, str]:
    """The modules of this process, one thread, and nothing of an MPI launcher, whose job the reader does not join."""
    launchers = ("PMI_", "PMIX_", "OMPI_", "MPI_LOCAL", "HYD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    path = os.pathsep.join(entry for entry in sys.path if os.path.isabs(entry))
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _received(stream: IO[bytes], path: Path) -> RawMesh:
    """The reader's answer.

    Raises:
        InputError: the reader refused the file.
        ValueError: the answer breaks off.
    """
    header = json.loads(stream.readline())
    if "error" in header:
        raise _unreadable(path, header["error"])
    arrays = iter([_array(stream, np.dtype(kind), tuple(shape)) for kind, shape in header["arrays"]])
    points = next(arrays)
    cells = [Block(kind, dim, next(arrays)) for kind, dim in header["blocks"]]
    data = {name: [next(arrays) for _ in cells] for name in header["names"]}
    return RawMesh(points, cells, data, header["fields"])


def _array(stream: IO[bytes], kind: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The next array, not to be written to; ValueError if not all of it comes."""
    return np.frombuffer(stream.read(kind.itemsize * math.prod(shape)), dtype=kind).reshape(shape)


def _unreadable(path: Path, reason: str) -> InputError:
    what = f"cannot read the mesh {path.name}"
    return InputError(f"{what} ({reason})" if reason else what, key=str(path), remedy=_remedy(path))


def _remedy(path: Path) -> str:
    """What to do about a file that meshio cannot read or write."""
    import meshio

    if path.suffix.lower() in meshio.extension_to_filetypes:
        return "Is the file complete?"
    return f"Known formats: {', '.join(sorted(meshio.extension_to_filetypes))}"


def quietly[T](work: Callable[[], T], what: str, path: Path) -> T:
    """Run a meshio call without its printing; its failures, even ``sys.exit``, become one InputError."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except (Exception, SystemExit) as error:
        text = said.getvalue() if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        reason = " ".join(text.split())[:300]
        raise InputError(f"{what} ({reason})" if reason else what, key=str(path), remedy=_remedy(path)) from error


def _simplices(raw: RawMesh) -> Simplices:
    """The cells of highest dimension and their tagged facets, without orphan nodes and spare coordinates."""
    _check_shapes(raw)
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


def _check_shapes(raw: RawMesh) -> None:
    """Refuse arrays that are no lists of points, or of cells."""
    if raw.points.ndim != 2:
        value = f"an array of shape {raw.points.shape}"
        raise InputError("the points are no list of coordinates", value=value, remedy=_AGAIN)
    for block in raw.cells:
        nodes = block.data.shape[1] if block.data.ndim == 2 else -1
        if nodes < 0 or (block.type == SIMPLEX.get(block.dim) and nodes != block.dim + 1):
            what = f"the cells of type {block.type} have a wrong number of nodes"
            raise InputError(what, value=block.data.shape, remedy=_AGAIN)


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


def _stack(
    blocks: list[tuple[int, Block]], tags: list[NDArray[Any]] | None, dim: int, n: int
) -> tuple[Indices, NDArray[np.int32]]:
    """All simplices of one dimension and their tags: (m, dim + 1) and (m,), 0 for no tag."""
    chosen = [(i, block) for i, block in blocks if block.type == SIMPLEX[dim]]
    empty = np.empty((0, dim + 1), dtype=np.int64)
    cells = np.concatenate([empty] + [np.asarray(b.data, dtype=np.int64).reshape(-1, dim + 1) for _, b in chosen])
    if cells.size and (cells.min() < 0 or cells.max() >= n):
        what, far = f"cells refer to nodes that do not exist (there are {n})", cells[(cells < 0) | (cells >= n)]
        raise InputError(what, value=int(far[0]), remedy=_AGAIN)
    given = [np.zeros(0, dtype=np.int64)]
    given += [np.zeros(len(b.data), dtype=np.int64) if tags is None else tags[i] for i, b in chosen]
    # gmsh writes a negative tag where a physical group reverses the orientation.
    values = np.abs(np.concatenate(given).astype(np.int64))
    if values.max(initial=0) > np.iinfo(np.int32).max:
        raise InputError("tags must fit into 32 bits", value=int(values.max()), remedy="Use smaller tags.")
    return cells, values.astype(np.int32)


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
        raise InputError(f"{SIMPLEX[dim]} cells need {dim} coordinates", value=points.shape[1], remedy=_AGAIN)
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
