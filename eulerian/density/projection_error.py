"""How far the density on a mesh is from the one that it stands for, cell by cell."""

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace
from eulerian.density.subdivided_rule import physical_points, subdivided_rules


def projection_errors(space: DensitySpace, rho: Floats, exact: ExactDensity) -> Floats:
    """∫_K |ρ_h − ρ|, relative to the label's mass, on this rank's owned cells: (n_owned, K). **Collective**.

    Cells are subdivided for the quadrature where ρ is finer than they are.

    Args:
        space: of ρ_h.
        rho: (n_cells, nd, K) coefficients of ρ_h.
        exact: ρ, of as many labels.
    """
    found = np.zeros((space.n_owned, space.n_labels))
    scales = [term.shape.scale for term, _ in exact.terms]
    rules = list(subdivided_rules(space, scales, np.arange(space.n_owned)))
    with parallel.agreed(space.comm):
        for cells, points, weights in rules:
            x = physical_points(space.vertices[cells], points)
            wanted = exact.values(x.reshape(-1, space.dim)).reshape(*x.shape[:2], space.n_labels)
            held = np.einsum("qi,cik->cqk", basis.legendre(space.dim, space.degree, points), rho[cells], optimize=True)
            found[cells] = np.einsum("q,cqk->ck", weights, np.abs(held - wanted))
    return found * space.geometry.det[: space.n_owned, None] / space.mass(rho)
