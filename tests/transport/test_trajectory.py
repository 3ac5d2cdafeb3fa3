"""A density through all layers: memory, rejected evaluations, snapshots."""

import gc
import weakref
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from problems import random_density, random_rows, warped_mesh, wave

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, InputError, RejectedEvaluation
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.stepper import Stepper
from eulerian.transport.sweep import Sweep
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.trajectory import MINIMAL_RECORDS, Trajectory
from eulerian.transport.velocity_space import VelocitySpace

COLUMNS = 2


def make_stepper(comm: MPI.Comm, dim: int = 2, degree: int = 1) -> Stepper:
    space = DensitySpace(warped_mesh(comm, dim, None if dim == 1 else 3), degree, COLUMNS)
    return Stepper(TransportOperator(space, VelocitySpace(space), COLUMNS, 0.03))


def budget(stepper: Stepper, layers: int, records: float) -> float:
    """Bytes for that many records besides the densities at the layers' starts. Collective."""
    comm = stepper.operator.density_space.comm
    return float(comm.allreduce((2 * layers + 1) * stepper.state_bytes + records * stepper.record_bytes))


def one_group(arrays: list[Floats]) -> list[list[Floats]]:
    """By layer and group, for the only group."""
    return [[array] for array in arrays]


def gradient(trajectory: Trajectory) -> tuple[Floats, list[Floats], Sweep]:
    """Derivatives by ρ₀ and by the velocities of some functional, and the sweep that they belong to."""
    (stepper,), layers = trajectory.steppers, trajectory.grid.layers
    space, x = stepper.operator.density_space, stepper.operator.velocity_space.x
    velocities = one_group([wave(x, layer) for layer in range(layers)])
    sweep = trajectory.forward([random_density(space, COLUMNS, 1)], velocities)
    cotangent = random_rows(space, COLUMNS, 2)
    running = [random_rows(space, 1, 3 + i)[: space.n_owned, :, 0] for i in range(layers)]
    by_velocity = sweep.adjoint([cotangent], one_group(running))
    return cotangent[: space.n_owned], [group for (group,) in by_velocity], sweep


@pytest.mark.two_ranks
@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("records", [MINIMAL_RECORDS, 9, 13, 40, 75, 120])
def test_gradient_does_not_depend_on_memory(comm: MPI.Comm, degree: int, records: int) -> None:
    """From room for a fraction of one layer to room for some of the layers; the reference has room for all."""
    grid = TimeGrid((18.0, 6.0, 2.7)[degree], 3)
    stepper = make_stepper(comm, 2, degree)
    reference = Trajectory([stepper], grid, budget(stepper, 3, 1e4))
    expected = gradient(reference)
    assert expected[2].recomputed == 0

    memory = budget(stepper, 3, records + 0.5)
    trajectory = Trajectory([stepper], grid, memory)
    result = gradient(trajectory)

    sweep = result[2]
    total = sweep.steps.ends[-1]
    assert sweep.steps == expected[2].steps
    assert (sweep.recomputed > 0) == (total > records)
    assert sweep.recomputed <= sweep.plan.recomputed <= 4 * total
    if records >= 40:
        assert sweep.recomputed < total, "one more forward sweep is enough"
    np.testing.assert_array_equal(result[0], expected[0])
    for ours, theirs in zip(result[1], expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert comm.allreduce(trajectory.kept_bytes) <= memory


@pytest.mark.two_ranks
def test_densities_on_disk(comm: MPI.Comm, tmp_path: Path) -> None:
    """Room on disk spares recomputation, and nothing is left there."""
    stepper = make_stepper(comm, 1, 1)
    grid, memory = TimeGrid(20.0, 1), budget(stepper, 1, MINIMAL_RECORDS + 0.5)
    expected = gradient(Trajectory([stepper], grid, budget(stepper, 1, 1e4)))
    without = gradient(Trajectory([stepper], grid, memory))[2]

    trajectory = Trajectory([stepper], grid, memory, disk=budget(stepper, 1, 100), disk_directory=tmp_path)
    result = gradient(trajectory)

    assert result[2].plan.on_disk > 0
    assert result[2].recomputed < 0.7 * without.recomputed
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1][0], expected[1][0])
    comm.barrier()
    assert not [file for folder in tmp_path.iterdir() for file in folder.iterdir()]
    comm.barrier()
    del trajectory, result
    gc.collect()
    comm.barrier()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written(comm: MPI.Comm, tmp_path: Path) -> None:
    stepper = make_stepper(comm, 1, 1)
    folder = tmp_path if comm.rank < comm.size - 1 else tmp_path / "missing"
    memory = budget(stepper, 1, MINIMAL_RECORDS + 0.5)
    trajectory = Trajectory([stepper], TimeGrid(20.0, 1), memory, disk=1e9, disk_directory=folder)
    with pytest.raises(ComputationError, match=r"solver\.disk_directory"):
        gradient(trajectory)


@pytest.mark.two_ranks
def test_repeated_recursion(comm: MPI.Comm) -> None:
    """So many steps that kept densities are far fewer than units: some are computed several times."""
    stepper = make_stepper(comm, 1, 1)
    grid = TimeGrid(20.0, 1)
    reference = Trajectory([stepper], grid, budget(stepper, 1, 1e4))
    expected = gradient(reference)
    (count,) = expected[2].steps.counts
    assert count > 5 * MINIMAL_RECORDS**2

    trajectory = Trajectory([stepper], grid, budget(stepper, 1, MINIMAL_RECORDS + 0.5))
    result = gradient(trajectory)

    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1][0], expected[1][0])
    assert count < result[2].recomputed <= 8 * count


def test_a_trajectory_can_be_run_again(comm: MPI.Comm) -> None:
    stepper = make_stepper(comm)
    trajectory = Trajectory([stepper], TimeGrid(1.0, 3), budget(stepper, 3, 20))
    first, second = gradient(trajectory), gradient(trajectory)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_sweep_whose_records_are_gone_has_no_adjoint(comm: MPI.Comm) -> None:
    stepper = make_stepper(comm, 1, 1)
    space, x = stepper.operator.density_space, stepper.operator.velocity_space.x
    trajectory = Trajectory([stepper], TimeGrid(1.0, 1), budget(stepper, 1, 100))
    rho = random_density(space, COLUMNS, 1)
    first, second = trajectory.forward([rho], [[wave(x)]]), trajectory.forward([rho], [[wave(x)]])
    np.testing.assert_array_equal(first.end[0], second.end[0])
    running = [[np.zeros((space.n_owned, space.nd))]]
    with pytest.raises(AssertionError, match="another sweep"):
        first.adjoint([random_rows(space, COLUMNS, 2)], running)
    second.adjoint([random_rows(space, COLUMNS, 2)], running)
    with pytest.raises(AssertionError, match="for every adjoint"):
        second.adjoint([random_rows(space, COLUMNS, 2)], running)
    records = weakref.ref(trajectory._storage)
    del trajectory, first, second
    assert records() is None, "memory is given back at once"


def test_too_little_memory_is_refused(comm: MPI.Comm) -> None:
    stepper = make_stepper(comm)
    with pytest.raises(InputError, match=r"solver\.memory") as caught:
        Trajectory([stepper], TimeGrid(1.0, 3), budget(stepper, 3, MINIMAL_RECORDS - 0.1))
    assert "MiB" in str(caught.value)
    Trajectory([stepper], TimeGrid(1.0, 3), budget(stepper, 3, MINIMAL_RECORDS + 0.1))


def test_too_many_steps_are_rejected(comm: MPI.Comm) -> None:
    stepper = make_stepper(comm)
    space, x = stepper.operator.density_space, stepper.operator.velocity_space.x
    rho = random_density(space, COLUMNS, 1)
    free = Trajectory([stepper], TimeGrid(1.0, 2), 2.0**30)
    most = max(free.forward([rho], one_group([wave(x), wave(x, 1)])).steps.counts)

    capped = Trajectory([stepper], TimeGrid(1.0, 2, max_steps=most - 1), 2.0**30)
    with pytest.raises(RejectedEvaluation, match="max_steps_per_layer"):
        capped.forward([rho], one_group([wave(x), wave(x, 1)]))
    capped.forward([rho], one_group([0.1 * wave(x), 0.1 * wave(x, 1)]))  # it goes on with another velocity
    Trajectory([stepper], TimeGrid(1.0, 2, max_steps=most), 2.0**30).forward([rho], one_group([wave(x), wave(x, 1)]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_velocity_that_fails_on_one_rank_is_rejected_on_all(comm: MPI.Comm, bad: float) -> None:
    stepper = make_stepper(comm)
    v = wave(stepper.operator.velocity_space.x)
    if comm.rank == comm.size - 1:
        v[-1, -1] = bad  # a node of this rank's cells, perhaps only of its ghosts
        v[stepper.operator.velocity_space.cell_nodes[0, 0]] = bad
    trajectory = Trajectory([stepper], TimeGrid(1.0, 1), 2.0**30)
    with pytest.raises(RejectedEvaluation):
        trajectory.forward([random_density(stepper.operator.density_space, COLUMNS, 1)], [[v]])


@pytest.mark.parametrize(("cfl", "rate", "expected"), [(0.9, 9.0, 5), (0.9, 0.0, 1), (0.5, 10.0, 10), (1.0, 10.5, 6)])
def test_step_counts(cfl: float, rate: float, expected: int) -> None:
    assert TimeGrid(1.0, 2, cfl).steps(rate) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("horizon", -1.0), ("horizon", np.nan), ("horizon", np.inf), ("horizon", "1"), ("layers", 0), ("layers", 1.5),
     ("layers", np.nan), ("cfl", 0.0), ("cfl", 1.1), ("max_steps", 0)],
)  # fmt: skip
def test_times_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(InputError, match="must be a") as caught:
        TimeGrid(**{name: value})  # type: ignore[arg-type]
    assert caught.value.key == f"time.{name}"


@pytest.mark.parametrize("rate", [np.nan, np.inf, 1e300])
def test_step_counts_of_rates_that_make_no_sense(rate: float) -> None:
    with pytest.raises(RejectedEvaluation, match="time steps"):
        TimeGrid(1.0, 2).steps(rate)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_snapshots(comm: MPI.Comm, degree: int) -> None:
    stepper = make_stepper(comm, 2, degree)
    space, x = stepper.operator.density_space, stepper.operator.velocity_space.x
    rho = random_density(space, COLUMNS, 1)
    trajectory = Trajectory([stepper], TimeGrid(1.2, 3), budget(stepper, 3, 10))
    sweep = trajectory.forward([rho], one_group([wave(x, layer) for layer in range(3)]))
    (end,), starts = sweep.end, [sweep.start(layer)[0] for layer in range(4)]

    times = np.array([0.0, 0.1, 0.4, 0.41, 0.7, 0.7, 0.8, 1.2])
    snapshots = [snapshot for (snapshot,) in sweep.at_times(times)]

    assert len(snapshots) == len(times)
    highest = max(space.extrema(snapshot)[1] for snapshot in snapshots)
    for snapshot in snapshots:
        np.testing.assert_allclose(space.mass(snapshot), space.mass(rho), rtol=1e-12)
        assert space.extrema(snapshot)[0] >= -1e-14 * highest
    n = space.n_owned
    for index, start in ((0, rho), (2, starts[1]), (6, starts[2]), (7, end)):
        np.testing.assert_allclose(snapshots[index][:n], start[:n], atol=1e-11 * highest)
    np.testing.assert_array_equal(snapshots[4], snapshots[5])
    assert np.abs(snapshots[3] - snapshots[2]).max() > 0.0


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 11])
def test_occupation_is_the_integral_of_the_density(comm: MPI.Comm, columns: int) -> None:
    """Also with lanes that have no column."""
    space = DensitySpace(warped_mesh(comm, 2, 3), 1, columns)
    stepper = Stepper(TransportOperator(space, VelocitySpace(space), columns, 0.03))
    x, rho = stepper.operator.velocity_space.x, random_density(space, columns, 1)
    trajectory = Trajectory([stepper], TimeGrid(1.2, 3), 2.0**30)
    sweep = trajectory.forward([rho], one_group([wave(x, layer) for layer in range(3)]))
    for (occupation,) in sweep.occupations:
        whole = space.zeros()
        whole[: space.n_owned, :, 0] = occupation
        np.testing.assert_allclose(space.mass(whole)[0], 0.4 * space.mass(rho).sum(), rtol=1e-12)


def test_several_groups_with_unlike_velocities(comm: MPI.Comm) -> None:
    """Each group moves as it would alone with the common step counts; gradients too."""
    space = DensitySpace(warped_mesh(comm, 2, 3), 1, 1)
    velocity_space = VelocitySpace(space)
    steppers = [Stepper(TransportOperator(space, velocity_space, 1, 0.03)) for _ in range(2)]
    x, grid = velocity_space.x, TimeGrid(1.2, 2)
    rho, running = random_density(space, 1, 1), np.zeros((space.n_owned, space.nd))
    velocities = [[wave(x, layer), wave(x, layer + 5)] for layer in range(2)]
    both = Trajectory(steppers, grid, 2.0**30).forward([rho, rho], velocities)
    ends = both.end
    gradients = both.adjoint([random_rows(space, 1, 2) for _ in ends], [[running, running]] * 2)
    for g, stepper in enumerate(steppers):
        trajectory = Trajectory([stepper], grid, 2.0**30)
        alone = trajectory.forward([rho], [[groups[g]] for groups in velocities], both.steps.counts)
        (end,) = alone.end
        found = alone.adjoint([random_rows(space, 1, 2)], [[running]] * 2)
        np.testing.assert_array_equal(end, ends[g])
        for layer in range(2):
            np.testing.assert_array_equal(found[layer][0], gradients[layer][g])
