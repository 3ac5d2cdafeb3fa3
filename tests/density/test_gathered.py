"""The whole density on every rank: finding cells, values anywhere, positivity everywhere."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import random_rows, warped_mesh

from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.gathered import GatheredDensity
from eulerian.density.space import DensitySpace
from eulerian.mesh.point_location import CellFinder
from eulerian.mesh.simplices import Simplices, halve_edges

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]


def gathered(comm: MPI.Comm, dim: int, degree: int, seed: int = 0) -> tuple[DensitySpace, Floats, GatheredDensity]:
    space = DensitySpace(warped_mesh(comm, dim), degree, 2)
    rho = random_rows(space, 2, seed)
    return space, rho, GatheredDensity.gather(space, rho)


def random_in_cells(whole: GatheredDensity, seed: int = 3) -> tuple[Floats, Floats]:
    """One point in every cell: barycentric and physical coordinates."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(whole.dim + 1), len(whole.vertices))
    return weights, np.einsum("ci,cid->cd", weights, whole.vertices)


def graded_with_hole() -> Floats:
    """Triangles of the square [0, 8]² without [3, 5] × [2, 6]; those near its upper right corner are tiny."""
    i, j = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    low = np.stack([i, j], axis=-1).reshape(-1, 2)
    low = low[~((low[:, 0] >= 3) & (low[:, 0] < 5) & (low[:, 1] >= 2) & (low[:, 1] < 6))]
    corners = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]])
    triangles = (low[:, None, None] + corners).reshape(-1, 3, 2).astype(float)
    last = np.all(triangles >= 7, axis=(1, 2))
    none = np.empty(0, dtype=np.int32)
    for _ in range(5):
        fine = Simplices(
            triangles[last].reshape(-1, 2), np.arange(3 * last.sum()).reshape(-1, 3), None, np.empty((0, 2), int), none
        )
        halves = halve_edges(fine)
        triangles = np.concatenate([triangles[~last], halves.points[halves.cells]])
        last = np.all(triangles >= triangles.max() - np.ptp(triangles[-1], axis=0).max() - 1e-9, axis=(1, 2))
    return triangles


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_values_are_those_of_the_cell(comm: MPI.Comm, dim: int, degree: int) -> None:
    _, _, whole = gathered(comm, dim, degree)
    weights, x = random_in_cells(whole)
    table = basis.legendre(dim, degree, weights[:, 1:])
    np.testing.assert_allclose(whole.values(x), np.einsum("ci,cik->ck", table, whole.coefficients), atol=1e-9)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_masses_are_those_of_the_space(comm: MPI.Comm, dim: int, degree: int) -> None:
    space, rho, whole = gathered(comm, dim, degree)
    np.testing.assert_allclose(whole.mass, space.mass(rho), rtol=1e-12)


def test_the_order_of_the_cells_does_not_depend_on_the_ranks(comm: MPI.Comm) -> None:
    for dim in (1, 2, 3):
        ours, alone = gathered(comm, dim, 1)[2], gathered(MPI.COMM_SELF, dim, 1)[2]
        np.testing.assert_array_equal(ours.vertices, alone.vertices)
        np.testing.assert_array_equal(ours.coefficients, alone.coefficients)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_outside_there_is_nothing(comm: MPI.Comm, dim: int) -> None:
    _, _, whole = gathered(comm, dim, 1)
    outside = np.concatenate([np.eye(dim), -np.eye(dim), np.full((1, dim), 40.0)]) * 1.3
    assert not whole.contains(outside).any()
    assert not whole.values(outside).any()
    assert whole.contains(whole.vertices.reshape(-1, dim)).all()  # the boundary belongs to the domain
    assert whole.contains(np.empty((0, dim))).shape == (0,)
    x = np.array([[np.inf] * dim, [0.01] * dim, [np.nan] * dim])
    np.testing.assert_array_equal(whole.contains(x), [False, True, False])


def test_graded_mesh_with_a_hole_against_trying_all_cells() -> None:
    triangles = graded_with_hole()
    assert len({round(float(np.ptp(t, axis=0).max()), 6) for t in triangles}) > 4  # it is graded
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 9, (3000, 2)), 8 - rng.exponential(0.05, (500, 2))])
    inverse = np.linalg.inv(triangles[:, 1:] - triangles[:, :1])
    rest = np.einsum("ncd,cdk->nck", x[:, None] - triangles[:, 0], inverse)
    depth = np.minimum(rest.min(axis=2), 1 - rest.sum(axis=2))
    expected = np.where(depth.max(axis=1) >= 0, depth.argmax(axis=1), -1)
    finder = CellFinder(triangles)
    cells, weights = finder.find(x)
    np.testing.assert_array_equal(cells, expected)
    inside = cells >= 0
    assert 0.2 < inside.mean() < 0.9
    np.testing.assert_allclose(
        np.einsum("ni,nid->nd", weights[inside], triangles[cells[inside]]), x[inside], atol=1e-12
    )
    guessed, again = finder.find(x, rng.permutation(cells))
    np.testing.assert_array_equal(guessed, cells)
    np.testing.assert_allclose(again, weights, atol=1e-12)
    near, weights = finder.nearest(x, cells)
    np.testing.assert_array_equal(near[inside], cells[inside])
    assert (near >= 0).all()
    assert (weights >= -1e-10).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_non_negative_everywhere_and_no_more_than_needed(comm: MPI.Comm, dim: int, degree: int) -> None:
    _, _, whole = gathered(comm, dim, degree, seed=5)
    coefficients = whole.coefficients.copy()
    coefficients[:, 0] = np.abs(coefficients[:, 0]) + 0.1
    coefficients[::3, 1:] *= 0.05  # some are positive as they are
    coefficients[0, 0, 0] = -0.2  # a mean below zero
    whole = GatheredDensity(whole.vertices, coefficients, degree)
    limited = whole.non_negative()
    np.testing.assert_allclose(limited.mass, whole.mass, rtol=1e-12)
    assert not limited.coefficients[0, :, 0].any()

    lattice = np.random.default_rng(1).dirichlet(np.full(dim + 1, 0.4), 4000)[:, 1:]
    table = basis.legendre(dim, degree, np.concatenate([lattice, basis.reference_vertices(dim)]))
    before = np.einsum("qi,cik->cqk", table, whole.coefficients)
    after = np.einsum("qi,cik->cqk", table, limited.coefficients)
    scale = np.abs(before).max()
    assert after.min() >= -1e-13 * scale
    # Label 1 has no such cell: what was nowhere negative is as it was, and the rest now just touches zero.
    untouched = np.all(np.isclose(before[..., 1], after[..., 1], atol=1e-12), axis=1)
    assert np.all(before[untouched, :, 1] >= -1e-12 * scale)
    assert np.all(after[~untouched, :, 1].min(axis=1) < 0.02 * scale)
    assert untouched.all() if degree == 0 else 0 < untouched.sum() < len(untouched)
