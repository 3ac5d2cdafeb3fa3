"""One step: its order in time, its occupation, its adjoint."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from modal import decided, pull_back, steps
from problems import EMPTIED, orders, random_density, random_rows, warped_mesh, wave
from thinning import thinned

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.reference import coordinate_entries
from eulerian.transport.ssp import SSPScheme
from eulerian.transport.stepper import Stepper, StepRecord
from eulerian.transport.time_grid import TimeLeft
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]
COLUMNS = 2
ADJOINTS = [(True, 1), (True, 2), (False, 2), (True, 9)]  # limited or not, columns
STEPS = 2  # so that the adjoint passes from one step to the one before


def make_stepper(
    comm: MPI.Comm, dim: int, degree: int, columns: int = COLUMNS, *, limited: bool = True, cells: int | None = None
) -> Stepper:
    space = DensitySpace(warped_mesh(comm, dim, cells), degree, columns)
    return Stepper(TransportOperator(space, VelocitySpace(space), columns, 0.03), limited=limited)


def dot(stepper: Stepper, a: Floats, b: Floats) -> float:
    space = stepper.operator.density_space
    local = np.vdot(a[: space.n_owned], b[: space.n_owned])
    return float(parallel.sum_all(space.comm, np.array([local]))[0])


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_weights_are_the_scheme_on_an_extra_unknown(dim: int, degree: int) -> None:
    """Integrate q' = f through the same stages: the weight of stage i is what f there adds to q."""
    scheme = SSPScheme.of(dim, degree)
    weights = np.zeros(scheme.stages)
    q = np.zeros(scheme.stages)
    for i, alpha in enumerate(scheme.alpha):
        q = (1.0 - alpha) * (q + np.eye(len(q))[i] / scheme.coefficient)
        weights = q
    np.testing.assert_allclose(scheme.weights, weights, atol=1e-15)
    current, start = scheme.split_weights
    np.testing.assert_allclose(current[1:], weights[1:])
    assert current[0] + start.sum() == pytest.approx(weights[0])


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_order_in_time_of_the_unlimited_scheme(comm: MPI.Comm, degree: int) -> None:
    if comm.size > 1:
        pytest.skip("compared with a matrix exponential, on one rank")
    stepper = make_stepper(comm, 2, degree, limited=False, cells=3)
    operator, space = stepper.operator, stepper.operator.density_space
    rate = operator.assemble(wave(operator.velocity_space.x))
    rows, columns, values = coordinate_entries(operator)
    size = space.n_owned * space.nd
    b = scipy.sparse.coo_array((values, (rows, columns)), shape=(size, size)).toarray()
    rho, horizon = random_rows(space, COLUMNS, 1), 4.0 / rate
    # The last block of the exponential of [[B, 1], [0, 0]] is the integral over time.
    extended = scipy.linalg.expm(horizon * np.block([[b, np.eye(size)], [np.zeros((size, 2 * size))]]))
    exact = [extended[:size, part : part + size] @ rho.reshape(size, COLUMNS) for part in (0, size)]

    errors, occupation_errors = [], []
    for count in (8, 16, 32, 64):
        taken = steps(stepper, rho, horizon / count, count)
        errors.append(np.linalg.norm(taken.end.reshape(size, -1) - exact[0]))
        occupation_errors.append(np.linalg.norm(taken.occupation.ravel() - exact[1].sum(axis=1)))

    assert np.all(orders(errors)[1:] >= degree + 0.9), orders(errors)
    assert np.all(orders(occupation_errors)[1:] >= degree + 0.9), orders(occupation_errors)
    assert errors[-1] <= 0.03 * np.linalg.norm(exact[0])


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_keeps_mass_and_sign(comm: MPI.Comm, dim: int, degree: int) -> None:
    stepper = make_stepper(comm, dim, degree)
    operator, space = stepper.operator, stepper.operator.density_space
    rate = operator.assemble(wave(operator.velocity_space.x))
    rho = random_density(space, COLUMNS, 3)
    mass = space.mass(rho)
    for _ in range(30):
        rho = steps(stepper, rho, 1.0 / rate).end
        assert space.extrema(rho)[0] >= -1e-14 * max(1.0, space.extrema(rho)[1])
    np.testing.assert_allclose(space.mass(rho), mass, rtol=1e-13)


@pytest.mark.parametrize(
    ("limited", "columns"), thinned(ADJOINTS, {(True, 2), (False, 2), (True, 9)}, {(False, 2), (True, 9)})
)
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_adjoint(comm: MPI.Comm, dim: int, degree: int, limited: bool, columns: int) -> None:
    """F = ⟨g, steps of u⟩ + ⟨r, ∫ρ dt⟩ + ⟨s, ∫(T − t)ρ dt⟩: its derivative by u and by v against differences."""
    stepper = make_stepper(comm, dim, degree, columns, limited=limited)
    operator, space = stepper.operator, stepper.operator.density_space
    x = operator.velocity_space.x
    v, w = wave(x), wave(x, seed=9)
    u, change, g = (random_rows(space, columns, seed) for seed in (1, 2, 3))
    running, tilt = (random_rows(space, 1, seed)[: space.n_owned, :, 0] for seed in (4, 5))
    u[:, 0] = np.abs(u[:, 0]) + 2.0
    dt = 0.5 / operator.assemble(v)
    left = TimeLeft(7.0 * dt, 2)

    def points(records: list[StepRecord]) -> np.ndarray:
        return np.array([decided(stepper, record) for record in records]) if limited else np.zeros(1)

    def cost(h_state: float, h_velocity: float) -> tuple[float, np.ndarray]:
        operator.assemble(v + h_velocity * w)
        taken = steps(stepper, u + h_state * change, dt, STEPS, left)
        costs = dot(stepper, running, taken.occupation) + dot(stepper, tilt, taken.moment)
        return dot(stepper, g, taken.end) + costs, points(taken.records)

    operator.assemble(v)
    taken = steps(stepper, u, dt, STEPS, left)
    rates = [running] * stepper.scheme.stages
    cotangent, gradient = pull_back(stepper, taken, g[: space.n_owned], dt, rates, tilt, left)
    by_velocity = float(parallel.sum_all(comm, np.array([np.vdot(gradient, w)]))[0])
    here = points(taken.records)
    if limited and degree and columns > 1:
        assert comm.allreduce(int(np.sum(here < EMPTIED))) > 0

    for direction, slope in (((1.0, 0.0), dot(stepper, cotangent, change)), ((0.0, 1.0), by_velocity)):
        for h in 10.0 ** -np.arange(5.0, 9.0):  # the longest step that crosses no kink of the limiter
            (ahead, there), (behind, there_too) = (cost(s * h * direction[0], s * h * direction[1]) for s in (1, -1))
            same = np.array_equal(there, here) and np.array_equal(there_too, here)
            if comm.allreduce(same, MPI.LAND):
                break
        else:
            pytest.fail("every step crosses a kink: take another seed")
        assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-5, abs=1e-6 + 1e-12 / h)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_steps_in_one_call_are_steps_one_by_one(comm: MPI.Comm, degree: int) -> None:
    """To the bit, recorded or not."""
    stepper = make_stepper(comm, 2, degree)
    rate = stepper.operator.assemble(wave(stepper.operator.velocity_space.x))
    start = stepper.layout.pack(random_density(stepper.operator.density_space, COLUMNS, 1), fill=1.0)
    records = [stepper.new_record() for _ in range(5)]

    totals, one_by_one = stepper.layout.zero_totals(2), stepper.layout.zero_totals(2)
    together = stepper.step_forward(start, 1.0 / rate, 5, None, totals, TimeLeft(7.0 / rate, 1)).copy()
    recorded = stepper.step_forward(start, 1.0 / rate, 5, records).copy()
    state = start
    for done, record in enumerate(records, start=1):
        state = stepper.step_forward(state, 1.0 / rate, 1, None, one_by_one, TimeLeft(7.0 / rate, done)).copy()
        np.testing.assert_array_equal(state, record.states[-1])

    np.testing.assert_array_equal(together, state)
    np.testing.assert_array_equal(recorded, state)
    np.testing.assert_array_equal(totals, one_by_one)
    assert np.max(np.abs(totals[1])) > 0.0
