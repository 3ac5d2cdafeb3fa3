"""The flow of a θ: points, densities and likelihoods both ways, against an affine flow whose map is known."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import expm

from eulerian.analysis.flow import Flow
from eulerian.base.errors import ComputationError, InputError
from eulerian.control.control import ControlProblem
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields.features import Linear, Translation
from eulerian.fields.nodal import Nodal
from eulerian.mesh.create import box_mesh
from eulerian.objective.costs import Costs
from eulerian.objective.distances import KullbackLeibler
from eulerian.objective.losses import QuadraticLoss
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.velocity_space import velocity_nodes

A = np.array([[0.3, -0.8], [0.5, -0.1]])
B = np.array([0.1, -0.2])
HORIZON = 0.5
TARGET = Gaussian([0.2, -0.1], std=0.3)


def map_of(time: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and shift of the affine flow."""
    big = np.zeros((3, 3))
    big[:2, :2], big[:2, 2] = A, B
    found = expm(time * big)
    return found[:2, :2], found[:2, 2]


def problem_on(
    comm: MPI.Comm, *, labels: int = 1, field: Any = None, terminal: Any = None, **more: Any
) -> ControlProblem:
    space = DensitySpace(box_mesh([-2.0, -2.0], [2.0, 2.0], [16, 16], comm), 2, labels)
    rho0 = space.project({y: Gaussian([0.2 - 0.4 * y, 0.0], std=0.3) for y in range(labels)})
    field = Linear(2, "affine") if field is None else field
    terminal = QuadraticLoss([0.0, 0.0]) if terminal is None else terminal
    return ControlProblem(space, field, rho0, terminal, Costs(kinetic=0.1), TimeGrid(HORIZON, 2), **more)


def affine_flow(comm: MPI.Comm, **more: Any) -> Flow:
    problem = problem_on(comm, **more)
    return Flow(problem, np.tile(np.concatenate([A.ravel(), B]), (2, 1)))


def points(n: int = 30) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1.0, 1.0, (n, 2))


def test_points_go_where_the_map_says_and_come_back(comm: MPI.Comm) -> None:
    flow, x = affine_flow(comm), points()
    matrix, shift = map_of(HORIZON)
    pushed = flow.push(x)
    assert_allclose(pushed.x, x @ matrix.T + shift, atol=1e-9)
    assert_allclose(pushed.log_density_change, -HORIZON * np.trace(A), atol=1e-9)
    back = flow.pull(pushed.x)
    assert_allclose(back.x, x, atol=1e-8)
    assert_allclose(back.log_density_change, pushed.log_density_change, atol=1e-9)  # of the same path
    assert_allclose(flow.velocity(0.3, x), x @ A.T + B, atol=1e-12)
    assert flow.push(np.zeros((0, 2))).x.shape == (0, 2)
    assert flow.push([0.0, 0.0]).x.shape == (1, 2)


def test_densities_on_the_way_follow_the_map(comm: MPI.Comm) -> None:
    flow = affine_flow(comm)
    for t in (0.0, 0.1, HORIZON / 2, HORIZON):
        matrix, shift = map_of(t)
        rho = flow.density(t)
        assert rho.mass == pytest.approx([1.0], abs=1e-12)
        assert_allclose(rho.mean[0], matrix @ [0.2, 0.0] + shift, atol=2e-4)
        assert_allclose(rho.covariance[0], 0.09 * matrix @ matrix.T, atol=2e-3)


def test_likelihoods_are_those_of_the_target_pulled_back(comm: MPI.Comm) -> None:
    flow, x = affine_flow(comm, terminal=KullbackLeibler(TARGET)), points()
    matrix, shift = map_of(HORIZON)
    inside = 1.0  # of the target's mass in the box, up to e-8
    expected = TARGET.log_values(x @ matrix.T + shift) + HORIZON * np.trace(A) - np.log(inside)
    assert_allclose(flow.log_likelihood(x), expected, atol=1e-6)
    new = flow.generate(4000, seed=2)
    inverse = np.linalg.inv(matrix)
    assert_allclose(new.mean(axis=0), inverse @ (TARGET.mean - shift), atol=0.02)
    assert_allclose(np.cov(new.T), 0.09 * inverse @ inverse.T, atol=0.01)
    assert all(np.array_equal(new, each) for each in comm.allgather(new))
    assert np.array_equal(new, flow.generate(4000, seed=2))
    assert not np.array_equal(new, flow.generate(4000, seed=3))


def test_labels_with_flows_of_their_own(comm: MPI.Comm) -> None:
    terminal = KullbackLeibler({0: TARGET, 1: Gaussian([-0.3, 0.3], std=0.3)})
    field = Translation(2, n_labels=2)
    problem = problem_on(comm, labels=2, field=field, terminal=terminal, label_dependent=True)
    shifts = np.array([[0.2, 0.0], [-0.4, 0.6]])
    flow = Flow(problem, np.tile(shifts.ravel(), (2, 1)))
    x, labels = points(20), np.arange(20) % 2
    assert_allclose(flow.push(x, labels).x, x + HORIZON * shifts[labels], atol=1e-12)
    assert_allclose(flow.pull(x, 1).x, x - HORIZON * shifts[1], atol=1e-12)
    assert_allclose(flow.velocity(0.0, x, labels), shifts[labels])
    logs = flow.log_likelihood(x, labels)
    ends = zip(([0.2, -0.1], [-0.3, 0.3]), shifts, strict=True)
    wanted = [np.log(0.5) + Gaussian(mean, std=0.3).log_values(x + HORIZON * shift) for mean, shift in ends]
    assert_allclose(logs, np.stack(wanted)[labels, np.arange(20)], atol=1e-6)
    new, of = flow.generate(1000, seed=1, with_labels=True)
    assert_allclose(new[of == 1].mean(axis=0), np.array([-0.3, 0.3]) - HORIZON * shifts[1], atol=0.05)
    with pytest.raises(InputError, match="the field depends on the label"):
        flow.push(x)
    with pytest.raises(InputError, match="must be from 0 to 1"):
        flow.push(x, 2)


def test_a_nodal_field_moves_points_between_its_nodes(comm: MPI.Comm) -> None:
    space = DensitySpace(box_mesh([-2.0, -2.0], [2.0, 2.0], [16, 16], comm), 2)
    nodes = velocity_nodes(space)
    problem = problem_on(comm, field=Nodal(nodes))
    theta = np.tile((problem.field.nodes @ A.T + B).ravel(), (2, 1))  # type: ignore[attr-defined]
    matrix, shift = map_of(HORIZON)
    assert_allclose(Flow(problem, theta).push(points()).x, points() @ matrix.T + shift, atol=1e-7)


def test_the_true_objective_of_the_flow(comm: MPI.Comm) -> None:
    found = affine_flow(comm).verify()
    assert abs(found.relative_error) < 5e-3
    assert found.own_error < 1e-4


def test_what_does_not_fit(comm: MPI.Comm) -> None:
    flow = affine_flow(comm)
    for wrong in (np.zeros((3, 3)), np.zeros((2, 2, 2))):
        with pytest.raises(InputError, match="Give points"):
            flow.push(wrong)
    for call in (lambda: flow.density(-0.1), lambda: flow.velocity(0.6, points())):
        with pytest.raises(InputError, match=r"times are from 0 to 0\.5"):
            call()
    for call in (lambda: flow.log_likelihood(points()), lambda: flow.generate(10)):
        with pytest.raises(InputError, match="no target density"):
            call()
    with pytest.raises(InputError, match="numbers are needed"):
        Flow(flow.problem, np.zeros(3))
    assert repr(flow) == "Flow(Affine, 2 layers, T = 0.5)"


@pytest.mark.one_process
def test_points_that_cannot_be_moved(comm: MPI.Comm) -> None:
    fast = Flow(affine_flow(comm).problem, np.full((2, 6), 1e9))
    with pytest.raises(ComputationError, match=r"cannot be moved|infinity"):
        fast.push(points())
