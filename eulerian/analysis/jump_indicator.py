"""Where a mesh is too coarse for a density that moves through it: its jumps across the facets, over the whole run.

The jump of a discontinuous Galerkin density across a facet is as large as its error there, and costs next to nothing.
η_K = h_K ∫_∂K |[ρ_h]|, summed over the ends of the layers: what is unresolved at any time counts, for the error of ρ(T)
is made on the way. On several flows cells marked by it fell as fast as by dearer indicators; marking by the error at T
alone stalls.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.geometry import facet_orientation, sides


def jump_indicator(problem: ControlProblem) -> Floats:
    """η_K of this rank's owned cells, (n_owned,), of the flow that was evaluated last. **Collective**.

    Labels are weighed by their masses, so that each has its share; dimensionless, like a mass.

    Args:
        problem: evaluated.
    """
    ends = (problem.density_at(layer) for layer in range(problem.n_layers + 1))
    return summed_jumps(problem.density_space, ends)


def summed_jumps(space: DensitySpace, densities: Iterable[Floats]) -> Floats:
    """Σ h_K ∫_∂K |[ρ_y]| / mass of ρ_y, over labels and densities (n_cells, nd, K) with ghosts: (n_owned,). Collective.

    The boundary of the domain has no part in it.
    """
    geometry, n, dim = space.geometry, space.n_owned, space.dim
    size, orientation = _diameters(space), facet_orientation(geometry.vertex_order)
    tables = [basis.facet_points(dim, space.facet_degree, side) for side in sides(dim)]
    traces = np.array([basis.legendre(dim, space.degree, x) for x in tables])
    weights = basis.facet_weights(dim, space.facet_degree)
    facets = []
    for facet in range(dim + 1):
        cells = np.flatnonzero(geometry.neighbours[:n, facet] >= 0)
        across, there = geometry.neighbours[cells, facet], geometry.neighbour_facets[cells, facet]
        # Facet normals come divided by |det J|.
        area = np.linalg.norm(geometry.facet_normals[cells, facet], axis=1) * geometry.det[cells]
        facets.append((cells, across, traces[orientation[cells, facet]], traces[orientation[across, there]], area))
    found = np.zeros(n)
    for rho in densities:
        shares = 1.0 / np.maximum(space.mass(rho), np.finfo(float).tiny)
        for cells, across, own, other, area in facets:
            jump = np.einsum("cqi,cik->cqk", own, rho[cells]) - np.einsum("cqi,cik->cqk", other, rho[across])
            found[cells] += area * np.einsum("q,cqk,k->c", weights, np.abs(jump), shares, optimize=True)
    return size * found


def _diameters(space: DensitySpace) -> Floats:
    """The longest edge of each owned cell, (n_owned,)."""
    x = space.vertices
    edges = [np.linalg.norm(x[:, i] - x[:, j], axis=1) for i, j in combinations(range(space.dim + 1), 2)]
    return np.asarray(np.max(edges, axis=0))
