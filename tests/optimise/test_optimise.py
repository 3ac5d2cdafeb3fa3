"""Minimisation: what it reaches, what it survives, how it ends."""

import dataclasses
import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from petsc4py import PETSc
from problems import NO_DENSITY_COSTS, control_problem, problem_config

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.optimise import Record, minimise

pytestmark = pytest.mark.two_ranks


def translation(comm: MPI.Comm, layers: int = 3, terminal: str = "quadratic", **tables: Any) -> ControlProblem:
    """Move a density by (0.42, …) or so: nearly quadratic in θ, and smooth, for nothing is limited."""
    tables = {**tables, "solver": {"limiter": False, **tables.get("solver", {})}}
    objective: dict[str, Any] = {"jacobian": 0.0, "parameters_h1": 0.0}
    if terminal == "readout":
        objective["terminal"] = {"kind": "cross_entropy", "trainable": True}
    labelling = "two labels" if terminal == "readout" else "one label"
    config = problem_config(2, 1, labelling, cells=6, objective={**NO_DENSITY_COSTS, **objective}, **tables)
    config["field"] = {"kind": "linear", "features": "translation", "layers": layers, "horizon": 0.6}
    return build(parse_config(config), comm)


@pytest.fixture(autouse=True)
def clean_options() -> Any:
    before = PETSc.Options().getAll()
    yield
    assert PETSc.Options().getAll() == before


def test_reaches_a_minimum(comm: MPI.Comm) -> None:
    problem = translation(comm)
    result = minimise(problem)
    assert result.status == "converged"
    assert "gradient" in result.reason
    assert result.theta.shape == problem.layer_shape
    value, gradient = problem.value_and_gradient(result.theta)
    assert result.value == pytest.approx(value, rel=1e-12)
    assert result.gradient_norm == pytest.approx(problem.gradient_norm(gradient), rel=1e-6)
    assert result.gradient_norm <= 1e-6 * result.history[0].gradient_norm
    for seed in range(3):
        other = result.theta + 0.05 * np.random.default_rng(seed).standard_normal(result.theta.shape)
        assert problem.value(other) > result.value


def test_history(comm: MPI.Comm) -> None:
    problem = translation(comm)
    records: list[Record] = []
    result = minimise(problem, callback=records.append)
    assert records == result.history
    assert [record.iteration for record in records] == list(range(result.iterations + 1))
    assert records[0].total == problem.value(problem.initial_theta)
    for record in records:
        assert record.total == pytest.approx(sum(record.parts.values()), rel=1e-12)
        assert record.gradient_norm >= 0.0
    assert np.all(np.diff([record.evaluations for record in records]) >= 0)
    assert np.all(np.diff([record.total for record in records]) <= 0.0)  # Armijo goes down
    assert min(record.total for record in records) == result.value


def test_theta_is_the_same_on_all_ranks(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    seen = []
    result = minimise(problem, max_iterations=4, callback=lambda record: seen.append(record.total))
    mine = (result.theta.tobytes(), result.value, result.status, seen)
    assert all(other == mine for other in comm.allgather(mine))


@pytest.mark.parametrize("method", ["lmvm", "blmvm", "bqnls", "bncg", "cg"])
def test_methods(comm: MPI.Comm, method: str) -> None:
    problem = translation(comm)
    best = minimise(problem).value
    result = minimise(problem, method=method, gradient_tolerance=1e-4, max_iterations=60)
    assert result.status == "converged", result.reason
    assert result.value == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("terminal", ["quadratic", "readout"])
def test_layers_do_not_change_the_iteration(comm: MPI.Comm, terminal: str) -> None:
    """The metric is that of L²(0, T): one problem refined in time takes the same steps."""
    histories = []
    for layers in (2, 8, 32):
        problem = translation(comm, layers, terminal=terminal)
        history = minimise(problem, gradient_tolerance=1e-3, max_iterations=30).history
        histories.append([record.total for record in history])
    lengths = [len(history) for history in histories]
    assert max(lengths) <= min(lengths) + 2, lengths
    for history in histories[1:]:
        assert history[:2] == pytest.approx(histories[0][:2], rel=1e-3)


def test_rejected_trial_points_are_survived(comm: MPI.Comm) -> None:
    """With a cap that lets the start and the minimum pass, but few of the trial points beyond."""
    problem = translation(comm)
    free = minimise(problem)
    problem.value(free.theta)
    cap = int(1.3 * max(problem.steps))
    capped = translation(comm, solver={"max_steps_per_layer": cap})
    # A tiny start scale makes the first trial points far too long.
    result = minimise(capped, 1e-3 + free.theta, gradient_tolerance=1e-3, max_iterations=50)
    assert capped.rejected_evaluations > 0
    assert result.status == "converged", result.reason
    assert result.value == pytest.approx(free.value, rel=1e-6)


def test_the_best_iterate_is_kept(comm: MPI.Comm) -> None:
    """A line search that takes any step may end higher than it has been."""
    problem = translation(comm)
    result = minimise(problem, petsc_options="-tao_ls_type unit", max_iterations=8, gradient_tolerance=1e-12)
    totals = [record.total for record in result.history if math.isfinite(record.total)]
    assert result.value == min(totals)
    assert problem.value(result.theta) == pytest.approx(result.value, rel=1e-12)


def test_no_iterations(comm: MPI.Comm) -> None:
    problem = translation(comm)
    result = minimise(problem, max_iterations=0)
    assert result.status == "max_iterations"
    assert result.iterations == 0
    np.testing.assert_allclose(result.theta, problem.initial_theta, atol=1e-15)
    assert result.value == problem.value(problem.initial_theta)


def test_the_limit_of_iterations(comm: MPI.Comm) -> None:
    result = minimise(control_problem(comm, 1, 1), max_iterations=2)
    assert (result.status, result.iterations) == ("max_iterations", 2)
    assert "2" in result.reason


def test_a_start_at_the_minimum(comm: MPI.Comm) -> None:
    """J = ε/2|θ|² from θ = 0: nothing to do, and no division by its zero gradient."""
    flat = {"kinetic": 0.0, "terminal": {"kind": "expression", "value": "0"}, "parameters": 1.0}
    config = problem_config(1, 1, objective={**flat, "jacobian": 0.0, "parameters_h1": 0.0, **NO_DENSITY_COSTS})
    config["field"] = {"kind": "linear", "features": "translation", "layers": 2}
    result = minimise(build(parse_config(config), comm))
    assert result.status == "converged"
    assert result.value == 0.0


def test_the_callback_can_stop(comm: MPI.Comm) -> None:
    result = minimise(control_problem(comm, 1, 1), callback=lambda record: record.iteration == 2)
    assert result.iterations == 2
    assert result.status == "stopped"
    assert "stopped" in result.reason


def test_an_error_in_the_callback_comes_through(comm: MPI.Comm) -> None:
    def fail(record: Record) -> None:
        if record.iteration == 1:
            raise KeyError("a caller's own")

    with pytest.raises(KeyError, match="a caller's own"):
        minimise(translation(comm), callback=fail)


@dataclasses.dataclass
class FailsLater:
    """A translation whose derivative fails after some calls, on the last rank only."""

    inner: Any
    calls_left: int
    error: type[Exception]

    def n_params(self, dim: int) -> int:
        return int(self.inner.n_params(dim))

    def init(self, rng: np.random.Generator) -> Floats:
        return np.asarray(self.inner.init(rng))

    def value(self, theta: Floats, x: Floats) -> Floats:
        return np.asarray(self.inner.value(theta, x))

    def vjp(self, theta: Floats, x: Floats, w: Floats) -> Floats:
        self.calls_left -= 1
        if self.calls_left < 0 and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            raise self.error("of the user's own making")
        return np.asarray(self.inner.vjp(theta, x, w))

    def jacobian(self, theta: Floats, x: Floats) -> Floats:
        raise NotImplementedError

    jacobian_vjp = jacobian


@pytest.mark.parametrize("error", [InputError, ZeroDivisionError])
def test_an_error_in_the_field_ends_the_descent(comm: MPI.Comm, error: type[Exception]) -> None:
    """It is told, and what was found before is kept."""
    problem = translation(comm)
    problem.layered.field = FailsLater(problem.field, 7, error)
    result = minimise(problem)
    assert result.status == "failed"
    assert "user's own" in result.reason
    assert result.value == min(record.total for record in result.history)


def test_a_start_that_cannot_be_evaluated(comm: MPI.Comm) -> None:
    problem = translation(comm, solver={"max_steps_per_layer": 5})
    with pytest.raises(InputError, match=r"field\.theta"):
        minimise(problem, np.full(problem.layer_shape, 50.0))


@pytest.mark.parametrize(
    ("method", "options", "key"),
    [
        ("no-such-method", "", r"optimiser\.method"),
        ("lmvm", "-tao_ls_type no-such-search", r"optimiser\.petsc_options"),
        ("lmvm", "-tao_max_it many", r"optimiser\.petsc_options"),
    ],
)
def test_wrong_options_are_refused(comm: MPI.Comm, method: str, options: str, key: str) -> None:
    with pytest.raises(InputError, match=key):
        minimise(translation(comm), method=method, petsc_options=options)
    assert minimise(translation(comm), max_iterations=1).iterations == 1  # and PETSc still works


def test_options_reach_tao(comm: MPI.Comm) -> None:
    """Two tolerances that only PETSc knows of."""
    loose = minimise(translation(comm), petsc_options="-tao_fmin 1e10")
    assert loose.iterations == 0
    limited = minimise(control_problem(comm, 1, 1), petsc_options="-tao_max_funcs 3", gradient_tolerance=1e-12)
    assert limited.iterations <= 3


def test_a_readout_is_trained_too(comm: MPI.Comm) -> None:
    terminal = {"kind": "cross_entropy", "trainable": True}
    problem = control_problem(comm, 2, 1, "two labels", cells=4, objective={"terminal": terminal})
    result = minimise(problem, max_iterations=5)
    assert result.theta.shape == (problem.n_params,)
    _, readout = problem.split(result.theta)
    assert np.linalg.norm(readout) > 0.1
    assert result.value < 0.9 * result.history[0].total


def test_a_start_near_the_minimum(comm: MPI.Comm) -> None:
    """It is improved upon, and the start, evaluated already, is not solved for again."""
    problem = translation(comm)
    near = minimise(problem, gradient_tolerance=1e-3)
    problem.value(near.theta)
    before = problem.evaluations
    again = minimise(problem, near.theta, max_iterations=1)
    assert again.value < near.value
    assert again.history[0].evaluations == before


@pytest.mark.one_process
@pytest.mark.parametrize("metric", ["velocity", "parameters"])
def test_a_network_finds_the_way_through_a_corridor(metric: str) -> None:
    """Mass that goes straight for its target is caught at a wall, where J is 11; the best J is 5.95.

    A metric that knows nothing but where the mass is goes there.
    """
    config = {
        "domain": {"file": "dumbbell.msh"},
        "density": {"initial": [{"kind": "gaussian", "mean": [-1.8, 0.6], "std": 0.25}]},
        "field": {"kind": "mlp", "hidden": [16], "layers": 4},
        "objective": {
            "kinetic": 1.0,
            "parameters": 1e-6,
            "terminal": {"kind": "quadratic", "target": [2.0, 0.8], "weight": 3.0},
        },
        "solver": {"max_steps_per_layer": 400},
    }
    problem = build(parse_config(config, MESHES), MPI.COMM_SELF)
    assert minimise(problem, max_iterations=15, metric=metric).value < 7.5
