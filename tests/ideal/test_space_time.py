"""The discrete space-time: vertex volumes, loads, gradients; the space-time Poisson problem against a dense matrix."""

from mpi4py import MPI

import numpy as np
import pytest
from discrete import discretise, everywhere
from problems import random_density, random_rows, warped_mesh
from scipy import sparse

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.ideal import poisson
from eulerian.ideal.poisson import Factorised, GatheredMesh, SpaceTimePoisson
from eulerian.ideal.space_time import SpaceTime

LAYERS, HORIZON = 3, 1.3


def make(comm: MPI.Comm, dim: int, degree: int = 0, layers: int = LAYERS) -> SpaceTime:
    return SpaceTime(DensitySpace(warped_mesh(comm, dim), degree), layers, HORIZON)


def vertex_noise(grid: SpaceTime, seed: int, *columns: int) -> Floats:
    """Random numbers at the vertices, by their global numbers."""
    rows = np.random.default_rng(seed).standard_normal((grid.n_global, *columns))
    return np.ascontiguousarray(rows[grid.numbers])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_geometry(comm: MPI.Comm, dim: int) -> None:
    grid = make(comm, dim)
    mesh = discretise(grid)
    everything = [np.concatenate(comm.allgather(part)) for part in (grid.volumes, grid.gradients)]
    np.testing.assert_allclose(everything[0], mesh.volumes, rtol=1e-12)
    np.testing.assert_allclose(everything[1], mesh.gradients, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(everywhere(grid, grid.masses), mesh.masses, rtol=1e-12)
    assert grid.volume == pytest.approx(mesh.volumes.sum(), rel=1e-13)
    assert grid.cell_size == pytest.approx(mesh.volumes.mean() ** (1.0 / dim), rel=1e-13)
    np.testing.assert_allclose(grid.times, [0.0, HORIZON / 3.0, HORIZON / 1.5, HORIZON], rtol=1e-14)
    assert sorted(np.concatenate(comm.allgather(grid.numbers[: grid.n_owned_nodes]))) == list(range(grid.n_global))
    assert len(grid.x) == grid.n_nodes == len(grid.numbers)
    np.testing.assert_array_equal(grid.gather_vertices(grid.masses)[grid.numbers], grid.masses)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_loads_are_exact(comm: MPI.Comm, dim: int, degree: int) -> None:
    grid = make(comm, dim, degree)
    space = grid.space
    rho = random_rows(space, 1, 3)
    loads = grid.load(rho, 0)
    assert grid.total(loads) == pytest.approx(space.mass(rho)[0], rel=1e-12)
    # ∫φρ for a linear φ, by a rule that is more than exact
    values = vertex_noise(grid, 1)
    rule = space.quadrature(7)
    at_points = values[grid.nodes] @ basis.lagrange(dim, 1, rule.reference).T
    exact = grid.sum(rule.weights * at_points * (rho[: space.n_owned, :, 0] @ rule.basis.T))
    assert grid.sum((loads * values)[: grid.n_owned_nodes]) == pytest.approx(exact, rel=1e-12)
    assert everywhere(grid, grid.load(random_density(space, 1, 3), 0)).min() >= 0.0


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_blur(comm: MPI.Comm, dim: int) -> None:
    grid = make(comm, dim)
    mesh, phi = discretise(grid), vertex_noise(grid, 4, LAYERS + 1)
    plain, blurred = grid.falls(phi)
    everything = everywhere(grid, phi)
    np.testing.assert_allclose(everywhere(grid, plain), -np.diff(everything) / mesh.tau, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(everywhere(grid, blurred), mesh.falls(everything), rtol=1e-11, atol=1e-11)
    blur = GatheredMesh(grid).blur @ everything
    np.testing.assert_allclose(blur, mesh.masses[:, None] * (mesh.blur @ everything), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_sums_and_gradients(comm: MPI.Comm, dim: int) -> None:
    grid = make(comm, dim)
    mesh = discretise(grid)
    values = vertex_noise(grid, 2, 2)
    everything = everywhere(grid, values)
    assert grid.integrate(values[:, 0]) == pytest.approx(float(mesh.masses @ everything[:, 0]), rel=1e-12)
    assert grid.max(values[:, 1]) == everything[:, 1].max()
    smooth, gradient = np.zeros_like(everything), np.zeros((len(everything), dim, 2))
    for cell, volume, gradients in zip(mesh.cells, mesh.volumes, mesh.gradients, strict=True):
        smooth[cell] += volume / (dim + 1) * everything[cell].mean(axis=0)
        gradient[cell] += volume / (dim + 1) * (gradients.T @ everything[cell])
    smooth /= mesh.masses[:, None]
    gradient /= mesh.masses[:, None, None]
    np.testing.assert_allclose(everywhere(grid, grid.smooth(values)), smooth, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(everywhere(grid, grid.vertex_gradients(values)), gradient, rtol=1e-11, atol=1e-11)
    assert grid.integrate(grid.smooth(values)[:, 0]) == pytest.approx(grid.integrate(values[:, 0]), rel=1e-11)
    linear = grid.x @ np.arange(1.0, dim + 1.0) + 0.3
    expected = np.broadcast_to(np.arange(1.0, dim + 1.0), (grid.n_nodes, dim))
    np.testing.assert_allclose(grid.vertex_gradients(linear), expected, rtol=1e-11)


# -- the Poisson problem ----------------------------------------------------------------------------------------------


def dense_operator(grid: SpaceTime, omega: float, gamma: float, weights: Floats, time_weights: Floats) -> Floats:
    """Λ*Λ from its quadratic form, every potential of one vertex and instant in turn: (N (L+1), N (L+1))."""
    mesh, everything, in_time = discretise(grid), everywhere(grid, weights), everywhere(grid, time_weights)
    instants, tau = grid.layers + 1, grid.tau
    rows = []
    for vertex in range(len(mesh.x)):
        for slab in range(grid.layers):
            row = np.zeros((len(mesh.x), instants))
            row[vertex, slab], row[vertex, slab + 1] = 1.0 / tau, -1.0 / tau
            rows.append(np.sqrt(tau * mesh.masses[vertex] * in_time[vertex]) * row.ravel())
        row = np.zeros((len(mesh.x), instants))
        row[vertex, -1] = np.sqrt(gamma * mesh.masses[vertex] * in_time[vertex])
        if gamma:
            rows.append(row.ravel())
    scale = omega**2 * tau / 2.0 / (grid.dim + 1)
    for cell, volume, gradients in zip(mesh.cells, mesh.volumes, mesh.gradients, strict=True):
        for copy in cell:
            for slab in range(grid.layers):
                for instant in (slab, slab + 1):
                    for axis in range(grid.dim):
                        row = np.zeros((len(mesh.x), instants))
                        row[cell, instant] = gradients[:, axis]
                        rows.append(np.sqrt(scale * volume * everything[copy]) * row.ravel())
    total = sparse.csr_array(np.array(rows))
    return np.asarray((total.T @ total).toarray())


@pytest.mark.parametrize("gamma", [0.0, 0.7])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_poisson_against_a_dense_matrix(comm: MPI.Comm, dim: int, gamma: float) -> None:
    grid = SpaceTime(DensitySpace(warped_mesh(comm, dim, {1: 9, 2: 3, 3: 2}[dim]), 0), LAYERS, HORIZON)
    weights, time_weights = np.exp(vertex_noise(grid, 5)), np.exp(vertex_noise(grid, 7))
    matrix = dense_operator(grid, 0.6, gamma, weights, time_weights)
    f = vertex_noise(grid, 6, LAYERS + 1)
    if gamma == 0.0:
        f -= everywhere(grid, f).mean()
    mine = f.copy()
    mine[grid.n_owned_nodes :] = 0.0  # contributions are added up; half of the ghosts' values come from elsewhere
    solver = SpaceTimePoisson(grid, 0.6, gamma, weights, time_weights)
    try:
        phi = everywhere(grid, solver.solve(mine))
        again = everywhere(grid, solver.solve(mine))
    finally:
        solver.destroy()
    np.testing.assert_array_equal(phi, again)
    right = everywhere(grid, f).ravel()
    np.testing.assert_allclose(matrix @ phi.ravel(), right, atol=1e-9 * np.abs(right).max())
    if gamma == 0.0:
        assert np.linalg.norm(matrix @ np.ones(len(right))) <= 1e-9 * np.linalg.norm(matrix)
    else:
        np.testing.assert_allclose(phi.ravel(), np.linalg.solve(matrix, right), rtol=1e-7, atol=1e-9)


def test_contributions_to_shared_vertices_add_up(comm: MPI.Comm) -> None:
    grid = make(comm, 2)
    solver = SpaceTimePoisson(grid, 0.6, 0.7, *np.ones((2, grid.n_nodes)))
    f = vertex_noise(grid, 6, LAYERS + 1)
    copies = np.ones(grid.n_nodes)
    grid.accumulate(copies)
    owned = f.copy()
    owned[grid.n_owned_nodes :] = 0.0
    try:
        shared, alone = solver.solve(f / copies[:, None]), solver.solve(owned)
    finally:
        solver.destroy()
    np.testing.assert_allclose(shared, alone, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_iterating_gives_what_factors_give(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    grid = make(comm, dim)
    f = vertex_noise(grid, 6, LAYERS + 1)
    f[grid.n_owned_nodes :] = 0.0
    results = []
    for direct in (True, False):
        monkeypatch.setattr(poisson, "Factorised", lambda matrix, _, direct=direct: Factorised(matrix, direct))
        solver = SpaceTimePoisson(grid, 0.6, 0.7, *np.ones((2, grid.n_nodes)))
        results.append([solver.solve(f), solver.solve(2.0 * f)])  # the second from a first guess
        solver.destroy()
    np.testing.assert_allclose(results[1][0], results[0][0], atol=1e-7 * np.abs(results[0][0]).max())
    np.testing.assert_allclose(results[1][1], 2.0 * results[0][0], atol=1e-7 * np.abs(results[0][1]).max())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("direct", [True, False])
def test_factors_do_not_know_units(direct: bool, scale: float) -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    matrices = [sparse.csr_array(scale * (root @ root.T + shift * np.eye(6))) for shift in (1.0, 3.0)]
    b = scale * rng.standard_normal(6)
    solver = Factorised(matrices[0], direct)
    try:
        for matrix in matrices:
            solver.change(matrix)
            x = np.zeros(6)
            solver.solve(b, x)
            np.testing.assert_allclose(x, np.linalg.solve(matrix.toarray(), b), rtol=1e-7)
    finally:
        solver.destroy()


@pytest.mark.parametrize("direct", [True, False])
def test_a_singular_matrix_is_an_error(direct: bool) -> None:
    matrix = sparse.csr_array(np.array([[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]]))
    with pytest.raises(ComputationError, match="Helmholtz"):  # noqa: PT012 - it may show at either step
        solver = Factorised(matrix, direct)
        solver.solve(np.array([1.0, 0.0, 0.0]), np.zeros(3))
