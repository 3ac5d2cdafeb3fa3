"""The compiled loops of the splitting method against plain NumPy: projection, adjoint, change of the metric, norms."""

from collections.abc import Iterator
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
import pytest
from problems import warped_mesh

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.ideal.inner_product import Metric, at
from eulerian.ideal.space_time import SpaceTime

LAYERS, KINETIC, OMEGA, GAMMA = 4, 0.8, 0.6, 0.7


@dataclass(frozen=True)
class Setting:
    """Random states on a warped mesh; a state is (za, zb, mu, shrink) as in ``sweep.c``."""

    grid: SpaceTime
    metric: Metric

    def noise(self, seed: int, *shape: int) -> Floats:
        """Random rows of the vertices, by their global numbers."""
        rows = np.random.default_rng(seed).standard_normal((self.grid.n_global, *shape))
        return np.ascontiguousarray(rows[self.grid.numbers])

    def state(self, seed: int) -> list[Floats]:
        grid = self.grid
        rng = np.random.default_rng(1000 * seed + grid.comm.rank)
        mu = np.maximum(self.noise(seed, LAYERS), 0.0)
        zb = rng.standard_normal((len(grid.nodes), grid.dim + 1, 2 * grid.dim, LAYERS))
        return [self.noise(seed + 50, LAYERS), zb, mu, 1.0 / (1.0 + mu / (KINETIC * OMEGA**2))]

    def gradients(self, phi: Floats) -> Floats:
        """∇φ at both ends of every slab, for every corner's copy: (n_cells, dim+1, 2 dim, L)."""
        slope = np.einsum("cid,cit->cdt", self.grid.gradients, phi[self.grid.nodes])
        ends = np.concatenate([slope[:, :, :-1], slope[:, :, 1:]], axis=1)
        return np.repeat(ends[:, None], self.grid.dim + 1, axis=1)

    def inner(self, first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float:
        """⟨(a, b), (a', b')⟩ in the metric, over all ranks. Collective."""
        grid, weights = self.grid, self.metric.weights
        on_vertices = grid.tau * (grid.own_masses * weights)[:, None] * first[0] * second[0]
        share = 0.5 * grid.tau * OMEGA**2 * grid.volumes / (grid.dim + 1)
        on_cells = share[:, None, None, None] * weights[grid.nodes][:, :, None, None] * first[1] * second[1]
        return grid.sum(np.array([on_vertices.sum(), on_cells.sum()]))

    def mean_squares(self, b: Floats) -> Floats:
        """Mean of |b|² around every vertex and over both ends of a slab, (n_nodes, L). Collective."""
        grid = self.grid
        squares = np.zeros((grid.n_nodes, LAYERS))
        share = 0.5 * (grid.volumes / (grid.dim + 1))[:, None, None] * (b**2).sum(axis=2)
        np.add.at(squares, grid.nodes, share)
        grid.accumulate(squares)
        return squares / grid.masses[:, None]


def projected(state: list[Floats], nodes: Floats) -> tuple[Floats, Floats]:
    """q of a state."""
    za, zb, mu, shrink = state
    return za - mu, shrink[nodes][:, :, None] * zb


@pytest.fixture(params=[1, 2, 3])
def setting(request: pytest.FixtureRequest, comm: MPI.Comm) -> Iterator[Setting]:
    grid = SpaceTime(DensitySpace(warped_mesh(comm, request.param), 0), LAYERS, 1.3)
    weights = np.exp(0.5 * np.random.default_rng(3).standard_normal(grid.n_global))[grid.numbers]
    metric = Metric(grid, KINETIC, OMEGA, GAMMA, np.ascontiguousarray(weights))
    yield Setting(grid, metric)
    metric.destroy()


def test_collect_is_the_adjoint(setting: Setting) -> None:
    grid, metric = setting.grid, setting.metric
    phi, state = setting.noise(1, LAYERS + 1), setting.state(2)
    qa, qb = projected(state, grid.nodes)
    blurred = grid.own_masses[:, None] * grid.blurred(metric.weights[:, None] * (2.0 * qa - state[0]))
    f = np.diff(blurred, prepend=0.0, append=0.0)
    metric.functions.collect(metric.struct, at(state[1]), at(state[3]), at(f))
    grid.accumulate(f)
    left = setting.inner((grid.falls(phi)[1], setting.gradients(phi)), (2.0 * qa - state[0], 2.0 * qb - state[1]))
    right = grid.sum((phi * f)[: grid.n_owned_nodes])
    assert left == pytest.approx(right, rel=1e-11)
    assert abs(left) > 1e-3


def test_poisson_is_the_normal_equation(setting: Setting) -> None:
    # ⟨φ, Pφ'⟩ is the inner product of slopes, with weights blurred instead of −∂_tφ.
    grid, metric = setting.grid, setting.metric
    f, test = setting.noise(4, LAYERS + 1), setting.noise(5, LAYERS + 1)
    f[grid.n_owned_nodes :] = 0.0
    phi = metric.poisson.solve(f)
    (fall, _), (other, _) = grid.falls(phi), grid.falls(test)
    blurred = metric.blurred_weights / metric.weights[:, None]
    left = setting.inner((blurred * fall, setting.gradients(phi)), (other, setting.gradients(test)))
    left += grid.sum(grid.own_masses * metric.end_weights * phi[:, -1] * test[:, -1])
    assert left == pytest.approx(grid.sum((f * test)[: grid.n_owned_nodes]), rel=1e-9)
    assert abs(left) > 1e-3


def test_poisson_is_above_the_normal_equation(setting: Setting) -> None:
    # What lets φ be found without the blur over vertices: P ≥ Λ*Λ, also for φ that alternate.
    grid, metric = setting.grid, setting.metric
    for seed in range(5):
        plain, blurred = grid.falls(setting.noise(seed, LAYERS + 1))
        weights = grid.tau * grid.own_masses[:, None]
        above = grid.sum(weights * metric.blurred_weights * plain**2)
        assert 0.2 * above < grid.sum(weights * metric.weights[:, None] * blurred**2) < above


@pytest.mark.parametrize("relaxation", [1.0, 1.8])
def test_a_sweep(setting: Setting, relaxation: float) -> None:
    grid, metric = setting.grid, setting.metric
    phi, state = 0.03 * setting.noise(1, LAYERS + 1), setting.state(2)
    state[1] *= 0.2
    old_q, old_z = projected(state, grid.nodes), (state[0].copy(), state[1].copy())
    squares, totals = np.zeros_like(state[0]), np.zeros(2)
    falls = grid.falls(phi)[1]
    missed = metric.functions.spread(metric.struct, at(phi), at(state[3]), relaxation, at(state[1]), at(squares))
    grid.accumulate(squares)
    squares /= grid.masses[:, None]
    metric.functions.project(
        metric.struct, at(falls), at(squares), relaxation, at(state[0]), at(state[2]), at(state[3]), at(totals)
    )
    gap = falls - old_q[0], setting.gradients(phi) - old_q[1]
    np.testing.assert_allclose(state[0], old_z[0] + relaxation * gap[0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(state[1], old_z[1] + relaxation * gap[1], rtol=1e-11, atol=1e-12)
    assert grid.sum(np.array([missed, totals[0]])) == pytest.approx(setting.inner(gap, gap), rel=1e-11)
    # q is feasible, z − q is a multiple mu ≥ 0 of the constraint's gradient in the metric, 0 inside.
    _, zb, mu, _ = state
    qa, qb = projected(state, grid.nodes)
    height = qa + setting.mean_squares(qb) / (2.0 * KINETIC)
    assert np.all(mu >= 0.0)
    assert height.max(initial=0.0) <= 1e-11
    assert np.abs(mu * height).max(initial=0.0) <= 1e-10
    along = mu[grid.nodes][:, :, None] * qb / (KINETIC * OMEGA**2)
    np.testing.assert_allclose(zb - qb, along, rtol=1e-9, atol=1e-12)
    active = grid.comm.allreduce(int(np.sum(mu > 0.0)))
    assert 0 < active < grid.comm.allreduce(mu.size)
    energy = grid.tau * (grid.own_masses * metric.weights)[:, None] * mu * setting.mean_squares(qb) / (2.0 * KINETIC)
    assert grid.sum(totals[1:]) == pytest.approx(grid.sum(energy), rel=1e-10)


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e3, 1e12])
def test_projection_of_anything(comm: MPI.Comm, size: float) -> None:
    # φ = 0, relaxation 0: z stays and is projected, from a bad first guess of the multiplier.
    grid = SpaceTime(DensitySpace(warped_mesh(comm, 1), 0), LAYERS, 1.0)
    metric = Metric(grid, KINETIC, OMEGA, GAMMA, np.ones(grid.n_nodes))
    setting = Setting(grid, metric)
    za, squares = setting.noise(1, LAYERS), size * setting.noise(2, LAYERS) ** 2
    squares[::3] = 0.0
    for guess in (0.0, 1e-8, 1e8):
        mu, shrink, falls = np.full_like(za, guess), np.ones_like(za), np.zeros_like(za)
        z = za.copy()
        metric.functions.project(metric.struct, at(falls), at(squares), 0.0, at(z), at(mu), at(shrink), at(np.zeros(2)))
        np.testing.assert_array_equal(z, za)
        height = za - mu + squares * shrink**2 / (2.0 * KINETIC)
        scale = np.abs(za) + mu + 1e-300
        inside = za + squares / (2.0 * KINETIC) <= 0.0
        np.testing.assert_array_equal(mu[inside], 0.0)
        assert np.abs(height / scale)[~inside].max(initial=0.0) <= 1e-12
        np.testing.assert_allclose(shrink, 1.0 / (1.0 + mu / (KINETIC * OMEGA**2)), rtol=1e-13)
    metric.destroy()


def test_changing_the_penalty_keeps_q_and_scales_the_rest(setting: Setting) -> None:
    grid, metric = setting.grid, setting.metric
    state = setting.state(2)
    before = projected(state, grid.nodes), [array.copy() for array in state]
    factors = np.exp(setting.noise(7))
    metric.functions.rescale(metric.struct, at(factors), *(at(array) for array in state))
    qa, qb = projected(state, grid.nodes)
    np.testing.assert_allclose(qa, before[0][0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(qb, before[0][1], rtol=1e-12, atol=1e-13)
    old_za, old_zb, old_mu, _ = before[1]
    np.testing.assert_allclose(state[2], factors[:, None] * old_mu, rtol=1e-14)
    np.testing.assert_allclose(state[0] - qa, factors[:, None] * (old_za - before[0][0]), rtol=1e-10, atol=1e-12)
    u = factors[grid.nodes][:, :, None, None] * (old_zb - before[0][1])
    np.testing.assert_allclose(state[1] - qb, u, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state[3], 1.0 / (1.0 + state[2] / (KINETIC * OMEGA**2)), rtol=1e-14)


def test_norms_of_a_step(setting: Setting) -> None:
    grid, metric = setting.grid, setting.metric
    new, old, totals = setting.state(2), setting.state(3), np.zeros(3)
    metric.functions.compare(metric.struct, *(at(array) for array in new), *(at(array) for array in old), at(totals))
    q, old_q = projected(new, grid.nodes), projected(old, grid.nodes)
    step = q[0] - old_q[0], q[1] - old_q[1]
    rest = new[0] - q[0], new[1] - q[1]
    expected = [setting.inner(pair, pair) for pair in (step, q, rest)]
    found = [grid.sum(total) for total in totals[:, None]]
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_excess(setting: Setting) -> None:
    grid, metric = setting.grid, setting.metric
    phi = setting.noise(1, LAYERS + 1)
    expected = setting.mean_squares(setting.gradients(phi)) / (2.0 * KINETIC) + grid.falls(phi)[1]
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(metric.excess(phi), expected, rtol=1e-11, atol=1e-13 * scale)
    np.testing.assert_array_equal(grid.max_columns(expected), [grid.max(column) for column in expected.T])
