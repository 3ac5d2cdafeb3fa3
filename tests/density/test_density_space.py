"""Densities: basis, projection, limiter, moments, evaluation."""

import math

from mpi4py import MPI

import dolfinx
import numpy as np
import pytest
from problems import orders, projected, random_density, random_rows, warped_mesh

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.fields.nodal import NodeIndex
from eulerian.mesh.geometry import sides
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]


def space_of(comm: MPI.Comm, dim: int, degree: int, n_labels: int = 2, cells: int | None = None) -> DensitySpace:
    return DensitySpace(warped_mesh(comm, dim, cells), degree, n_labels)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_basis_is_orthonormal(dim: int, degree: int) -> None:
    rule = basis.quadrature_rule(dim, 2 * degree)
    phi = basis.legendre(dim, degree, rule.points)
    np.testing.assert_allclose(np.einsum("q,qi,qj->ij", rule.weights, phi, phi), np.eye(phi.shape[1]), atol=1e-14)
    assert phi.shape[1] == math.comb(dim + degree, dim)
    np.testing.assert_allclose(phi[:, 0], math.sqrt(math.factorial(dim)), rtol=1e-14)


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
@pytest.mark.parametrize("degree", range(11))
def test_quadrature_weights_are_positive(dim: int, degree: int) -> None:
    rule = basis.quadrature_rule(dim, degree)
    assert np.all(rule.weights > 0.0)
    assert rule.weights.sum() == pytest.approx(1.0 / math.factorial(dim), rel=1e-14)
    if dim:  # ∫ x^n over the simplex
        exact = math.factorial(degree) / math.factorial(degree + dim)
        assert rule.weights @ rule.points[:, 0] ** degree == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_projection_reproduces_polynomials(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = space_of(comm, dim, degree)
    coefficients = np.arange(1.0, dim + 1.0)

    def polynomial(x: Floats) -> Floats:
        first = (x @ coefficients + 0.3) ** degree
        return np.stack([first, 2.0 - first], axis=-1)

    rule = space.quadrature(2 * degree)
    rho = projected(space, polynomial(rule.points), rule)
    reference = basis.quadrature_rule(dim, 5).points
    vertices = space.vertices
    x = vertices[:, :1] + reference @ (vertices[:, 1:] - vertices[:, :1])
    np.testing.assert_allclose(space.evaluate(rho, reference), polynomial(x), atol=1e-12)
    np.testing.assert_allclose(space.vertex_values(rho), polynomial(vertices), atol=1e-12)
    assert rho.shape == (space.n_cells, space.nd, 2)


@pytest.mark.parametrize(("dim", "degree"), [(1, 0), (1, 1), (1, 2), (2, 1), (2, 2)])
def test_projection_converges(comm: MPI.Comm, dim: int, degree: int) -> None:
    errors = []
    for cells in (4, 8, 16):
        space = space_of(comm, dim, degree, 1, cells)
        rule = space.quadrature(2 * degree + 4)
        exact = np.cos(rule.points.sum(axis=2))
        rho = projected(space, exact[..., None], rule)
        values = np.einsum("qi,ci->cq", rule.basis, rho[: space.n_owned, :, 0])
        square = np.array([np.vdot(rule.weights, (values - exact) ** 2)])
        errors.append(math.sqrt(parallel.sum_all(comm, square)[0]))
    assert np.all(orders(errors) >= degree + 0.8), errors


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_mass_and_moments_of_a_box(comm: MPI.Comm, dim: int, degree: int) -> None:
    """A constant density on [-1, 1]^dim: an unwarped mesh, all moments known."""
    box = Box(lower=(-1.0,) * dim, upper=(1.0,) * dim, cells=(3,) * dim)
    space = DensitySpace(create_mesh(comm, Domain(box=box)), degree, 2)
    rho = space.zeros()
    rho[:, 0] = np.array([1.0, 3.0]) / space.phi0
    volume = 2.0**dim
    np.testing.assert_allclose(space.mass(rho), [volume, 3.0 * volume], rtol=1e-13)
    mean, covariance = space.mean_and_covariance(rho)
    np.testing.assert_allclose(mean, 0.0, atol=1e-13)
    np.testing.assert_allclose(covariance, np.tile(np.eye(dim) / 3.0, (2, 1, 1)), atol=1e-13)
    low, high = space.bounding_box
    np.testing.assert_array_equal(low, -np.ones(dim))
    np.testing.assert_array_equal(high, np.ones(dim))
    assert space.extrema(rho) == pytest.approx((1.0, 3.0), rel=1e-13)
    # Cells with a facet on the boundary: two intervals of three, ten triangles of eighteen.
    if dim < 3:
        share = {1: 2.0 / 3.0, 2: 10.0 / 18.0}[dim]
        assert space.boundary_mass(rho) == pytest.approx(4.0 * volume * share, rel=1e-12)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_sums_do_not_depend_on_the_ranks(comm: MPI.Comm, dim: int, degree: int) -> None:
    rho_values = []
    for each in (comm, MPI.COMM_SELF):
        space = space_of(each, dim, degree)
        rho = random_density(space, 2, 7)
        mean, covariance = space.mean_and_covariance(rho)
        rho_values.append([space.mass(rho), mean, covariance, space.extrema(rho), space.boundary_mass(rho)])
    for ours, alone in zip(*rho_values, strict=True):
        np.testing.assert_allclose(ours, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_integrals(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = space_of(comm, dim, degree)
    rho, rule = random_density(space, 2, 1), space.quadrature(degree + 2)
    functions = np.stack([np.ones(rule.weights.shape), rule.points[..., 0]], axis=2)
    integrals = space.integrate(functions, rule, rho)
    np.testing.assert_allclose(integrals[0], space.mass(rho), rtol=1e-13)
    mean, covariance = space.mean_and_covariance(rho)
    np.testing.assert_allclose(integrals[1] / integrals[0], mean[:, 0], rtol=1e-11, atol=1e-13)
    assert np.all(np.linalg.eigvalsh(covariance) > 0.0)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_limiter(comm: MPI.Comm, dim: int, degree: int) -> None:
    """By a loop over cells: the factor is the largest that leaves no negative value, and the mean stays."""
    space = space_of(comm, dim, degree)
    rho = random_rows(space, 2, 3)
    rho[:, 0] = np.abs(rho[:, 0]) + 1e-3
    before = rho.copy()
    space.limit(rho)
    table = basis.legendre(dim, degree, space.limiter_points)
    np.testing.assert_array_equal(rho[:, 0], before[:, 0])
    if degree == 0:
        np.testing.assert_array_equal(rho, before)
        return
    limited = 0
    for cell in range(space.n_cells):
        for label in range(2):
            values, old = table @ rho[cell, :, label], table @ before[cell, :, label]
            scale = np.abs(old).max()
            assert values.min() >= -1e-14 * scale
            if old.min() >= 0.0:
                np.testing.assert_array_equal(rho[cell, :, label], before[cell, :, label])
            else:
                limited += 1
                assert values.min() <= 1e-14 * scale
                factor = rho[cell, 1:, label] / before[cell, 1:, label]
                assert np.ptp(factor) <= 1e-12
                assert 0.0 < factor[0] < 1.0
    assert comm.allreduce(limited) > 5


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_limiter_points_hold_what_the_objective_sees(comm: MPI.Comm, dim: int, degree: int) -> None:
    """A limited density is non-negative at every quadrature point of flux, loss and kinetic energy, and amid cells."""
    space = space_of(comm, dim, degree)
    rho = random_density(space, 2, 5)
    wanted = [basis.quadrature_rule(dim, n).points for n in (space.objective_degree, space.kinetic_degree)]
    wanted += [basis.facet_points(dim, space.facet_degree, side) for side in sides(dim)]
    wanted += [basis.reference_vertices(dim).mean(axis=0, keepdims=True)]
    lowest = min(float(space.evaluate(rho, points).min(initial=0.0)) for points in wanted)
    assert lowest >= -1e-13
    assert len(space.limiter_points) < 254  # the compiled limiter writes its number in a byte


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_modal_to_nodal(comm: MPI.Comm, dim: int, degree: int) -> None:
    """The nodal values are those at the points of DOLFINx' own discontinuous space."""
    space = space_of(comm, dim, degree)
    rho = random_rows(space, 2, 1)
    nodal = np.einsum("ni,cik->cnk", space.modal_to_nodal, rho)
    target = dolfinx.fem.functionspace(space.mesh, ("DG", degree))
    element_points = np.asarray(target.element.interpolation_points)
    np.testing.assert_allclose(nodal[: space.n_owned], space.evaluate(rho, element_points), atol=1e-12)


def test_ghosts_come_from_their_owners(comm: MPI.Comm) -> None:
    space = space_of(comm, 2, 1)
    expected = random_rows(space, 2, 4)
    rho = expected.copy()
    rho[space.n_owned :] = np.nan
    space.update_ghosts(rho)
    np.testing.assert_array_equal(rho, expected)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_velocities_seen_from_cells(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = space_of(comm, dim, degree)
    velocity_space = VelocitySpace(space)
    a, b = np.random.default_rng(0).standard_normal((dim, dim)), np.arange(1.0, dim + 1.0)
    v = velocity_space.x @ a.T + b
    rule = space.quadrature(3)
    np.testing.assert_allclose(velocity_space.at(v, rule.reference), rule.points @ a.T + b, atol=1e-12)
    gradients = velocity_space.gradient_at(v, rule.reference)
    np.testing.assert_allclose(gradients, np.broadcast_to(a, gradients.shape), atol=1e-11)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_transposes_of_velocity_evaluation(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = space_of(comm, dim, degree)
    velocity_space = VelocitySpace(space)
    rng = np.random.default_rng(comm.rank)
    points = basis.quadrature_rule(dim, 3).points
    v = rng.standard_normal((velocity_space.n_nodes, dim))
    for forward, transpose in (
        (velocity_space.at, velocity_space.at_transpose),
        (velocity_space.gradient_at, velocity_space.gradient_at_transpose),
    ):
        image = forward(v, points)
        w = rng.standard_normal(image.shape)
        assert np.vdot(w, image) == pytest.approx(np.vdot(transpose(w, points), v), rel=1e-10, abs=1e-10)


def test_nodes_of_all_ranks(comm: MPI.Comm) -> None:
    alone, ours = (VelocitySpace(space_of(each, 2, 2)).all_nodes() for each in (MPI.COMM_SELF, comm))
    assert len(alone) == len(ours)
    np.testing.assert_allclose(NodeIndex(ours).nodes, NodeIndex(alone).nodes, atol=1e-14)


def test_limiting_cells_that_are_empty_up_to_rounding(comm: MPI.Comm) -> None:
    """A mean just below zero, with or without modes, loses its modes and keeps its mean; nothing is divided by zero."""
    space = space_of(comm, 2, 1)
    rho = space.zeros()
    rho[:, 0] = -1e-20
    rho[::2, 1:] = 1e-20
    space.limit(rho)
    assert np.all(rho[:, 0] == -1e-20)
    assert np.all(rho[:, 1:] == 0.0)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_moments_keep_their_digits_far_from_the_origin(comm: MPI.Comm, dim: int) -> None:
    """At 1e7 the coordinates of a box of width 8 are known to 2e-9; differences of squares would be wrong by tens."""
    found = []
    for offset in (0.0, 1e7):
        cells = {1: 40, 2: 12, 3: 4}[dim]
        box = Box(lower=(offset - 4.0,) * dim, upper=(offset + 4.0,) * dim, cells=(cells,) * dim)
        space = DensitySpace(create_mesh(comm, Domain(box=box)), 1, 2)
        rule = space.quadrature(4)
        x = rule.points - offset
        bump = np.exp(-0.5 * np.sum((x - 0.3) ** 2, axis=2))
        mean, covariance = space.mean_and_covariance(
            projected(space, np.stack([bump, bump * (2.0 + x[..., 0])], 2), rule)
        )
        found.append((mean - offset, covariance))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-7)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-7)
