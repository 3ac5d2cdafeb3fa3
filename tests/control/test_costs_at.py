"""Costs at several times: J is their sum, its gradient is exact, and the optimum is that of the composed problem."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from thinning import thinned

import eulerian as eu
from eulerian.analysis.verify import taylor_rates, taylor_remainders
from eulerian.base.errors import InputError

TARGET = {0: eu.Gaussian([0.0, 0.5], std=0.5), 1: eu.Gaussian([0.4, 0.1], std=0.6)}
NEAR = eu.QuadraticLoss([0.0, 1.0])
# Costs at earlier times, and what else the problem has.
CASES: dict[str, tuple[list[eu.CostAt], dict[str, Any]]] = {
    "losses, two at T": ([eu.CostAt(0.5, NEAR, 2.0), eu.CostAt(1.0, NEAR)], {}),
    "kl": (
        [eu.CostAt(0.5, eu.KullbackLeibler(TARGET), 2.0), eu.CostAt(0.25, eu.KullbackLeibler(TARGET), 0.5)],
        {"terminal": eu.KullbackLeibler(TARGET)},
    ),
    "l2": (
        [eu.CostAt(0.5, eu.SquaredDistance(TARGET), 2.0), eu.CostAt(0.75, eu.SquaredDistance(TARGET, "density"))],
        {"costs": eu.Costs(congestion=0.3, entropy=0.2)},
    ),
    "labels apart": (
        [eu.CostAt(0.5, eu.SquaredDistance(TARGET), 2.0), eu.CostAt(0.75, eu.KullbackLeibler(TARGET))],
        {"label_dependent": True},
    ),
    "readouts": (
        [eu.CostAt(0.5, eu.CrossEntropyLoss(trained=True), 2.0)],
        {"terminal": eu.CrossEntropyLoss(trained=True)},
    ),
}


def in_the_plane(comm: MPI.Comm, degree: int, at: list[eu.CostAt], **more: Any) -> eu.ControlProblem:
    space = eu.DensitySpace(eu.box_mesh([-2, -2], [2, 2], [8, 8], comm=comm), degree, labels=2)
    rho0 = {0: eu.Gaussian([-0.5, 0.3], std=0.4), 1: eu.Gaussian([0.5, 0.3], std=0.4)}
    given = {"terminal": eu.QuadraticLoss([1.0, -0.5]), "costs": eu.Costs(kinetic=0.5), **more}
    return eu.ControlProblem(space, eu.Mlp(2, [6]), rho0, time=eu.TimeGrid(1.0, 4), at=at, **given)


def moving(problem: eu.ControlProblem) -> np.ndarray:
    theta = problem.initial_theta
    return theta + 0.3 * np.random.default_rng(3).standard_normal(theta.shape)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("degree", thinned([0, 1, 2], {2}))
def test_the_gradient_is_exact(comm: MPI.Comm, degree: int, case: str) -> None:
    at, more = CASES[case]
    problem = in_the_plane(comm, degree, at, **more)
    theta = moving(problem)

    assert problem.value(theta) == pytest.approx(sum(problem.parts.values()), rel=1e-14)
    assert problem.parts["intermediate"] > 0.0
    assert min(taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(1)))) >= 1.9


@pytest.mark.parametrize("case", CASES)
def test_j_is_the_sum_over_the_times(comm: MPI.Comm, case: str) -> None:
    """What a cost adds is what a problem that ends there has as its terminal cost."""
    at, more = CASES[case]
    whole, bare = in_the_plane(comm, 1, at, **more), in_the_plane(comm, 1, [], **more)
    theta = moving(whole)
    rows, readout = whole.split(theta)
    own = bare.split(bare.initial_theta)[1].size
    flat = np.concatenate([rows.ravel(), readout[:own]]).reshape(bare.initial_theta.shape)
    whole.value(theta)
    expected = whole.value_at_steps(theta, whole.steps) - bare.value_at_steps(flat, whole.steps)

    found, first = 0.0, own
    for cost in sorted(at, key=lambda each: each.time):
        layers = round(4 * cost.time)
        short = eu.ControlProblem(
            bare.density_space,
            bare.field,
            bare.initial,
            cost.cost,
            eu.Costs(),
            eu.TimeGrid(cost.time, layers),
            label_dependent=more.get("label_dependent", False),
            flux_smoothing=1e-3 * cost.time,  # relative to the domain per horizon
        )
        end = first + short.split(short.initial_theta)[1].size
        start = np.concatenate([rows[:layers].ravel(), readout[first:end]]).reshape(short.initial_theta.shape)
        first = end
        found += cost.weight * short.value_at_steps(start, whole_steps(whole, theta)[:layers])

    penalty = bare.costs.parameters
    assert penalty == 0.0  # readouts would be charged
    assert found == pytest.approx(expected, rel=1e-9)


def whole_steps(problem: eu.ControlProblem, theta: np.ndarray) -> tuple[int, ...]:
    problem.value(theta)
    return problem.steps


def test_little_memory_changes_nothing(comm: MPI.Comm) -> None:
    at, more = CASES["l2"]
    theta = moving(in_the_plane(comm, 2, at, **more))
    roomy = in_the_plane(comm, 2, at, **more)
    tight = in_the_plane(comm, 2, at, memory=2.1e6, **more)

    value, gradient = roomy.value_and_gradient(theta)
    again, gradient_again = tight.value_and_gradient(theta)

    assert tight.sweep.recomputed > roomy.sweep.recomputed == 0
    assert again == value
    np.testing.assert_array_equal(gradient_again, gradient)


def test_the_optimum_is_that_of_the_composed_problem(comm: MPI.Comm) -> None:
    """Quadratic costs at T/2 and T: the best velocity is affine, and φ₀ follows from Hopf–Lax twice."""
    space = eu.DensitySpace(eu.box_mesh([-4.0], [4.0], [120], comm=comm), degree=2)
    problem = eu.ControlProblem(
        space,
        eu.Linear(1, "affine"),
        eu.Gaussian([-0.4], std=0.6),
        eu.QuadraticLoss([1.3], 2.0),
        eu.Costs(kinetic=0.7),
        eu.TimeGrid(1.5, 32),
        at=[eu.CostAt(0.75, eu.QuadraticLoss([-0.2]))],
    )
    result = eu.minimise(problem, max_iterations=60)

    # Velocities that are constant in a layer cost a little more than any.
    assert 0.0 < result.value / 0.72682783018867 - 1.0 < 5e-4


@pytest.mark.parametrize(
    ("at", "key"),
    [
        ([eu.CostAt(0.3, NEAR)], r"at\[0\].time"),
        ([eu.CostAt(0.5, NEAR), eu.CostAt(1.25, NEAR)], r"at\[1\].time"),
        ([eu.CostAt(0.5, 7)], r"at\[0\].cost"),
        ([0.5], r"at\[0\]"),
        ([eu.CostAt(0.5, eu.QuadraticLoss([1.0, 0.0, 0.0]))], r"at\[0\].target"),
    ],
)
def test_what_does_not_fit_is_named(comm: MPI.Comm, at: list[Any], key: str) -> None:
    with pytest.raises(InputError, match=key):
        in_the_plane(comm, 1, at)


@pytest.mark.parametrize(("time", "weight"), [(0.0, 1.0), (np.nan, 1.0), (0.5, -1.0), (0.5, np.inf)])
def test_times_and_weights_have_a_range(time: float, weight: float) -> None:
    with pytest.raises(InputError, match=r"at\.(time|weight)"):
        eu.CostAt(time, NEAR, weight)
