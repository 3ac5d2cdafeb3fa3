"""Descents in a box: minima that are known, what stationary means at a bound, and what does not go together."""

import dataclasses
import logging
from collections.abc import Iterable
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, NO_DENSITY_COSTS, control_problem, problem_config, train_as_configured
from scipy.optimize import minimize
from thinning import thinned

import eulerian as eu
from eulerian.app.build.network import build, build_particles
from eulerian.app.config import optimiser, parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise import Descent, DescentState, Method, OptimiseResult, Record, Settings, minimise, tao
from eulerian.optimise.box import Box, box_scaling, stationarity
from eulerian.optimise.settings import ending
from eulerian.optimise.tao import REASONS

pytestmark = pytest.mark.two_ranks

METHODS = ("bqnls", "blmvm", "bqnktr", "bqnktl", "bncg")
OFF = {"jacobian": 0.0, "parameters_h1": 0.0, **NO_DENSITY_COSTS}


def config(features: str, layers: int = 3, dim: int = 2, **tables: Any) -> dict[str, Any]:
    """Smooth problems of fields that are linear in θ: nothing is limited."""
    tables = {**tables, "solver": {"limiter": False, **tables.get("solver", {})}}
    objective = {**OFF, **tables.pop("objective", {})}
    found = problem_config(dim, 1, cells=8, objective=objective, **tables)
    field = {"kind": "linear", "features": features, "layers": layers, "horizon": 0.6}
    found["field"] = {**field, **tables.get("field", {})}
    return found


def problem_of(comm: MPI.Comm, features: str, **tables: Any) -> ControlProblem:
    return build(parse_config(config(features, **tables)), comm)


def require_minimum(problem: ReducedProblem, result: OptimiseResult, box: Box, tolerance: float = 1e-5) -> None:
    """θ is inside, the gradient is zero where θ is free, and points outwards at the bounds."""
    theta = result.theta.ravel()
    _, gradient = problem.value_and_gradient(result.theta)
    gradient = gradient.ravel()
    assert np.all((box.lower <= theta) & (theta <= box.upper))
    scale = np.linalg.norm(problem.value_and_gradient(box.nearest(problem.initial_theta))[1])
    inside = (theta > box.lower) & (theta < box.upper)
    assert np.max(np.abs(gradient[inside]), initial=0.0) <= tolerance * scale
    held = box.lower == box.upper
    assert np.all(gradient[(theta == box.lower) & ~held] >= -tolerance * scale)
    assert np.all(gradient[(theta == box.upper) & ~held] <= tolerance * scale)


# -- minima that are known -------------------------------------------------------------------------------------------


def translation(comm: MPI.Comm, layers: int = 3, cells: int = 48, start: Floats | None = None) -> ControlProblem:
    """T1: v = θ on the line, in closed form: J is κ/2 (|m + Tθ̄ − c|² + s²) + (λ + ε)/2 ∫|θ|²."""
    space = eu.DensitySpace(eu.box_mesh([-4.0], [5.0], [cells], comm), degree=2)
    rho0 = space.project(eu.Gaussian([-0.4], std=0.6))
    loss, costs = eu.QuadraticLoss([1.3], weight=2.0), eu.Costs(kinetic=0.7, parameters=0.5)
    field, time = eu.Linear(1, "translation"), eu.TimeGrid(1.0, layers)
    return ControlProblem(space, field, rho0, loss, costs, time, initial_theta=start)


def translated(theta: float) -> float:
    """J of T1 at a constant θ."""
    return (1.7 - theta) ** 2 + 0.36 + 0.5 * (0.7 + 0.5) * theta**2


@pytest.mark.parametrize("method", METHODS)
def test_a_translation_stops_at_its_bound(comm: MPI.Comm, method: str) -> None:
    """Free, θ = 1.0625 and J = 1.44375; J is convex in θ, so what is best under a bound is the bound itself."""
    assert translated(1.0625) == pytest.approx(1.44375, rel=1e-12)
    problem = translation(comm)
    result = minimise(problem, bounds=(-0.6, 0.6), method=method)
    assert (result.status, result.theta.tolist()) == ("converged", [[0.6]] * 3)
    assert result.value == pytest.approx(translated(0.6), rel=2e-5)
    assert result.gradient_norm == 0.0
    assert "3 of 3 numbers of θ are at a bound" in result.reason
    assert "the projected gradient norm" in result.reason


def test_bounds_that_are_not_reached_change_nothing(comm: MPI.Comm) -> None:
    free = minimise(translation(comm), gradient_tolerance=1e-9)
    for bounds in ((-3.0, 3.0), (None, None), (-np.inf, np.inf), (-3.0, None)):
        result = minimise(translation(comm), bounds=bounds, gradient_tolerance=1e-9)
        assert result.status == "converged"
        assert result.value == pytest.approx(free.value, rel=1e-12)
        np.testing.assert_allclose(result.theta, free.theta, atol=1e-7)
        assert "0 of 3 numbers" in result.reason
    assert free.theta == pytest.approx(1.0625, rel=1e-3)


def test_one_layer_held_and_one_bounded(comm: MPI.Comm) -> None:
    """With one number held at a and one at most b the third is what is best beside these: a line in closed form."""
    problem = translation(comm)
    lower, upper = np.array([[0.2], [-np.inf], [-np.inf]]), np.array([[0.2], [0.5], [np.inf]])
    result = minimise(problem, bounds=(lower, upper), gradient_tolerance=1e-8)
    assert result.status == "converged", result.reason
    # J' = 0 for the free θ₃: −2 (1.7 − (0.7 + θ₃)/3)/3 + 1.2 θ₃/3 = 0.
    free = 2.0 * (1.7 - 0.7 / 3.0) / (1.2 + 2.0 / 3.0)
    np.testing.assert_allclose(result.theta.ravel(), [0.2, 0.5, free], rtol=1e-3)
    assert result.theta.ravel().tolist()[:2] == [0.2, 0.5]


@pytest.mark.parametrize("bounds", [(-0.3, 2.0), (-0.3, 0.4), (-1.5, 0.4)])
def test_an_affine_flow_in_a_box(comm: MPI.Comm, bounds: tuple[float, float]) -> None:
    """A1 with λ = 0, ε = 0.1 and one row of θ: J of (a, b) in closed form, minimised by SciPy."""
    space = eu.DensitySpace(eu.box_mesh([-5.0], [5.0], [80], comm), degree=2)
    rho0 = space.project(eu.Gaussian([-0.4], std=0.6))
    loss, costs = eu.QuadraticLoss([1.3], weight=2.0), eu.Costs(parameters=0.1)
    problem = ControlProblem(space, eu.Linear(1), rho0, loss, costs, eu.TimeGrid(1.0, 4), tied=True)

    def exact(theta: Floats) -> float:
        a, b = theta
        growth = np.expm1(a) / a if abs(a) > 1e-9 else 1.0 + a / 2.0
        mean = np.exp(a) * -0.4 + growth * b
        return float((mean - 1.3) ** 2 + 0.36 * np.exp(2.0 * a) + 0.05 * (a**2 + b**2))

    best = minimize(exact, np.clip([0.1, 0.1], *bounds), bounds=[bounds] * 2, options={"ftol": 1e-15, "gtol": 1e-10})
    result = minimise(problem, bounds=bounds)
    assert result.status == "converged", result.reason
    assert result.value == pytest.approx(best.fun, rel=1e-3)
    np.testing.assert_allclose(result.theta[0], best.x, atol=5e-3)
    at_bounds = np.isin(best.x, bounds)
    assert np.any(at_bounds)
    np.testing.assert_array_equal(np.isin(result.theta[0], bounds), at_bounds)


@pytest.mark.parametrize("method", thinned(METHODS, {"bqnls"}))
def test_the_minimum_is_that_of_another_optimiser(comm: MPI.Comm, method: str) -> None:
    problem = problem_of(comm, "affine")
    bounds = (-0.5, 0.4)
    box = Box.of(bounds, problem.initial_theta.shape)
    result = minimise(problem, bounds=bounds, method=method, max_iterations=200, gradient_tolerance=1e-7)
    assert result.status == "converged", result.reason
    require_minimum(problem, result, box, 1e-3)

    def value(flat: Floats) -> tuple[float, Floats]:
        v, g = problem.value_and_gradient(flat)
        return v, g

    options = {"maxiter": 1000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-10}
    other = minimize(value, np.zeros(box.lower.size), jac=True, bounds=[bounds] * box.lower.size, options=options)
    assert 2 <= box.active(result.theta) < box.lower.size
    assert result.value == pytest.approx(other.fun, rel=1e-7)


def test_a_box_far_from_the_origin_does_not_turn(comm: MPI.Comm) -> None:
    """θ of an affine field in units of the box mixes its numbers there, so that bounds would be none of single ones."""
    tables = {
        "domain": {"box": {"lower": [9.0, -1.0], "upper": [11.0, 1.0], "cells": [8, 8]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [9.78, 0.13], "std": 0.2}]},
        "objective": {"terminal": {"kind": "quadratic", "target": [10.4, 0.2]}},
    }
    problem = problem_of(comm, "affine", **tables)
    bounds = (-0.05, 0.3)
    box = Box.of(bounds, problem.initial_theta.shape)
    assert problem.units.layers is not None
    step = np.random.default_rng(0).standard_normal(problem.n_params)
    assert not np.allclose(problem.units.relative(step), problem.units.diagonal(problem.n_params) * step)
    result = minimise(problem, bounds=bounds, max_iterations=150)
    assert result.value < 0.9 * result.history[0].total
    assert np.all((box.lower <= result.theta.ravel()) & (result.theta.ravel() <= box.upper))
    assert box.active(result.theta) > 0
    reached = stationarity(problem, box, result.theta, problem.value_and_gradient(result.theta)[1])
    assert reached == pytest.approx(result.gradient_norm, rel=1e-6)
    assert result.gradient_norm <= 1e-3 * result.history[0].gradient_norm


def test_units_about_the_origin_are_those_of_the_box(comm: MPI.Comm) -> None:
    """There the diagonal is all of it, and the measure with bounds that are not reached is that without."""
    problem = problem_of(comm, "affine")
    gradient = np.random.default_rng(1).standard_normal(problem.n_params)
    box = Box.of((None, None), problem.initial_theta.shape)
    theta = problem.initial_theta
    np.testing.assert_allclose(problem.units.relative(gradient), problem.units.diagonal(problem.n_params) * gradient)
    expected = problem.gradient_norm(gradient)
    assert stationarity(problem, box, theta, gradient) == pytest.approx(expected, rel=1e-14)
    assert float(np.linalg.norm(gradient / box_scaling(problem))) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("bounds", [(0.0, None), (-0.2, 0.2), (None, 0.1)])
def test_a_trained_readout_is_bounded_too(comm: MPI.Comm, bounds: tuple[float | None, float | None]) -> None:
    tables = problem_config(2, 1, LABELLINGS[1], cells=6, objective={**OFF, "terminal": {"kind": "cross_entropy"}})
    tables["objective"]["terminal"]["trainable"] = True
    tables["field"] = {"kind": "linear", "features": "translation", "layers": 2, "horizon": 0.6}
    problem = build(parse_config(tables), comm)
    box = Box.of(bounds, problem.initial_theta.shape)
    result = minimise(problem, bounds=bounds, max_iterations=60, gradient_tolerance=1e-4)
    readout = result.theta[-6:]
    assert result.value < result.history[0].total
    assert np.any((readout == box.lower[-6:]) | (readout == box.upper[-6:]))
    require_minimum(problem, result, box, 1e-2)


# -- stationary, or not ----------------------------------------------------------------------------------------------


def test_the_start_may_be_the_minimum(comm: MPI.Comm) -> None:
    """The gradient is not zero there, but J can fall beyond the bounds only."""
    problem = translation(comm)
    result = minimise(problem, bounds=(-1.0, 0.0))
    assert (result.status, result.iterations, result.gradient_norm) == ("converged", 0, 0.0)
    assert result.reason.startswith("the projected gradient is zero; 3 of 3 numbers")
    assert problem.gradient_norm(problem.value_and_gradient(result.theta)[1]) > 1.0


def test_a_gradient_that_leads_inside_is_not_stationary() -> None:
    box = Box.of((0.0, [1.0, 1.0, 1.0, 2.0]), (4,))
    theta, gradient = np.array([0.0, 1.0, 0.5, 0.0]), np.array([3.0, 5.0, 7.0, -11.0])
    np.testing.assert_array_equal(box.free(theta, gradient), [0.0, 5.0, 7.0, -11.0])
    np.testing.assert_array_equal(box.free(theta, -gradient), [-3.0, 0.0, -7.0, 0.0])
    assert box.active(theta) == 3
    np.testing.assert_array_equal(
        box.nearest(np.array([[-1.0, 3.0], [0.1 + 0.2, 9.0]])), [[0.0, 1.0], [0.1 + 0.2, 2.0]]
    )


def test_a_start_beyond_the_bounds_is_brought_to_them(comm: MPI.Comm, caplog: pytest.LogCaptureFixture) -> None:
    problem = control_problem(comm, 1, 1)
    with caplog.at_level(logging.INFO, "eulerian"):
        result = minimise(problem, bounds=(-0.2, 0.2), max_iterations=3)
    beyond = np.count_nonzero(np.abs(problem.initial_theta) > 0.2)
    assert beyond > 0
    said = f"{beyond} of {problem.n_params} numbers of the starting θ are beyond their bounds"
    assert (said in caplog.text) == (comm.rank == 0)
    assert result.history[0].total == problem.value(np.clip(problem.initial_theta, -0.2, 0.2))
    assert result.value < result.history[0].total
    assert np.max(np.abs(result.theta)) <= 0.2


def test_trial_points_that_are_rejected_are_survived(comm: MPI.Comm) -> None:
    """One axis is free to be tried too far, the other is bounded."""
    bounds = (None, [np.inf, 0.05])
    free = minimise(problem_of(comm, "translation"), bounds=bounds)
    assert np.all(free.theta[:, 1] == 0.05)
    problem = problem_of(comm, "translation")
    problem.value(free.theta)
    cap = int(1.3 * max(problem.steps))
    capped = problem_of(comm, "translation", solver={"max_steps_per_layer": cap})
    # A tiny start scale makes the first trial points far too long.
    result = minimise(capped, 1e-3 + free.theta, bounds=bounds, gradient_tolerance=1e-3)
    assert capped.rejected_evaluations > 0
    assert result.status == "converged", result.reason
    assert result.value == pytest.approx(free.value, rel=1e-6)
    with pytest.raises(InputError, match="cannot be evaluated at the starting point"):
        minimise(capped, bounds=(1e3, 2e3))


# -- with all that a descent can do ----------------------------------------------------------------------------------


def timeless(history: Iterable[Record]) -> list[Record]:
    return [dataclasses.replace(record, seconds=0.0) for record in history]


def particles(comm: MPI.Comm) -> ReducedProblem:
    tables = {
        "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [20]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [-0.3], "std": 0.4}]},
        "field": {"kind": "mlp", "hidden": [4], "layers": 3},
        "objective": {"kinetic": 0.5, "terminal": {"kind": "expression", "value": "(x**2 - 1)**2"}},
        "particles": {"count": 60},
    }
    return build_particles(parse_config(tables), comm)


@pytest.mark.parametrize("method", thinned(METHODS, {"bqnls"}))
@pytest.mark.parametrize("make", [lambda comm: control_problem(comm, 1, 1, "two labels"), particles])
def test_every_state_goes_on_to_the_same_end(comm: MPI.Comm, make: Any, method: str) -> None:
    how = Settings(Method(method), 12, 0.0, bounds=(-0.35, 0.35))
    found: list[DescentState] = []
    descent = Descent(make(comm), how)
    result = descent.run(lambda _record: found.append(descent.state))
    box = descent.box
    assert box is not None
    assert 0 < box.active(result.theta) < result.theta.size
    assert np.all((box.lower <= result.theta.ravel()) & (result.theta.ravel() <= box.upper))
    for state in found[::3]:
        again = Descent(make(comm), how, state=state).run()
        assert timeless(again.history) == timeless(result.history)
        assert again.theta.tobytes() == result.theta.tobytes()


def test_segments_that_are_made_anew_stay_in_the_box(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every segment begins at a θ of its own, which may be at bounds."""
    monkeypatch.setattr("eulerian.optimise.segment.MEMORY", 3)
    monkeypatch.setattr("eulerian.optimise.segment.LARGEST", 0)
    problem = problem_of(comm, "affine")
    result = minimise(problem, bounds=(-0.5, 0.4), max_iterations=60, gradient_tolerance=1e-3)
    assert result.status == "converged", result.reason
    require_minimum(problem, result, Box.of((-0.5, 0.4), result.theta.shape), 1e-2)


def test_levels_keep_to_bounds(comm: MPI.Comm) -> None:
    coarse, fine = translation(comm, layers=2, cells=24), translation(comm, layers=4)
    result = eu.train([coarse, fine], bounds=(None, 0.6))
    assert (result.status, result.theta.tolist()) == ("converged", [[0.6]] * 4)
    assert result.value == pytest.approx(translated(0.6), rel=2e-5)
    assert len(result.levels) == 2
    with pytest.raises(InputError, match=r"bounds: must be numbers, or arrays that broadcast to the shape \(2, 1\)"):
        eu.train([coarse, fine], bounds=(None, np.full((4, 1), 0.6)))


def test_levels_of_nodal_velocities_keep_to_bounds(comm: MPI.Comm) -> None:
    """They are interpolated from mesh to mesh, with a degree by which they may swing over."""
    tables = problem_config(1, 1, cells=24, objective=OFF)
    tables["field"] = {"kind": "free", "layers": 4, "horizon": 0.6}
    tables["optimiser"] = {"levels": 2, "bounds": [-0.3, 0.45], "max_iterations": 30}
    problem, result = train_as_configured(parse_config(tables), comm)
    assert result.status != "failed", result.reason
    assert len(result.levels) == 2
    assert problem.speed <= 0.45
    assert np.max(result.theta) == 0.45
    assert np.min(result.theta) >= -0.3


def test_the_tolerance_of_levels_is_relative_to_the_start_inside(comm: MPI.Comm) -> None:
    """The start is a minimum without bounds, and beyond one of them: brought inside, it is none."""
    start = minimise(translation(comm), gradient_tolerance=1e-10).theta
    bounds = (None, [[0.6], [np.inf], [np.inf]])
    for given in (start, None):
        problem = translation(comm, start=start)
        result = eu.train([problem], given, bounds=bounds, gradient_tolerance=1.0)
        assert (result.status, result.iterations) == ("converged", 0)
        np.testing.assert_array_equal(result.theta, np.minimum(start, bounds[1]))
        assert result.gradient_norm > 0.1


def test_a_training_that_is_stopped_on_a_coarse_level_stays_inside(comm: MPI.Comm) -> None:
    """Nodal velocities of degree 2 swing over between the nodes, which are those of the finest level."""
    spaces = [eu.DensitySpace(eu.box_mesh([-1.0], [1.0], [n], comm), degree) for n, degree in ((5, 2), (16, 1))]
    problems = [
        eu.ControlProblem(
            space,
            eu.Nodal(eu.velocity_nodes(space)),
            space.project(eu.Gaussian([-0.3], std=0.3)),
            lambda x: np.sin(9.0 * x[:, 0]),
            eu.Costs(kinetic=0.1, parameters=0.01),
            eu.TimeGrid(0.5, 2),
        )
        for space in spaces
    ]
    result = eu.train(problems, bounds=(-0.03, 0.03), callback=lambda record: record.iteration >= 5)
    assert (result.status, len(result.levels), result.theta.shape) == ("stopped", 1, problems[1].layer_shape)
    assert np.max(np.abs(result.theta)) == 0.03


def test_a_trust_region_that_has_shrunk_to_nothing_is_no_minimum() -> None:
    settings = Settings(Method("bqnktr"), bounds=(0.0, 1.0))
    for reduction, status in ((0.5, "failed"), (1e-4, "converged")):
        found, reason = ending(REASONS.CONVERGED_STEPTOL, settings, reduction, lambda: "obstacle")
        assert found == status
        assert f"{reduction:.1e}" in reason or "obstacle" in reason


def test_it_ends_by_the_networks_own_objective_too(comm: MPI.Comm) -> None:
    result = minimise(
        control_problem(comm, 1, 1, objective=OFF), bounds=(-0.5, 0.5), stop="verified", max_iterations=12
    )
    assert result.verified is not None
    assert np.max(np.abs(result.theta)) <= 0.5


# -- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lmvm", "cg", "owlqn", "nm"])
def test_methods_without_bounds_are_refused(comm: MPI.Comm, method: str) -> None:
    with pytest.raises(InputError, match=f"method: is a method that keeps to no bounds.*{method}.*bqnls, blmvm"):
        minimise(translation(comm), bounds=(-1.0, 1.0), method=method)


def test_an_option_cannot_take_the_bounds_away(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match=r"petsc_options: is a method that keeps to no bounds.*lmvm"):
        minimise(translation(comm), bounds=(-1.0, 1.0), petsc_options="-tao_type lmvm")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (1.0, "bounds: are no pair"),
        ((0.0, 1.0, 2.0), "bounds: are no pair"),
        ((1.0, 0.0), r"bounds: hold no number.*\[1, 0\]"),
        ((np.nan, 1.0), "bounds: hold no number"),
        ((np.inf, np.inf), "bounds: hold no number"),
        (([0.0, 1.0], 5.0), r"must be numbers, or arrays that broadcast to the shape \(3, 1\)"),
        (("low", 1.0), "must be numbers"),
    ],
)
def test_what_are_no_bounds_is_refused(comm: MPI.Comm, bounds: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        minimise(translation(comm), bounds=bounds)


def test_the_configuration_knows_the_methods_that_keep_to_bounds() -> None:
    """It may not load the optimisers."""
    assert optimiser._BOUNDED == tao.BOUNDED


RANKS = """
import numpy as np
from mpi4py import MPI
import eulerian as eu

space = eu.DensitySpace(eu.box_mesh([-3, -3], [3, 3], [12, 12]), degree=1)
rho0, time = space.project(eu.Gaussian([-0.5, 0.3], std=0.5)), eu.TimeGrid(horizon=1.0, layers=3)
field, loss = eu.Mlp(2, [8], max_speed=0.8), eu.QuadraticLoss([1.0, -0.5])
problem = eu.ControlProblem(space, field, rho0, loss, eu.Costs(kinetic=0.5), time)
result = eu.minimise(problem, bounds=(-0.7, 0.7), max_iterations=12)
mine = (result.value, result.theta.tobytes(), result.reason)
assert all(other == mine for other in MPI.COMM_WORLD.allgather(mine)), "ranks differ"
speed = problem.speed
if MPI.COMM_WORLD.rank == 0:
    print("RESULT", result.value, speed, result.gradient_norm, np.count_nonzero(np.abs(result.theta) == 0.7))
"""


@pytest.mark.mpi
def test_one_two_and_three_ranks_agree(mpirun: Any) -> None:
    """A bounded network with a limit of its speed."""
    found = []
    for ranks in (1, 2, 3):
        done = mpirun(ranks, RANKS, timeout=240)
        assert done.returncode == 0, done.stderr
        found.append(next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1:])
    numbers = np.array(found, dtype=float)
    assert numbers[0, 3] > 0
    np.testing.assert_array_equal(numbers[:, 3], numbers[0, 3])
    np.testing.assert_allclose(numbers[:, :2], numbers[[0, 0, 0], :2], rtol=1e-9)
    np.testing.assert_allclose(numbers[:, 2], numbers[0, 2], rtol=1e-6)
