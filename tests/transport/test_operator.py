"""B(v): equal to its form, its transpose, its derivative, conservation, monotonicity, and the time step it allows."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse
from problems import random_density, random_rows, warped_mesh, wave
from reference import assemble_form
from thinning import thinned

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator, flux_smoothing
from eulerian.transport.reference import blocks, coordinate_entries
from eulerian.transport.stepper import Stepper
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]
COLUMNS = thinned((1, 2, 3, 8, 9), {3, 9}, {9})
DELTA = 0.03


def operator(comm: MPI.Comm, dim: int, degree: int, columns: int = 1, delta: float = DELTA) -> TransportOperator:
    space = DensitySpace(warped_mesh(comm, dim), degree, columns)
    return TransportOperator(space, VelocitySpace(space), columns, delta)


def matrix(transport: TransportOperator) -> scipy.sparse.csr_array:
    """B as a sparse matrix, in a serial run."""
    rows, columns, values = coordinate_entries(transport)
    size = transport.density_space.n_owned * transport.density_space.nd
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(size, size)).tocsr()


def blocks_of(transport: TransportOperator) -> Floats:
    """B by its blocks."""
    assert transport.velocity is not None
    return blocks(transport.density_space, transport.velocity_space, transport.velocity, transport.delta)


def inner(transport: TransportOperator, a: Floats, b: Floats) -> float:
    """⟨a, b⟩ over the owned rows of all ranks."""
    n = transport.density_space.n_owned
    return float(parallel.sum_all(transport.density_space.comm, np.array([np.vdot(a[:n], b[:n])]))[0])


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_blocks_are_those_of_the_form(comm: MPI.Comm, dim: int, degree: int) -> None:
    if comm.size > 1:
        pytest.skip("the reference is assembled on one rank")
    transport = operator(comm, dim, degree)
    space, velocity_space = transport.density_space, transport.velocity_space
    v = wave(velocity_space.x)

    transport.assemble(v)

    det = np.repeat(space.geometry.det, space.nd)
    expected = assemble_form(space, velocity_space, v, DELTA)
    difference = (scipy.sparse.diags_array(det) @ matrix(transport) - expected).tocsr()
    assert abs(difference).max() <= 1e-13 * abs(expected).max()


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_products_and_transpose(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    transport = operator(comm, dim, degree, columns)
    space = transport.density_space
    transport.assemble(wave(transport.velocity_space.x))
    rho, lam = random_rows(space, columns, 1), random_rows(space, columns, 2)

    forward, backward = transport.apply(rho), transport.apply_transpose(lam)

    if comm.size == 1:
        dense = matrix(transport)
        size = (dense.shape[0], columns)
        np.testing.assert_allclose(forward.reshape(size), dense @ rho.reshape(size), atol=1e-11)
        np.testing.assert_allclose(backward.reshape(size), dense.T @ lam.reshape(size), atol=1e-11)
    scale = np.sqrt(inner(transport, forward, forward) * inner(transport, lam, lam))
    assert scale > 1.0
    assert abs(inner(transport, lam, forward) - inner(transport, backward, rho)) <= 1e-14 * scale


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_velocity_gradient(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    transport = operator(comm, dim, degree, columns)
    space, x = transport.density_space, transport.velocity_space.x
    v, w = wave(x), wave(x, seed=5)
    rho, lam = random_rows(space, columns, 1), random_rows(space, columns, 2)

    transport.assemble(v)
    gradient = transport.velocity_gradient(lam, rho)
    # Every rank holds contributions to all of its nodes, so ghost nodes count.
    slope = float(parallel.sum_all(comm, np.array([np.vdot(gradient, w)]))[0])

    def pairing(h: float) -> float:
        transport.assemble(v + h * w)
        return inner(transport, lam, transport.apply(rho))

    h = 1e-4
    difference = (8.0 * (pairing(h) - pairing(-h)) - (pairing(2 * h) - pairing(-2 * h))) / (12.0 * h)
    assert slope == pytest.approx(difference, rel=1e-7, abs=1e-7)


def test_velocity_gradient_without_smoothing(comm: MPI.Comm) -> None:
    """With δ = 0 the kink of |s| at s = 0 gets the mean of its two slopes, never NaN."""
    transport = operator(comm, 2, 1, delta=0.0)
    transport.assemble(np.zeros_like(transport.velocity_space.x))
    space = transport.density_space
    gradient = transport.velocity_gradient(random_rows(space, 1, 1), random_rows(space, 1, 2))
    assert np.all(np.isfinite(gradient))
    assert parallel.sum_all(comm, np.array([np.abs(gradient).max()]))[0] > 0.0


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_mass_is_conserved_by_columns(comm: MPI.Comm, dim: int, degree: int) -> None:
    """1ᵀ M B = 0, although v·n does not vanish at the boundary."""
    transport = operator(comm, dim, degree)
    space = transport.density_space
    transport.assemble(wave(transport.velocity_space.x))
    ones = space.zeros()
    ones[:, 0] = space.geometry.det[:, None]
    scale = np.abs(blocks_of(transport)).max(initial=0.0) * space.geometry.det.max()

    assert np.abs(transport.apply_transpose(ones)).max(initial=0.0) <= 1e-13 * scale


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.0, DELTA])
def test_degree_zero_is_monotone(comm: MPI.Comm, dim: int, delta: float) -> None:
    transport = operator(comm, dim, 0, delta=delta)
    rate = transport.assemble(wave(transport.velocity_space.x))
    blocks = blocks_of(transport)[:, :, 0, 0]

    assert np.all(blocks[:, 1:] >= 0.0)
    assert np.all(blocks[:, 0] <= 0.0)
    # The rate is the largest outflow, so that 1 + B/rate has no negative entry and a larger step would have one.
    assert -comm.allreduce(float(blocks[:, 0].min(initial=0.0)), MPI.MIN) == pytest.approx(rate, rel=1e-14)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_euler_steps_at_the_rate_keep_means_positive(comm: MPI.Comm, dim: int, degree: int, seed: int) -> None:
    """Steps of 1/rate are allowed, of which a stage takes its part; what is allowed is not many times too little."""
    transport = operator(comm, dim, degree, 4)
    space = transport.density_space
    rate = transport.assemble(wave(transport.velocity_space.x, seed, speed=3.0))
    lowest = {1.0: 0.0, 20.0: 0.0}
    for trial in range(20):
        rho = random_density(space, 4, 100 * seed + trial)
        change = transport.apply(rho)
        for factor in lowest:
            means = (rho + factor / (rate * transport.scheme.coefficient) * change)[: space.n_owned, 0]
            lowest[factor] = min(lowest[factor], comm.allreduce(float(means.min(initial=0.0)), MPI.MIN))
    assert lowest[1.0] >= -1e-14
    assert lowest[20.0] < -1e-2


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_steps_at_the_rate_are_stable(comm: MPI.Comm, dim: int, degree: int) -> None:
    """The unlimited scheme grows no faster than with tiny steps; with steps six times as long it does."""
    transport = operator(comm, dim, degree)
    space = transport.density_space
    stepper = Stepper(transport, limited=False)
    rate = transport.assemble(wave(transport.velocity_space.x))

    def growth(factor: float) -> float:
        state = random_rows(space, 1, 3)
        before = np.sqrt(inner(transport, state, state))
        end = stepper.step_forward(stepper.layout.pack(state), factor / rate, round(60 / min(factor, 1.0)))
        state = stepper.layout.unpack(end)
        return float(np.sqrt(inner(transport, state, state)) / before)

    assert growth(1.0) == pytest.approx(growth(0.25), rel=0.2)
    with np.errstate(over="ignore", invalid="ignore"):
        assert not growth(6.0) < 1e6 * growth(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308])
def test_a_velocity_that_is_not_finite_has_no_rate(comm: MPI.Comm, bad: float) -> None:
    transport = operator(comm, 2, 1)
    v = wave(transport.velocity_space.x)
    if comm.rank == comm.size - 1:
        v[0, 0] = bad
    assert not transport.assemble(v) < 1e290


def test_smoothing_is_a_fraction_of_the_crossing_speed(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 0)
    low, high = space.bounding_box
    assert flux_smoothing(space, 0.5, 1e-3) == pytest.approx(1e-3 * np.max(high - low) / 0.5, rel=1e-14)
