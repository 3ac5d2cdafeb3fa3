"""Patches for what meshio's readers cannot do; only the process of ``reader_process`` loads this file.

* gmsh 4.x: entities without a physical group beside others that have one; entities in several groups, whose cells
  come once per group, as gmsh writes them into files of format 2.2; node numbers far from 1; data on nodes and cells,
  which no mesh needs.
* gmsh 2.2: node numbers far from 1; a node 0, which meshio takes for the last one as Python counts.
* VTU: later versions of the format, linear cells that are called Lagrange cells, and more than one piece.
* PVTU and PVD, as ``dolfinx.io.VTKFile`` writes them: the pieces of several processes.
* XDMF: more than one grid, as ``dolfinx.io.XDMFFile`` writes meshes with tags and functions.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import meshio
import numpy as np
from meshio._common import num_nodes_per_cell
from meshio.gmsh import _gmsh22, _gmsh40, _gmsh41
from meshio.vtu import _vtu

type Numbers = np.ndarray[Any, Any]

_NO_NODE = "cells refer to nodes that do not exist"
_LAGRANGE = {68: (2, 3), 69: (3, 5), 71: (4, 10)}  # VTK's number: nodes of the linear cell, and its usual number
_GHOST, _POINT_IDS = "vtkGhostType", "vtkOriginalPointIds"
_DUPLICATE = 1  # VTK's bit for a cell that belongs to another piece


# -- gmsh --------------------------------------------------------------------------------------------------------------


def patch_gmsh() -> None:
    """For files of formats 2.2, 4.0 and 4.1."""
    _gmsh22._read_nodes, _gmsh22._read_cells = _nodes_22, partial(_cells_22, _gmsh22._read_cells)
    _gmsh40._read_elements, _gmsh41._read_elements = _elements_40, _elements_41
    for module in (_gmsh22, _gmsh40, _gmsh41):
        module._read_data = lambda file, name, *_: _gmsh41._fast_forward_to_end_block(file, name)


def _nodes_22(file: Any, is_ascii: bool) -> tuple[Numbers, Numbers]:
    """Coordinates and numbers of the nodes, in any order."""
    count = int(file.readline().decode())
    if is_ascii:
        table = np.fromfile(file, count=count * 4, sep=" ").reshape((count, 4))
        numbers, points = table[:, 0].astype(np.int64), table[:, 1:]
    else:
        data = np.fromfile(file, count=count, dtype=[("index", "i4"), ("x", "f8", (3,))])
        if len(data) < count:
            raise EOFError(f"{count} nodes are announced and {len(data)} are there")
        numbers, points = data["index"].astype(np.int64), np.ascontiguousarray(data["x"])
    _gmsh22._fast_forward_to_end_block(file, "Nodes")
    return points, numbers


def _cells_22(original: Callable[..., Any], file: Any, cells: Any, numbers: Numbers, is_ascii: bool) -> Any:
    """Meshio's own reader, given nodes that are numbered from 1 and cells that agree with that."""
    ordered, place = _gmsh22._gmsh_to_meshio_order, _Places(numbers)
    _gmsh22._gmsh_to_meshio_order = lambda kind, nodes: ordered(kind, place(np.asarray(nodes, dtype=np.int64) + 1))
    try:
        return original(file, cells, np.arange(1, len(numbers) + 1), is_ascii)
    finally:
        _gmsh22._gmsh_to_meshio_order = ordered


class _Places:
    """Where nodes are by their numbers, without a table as long as the largest number."""

    def __init__(self, numbers: Numbers) -> None:
        self._order = np.argsort(numbers, kind="stable")
        self._numbers = np.asarray(numbers, dtype=np.int64)[self._order]

    def __call__(self, wanted: Numbers) -> Numbers:
        if not wanted.size:
            return np.asarray(wanted, dtype=np.int64)
        if not len(self._numbers):
            raise ValueError(_NO_NODE)
        at = np.minimum(np.searchsorted(self._numbers, wanted), len(self._numbers) - 1)
        if np.any(self._numbers[at] != wanted):
            raise ValueError(f"{_NO_NODE}, the first is {int(wanted[self._numbers[at] != wanted][0])}")
        return np.asarray(self._order[at])


def _elements_41(
    file: Any, numbers: Numbers, groups: Any, _bounds: Any, is_ascii: bool, size: int, _names: Any
) -> tuple[Any, ...]:
    """What meshio has, here, which has subtracted 1 from the numbers of the nodes."""
    whole = np.dtype(f"u{size}")
    n_blocks = int(_fromfile(file, is_ascii, whole, 4)[0])
    place = _Places(np.asarray(numbers, dtype=np.int64) + 1)

    def block() -> tuple[int, int, int, Numbers]:
        dim, entity, kind = _fromfile(file, is_ascii, np.dtype("i4"), 3).tolist()
        return dim, entity, kind, _rows(file, is_ascii, whole, whole, kind)

    return *_blocks(file, n_blocks, block, place, groups), {}


def _elements_40(file: Any, numbers: Numbers, groups: Any, is_ascii: bool) -> tuple[Any, ...]:
    """What meshio has, here."""
    long, short = np.dtype("u8"), np.dtype("i4")
    n_blocks = int(_fromfile(file, is_ascii, long, 2)[0])

    def block() -> tuple[int, int, int, Numbers]:
        entity, dim, kind = _fromfile(file, is_ascii, short, 3).tolist()
        return dim, entity, kind, _rows(file, is_ascii, long, short, kind)

    return _blocks(file, n_blocks, block, _Places(numbers), groups)


def _blocks(
    file: Any, n_blocks: int, read: Callable[[], tuple[int, int, int, Numbers]], place: _Places, groups: Any
) -> tuple[Any, Any]:
    """Cells and their tags, a block for every physical group of an entity, or one with tag 0.

    Args:
        file: behind the first line of the section of elements.
        n_blocks: how many blocks the file has.
        read: the next one: dimension and number of its entity, gmsh's type, and a row for every cell.
        place: of the nodes.
        groups: of every entity by dimension and number, or None.
    """
    cells, physical, geometrical = [], [], []
    for _ in range(n_blocks):
        dim, entity, kind, rows = read()
        name = _gmsh41._gmsh_to_meshio_type[kind]
        nodes = _gmsh41._gmsh_to_meshio_order(name, place(rows[:, 1:].astype(np.int64)))
        for tag in (groups[dim].get(entity) if groups else None) or [0]:
            cells.append(meshio.CellBlock(name, nodes))
            physical.append(np.full(len(nodes), tag, dtype=np.int64))
            geometrical.append(np.full(len(nodes), entity, dtype=np.int64))
    _gmsh41._fast_forward_to_end_block(file, "Elements")
    return cells, {"gmsh:physical": physical, "gmsh:geometrical": geometrical}


def _rows(file: Any, is_ascii: bool, counts: Any, whole: Any, kind: int) -> Numbers:
    """The number of a cell and those of its nodes, for every cell of a block."""
    count = int(_fromfile(file, is_ascii, counts, 1)[0])
    width = 1 + num_nodes_per_cell[_gmsh41._gmsh_to_meshio_type[kind]]
    return _fromfile(file, is_ascii, whole, count * width).reshape(count, width)


def _fromfile(file: Any, is_ascii: bool, kind: Any, count: int) -> Numbers:
    found = np.fromfile(file, kind, count, sep=" " if is_ascii else "")
    if len(found) < count:
        raise EOFError(f"{count} numbers are announced and {len(found)} are there")
    return found


# -- XML of VTK -------------------------------------------------------------------------------------------------------


def read_vtu(path: Path) -> Any:
    """A file of any version of the format: what meshio reads has not changed since 0.1."""
    _mend_vtu()
    return _vtu.read(str(path))


def _mend_vtu() -> None:
    xml: Any = ElementTree
    parse, fromstring, cells_from_data = xml.parse, xml.fromstring, _vtu.vtk_cells_from_data

    def parsed(*arguments: Any) -> Any:
        tree = parse(*arguments)
        tree.getroot().attrib.pop("version", None)
        return tree

    def from_string(*arguments: Any) -> Any:
        root = fromstring(*arguments)
        root.attrib.pop("version", None)
        return root

    def linear(connectivity: Numbers, offsets: Numbers, types: Numbers, data: Any) -> Any:
        sizes, usual = np.diff(np.asarray(offsets, dtype=np.int64), prepend=0), np.asarray(types, dtype=np.int64)
        for kind, (nodes, number) in _LAGRANGE.items():
            usual = np.where((usual == kind) & (sizes == nodes), number, usual)
        return cells_from_data(connectivity, offsets, usual, data)

    def organised(starts: Any, cells: Any, data: Any) -> Any:
        """Meshio's function keeps the cells of the last piece only."""
        found: list[Any] = []
        names: dict[str, list[Any]] = {}
        for start, piece, values in zip(starts, cells, data, strict=True):
            nodes, ends, types = (piece[name].ravel() for name in ("connectivity", "offsets", "types"))
            blocks, tags = linear(nodes, ends, types, values)
            found += [meshio.CellBlock(block.type, block.data + start) for block in blocks]
            for name, parts in tags.items():
                names.setdefault(name, []).extend(parts)
        return found, {name: parts for name, parts in names.items() if len(parts) == len(found)}

    xml.parse, xml.fromstring, _vtu._organize_cells = parsed, from_string, organised


def read_pieces(files: list[Path]) -> Any:
    """One mesh of the files of several processes, without the cells that a piece has of another one's.

    Raises:
        ValueError: they do not say which points they share.
    """
    _mend_vtu()
    meshes = [_vtu.read(str(file)) for file in files]
    if len(meshes) == 1:
        return meshes[0]
    if any(_POINT_IDS not in mesh.point_data for mesh in meshes):
        raise ValueError(f"its pieces have no {_POINT_IDS} and so do not say which points they share")
    ids = [np.ravel(mesh.point_data[_POINT_IDS]) for mesh in meshes]
    _, first, place = np.unique(np.concatenate(ids), return_index=True, return_inverse=True)
    points = np.concatenate([mesh.points for mesh in meshes])[first]
    starts = np.cumsum([0] + [len(each) for each in ids])
    cells = []
    for mesh, start in zip(meshes, starts, strict=False):
        ghosts = mesh.cell_data.get(_GHOST, [np.zeros(len(block.data), dtype=np.uint8) for block in mesh.cells])
        for block, ghost in zip(mesh.cells, ghosts, strict=True):
            own = (np.ravel(ghost).astype(np.int64) & _DUPLICATE) == 0
            cells.append(meshio.CellBlock(block.type, place[block.data[own] + start]))
    return meshio.Mesh(points, cells)


# -- XDMF --------------------------------------------------------------------------------------------------------------


def read_xdmf(path: Path) -> Any:
    """All grids on the points of the first one; those that DOLFINx calls mesh tags give the cells again, with tags."""
    from meshio.xdmf.main import XdmfReader, xdmf_to_meshio_type

    xdmf_to_meshio_type["PolyLine"] = "line"  # what DOLFINx calls it; one of more nodes is refused with the blocks
    root = ElementTree.parse(path).getroot()
    domain = root.find("Domain")
    grids = [] if domain is None else domain.findall("Grid")
    if domain is None or len(grids) < 2 or root.attrib.get("Version", "").split(".")[0] != "3":
        return meshio.xdmf.read(str(path))
    geometry = grids[0].find("Geometry")
    cells: list[Any] = []
    found_tags: list[Any] = []
    fields: dict[str, Any] = {}
    points = None
    for grid in grids:
        if geometry is None or grid.find("Topology") is None or grid.get("GridType", "Uniform") != "Uniform":
            continue  # functions, whose grids point to the mesh's
        for child in list(grid):
            if child.tag not in ("Topology", "Attribute"):
                grid.remove(child)
        grid.insert(0, geometry)
        for other in list(domain):
            domain.remove(other)
        domain.append(grid)
        mesh = XdmfReader(str(path)).read_xdmf3(root)
        points = mesh.points if points is None else points
        fields |= mesh.field_data
        data = [values for values in mesh.cell_data.values() if all(np.asarray(v).dtype.kind in "iu" for v in values)]
        for k, block in enumerate(mesh.cells):
            tags = np.ravel(data[0][k]) if data else np.zeros(len(block.data), dtype=np.int64)
            which = (tags != 0) if cells else slice(None)  # without a tag they are there already
            cells.append(meshio.CellBlock(block.type, block.data[which]))
            found_tags.append(tags[which])
    if points is None:
        raise ValueError("it has no grid with a geometry and a topology")
    tagged = {"cell_tags": found_tags}
    return meshio.Mesh(points, cells, cell_data=tagged, field_data=fields)
