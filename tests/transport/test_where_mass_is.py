"""Cells with next to no mass are set to zero, and batches of zeros are left out: what that may change, and what not."""

from mpi4py import MPI

import numpy as np
import pytest
from modal import Steps, pull_back, steps
from problems import projected, random_rows, warped_mesh, wave

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.power import Power
from eulerian.transport.stepper import Stepper, StepRecord
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(1, 0, 1), (1, 1, 1), (1, 2, 2), (2, 0, 2), (2, 1, 1), (2, 1, 3), (2, 2, 1), (2, 1, 9), (3, 1, 1)]
CELLS = {1: 400, 2: 24, 3: 7}
EMPTY = 1e-16
STEPS = 6
ZERO = 2


def make_stepper(comm: MPI.Comm, dim: int, degree: int, columns: int, empty: float = EMPTY) -> Stepper:
    space = DensitySpace(warped_mesh(comm, dim, CELLS[dim]), degree, columns)
    return Stepper(TransportOperator(space, VelocitySpace(space), columns, 0.03, empty=empty))


def blobs(space: DensitySpace, columns: int) -> Floats:
    """Densities of mass about 1 in a corner of the domain each, with tails that go below 1e-100."""
    low, high = space.bounding_box
    rule = space.quadrature(4)
    found = []
    for k in range(columns):
        centre = low + (0.25 + 0.05 * k) * (high - low)
        square = np.sum(((rule.points - centre) / (0.04 * (high - low))) ** 2, axis=-1)
        found.append(np.exp(-0.5 * square))
    rho = space.zeros()
    rho = projected(space, np.stack(found, axis=-1), rule)
    space.limit(rho)
    return rho / space.mass(rho)


def idle_share(comm: MPI.Comm, records: list[StepRecord]) -> float:
    flags = np.concatenate([record.limited.ravel() for record in records])
    zero, all_ = parallel.sum_all(comm, np.array([np.sum(flags == ZERO), flags.size], dtype=float))
    return float(zero / all_)


def everywhere(stepper: Stepper, rho: Floats, dt: float) -> Steps:
    """The same steps with nothing left out: every batch is taken for one with ghosts around it."""
    at_ghosts = stepper.operator._kept["at_ghosts"]
    before = at_ghosts.copy()
    at_ghosts[:] = 1
    taken = steps(stepper, rho, dt, STEPS)
    at_ghosts[:] = before
    for record in taken.records:  # and so backward
        record.limited[record.limited == ZERO] = 0
    return taken


@pytest.mark.parametrize(("dim", "degree", "columns"), CASES)
def test_to_the_last_bit_as_everywhere(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    stepper = make_stepper(comm, dim, degree, columns)
    operator, space = stepper.operator, stepper.operator.density_space
    rho, g = blobs(space, columns), random_rows(space, columns, 3)[: space.n_owned]
    running = [random_rows(space, 1, 4)[: space.n_owned, :, 0]] * stepper.scheme.stages
    dt = 0.9 / operator.assemble(wave(operator.velocity_space.x))

    taken, whole = steps(stepper, rho, dt, STEPS), everywhere(stepper, rho, dt)

    assert idle_share(comm, taken.records) > 0.2
    np.testing.assert_array_equal(taken.end, whole.end)
    np.testing.assert_array_equal(taken.occupation, whole.occupation)
    for mine, theirs in zip(
        pull_back(stepper, taken, g, dt, running), pull_back(stepper, whole, g, dt, running), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("dim", "degree", "columns"), CASES)
def test_mass_is_kept_and_little_is_changed(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    stepper, reference = (make_stepper(comm, dim, degree, columns, empty) for empty in (EMPTY, 1e-200))
    space, rho = stepper.operator.density_space, blobs(stepper.operator.density_space, columns)
    mass = space.mass(rho)
    v = wave(stepper.operator.velocity_space.x)
    dt = 0.9 / stepper.operator.assemble(v)
    reference.operator.assemble(v)

    end, expected = steps(stepper, rho, dt, 10 * STEPS).end, steps(reference, rho, dt, 10 * STEPS).end

    np.testing.assert_allclose(space.mass(end), mass, rtol=1e-13)
    assert np.sum(space.mass(np.abs(end - expected))) <= 1e-12


@pytest.mark.parametrize(("dim", "degree"), [(1, 0), (1, 1), (2, 1), (2, 2)])
def test_gradient(comm: MPI.Comm, dim: int, degree: int) -> None:
    """⟨g, ρ(T)⟩ by the velocity, against differences."""
    stepper = make_stepper(comm, dim, degree, 1)
    operator, space = stepper.operator, stepper.operator.density_space
    x = operator.velocity_space.x
    v, w, rho, g = wave(x), wave(x, seed=9), blobs(space, 1), random_rows(space, 1, 3)
    dt = 0.5 / operator.assemble(v)
    taken = steps(stepper, rho, dt, STEPS)
    nothing = [np.zeros((space.n_owned, space.nd))] * stepper.scheme.stages
    _, by_velocity = pull_back(stepper, taken, g[: space.n_owned], dt, nothing)

    def cost(h: float) -> float:
        operator.assemble(v + h * w)
        end = steps(stepper, rho, dt, STEPS).end
        return float(parallel.sum_all(comm, np.array([np.vdot(g[: space.n_owned], end[: space.n_owned])]))[0])

    assert idle_share(comm, taken.records) > 0.2
    slope = float(parallel.sum_all(comm, np.array([np.vdot(by_velocity, w)]))[0])
    h = 1e-6
    assert (cost(h) - cost(-h)) / (2.0 * h) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("dim", [1, 2])
def test_powers_are_computed_where_walls_add_to_them(comm: MPI.Comm, dim: int) -> None:
    """A power that is zero gains at a wall that its density presses against."""
    stepper = make_stepper(comm, dim, 1, 1)
    space, velocities = stepper.operator.density_space, stepper.operator.velocity_space
    power = Power.of_each(stepper.layout)
    beside = Stepper(TransportOperator(space, velocities, 1, 0.03, power=power, empty=EMPTY))
    v = np.ones_like(velocities.x)
    dt = 0.5 / max(each.operator.assemble(v) for each in (stepper, beside))
    rho, records = space.zeros(), [stepper.new_record()]
    rho[:, 0] = 1.0
    start = stepper.layout.pack(rho, fill=1.0)
    stepper.step_forward(start, dt, 1, records)
    q = beside.step_forward(beside.layout.zeros(), dt, 1, [beside.new_record()], source=(start, records))
    assert space.mass(beside.layout.unpack(q))[0] > 0.0
