"""What a descent has learnt: which pairs are kept, how many, and what a later descent gains by them."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, NO_DENSITY_COSTS, problem_config

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.control.control import ControlProblem
from eulerian.optimise import Curvature, OptimiseResult, lbfgs_pairs, minimise
from eulerian.optimise.lbfgs_pairs import MEMORY, IterateHistory

pytestmark = pytest.mark.two_ranks

HESSIAN = np.diag([1.0, 3.0, 10.0])


def smooth(comm: MPI.Comm, **field: Any) -> ControlProblem:
    """A small network on a line, and nothing is limited, so that J is smooth."""
    table = problem_config(1, 1, LABELLINGS[0], objective=NO_DENSITY_COSTS, solver={"limiter": False}, field=field)
    return build(parse_config(table), comm)


def evaluations_of_first_step(problem: ControlProblem, before: OptimiseResult, pairs: Curvature | None) -> int:
    """Forward solves that the first iteration takes from where ``before`` ended."""
    again = minimise(problem, before.theta, max_iterations=1, initial_hessian=pairs)
    assert again.iterations == 1
    return again.history[1].evaluations - again.history[0].evaluations


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_without_convexity_are_dropped() -> None:
    steps = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    slopes = steps @ HESSIAN
    slopes[1] *= -1.0  # concave
    slopes[2] = [5.0, 5.0, 1e-9]  # no convexity beyond rounding
    found = Curvature.of(steps, slopes)
    assert len(found) == 2
    np.testing.assert_array_equal(found.steps, steps[[0, 3]])
    np.testing.assert_array_equal(found.slopes, slopes[[0, 3]])


def test_convexity_does_not_depend_on_the_size_of_a_pair() -> None:
    steps = np.diag([1e-150, 1e-8, 1e150])
    assert len(Curvature.of(steps, steps @ HESSIAN)) == 3


def test_no_pairs() -> None:
    assert len(Curvature.of(np.empty((0, 3)), np.empty((0, 3)))) == 0


def through_points(points: int, n_params: int = 3) -> IterateHistory:
    """The history of a descent through random points of a quadratic."""
    found = IterateHistory(n_params)
    hessian = np.diag(np.arange(1.0, n_params + 1.0))
    for theta in np.random.default_rng(0).standard_normal((points, n_params)):
        found.add(theta, hessian @ theta)
    return found


@pytest.mark.parametrize("points", [1, 2, MEMORY, MEMORY + 1, MEMORY + 2, 3 * MEMORY])
def test_the_last_points_are_kept(points: int) -> None:
    known = through_points(points).curvature
    assert len(known) == min(points - 1, MEMORY)
    thetas = np.random.default_rng(0).standard_normal((points, 3))
    np.testing.assert_allclose(known.steps, np.diff(thetas, axis=0)[-len(known) or points :], rtol=1e-15)
    np.testing.assert_allclose(known.slopes, known.steps * [1.0, 2.0, 3.0], rtol=1e-12)


@pytest.mark.parametrize(("bytes_", "kept"), [(0, 1), (47, 1), (48 * 4, 4), (48 * 4 + 47, 4), (48 * 1000, MEMORY)])
def test_of_a_long_theta_few_points_are_kept(monkeypatch: pytest.MonkeyPatch, bytes_: int, kept: int) -> None:
    """Three numbers in θ are 48 bytes a pair. One pair is kept in any case."""
    monkeypatch.setattr(lbfgs_pairs, "LARGEST", bytes_)
    assert len(through_points(2 * MEMORY).curvature) == kept


def test_the_same_point_again_is_no_step() -> None:
    found, theta, gradient = IterateHistory(2), np.array([1.0, 2.0]), np.array([3.0, 4.0])
    found.add(theta, gradient)
    found.add(theta, gradient)
    assert len(found.curvature) == 0
    found.add(2.0 * theta, 2.0 * gradient)
    for _ in range(2 * MEMORY):  # nor does it push others out
        found.add(2.0 * theta, 2.0 * gradient)
    theta[:], gradient[:] = 0.0, 0.0  # whoever told of them may go on with them
    np.testing.assert_array_equal(found.curvature.steps, [[1.0, 2.0]])
    np.testing.assert_array_equal(found.curvature.slopes, [[3.0, 4.0]])


# -- descents --------------------------------------------------------------------------------------------------------


def test_a_descent_tells_what_it_has_learnt(comm: MPI.Comm) -> None:
    """Its pairs are differences of gradients: the last ones end where the descent does."""
    problem = smooth(comm)
    result = minimise(problem, max_iterations=8)
    initial_hessian = result.curvature
    assert initial_hessian is not None
    assert 0 < len(initial_hessian) <= 8
    before = result.theta.ravel() - initial_hessian.steps[-1]
    _, there = problem.value_and_gradient(result.theta)
    _, earlier = problem.value_and_gradient(before.reshape(result.theta.shape))
    np.testing.assert_allclose(initial_hessian.slopes[-1], (there - earlier).ravel(), rtol=1e-6, atol=1e-9)
    assert len(set(comm.allgather(initial_hessian.steps.tobytes() + initial_hessian.slopes.tobytes()))) == 1


def test_other_methods_have_no_use_for_it(comm: MPI.Comm) -> None:
    initial_hessian = minimise(smooth(comm), max_iterations=3).curvature
    plain = minimise(smooth(comm), method="bncg", max_iterations=3)
    told = minimise(smooth(comm), method="bncg", max_iterations=3, initial_hessian=initial_hessian)
    assert plain.curvature is None
    assert [record.total for record in told.history] == [record.total for record in plain.history]


@pytest.mark.parametrize("metric", ["velocity", "parameters"])
def test_a_descent_that_knows_the_curvature_steps_well_at_once(comm: MPI.Comm, metric: str) -> None:
    """Near a minimum the step downhill is far too long for one who has learnt nothing."""
    problem = smooth(comm)
    known = minimise(problem, max_iterations=15, metric=metric)
    with_it = evaluations_of_first_step(problem, known, known.curvature)
    without = evaluations_of_first_step(problem, known, None)
    assert with_it <= 3
    assert without > with_it


def test_a_descent_in_two_parts_is_nearly_as_good_as_one(comm: MPI.Comm) -> None:
    """With what was learnt it takes few more iterations than in one go; without, many."""
    tolerance, lengths = 1e-2, []
    for keeps in (True, False):
        problem = smooth(comm)
        first = minimise(problem, max_iterations=20)
        norm, initial_hessian = first.history[0].gradient_norm, first.curvature if keeps else None
        second = minimise(
            problem, first.theta, gradient_tolerance=tolerance, first_norm=norm, initial_hessian=initial_hessian
        )
        assert second.status == "converged", second.reason
        assert second.gradient_norm <= tolerance * norm
        lengths.append(second.iterations)
    one = minimise(smooth(comm), gradient_tolerance=tolerance)
    assert 20 + lengths[0] <= 1.5 * one.iterations  # 33 and 30 were seen
    assert lengths[0] <= 0.8 * lengths[1]  # 13 and 29


def test_a_quadratic_that_is_known_is_left_in_a_few_iterations(comm: MPI.Comm) -> None:
    """J is nearly quadratic in a translation; after as many pairs as parameters little is left to learn."""
    table = problem_config(2, 1, cells=6, objective=NO_DENSITY_COSTS, solver={"limiter": False})
    table["objective"].update(jacobian=0.0, parameters_h1=0.0)
    table["field"] = {"kind": "linear", "features": "translation", "layers": 3, "horizon": 0.6}
    problem = build(parse_config(table), comm)
    best = minimise(problem, gradient_tolerance=1e-8)
    away = best.theta + 0.02 * np.random.default_rng(0).standard_normal(best.theta.shape)
    again = minimise(problem, away, gradient_tolerance=1e-5, initial_hessian=best.curvature)
    assert again.status == "converged", again.reason
    assert again.iterations <= 5
    assert again.value == pytest.approx(best.value, rel=1e-9)


def test_no_pairs_are_no_curvature(comm: MPI.Comm) -> None:
    problem = smooth(comm)
    nothing = Curvature(*np.empty((2, 0, problem.n_params)))
    plain, told = (minimise(problem, max_iterations=3, initial_hessian=each) for each in (None, nothing))
    assert [record.total for record in told.history] == [record.total for record in plain.history]


def test_the_tolerance_can_be_relative_to_another_gradient(comm: MPI.Comm) -> None:
    problem = smooth(comm)
    start = problem.gradient_norm(problem.value_and_gradient(problem.initial_theta)[1])
    result = minimise(problem, gradient_tolerance=0.01, first_norm=50.0 * start)
    assert result.status == "converged"
    assert 0.01 * start < result.gradient_norm <= 0.5 * start
    assert len(result.history) < len(minimise(problem, gradient_tolerance=0.01).history)
