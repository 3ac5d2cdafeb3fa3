"""The convex solver's value with an error: an estimate of the continuous problem's value where no bound is known.

Two things tell how good it is: the same problem on a coarser or finer mesh, and how much ∇φ changes within a slab. The
discrete problem charges the mean of |∇φ|² over the ends of a slab, m² + d² with their mean m and half their difference
d, where m² − d² would be right for velocities that are affine functions of the place: by that its value is too low, in
first order ∫∫ρ|d|²/λ (the value of a convex problem changes by what the change costs at the optimum). Both meshes have
the same slabs, so they do not see it.
"""

import math
from typing import TYPE_CHECKING, Unpack

import numpy as np

from eulerian.base import parallel
from eulerian.base.errors import InputError
from eulerian.bounds.bracket import ContinuousBounds, ConvexOptions
from eulerian.density.outside import Domain
from eulerian.density.space import DensitySpace
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import box_mesh, distributed
from eulerian.mesh.simplices import Simplices, halve_edges

if TYPE_CHECKING:
    from eulerian.ideal.dynamic_ot import ConvexSolution

_SLACK = 2.0  # times what two meshes differ by: the finer one's error, if it falls with h or faster
_FEWEST = 8  # cells along the longest side of a box that is still halved
_MOST_CELLS = {1: 100_000, 2: 20_000, 3: 40_000}  # of a mesh whose edges have been halved


def estimate(
    problem: IdealProblem, solution: "ConvexSolution | None" = None, **convex: Unpack[ConvexOptions]
) -> ContinuousBounds:
    """The value of the convex solver as an estimate of the continuous problem's. **Collective**.

    Args:
        problem: the idealised one.
        solution: its convex solution, if it is known already.
        convex: tolerances and callback of the convex solver.

    Raises:
        InputError, ComputationError: as for ``solve_convex``.
    """
    if problem.kinetic <= 0.0:
        raise InputError("the convex solver needs kinetic energy", key="kinetic", value=problem.kinetic)
    from eulerian.ideal.dynamic_ot import solve_convex  # loads a good part of SciPy, which takes its time

    own = solution or solve_convex(problem, **convex)
    value, error, reason = own.dual, math.nan, ""
    try:
        second, finer = on_second_mesh(problem)
    except InputError as failure:
        reason = f"there is no second mesh: {failure.what}"
    else:
        other = solve_convex(second, **convex)
        best = other if finer else own
        value = best.dual
        error = _SLACK * abs(own.dual - other.dual) + max(abs(own.gap), abs(other.gap)) + _of_slabs(best.flow)
    return ContinuousBounds(value, math.inf, error, "convex", False, _size(problem, own), None, reason)


def _size(problem: IdealProblem, solution: "ConvexSolution") -> float:
    """The sum of the sizes of J's parts, for a value that may be small because they cancel."""
    if problem.running is None:
        return abs(solution.dual)
    # Σ|part| is the sum of the parts, here the dual value, minus twice the negative ones.
    return abs(solution.dual + 2.0 * sum(-part for part in solution.parts.values() if part < 0.0))


def _of_slabs(flow: ConvexFlow) -> float:
    """∫∫ρ|d|²/λ, d half of what ∇φ at a vertex changes by within a slab. Collective."""
    grid, total = flow.grid, 0.0
    for label in range(flow.potential.shape[2]):
        change = 0.5 * np.diff(grid.vertex_gradients(flow.potential[:, :, label]))
        squares = flow.density[:, :, label] * np.sum(change**2, axis=1)
        total += grid.tau * grid.sum(grid.own_masses[:, None] * squares)
    return total / flow.kinetic_weight


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
    cells = space.mesh.topology.index_map(space.dim).size_global / math.factorial(space.dim)
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
