"""The same problem on a coarser or finer mesh of its domain: what the two differ by tells how good either is."""

from math import factorial

import numpy as np

from eulerian.base import parallel
from eulerian.base.errors import InputError
from eulerian.density.outside import Domain
from eulerian.density.space import DensitySpace
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import box_mesh, distributed
from eulerian.mesh.simplices import Simplices, halve_edges

_FEWEST = 8  # cells along the longest side of a box that is still halved
_MOST_CELLS = {1: 100_000, 2: 20_000, 3: 40_000}  # of a mesh whose edges have been halved


def on_second_mesh(problem: IdealProblem) -> tuple[IdealProblem, bool]:
    """A problem on a box with twice as wide cells, or on its own mesh with halved edges. **Collective**.

    Returns:
        The problem, and whether its mesh is the finer one.

    Raises:
        InputError: what the densities on the mesh stand for is not known, or a finer mesh has too many cells.
    """
    space = problem.space
    halved = _half_box(space)
    finer = halved is None
    if halved is None:
        cells = space.mesh.topology.index_map(space.dim).size_global * 2**space.dim
        if cells > _MOST_CELLS[space.dim]:
            raise InputError("the mesh has too many cells to halve its edges", key="domain", value=cells)
        mesh = distributed(space.comm, _halved_edges(space), space.dim)
    else:
        low, high = space.bounding_box
        mesh = box_mesh(low.tolist(), high.tolist(), halved, space.comm)
    return problem.on(DensitySpace(mesh, space.degree, space.n_labels)), finer


def _half_box(space: DensitySpace) -> list[int] | None:
    """Cells along the sides of a box that are twice as wide as a mesh's, if it has enough of them. Collective."""
    if not Domain(space).is_a_box:
        return None
    low, high = space.bounding_box
    sides = high - low
    cells = space.mesh.topology.index_map(space.dim).size_global / factorial(space.dim)
    along = sides * (cells / np.prod(sides)) ** (1.0 / space.dim)
    if np.rint(along.max()) < _FEWEST:
        return None
    return [int(n) for n in np.maximum(np.rint(0.5 * along), 1)]


def _halved_edges(space: DensitySpace) -> Simplices | None:
    """The mesh with halved edges on the root, None elsewhere. Collective."""
    geometry = space.mesh.geometry
    nodes = geometry.dofmaps[0][: space.n_owned]
    cells = geometry.index_map().local_to_global(nodes.ravel()).reshape(nodes.shape)
    numbers = parallel.gather_rows(space.comm, cells)
    corners = parallel.gather_rows(space.comm, space.vertices.reshape(space.n_owned, -1))
    if numbers is None or corners is None:
        return None
    _, first, places = np.unique(numbers.ravel(), return_index=True, return_inverse=True)
    points = corners.reshape(-1, space.dim)[first]
    return halve_edges(Simplices.untagged(points, places.reshape(numbers.shape)))
