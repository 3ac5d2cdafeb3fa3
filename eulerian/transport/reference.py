"""The transport operator by its blocks, in NumPy: slow, readable, and independent of the compiled loops."""

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.geometry import facet_orientation, sides
from eulerian.transport.operator import TransportOperator
from eulerian.transport.velocity_space import VelocitySpace


def blocks(space: DensitySpace, velocity_space: VelocitySpace, v: Floats, delta: float, power: int = 1) -> Floats:
    """B(v) = M⁻¹A(v) in Legendre modes, by rows of blocks.

    Args:
        space: of the densities.
        velocity_space: of v.
        v: (n_nodes, dim), with ghosts.
        delta: δ of the upwind flux, in units of velocity.
        power: m, if what moves is the m-th power of a density; what it gains at walls is left out.

    Returns:
        (n_owned, dim+2, nd, nd): the first block couples a cell with itself, block 1 + f with its neighbour across
        facet f.
    """
    geometry, n, dim = space.geometry, space.n_owned, space.dim
    result = np.zeros((n, dim + 2, space.nd, space.nd))
    nodal = v[velocity_space.cell_nodes]
    reference = np.einsum("cmj,caj->cam", geometry.inverse_jacobian[:n], nodal[:n])
    result[:, 0] = np.einsum("cam,amij->cij", reference, _volume(space, velocity_space))
    result[:, 0] -= (power - 1.0) * np.einsum("cam,amij->cij", reference, _source(space, velocity_space))

    points = [basis.facet_points(dim, space.facet_degree, side) for side in sides(dim)]
    phi = np.array([basis.legendre(dim, space.degree, x) for x in points])
    shape = np.array([basis.lagrange(dim, velocity_space.degree, x) for x in points])
    weights, orientation = basis.facet_weights(dim, space.facet_degree), facet_orientation(geometry.vertex_order)
    # Both sides of a facet count its points in one order, so each takes the table of its own orientation.
    for facet in range(dim + 1):
        cells = np.flatnonzero(geometry.neighbours[:n, facet] >= 0)
        across, there = geometry.neighbours[cells, facet], geometry.neighbour_facets[cells, facet]
        mine = orientation[cells, facet]
        normal = geometry.facet_normals[cells, facet]
        s = np.einsum("cqa,caj,cj->cq", shape[mine], nodal[cells], normal, optimize=True)
        magnitude = np.sqrt(s**2 + (delta * np.linalg.norm(normal, axis=1, keepdims=True)) ** 2)
        own, other = phi[mine], phi[orientation[across, there]]
        result[cells, 0] -= np.einsum("q,cq,cqi,cqj->cij", weights, 0.5 * (magnitude + s), own, own, optimize=True)
        inflow = np.einsum("q,cq,cqi,cqj->cij", weights, 0.5 * (magnitude - s), own, other, optimize=True)
        result[cells, 1 + facet] = inflow
    return result


def coordinate_entries(operator: TransportOperator) -> tuple[np.ndarray, np.ndarray, Floats]:
    """B as global (row, column, value) triplets of the owned rows, for one column: dof = cell·nd + mode.

    For comparison with assembled forms and with other time steppers.
    """
    assert operator.velocity is not None, "assemble comes first"
    space = operator.density_space
    entries = blocks(space, operator.velocity_space, operator.velocity, operator.delta, operator.exponent)
    cells = space.mesh.topology.index_map(space.dim)
    number = cells.local_to_global(np.arange(space.n_cells, dtype=np.int32))
    modes = np.arange(space.nd)
    rows, columns, values = [], [], []
    neighbours = np.column_stack([np.arange(space.n_owned), space.geometry.neighbours[: space.n_owned]])
    for slot in range(space.dim + 2):
        inside = np.flatnonzero(neighbours[:, slot] >= 0)
        shape = (len(inside), space.nd, space.nd)
        row = number[inside, None, None] * space.nd + modes[:, None]
        column = number[neighbours[inside, slot]][:, None, None] * space.nd + modes
        rows.append(np.broadcast_to(row, shape).ravel())
        columns.append(np.broadcast_to(column, shape).ravel())
        values.append(entries[inside, slot].ravel())
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)


def _volume(space: DensitySpace, velocity_space: VelocitySpace) -> Floats:
    """Reference integrals of N_a φ_j ∂_m φ_i, as (nn, dim, nd, nd) with [a, m, i, j]."""
    rule = basis.quadrature_rule(space.dim, velocity_space.degree + 2 * space.degree)
    phi = basis.legendre_derivatives(space.dim, space.degree, rule.points)
    shape = basis.lagrange(space.dim, velocity_space.degree, rule.points)
    return np.asarray(np.einsum("q,qa,qj,mqi->amij", rule.weights, shape, phi[0], phi[1:], optimize=True))


def _source(space: DensitySpace, velocity_space: VelocitySpace) -> Floats:
    """Reference integrals of ∂_m N_a φ_j φ_i, as (nn, dim, nd, nd) with [a, m, i, j]."""
    rule = basis.quadrature_rule(space.dim, velocity_space.degree + 2 * space.degree)
    phi = basis.legendre(space.dim, space.degree, rule.points)
    slopes = basis.lagrange_derivatives(space.dim, velocity_space.degree, rule.points)[1:]
    return np.asarray(np.einsum("q,mqa,qj,qi->amij", rule.weights, slopes, phi, phi, optimize=True))
