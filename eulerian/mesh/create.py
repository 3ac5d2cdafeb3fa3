"""Distributed meshes: boxes, and everything that meshio reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial, prod
from pathlib import Path
from typing import Any

from mpi4py import MPI

import basix.ufl
import numpy as np
import ufl
from dolfinx import graph, io
from dolfinx import mesh as dmesh
from numpy.typing import NDArray

from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.mesh import importing
from eulerian.mesh.report import MeshReport, TagReport, convert, inspect
from eulerian.mesh.simplices import Simplices, halve_edges, part_corners

__all__ = [
    "ImportedMesh",
    "MeshReport",
    "TagReport",
    "box_mesh",
    "convert",
    "distributed",
    "import_mesh",
    "inspect",
    "mesh_from_simplices",
    "read_mesh",
    "read_simplices",
]

type Check = Callable[[int, float], None]

MAX_CELLS = 2e8
"""PETSc counts in 32 bits, and degree 2 has ten coefficients in a tetrahedron."""

_NAMES = {1: "interval", 2: "triangle", 3: "tetrahedron"}


@dataclass(frozen=True)
class ImportedMesh:
    """A distributed mesh with what its file says about it.

    Attributes:
        mesh: with shared-facet ghosts.
        cell_tags: tags of cells, or None; the first of those in several groups, DOLFINx holds one for each.
        facet_tags: tags of facets, or None; likewise.
        tag_names: name -> (dimension, tag).
    """

    mesh: dmesh.Mesh
    cell_tags: dmesh.MeshTags | None
    facet_tags: dmesh.MeshTags | None
    tag_names: dict[str, tuple[int, int]]


def box_mesh(
    lower: Sequence[float],
    upper: Sequence[float],
    cells: Sequence[int],
    comm: MPI.Comm = MPI.COMM_WORLD,
    *,
    check: Check | None = None,
) -> dmesh.Mesh:
    """An interval, a rectangle of triangles or a cuboid of tetrahedra, with shared-facet ghosts. **Collective**.

    The order of the cells by ``original_cell_index`` does not depend on the number of ranks.

    Args:
        lower: (d,) corner.
        upper: (d,) opposite corner.
        cells: (d,) boxes along every axis, each of which is cut into 1, 2 or 6 simplices.
        comm: the ranks that share the mesh.
        check: called with the dimension and the number of cells before the mesh is made, at least on rank 0; its
            errors reach all ranks.

    Raises:
        InputError: the corners are no box, or there would be too many cells.
    """
    dim = len(lower)
    if dim not in _NAMES or len(upper) != dim or len(cells) != dim:
        remedy = "Give one number per axis, for 1, 2 or 3 axes."
        raise InputError("lower, upper and cells do not fit together", key="box_mesh", value=cells, remedy=remedy)
    if not all(low < high for low, high in zip(lower, upper, strict=True)) or min(cells) < 1:
        what, remedy = "is no box", "upper must be above lower, with at least one cell along every axis."
        raise InputError(what, key="box_mesh", value=[list(lower), list(upper), list(cells)], remedy=remedy)
    n_cells = prod(map(float, cells)) * factorial(dim)
    check_size(n_cells, "domain.box.cells")
    if check is not None:
        on_root(comm, lambda: check(dim, n_cells))
    ghosts = dmesh.GhostMode.shared_facet
    if dim == 1:
        return dmesh.create_interval(comm, cells[0], [lower[0], upper[0]], ghost_mode=ghosts)
    corners: list[Any] = [np.array(lower, dtype=float), np.array(upper, dtype=float)]
    if dim == 2:
        return dmesh.create_rectangle(comm, corners, cells, ghost_mode=ghosts)
    return dmesh.create_box(comm, corners, cells, ghost_mode=ghosts)


def read_mesh(file: str | Path, comm: MPI.Comm = MPI.COMM_WORLD, *, refine: int = 0) -> dmesh.Mesh:
    """A mesh of simplices from a file that meshio or gmsh wrote, with shared-facet ghosts. **Collective**.

    Args:
        file: its path.
        comm: the ranks that share the mesh.
        refine: how often every cell is cut into 2^d.

    Raises:
        InputError: on all ranks, if the file cannot be read or is not the triangulation of a domain.
    """
    return import_mesh(comm, file, refine).mesh


def import_mesh(comm: MPI.Comm, path: str | Path, refine: int = 0, check: Check | None = None) -> ImportedMesh:
    """Read a mesh file on rank 0, refine it there, and distribute it with shared-facet ghosts. Collective.

    Args:
        comm: the ranks that share the mesh.
        path: any file of meshio with intervals, triangles or tetrahedra.
        refine: how often every cell is cut into 2^d.
        check: as for ``box_mesh``.

    Raises:
        InputError: on all ranks, if the file cannot be read or is not the triangulation of a domain.
    """
    held: list[Simplices] = []  # stays on rank 0: only its outline is sent to the others

    def read() -> tuple[int, bool, bool, dict[str, tuple[int, int]]]:
        mesh, table = importing.read_simplices(path)
        n_cells = len(mesh.cells) * 2.0 ** (mesh.dim * refine)
        check_size(n_cells, str(path))
        if check is not None:
            check(mesh.dim, n_cells)
        mesh = part_corners(mesh, table)
        for _ in range(refine):
            mesh = halve_edges(mesh)
        held.append(mesh)
        return mesh.dim, mesh.cell_tags is not None, len(mesh.facets) > 0, mesh.names

    dim, has_cell_tags, has_facet_tags, names = on_root(comm, read)
    part = held[0] if held else _nothing(dim)
    mesh = distributed(comm, part, dim)
    cell_tags = _distribute_tags(mesh, dim, part.cells, part.cell_tags) if has_cell_tags else None
    facet_tags = _distribute_tags(mesh, dim - 1, part.facets, part.facet_tags) if has_facet_tags else None
    return ImportedMesh(mesh, cell_tags, facet_tags, names)


def read_simplices(file: str | Path, comm: MPI.Comm = MPI.COMM_WORLD) -> Simplices:
    """A mesh from a file that meshio or gmsh wrote, on all ranks and without its tags. **Collective**.

    Args:
        file: its path.
        comm: the ranks that get it.

    Raises:
        InputError: on all ranks, if the file cannot be read or is not the triangulation of a domain.
    """

    def read() -> Simplices:
        mesh = part_corners(*importing.read_simplices(file))
        return Simplices(mesh.points, mesh.cells)

    return on_root(comm, read)


def mesh_from_simplices(mesh: Simplices, comm: MPI.Comm = MPI.COMM_WORLD) -> dmesh.Mesh:
    """DOLFINx's mesh of points and cells that all ranks have, with shared-facet ghosts. **Collective**.

    Args:
        mesh: the same on all ranks; rank 0's counts.
        comm: the ranks that share it.
    """
    return distributed(comm, mesh if comm.rank == 0 else None, mesh.dim)


def distributed(comm: MPI.Comm, mesh: Simplices | None, dim: int) -> dmesh.Mesh:
    """A mesh that one rank holds (the others give None, or nothing in it), with shared-facet ghosts. Collective.

    ``original_cell_index`` counts the cells as they are given.
    """
    part = _nothing(dim) if mesh is None else mesh
    element = basix.ufl.element("Lagrange", _NAMES[dim], 1, shape=(dim,))
    partitioner = dmesh.create_cell_partitioner(dmesh.GhostMode.shared_facet, 2)
    return dmesh.create_mesh(comm, part.cells, ufl.Mesh(element), part.points, partitioner)


def _nothing(dim: int) -> Simplices:
    """What the other ranks contribute."""
    none = np.empty(0, dtype=np.int32)
    cells, facets = np.empty((0, dim + 1), dtype=np.int64), np.empty((0, dim), dtype=np.int64)
    return Simplices(np.empty((0, dim)), cells, none, facets, none)


def _distribute_tags(
    mesh: dmesh.Mesh, dim: int, entities: NDArray[np.int64], values: NDArray[np.int32] | None
) -> dmesh.MeshTags:
    """Tags of cells or facets, given by their nodes on rank 0, on the ranks that own them. Collective."""
    topology = mesh.topology
    topology.create_entities(dim)
    topology.create_connectivity(dim, 0)
    topology.create_connectivity(dim, topology.dim)
    local, tags = io.distribute_entity_data(mesh, dim, entities, values)
    return dmesh.meshtags_from_entities(mesh, dim, graph.adjacencylist(local), tags)


def check_size(n_cells: float, key: str) -> None:
    """Refuse a mesh of more cells than can be counted."""
    if n_cells > MAX_CELLS:
        raise InputError(
            f"the mesh would have {n_cells:.3g} cells, more than {MAX_CELLS:.3g}",
            key=key,
            remedy="Use a coarser mesh, or fewer refinements.",
        )
