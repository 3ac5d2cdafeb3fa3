"""Reference-element tables: orthonormal Legendre densities, Lagrange velocities, quadrature."""

from dataclasses import dataclass
from functools import cache

from eulerian.base import parallel  # noqa: F401 - starts MPI before basix

# isort: split
import basix
import numpy as np

from eulerian.base.arrays import Floats

CELL_TYPES = {1: basix.CellType.interval, 2: basix.CellType.triangle, 3: basix.CellType.tetrahedron}


@dataclass(frozen=True)
class Rule:
    """A quadrature rule: points (n, dim) and weights (n,) that sum to the measure of the reference cell."""

    points: Floats
    weights: Floats


@cache
def quadrature_rule(dim: int, degree: int) -> Rule:
    """Rule with positive weights on the reference simplex of dimension ``dim`` (0 to 3), exact to ``degree``.

    A positive density has a positive integral only if no weight is negative, so rules that have one are passed over.
    """
    if dim == 0:
        return Rule(np.zeros((1, 0)), np.ones(1))
    points, weights = basix.make_quadrature(CELL_TYPES[dim], degree)
    if np.any(weights <= 0):
        return quadrature_rule(dim, degree + 1)
    return Rule(np.asarray(points), np.asarray(weights))


@cache
def interior_rule(dim: int, degree: int) -> Rule:
    """``quadrature_rule`` without points on the boundary of the cell, where a density may jump.

    Gauss, and Xiao & Gimbutas 2010, doi:10.1016/j.camwa.2009.10.027.
    """
    if dim == 1:
        return quadrature_rule(dim, degree)
    points, weights = basix.make_quadrature(CELL_TYPES[dim], degree, rule=basix.QuadratureType.xiao_gimbutas)
    return Rule(np.asarray(points), np.asarray(weights))


def legendre(dim: int, degree: int, points: Floats) -> Floats:
    """Orthonormal Legendre basis at reference points (n, dim), as (n, nd); the first function is constant."""
    return np.asarray(legendre_derivatives(dim, degree, points, 0)[0])


def legendre_derivatives(dim: int, degree: int, points: Floats, order: int = 1) -> Floats:
    """Values (row 0) and first derivatives (rows 1..dim) of the Legendre basis, as (1 + dim, n, nd)."""
    # Basix puts functions before points; every product here runs over the functions last.
    table = basix.polynomials.tabulate_polynomial_set(
        CELL_TYPES[dim], basix.PolysetType.standard, degree, order, np.ascontiguousarray(points)
    )
    return np.ascontiguousarray(np.swapaxes(table, 1, 2))


def lagrange_derivatives(dim: int, degree: int, points: Floats, order: int = 1) -> Floats:
    """Values (row 0) and first derivatives (rows 1..dim) of the continuous Lagrange basis, as (1 + dim, n, nn)."""
    return np.ascontiguousarray(_lagrange_element(dim, degree).tabulate(order, np.ascontiguousarray(points))[..., 0])


def lagrange(dim: int, degree: int, points: Floats) -> Floats:
    """Continuous Lagrange basis at reference points (n, dim), as (n, nn)."""
    return np.ascontiguousarray(lagrange_derivatives(dim, degree, points, 0)[0])


def lagrange_points(dim: int, degree: int) -> Floats:
    """Reference points (nn, dim) of the continuous Lagrange basis, in its order."""
    return np.asarray(_lagrange_element(dim, degree).points)


def _lagrange_element(dim: int, degree: int) -> basix.finite_element.FiniteElement:
    return basix.create_element(
        basix.ElementFamily.P, CELL_TYPES[dim], degree, lagrange_variant=basix.LagrangeVariant.gll_warped
    )


def reference_vertices(dim: int) -> Floats:
    """Vertices of the reference simplex, (dim+1, dim)."""
    return np.vstack([np.zeros(dim), np.eye(dim)])


# Edges of a cell in VTK's order.
VTK_EDGES = {1: ((0, 1),), 2: ((0, 1), (1, 2), (2, 0)), 3: ((0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3))}


# VTK's types of cells with vertices only, and with the middles of their edges too.
_VTK_LINEAR = {1: 3, 2: 5, 3: 10}
_VTK_QUADRATIC = {1: 21, 2: 22, 3: 24}


def vtk_cell_type(dim: int, degree: int) -> int:
    """VTK's number for a simplex with the nodes of ``vtk_nodes``."""
    return (_VTK_QUADRATIC if degree == 2 else _VTK_LINEAR)[dim]


def vtk_nodes(dim: int, degree: int) -> Floats:
    """Vertices of the reference simplex, and for degree 2 the middles of its edges, in VTK's order, (m, dim)."""
    vertices = reference_vertices(dim)
    if degree < 2:
        return vertices
    return np.vstack([vertices, [(vertices[i] + vertices[j]) / 2 for i, j in VTK_EDGES[dim]]])


def physical_points(vertices: Floats, points: Floats) -> Floats:
    """Points (q, dim) of the reference cell in cells of given vertices (n, dim+1, dim): (n, q, dim)."""
    return np.asarray(vertices[:, :1] + points @ (vertices[:, 1:] - vertices[:, :1]))


def facet_points(dim: int, degree: int, side: tuple[int, ...]) -> Floats:
    """Points of the facet rule in the cell's reference coordinates, (nq, dim).

    Args:
        dim: dimension of the cell.
        degree: exactness of the facet rule.
        side: local vertices of the facet, in the order in which both cells see it.
    """
    rule = quadrature_rule(dim - 1, degree)
    barycentric = np.column_stack([1.0 - rule.points.sum(axis=1), rule.points])
    return np.ascontiguousarray(barycentric @ reference_vertices(dim)[list(side)])


@cache
def facet_weights(dim: int, degree: int) -> Floats:
    """Weights of the facet rule, normalised to sum 1, (nq,)."""
    weights = quadrature_rule(dim - 1, degree).weights
    return np.asarray(weights / weights.sum())
