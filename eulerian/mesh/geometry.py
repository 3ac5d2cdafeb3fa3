"""Affine simplices as arrays: Jacobians, facet normals, and who is whose neighbour."""

from dataclasses import dataclass
from itertools import permutations

import dolfinx
import numpy as np

from eulerian.base.arrays import Floats, Ints
from eulerian.mesh.point_location import barycentric_gradients


@dataclass(frozen=True)
class SimplexGeometry:
    """The mesh as arrays over this rank's cells (owned first, then the ghosts that share a facet with them).

    Facet ``f`` of a cell lies opposite its vertex ``f``. The two cells of a facet must see the same quadrature points:
    they do if each counts its vertices in the order of their global input numbers, which is ``vertex_order``. Lengths
    are in the units of the mesh.

    Attributes:
        vertices: (n_cells, dim+1, dim) coordinates.
        inverse_jacobian: (n_cells, dim, dim), d(reference)/d(physical).
        det: (n_cells,) |det J| = dim! × volume.
        facet_normals: (n_cells, dim+1, dim) outward normals times facet measure divided by ``det``.
        neighbours: (n_cells, dim+1) local cell across each facet, -1 where there is none on this rank.
        neighbour_facets: (n_cells, dim+1) the same facet's number in that neighbour.
        vertex_order: (n_cells, dim+1) local vertices in ascending global number.
        boundary: (n_owned,) whether the cell touches the boundary of the domain with a facet.
    """

    dim: int
    n_owned: int
    n_cells: int
    vertices: Floats
    inverse_jacobian: Floats
    det: Floats
    facet_normals: Floats
    neighbours: Ints
    neighbour_facets: Ints
    vertex_order: Ints
    boundary: np.ndarray[tuple[int], np.dtype[np.bool_]]


def sides(dim: int) -> list[tuple[int, ...]]:
    """Every facet of the reference simplex with every order of its vertices, as tuples of local vertex numbers."""
    return [
        tuple(order) for facet in range(dim + 1) for order in permutations([v for v in range(dim + 1) if v != facet])
    ]


def facet_orientation(vertex_order: Ints) -> Ints:
    """For every cell and facet (n_cells, dim+1), the index in ``sides(dim)`` of the facet's vertices in their order."""
    dim = vertex_order.shape[1] - 1
    result = np.empty_like(vertex_order)
    for index, side in enumerate(sides(dim)):
        facet = next(v for v in range(dim + 1) if v not in side)
        others = vertex_order[vertex_order != facet].reshape(-1, dim)
        result[np.all(others == np.array(side), axis=1), facet] = index
    return result


def simplex_geometry(mesh: dolfinx.mesh.Mesh) -> SimplexGeometry:
    """Collect the arrays of a mesh of affine simplices that fill their space, with shared-facet ghosts. Collective."""
    dim = mesh.topology.dim
    mesh.topology.create_connectivity(dim, dim - 1)
    mesh.topology.create_connectivity(dim - 1, dim)
    cells = mesh.topology.index_map(dim)
    n_owned, n_cells = cells.size_local, cells.size_local + cells.num_ghosts

    nodes = mesh.geometry.dofmaps[0][:n_cells]
    vertices = np.ascontiguousarray(mesh.geometry.x[nodes][:, :, :dim])
    jacobian = np.swapaxes(vertices[:, 1:] - vertices[:, :1], 1, 2)
    inverse = np.ascontiguousarray(np.linalg.inv(jacobian))
    det = np.abs(np.linalg.det(jacobian))
    neighbours, neighbour_facets = _adjacency(mesh, n_cells)
    return SimplexGeometry(
        dim,
        n_owned,
        n_cells,
        vertices,
        inverse,
        det,
        _facet_normals(inverse),
        neighbours,
        neighbour_facets,
        np.argsort(mesh.geometry.input_global_indices[nodes], axis=1).astype(np.int32),
        np.any(neighbours[:n_owned] < 0, axis=1),
    )


def _adjacency(mesh: dolfinx.mesh.Mesh, n_cells: int) -> tuple[Ints, Ints]:
    """Neighbouring cell and its facet number across every facet; -1 where there is none."""
    dim = mesh.topology.dim
    cell_facets = mesh.topology.connectivity(dim, dim - 1).array.reshape(-1, dim + 1)[:n_cells]
    if dim == 1:  # the facet opposite vertex 0 is vertex 1
        cell_facets = cell_facets[:, ::-1]
    n_facets = int(cell_facets.max(initial=-1)) + 1
    owner = np.full((n_facets, 2), -1, dtype=np.int64)  # flat (cell, facet) positions of both sides
    flat = cell_facets.ravel()
    order = np.argsort(flat, kind="stable")  # so that of two cells the one with the smaller number is the first side
    first = np.r_[True, flat[order][1:] != flat[order][:-1]] if flat.size else np.zeros(0, dtype=bool)
    owner[flat[order[first]], 0] = order[first]
    owner[flat[order[~first]], 1] = order[~first]
    both = owner[flat]
    mine = np.arange(flat.size)
    other = np.where(both[:, 0] == mine, both[:, 1], both[:, 0])
    missing = other < 0  # a wall, or behind it a cell that this rank does not have
    neighbours = np.where(missing, -1, other // (dim + 1)).astype(np.int32)
    facets = np.where(missing, 0, other % (dim + 1)).astype(np.int32)
    return neighbours.reshape(-1, dim + 1), facets.reshape(-1, dim + 1)


def _facet_normals(inverse: Floats) -> Floats:
    """Outward area normals over det J: minus the gradient of the facet's opposite barycentric, over (dim-1)!."""
    dim = inverse.shape[1]
    return np.ascontiguousarray(-barycentric_gradients(inverse) / float(np.prod(np.arange(1, dim))))
