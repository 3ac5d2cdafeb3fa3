"""The compiled limiter against its readable reference, and its adjoint."""

from mpi4py import MPI

import numpy as np
import pytest
from modal import decided, limiter_vjp, modes
from problems import EMPTIED, UNLIMITED, random_rows, warped_mesh
from thinning import thinned

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.stepper import Stepper, StepRecord
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (1, 2)]
COLUMNS = 3


def at_rest(comm: MPI.Comm, dim: int, degree: int) -> Stepper:
    """Nothing moves (δ = 0, v = 0): a stage only limits."""
    space = DensitySpace(warped_mesh(comm, dim), degree, COLUMNS)
    velocity_space = VelocitySpace(space)
    operator = TransportOperator(space, velocity_space, COLUMNS)
    operator.assemble(np.zeros_like(velocity_space.x))
    return Stepper(operator)


def limited(stepper: Stepper, rho: Floats) -> tuple[Floats, StepRecord]:
    """ρ behind the first stage's limiter, and what it recorded."""
    record = stepper.new_record()
    stepper.step_forward(stepper.layout.pack(rho, fill=1.0), 1.0, 1, [record])
    return modes(stepper.layout, record.states[0]), record


def numbers(space: DensitySpace) -> np.ndarray:
    """Cells' numbers on one rank, ghosts included: to pick the same cells on any number of ranks."""
    return space.mesh.topology.original_cell_index[: space.n_cells]


def unlimited_density(space: DensitySpace, seed: int, size: float = 0.5) -> Floats:
    """Positive means with modes that often go below zero."""
    rho = random_rows(space, COLUMNS, seed)
    rho[:, 0] = np.abs(rho[:, 0]) + 0.01
    rho[:, 1:] *= size
    rho[numbers(space) % 3 == 0, 1:] *= 0.05
    return rho


def adjoint(stepper: Stepper, record: StepRecord, cotangent: Floats) -> Floats:
    """The limiter's transposed derivative at what the first stage recorded."""
    return limiter_vjp(stepper, record, 0, cotangent)


@pytest.mark.parametrize("seed", thinned(range(3), {0}))
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_equals_the_reference(comm: MPI.Comm, dim: int, degree: int, seed: int) -> None:
    stepper = at_rest(comm, dim, degree)
    space = stepper.operator.density_space
    rho = unlimited_density(space, seed)
    rho[numbers(space) % 7 == seed, 0] = 0.0
    rho[numbers(space) % 7 == seed + 1, 0] = -1e-3
    expected = rho.copy()
    space.limit(expected)

    result, record = limited(stepper, rho)

    scale = np.abs(space.vertex_values(rho)).max(initial=1.0)
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-15 * scale)
    np.testing.assert_allclose(result[:, 0], rho[:, 0], rtol=1e-14, atol=1e-15 * scale)
    values = space.evaluate(result, space.limiter_points)
    assert values[rho[: space.n_owned, 0].min(axis=1) >= 0.0].min(initial=0.0) >= -1e-14 * scale
    kinds = np.unique(np.concatenate(comm.allgather(decided(stepper, record)[0].ravel())))
    assert UNLIMITED in kinds
    assert EMPTIED in kinds
    assert kinds.size > 3


@pytest.mark.two_ranks
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_leaves_positive_densities_alone(comm: MPI.Comm, dim: int, degree: int) -> None:
    stepper = at_rest(comm, dim, degree)
    space = stepper.operator.density_space
    rho = unlimited_density(space, 1)
    space.limit(rho)
    rho[:, 1:] *= 0.999

    result, record = limited(stepper, rho)

    np.testing.assert_allclose(result, rho, rtol=0, atol=1e-14)
    assert np.all(decided(stepper, record) == UNLIMITED)
    cotangent = random_rows(space, COLUMNS, 2)
    np.testing.assert_allclose(adjoint(stepper, record, cotangent), cotangent[: space.n_owned], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_adjoint_is_the_transposed_derivative(comm: MPI.Comm, dim: int, degree: int) -> None:
    """⟨g, dL(u) δ⟩ = ⟨dLᵀ(u) g, δ⟩ with dL by differences, cell by cell, so that no error can cancel."""
    stepper = at_rest(comm, dim, degree)
    space = stepper.operator.density_space
    n = space.n_owned
    rho, change, g = unlimited_density(space, 3), random_rows(space, COLUMNS, 4), random_rows(space, COLUMNS, 5)
    h = 1e-6

    _, record = limited(stepper, rho)
    ahead, behind = limited(stepper, rho + h * change), limited(stepper, rho - h * change)
    # Where the limiter decides otherwise nearby there is a kink.
    here, there, there_too = (decided(stepper, each)[0] for each in (record, ahead[1], behind[1]))
    smooth = (there == here) & (there_too == here)
    forward = np.sum(g * (ahead[0] - behind[0]) / (2 * h), axis=1)[:n]
    backward = np.sum(adjoint(stepper, record, g) * change[:n], axis=1)

    assert np.mean(smooth) > 0.99
    assert comm.allreduce(int(np.sum(here < EMPTIED))) > 5
    scale = 1.0 + np.abs(backward[smooth])
    assert np.max(np.abs(forward - backward)[smooth] / scale, initial=0.0) <= 1e-6


@pytest.mark.two_ranks
@pytest.mark.parametrize("mean", thinned([0.0, 5e-324, 1e-308, 1e-300, 1e-201, 1e-199, 1e-150, 1e-15], {1e-308}))
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_nearly_empty_cells(comm: MPI.Comm, dim: int, degree: int, mean: float) -> None:
    stepper = at_rest(comm, dim, degree)
    space = stepper.operator.density_space
    rho = random_rows(space, COLUMNS, 6)
    rho *= mean
    rho[:, 0] = mean

    result, record = limited(stepper, rho)
    gradient = adjoint(stepper, record, random_rows(space, COLUMNS, 7))

    assert np.all(np.isfinite(result))
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max(initial=0.0) < 1e4
    if mean < 1e-200:
        np.testing.assert_allclose(result[: space.n_owned, 1:], 0.0, atol=1e-15 * mean + 1e-322)
        np.testing.assert_allclose(gradient[:, 1:], 0.0, atol=1e-13)


@pytest.mark.parametrize("mean", [1e-190, 1.0])
def test_modes_that_underflow(comm: MPI.Comm, mean: float) -> None:
    """Modes far above and far below the mean, which is then known up to rounding of the modes."""
    stepper = at_rest(comm, 2, 1)
    space = stepper.operator.density_space
    rho = space.zeros()
    rho[:, 0] = mean
    rho[:, 1:] = np.where(numbers(space) % 2, 1.0, 1e-320)[:, None, None]

    result, record = limited(stepper, rho)

    assert np.all(np.isfinite(adjoint(stepper, record, random_rows(space, COLUMNS, 8))))
    assert space.evaluate(result, space.limiter_points).min(initial=0.0) >= -1e-14


@pytest.mark.parametrize("degree", [1, 2])
def test_nan_is_passed_on(comm: MPI.Comm, degree: int) -> None:
    stepper = at_rest(comm, 1, degree)
    rho = unlimited_density(stepper.operator.density_space, 1)
    rho[0] = np.nan
    result, _ = limited(stepper, rho)
    assert np.all(np.isnan(result[0]))
