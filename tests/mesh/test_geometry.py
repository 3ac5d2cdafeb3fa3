"""Arrays of affine simplices: against plain geometry, cell by cell."""

import math

from mpi4py import MPI

import numpy as np
import pytest
from problems import warped_mesh

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.mesh.geometry import SimplexGeometry, sides, simplex_geometry

DIMENSIONS = [1, 2, 3]


@pytest.fixture(params=DIMENSIONS)
def geometry(request: pytest.FixtureRequest, comm: MPI.Comm) -> SimplexGeometry:
    return simplex_geometry(warped_mesh(comm, request.param))


def facet(geometry: SimplexGeometry, cell: int, number: int) -> Floats:
    """Vertices of a facet, (dim, dim)."""
    return np.delete(geometry.vertices[cell], number, axis=0)


def measure(points: Floats) -> float:
    """Area of a simplex of points (n, dim), by Gram's determinant."""
    edges = points[1:] - points[0]
    return math.sqrt(np.linalg.det(edges @ edges.T)) / math.factorial(len(edges)) if len(edges) else 1.0


def test_volumes(geometry: SimplexGeometry, comm: MPI.Comm) -> None:
    for cell in range(geometry.n_cells):
        volume = measure(geometry.vertices[cell])
        assert geometry.det[cell] == pytest.approx(math.factorial(geometry.dim) * volume, rel=1e-12)
        edges = (geometry.vertices[cell][1:] - geometry.vertices[cell][0]).T
        np.testing.assert_allclose(geometry.inverse_jacobian[cell] @ edges, np.eye(geometry.dim), atol=1e-12)
    total = parallel.sum_all(comm, np.array([geometry.det[: geometry.n_owned].sum()]))[0]
    alone = simplex_geometry(warped_mesh(MPI.COMM_SELF, geometry.dim)).det.sum()
    assert total == pytest.approx(alone, rel=1e-13)


def test_normals(geometry: SimplexGeometry) -> None:
    """Orthogonal to the facet, outward, as long as its measure over det."""
    for cell in range(geometry.n_cells):
        for number in range(geometry.dim + 1):
            points, normal = facet(geometry, cell, number), geometry.facet_normals[cell, number]
            np.testing.assert_allclose((points - points[0]) @ normal, 0.0, atol=1e-11)
            assert np.linalg.norm(normal) == pytest.approx(measure(points) / geometry.det[cell], rel=1e-11)
            assert (points[0] - geometry.vertices[cell, number]) @ normal > 0.0


def test_neighbours_share_their_facet(geometry: SimplexGeometry) -> None:
    found = 0
    for cell in range(geometry.n_cells):
        for number in range(geometry.dim + 1):
            other = geometry.neighbours[cell, number]
            if other < 0:
                continue
            found += 1
            back = geometry.neighbour_facets[cell, number]
            assert geometry.neighbours[other, back] == cell
            assert geometry.neighbour_facets[other, back] == number
            ours, theirs = facet(geometry, cell, number), facet(geometry, other, back)
            assert {tuple(p) for p in ours} == {tuple(p) for p in theirs}
    assert found > 0


def test_owned_cells_miss_neighbours_only_at_the_boundary(geometry: SimplexGeometry, comm: MPI.Comm) -> None:
    missing = geometry.neighbours[: geometry.n_owned] < 0
    np.testing.assert_array_equal(geometry.boundary, missing.any(axis=1))
    alone = simplex_geometry(warped_mesh(MPI.COMM_SELF, geometry.dim))
    assert comm.allreduce(int(missing.sum())) == int((alone.neighbours < 0).sum())
    # Facet normals of a closed surface sum to zero.
    boundary = np.zeros(geometry.dim)
    for cell, number in zip(*np.nonzero(missing), strict=True):
        boundary += geometry.facet_normals[cell, number] * geometry.det[cell]
    np.testing.assert_allclose(parallel.sum_all(comm, boundary), 0.0, atol=1e-12)


def test_both_sides_of_a_facet_see_the_same_points(geometry: SimplexGeometry) -> None:
    tables = [basis.facet_points(geometry.dim, 5, side) for side in sides(geometry.dim)]

    def physical(cell: int, number: int) -> Floats:
        corners = geometry.vertices[cell]
        side = tuple(v for v in geometry.vertex_order[cell].tolist() if v != number)
        return corners[0] + tables[sides(geometry.dim).index(side)] @ (corners[1:] - corners[0])

    for cell in range(geometry.n_cells):
        for number in range(geometry.dim + 1):
            other = geometry.neighbours[cell, number]
            if other >= 0:
                back = geometry.neighbour_facets[cell, number]
                np.testing.assert_allclose(physical(cell, number), physical(other, back), atol=1e-13)


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_sides(dim: int) -> None:
    assert len(set(sides(dim))) == len(sides(dim)) == (dim + 1) * math.factorial(dim)
