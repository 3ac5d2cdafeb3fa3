"""Training from coarse meshes to fine ones: what it reaches, what it costs, and what it survives."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from problems import LABELLINGS, NO_DENSITY_COSTS, problem_config, train_as_configured
from thinning import thinned

from eulerian.analysis.characteristics import TrueObjective
from eulerian.app.build import training as training_of_config
from eulerian.app.build.network import build
from eulerian.app.build.training import build_training
from eulerian.app.config import Config, parse_config
from eulerian.app.config.levels import coarse_to_fine
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.fields.base import VectorField
from eulerian.optimise import OptimiseResult, Record, TrainingState, minimise, multilevel
from eulerian.optimise.level_end import FIRST_CHECK, LevelEnd, remaining_gain
from eulerian.optimise.multilevel import train

INTERVAL = str(MESHES / "interval.msh")


def smooth_table(cells: int = 48, iterations: int = 32, levels: int = 3, **optimiser: Any) -> dict[str, Any]:
    """Quadratic loss, kinetic energy and a cost of the parameters on a square."""
    return {
        "domain": {"box": {"lower": [-1.6, -1.6], "upper": [1.6, 1.6], "cells": [cells, cells]}},
        "density": {"degree": 1, "initial": [{"kind": "gaussian", "mean": [-0.4, 0.2], "std": 0.4}]},
        "field": {"kind": "mlp", "hidden": [8], "layers": 8, "horizon": 1.0},
        "objective": {
            "kinetic": 0.5,
            "parameters": 0.01,
            "terminal": {"kind": "quadratic", "target": [0.5, -0.3]},
        },
        "optimiser": {"levels": levels, "max_iterations": iterations, "gradient_tolerance": 0.0, **optimiser},
    }


def small(levels: int = 2, iterations: int = 6, labelling: str = LABELLINGS[0], **tables: Any) -> dict[str, Any]:
    """A line, on which everything is quick."""
    optimiser = {"levels": levels, "max_iterations": iterations, **tables.pop("optimiser", {})}
    return problem_config(1, 1, labelling, 32, optimiser=optimiser, **tables)


def check_history(config: Config, problem: ControlProblem, result: OptimiseResult) -> None:
    """Laws of any training: numbering, counting, and what the levels report."""
    history, levels = result.history, len(coarse_to_fine(config))
    assert np.all(np.diff([record.iteration for record in history]) >= 0)
    assert np.all(np.diff([record.level for record in history]) >= 0)
    assert np.all(np.diff([record.evaluations for record in history]) >= 0)
    assert np.all(np.diff([record.seconds for record in history]) >= 0.0)
    assert history[0].iteration == 0
    limit = config.optimiser.max_iterations if levels == 1 else -(-config.optimiser.max_iterations // 2)
    assert history[-1].iteration == result.iterations
    assert all(report.iterations <= limit for report in result.levels)
    assert len(history) == result.iterations + levels  # the same θ twice where the level changes
    assert problem.evaluations >= history[-1].evaluations
    assert len(result.levels) == levels
    assert [report.level for report in result.levels] == sorted({record.level for record in history})
    assert sum(report.iterations for report in result.levels) == result.iterations
    for report in result.levels:
        own = [record for record in history if record.level == report.level]
        assert report.iterations == own[-1].iteration - own[0].iteration == len(own) - 1
        assert report.total == min(record.total for record in own)
        assert report.evaluations >= own[-1].evaluations - own[0].evaluations
        assert report.seconds > 0.0
    for coarse, fine in pairwise(result.levels):
        assert coarse.cells < fine.cells
    assert [report.layers for report in result.levels] == [each.field.layers for each in coarse_to_fine(config)]
    assert result.theta.shape == problem.initial_theta.shape
    assert result.value == pytest.approx(problem.value(result.theta), rel=1e-12)


# -- what it is for --------------------------------------------------------------------------------------------------


@pytest.mark.two_ranks
def test_it_reaches_what_one_level_reaches_with_a_third_of_the_work(comm: MPI.Comm) -> None:
    config, single = (parse_config(smooth_table(levels=levels)) for levels in (3, 1))
    problem, result = train_as_configured(config, comm)
    _, one = train_as_configured(single, comm)
    goal = one.value * (1.0 + 1e-3)
    finest = [record for record in result.history if record.level == 3]
    there = next(record.evaluations for record in finest if record.total <= goal) - finest[0].evaluations + 1
    assert 3 * there <= next(record.evaluations for record in one.history if record.total <= goal)
    assert [report.cells for report in result.levels] == [72, 288, 4608]
    assert [report.degree for report in result.levels] == [2, 2, 1]
    check_history(config, problem, result)
    assert problem.n_layers == 8
    starts = [next(record for record in result.history if record.level == level) for level in (2, 3)]
    # What the level below has learnt is known: the first step needs no search, or a short one.
    for level in (2, 3):
        first, second, *_ = [record.evaluations for record in result.history if record.level == level]
        assert second - first <= 2
    for start, before in zip(starts, result.levels[:-1], strict=True):
        assert start.total == pytest.approx(before.total, rel=0.15)  # the same flow, on another mesh
        assert start.total < 0.5 * result.history[0].total
    seen = (result.theta.tobytes(), [(record.iteration, record.total, record.level) for record in result.history])
    assert all(other == seen for other in comm.allgather(seen))


@pytest.mark.two_ranks
@pytest.mark.parametrize(
    "special",
    [{}, {"metric": "parameters"}, {"method": "bncg"}, {"petsc_options": "-tao_ls_armijo_beta 0.6"}],
    ids=str,
)
def test_one_level_is_minimise(comm: MPI.Comm, special: dict[str, Any]) -> None:
    """With every option; up to the rounding of PETSc's sums, which depends on where its vectors lie in memory."""
    options = {"max_iterations": 7, "gradient_tolerance": 1e-3, **special}
    config = parse_config(small(1, optimiser=options))
    problem, result = train_as_configured(config, comm)
    expected = minimise(build(config, comm), **options)  # type: ignore[arg-type]
    assert (result.status, result.reason, result.iterations) == (expected.status, expected.reason, expected.iterations)
    assert [record.evaluations for record in result.history] == [record.evaluations for record in expected.history]
    totals, wanted = ([record.total for record in each.history] for each in (result, expected))
    assert totals[0] == wanted[0]
    assert totals == pytest.approx(wanted, rel=1e-11)
    np.testing.assert_allclose(result.theta, expected.theta, rtol=1e-10, atol=1e-12)
    assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-9)
    assert {record.level for record in result.history} == {1}
    check_history(config, problem, result)


# -- problems of all kinds -------------------------------------------------------------------------------------------

GAUSSIAN = {"kind": "gaussian", "mean": [0.3], "std": 0.3}
BUMP = {"kind": "expression", "value": "exp(-8*(x+0.2)**2) * (1 + 0.3*sin(3*x))"}
CALM = {**NO_DENSITY_COSTS, "jacobian": 0.0}
READOUT = {**CALM, "terminal": {"kind": "cross_entropy", "trainable": True}}

KINDS: dict[str, dict[str, Any]] = {
    "1-D": small(3),
    "3-D": problem_config(3, 1, cells=6, optimiser={"levels": 2, "max_iterations": 3}),
    "free": {**small(3, objective=CALM), "field": {"kind": "free", "layers": 4}},
    "free, degree 2": {**small(3, objective=CALM, density={"degree": 2}), "field": {"kind": "free", "layers": 3}},
    "free, a field per label": {
        **small(2, 6, LABELLINGS[2], objective=CALM),
        "field": {"kind": "free", "layers": 2, "label_dependent": True},
    },
    "free, tied": {**small(2, objective=CALM), "field": {"kind": "free", "layers": 3, "tied": True}},
    "readout": small(2, 6, LABELLINGS[1], objective=READOUT),
    "a field per label, readout": small(2, 6, LABELLINGS[2], objective=READOUT),
    "tied": small(3, field={"tied": True}),
    "kl": small(2, objective={"terminal": {"kind": "kl", "target": [GAUSSIAN]}}),
    "expression": small(2, density={"degree": 1, "initial": [BUMP]}),
    "mesh file": {
        **small(2),
        "domain": {"file": INTERVAL, "refine": 1},
        "density": {"degree": 0, "initial": [{**GAUSSIAN, "std": 0.5}]},
    },
    "nothing to halve": small(2, domain={"box": {"lower": [-1.0], "upper": [1.0], "cells": [5]}}),
    "another method": small(2, optimiser={"method": "bncg"}),
    "odd layers": small(3, field={"layers": 5}),
}
THREE = {"3-D", "free", "a field per label, readout", "mesh file"}
TWO = THREE | {"1-D", "free, a field per label", "free, tied", "readout", "kl"}


@pytest.mark.parametrize("kind", thinned(KINDS, TWO, THREE))
def test_problems_of_all_kinds(comm: MPI.Comm, kind: str) -> None:
    config = parse_config(KINDS[kind])
    problem, result = train_as_configured(config, comm)
    check_history(config, problem, result)
    assert result.value < problem.value(problem.initial_theta)
    # J on a mesh means much the same on the next: a level starts far below the start of all.
    assert result.history[-1].total < result.history[0].total
    assert len(set(comm.allgather(result.theta.tobytes()))) == 1


def test_a_given_theta_is_where_the_coarsest_level_starts(comm: MPI.Comm) -> None:
    """Coarse layers take the rows that are there at their middle."""
    rows = [[0.1], [0.1], [0.4], [0.4]]
    field = {"kind": "linear", "features": "translation", "layers": 4, "horizon": 0.6, "theta": rows}
    config = parse_config({**small(3, 0), "field": field})
    problem, result = train_as_configured(config, comm)
    np.testing.assert_array_equal(result.theta, rows)
    coarsest = build(coarse_to_fine(config)[0], comm)
    assert coarsest.n_layers == 2
    assert result.history[0].total == pytest.approx(coarsest.value(np.array([[0.1], [0.4]])), rel=1e-13)
    assert result.history[-1].total == problem.value(np.array(rows))


# -- limits and ends -------------------------------------------------------------------------------------------------


@pytest.mark.two_ranks
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 9])
def test_the_limit_of_iterations(comm: MPI.Comm, iterations: int, levels: int) -> None:
    config = parse_config(small(levels, iterations, optimiser={"gradient_tolerance": 0.0}))
    problem, result = train_as_configured(config, comm)
    check_history(config, problem, result)
    assert result.value <= problem.value(problem.initial_theta) * (1.0 + 1e-12)
    assert result.status == "max_iterations"
    told = iterations if levels == 1 else -(-iterations // 2)
    assert f"limit of {told} iterations" in result.reason
    assert ("on the finest" in result.reason) == (levels > 1)


@pytest.mark.two_ranks
def test_every_level_takes_half(comm: MPI.Comm) -> None:
    """Where no level comes to its end before."""
    config = parse_config(small(3, 16, optimiser={"gradient_tolerance": 0.0}))
    coarse = multilevel.COARSE_TOLERANCE
    _, result = train_as_configured(config, comm)
    assert coarse < result.history[-1].gradient_norm / result.history[0].gradient_norm  # none has come to its end
    assert [report.iterations for report in result.levels] == [8, 8, 8]


FIELDS: dict[str, dict[str, Any]] = {
    "translation": {"kind": "linear", "features": "translation", "layers": 2},
    "free": {"kind": "free", "layers": 2},
}


@pytest.mark.two_ranks
@pytest.mark.parametrize("tolerance", [0.3, 0.0])
@pytest.mark.parametrize("field", FIELDS)
def test_levels_end_at_a_tolerance(
    comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, field: str, tolerance: float
) -> None:
    """A coarse one at that which was asked for, or at its own where that is larger; relative to the first of all.

    So it is where the true J is not known.

    The gradient of a free field is spread over its nodes: its norm falls with the root of their number.
    """
    monkeypatch.setattr(multilevel, "COARSE_TOLERANCE", 3e-3)  # one that a mesh of eight cells can reach
    monkeypatch.setattr(LevelEnd, "known", False)
    monkeypatch.setattr(LevelEnd, "reached", lambda *_: False)
    table = {**small(2, 60, objective=CALM), "field": FIELDS[field]}
    table["optimiser"]["gradient_tolerance"] = tolerance
    problem, result = train_as_configured(parse_config(table), comm)
    first = result.history[0].gradient_norm
    coarse = [record.gradient_norm / first for record in result.history if record.level == 1]
    limit = max(tolerance, 3e-3)
    assert coarse[-1] <= limit < min(coarse[:-1])
    assert "on the finest" in result.reason
    if tolerance > 0.0:
        root = math.sqrt(17 / 33) if field == "free" else 1.0  # nodes of 8 cells of degree 2, and of 32 of degree 1
        fine = [record.gradient_norm / first for record in result.history if record.level == 2]
        assert result.status == "converged"
        assert fine[-1] <= tolerance * root
        assert min(fine[:-1], default=math.inf) > tolerance * root
    assert result.value == problem.value(result.theta)


def records(totals: list[float]) -> list[Record]:
    """Of one level."""
    return [Record(number, total, {"terminal": total}, 1.0, number, 0.0) for number, total in enumerate(totals)]


@pytest.mark.one_process
def test_what_is_left_is_told_by_the_later_half() -> None:
    """Exact where J = J* + C/n², whatever has been before."""
    for before in (0, 7):
        for count in (5, 6, 20):
            level = records([2.0 + 3.0 / max(n + before, 1) ** 2 for n in range(count + 1)])
            assert remaining_gain(level, before) == pytest.approx(3.0 / (count + before) ** 2)
    assert remaining_gain(records([1.0] * 8), 0) == 0.0
    assert remaining_gain(records([1.0] * 5 + [2.0] * 5), 0) == 0.0  # it went up


@pytest.mark.two_ranks
@pytest.mark.parametrize(
    ("fall", "ended"), [(1.0, False), (0.6, False), (0.4, True), (-1.0, True), (2.0, False), (math.nan, False)]
)
def test_a_level_ends_where_less_than_half_of_its_gain_is_real(
    comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, fall: float, ended: bool
) -> None:
    """J_h falls by 1 in an iteration, J by ``fall``, from the first check on."""
    problem = build(parse_config(small(1)), comm)
    end, level = LevelEnd(problem, coarse=False), records([100.0 - n for n in range(25)])
    assert end.known
    asked: list[int] = []
    for count in range(1, 25):
        true = 7.0 - fall * count
        monkeypatch.setattr(TrueObjective, "value", lambda *_, n=count, j=true: (asked.append(n) or j, ""))
        if end.reached(level[: count + 1], problem.initial_theta):
            break
    assert asked == ([5, 10] if ended else [5, 10, 20])


def test_a_true_value_that_is_known_is_not_asked_for(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    """J_h falls by 1 in an iteration, and what the descent has verified rises."""

    def ask(*_: object) -> None:
        raise AssertionError("J is known")

    monkeypatch.setattr(TrueObjective, "value", ask)
    problem = build(parse_config(small(1)), comm)
    end = LevelEnd(problem, coarse=False)
    level = [replace(each, verified=each.iteration) for each in records([100.0 - n for n in range(11)])]
    assert not end.reached(level[:6], problem.initial_theta)
    assert end.reached(level, problem.initial_theta)


@pytest.mark.two_ranks
def test_the_last_small_steps_are_left_to_the_finest_level(comm: MPI.Comm) -> None:
    problem = build(parse_config(small(1)), comm)
    flat = records([2.0] + [1.0 + 1e-3 / n**2 for n in range(1, 8)])
    steep = records([2.0] + [1.0 + 1e-1 / n**2 for n in range(1, 8)])
    assert LevelEnd(problem).reached(flat, problem.initial_theta)
    assert not LevelEnd(problem).reached(steep, problem.initial_theta)
    assert not LevelEnd(problem, coarse=False).reached(flat, problem.initial_theta)
    assert not LevelEnd(problem).reached(flat[:FIRST_CHECK], problem.initial_theta)


@pytest.mark.two_ranks
def test_a_coarse_level_that_gains_only_by_its_own_error_ends(comm: MPI.Comm) -> None:
    """On so few cells J falls on and on, and the true J does not."""
    config = parse_config(smooth_table(cells=24, iterations=60))
    _, result = train_as_configured(config, comm)
    assert result.levels[0].iterations <= 20
    assert result.levels[-1].iterations == 30


@pytest.mark.two_ranks
def test_a_level_that_has_ended_is_not_gone_on_with(comm: MPI.Comm) -> None:
    """From the state after any of its iterations the training is the same to the last bit."""
    config = parse_config(small(2, 60, optimiser={"gradient_tolerance": 0.0}))
    training = build_training(config, build(config, comm))
    states: list[TrainingState] = []
    result = training.run(lambda _: states.append(training.state))
    last = result.levels[0].iterations
    assert FIRST_CHECK <= last < 30, "the coarse level must end before its limit"
    for iteration in (last - 1, last):
        state = next(each for each in states if each.level == 1 and each.history[-1].iteration == iteration)
        again = build_training(config, build(config, comm), state=state).run()
        assert [each.total for each in again.history] == [each.total for each in result.history]
        np.testing.assert_array_equal(again.theta, result.theta)
        assert [(each.iterations, each.evaluations) for each in again.levels] == [
            (each.iterations, each.evaluations) for each in result.levels
        ]


@pytest.mark.two_ranks
@pytest.mark.parametrize("stop", [0, 2])
@pytest.mark.parametrize(
    "kind", thinned(["1-D", "free", "a field per label, readout", "tied"], {"free", "a field per label, readout"})
)
def test_stopped_on_a_coarse_level(comm: MPI.Comm, kind: str, stop: int) -> None:
    """θ is that of the finest level all the same, and so is J."""
    config = parse_config(KINDS[kind])
    finest = build(config, comm)
    problem, result = train_as_configured(config, comm, lambda record: record.iteration >= stop)
    assert (result.iterations, result.status) == (stop, "stopped")
    assert "stopped" in result.reason
    assert {record.level for record in result.history} == {1}
    assert len(result.levels) == 1
    assert result.theta.shape == finest.initial_theta.shape
    assert math.isfinite(result.value)
    assert result.value == problem.value(result.theta) == pytest.approx(finest.value(result.theta), rel=1e-10)
    assert problem.n_layers == config.field.layers
    assert result.curvature is None
    if stop:
        assert result.value < problem.value(problem.initial_theta)


@pytest.mark.two_ranks
def test_stopped_on_a_middle_level(comm: MPI.Comm) -> None:
    config = parse_config(small(3, 12, optimiser={"gradient_tolerance": 0.0}))
    problem, result = train_as_configured(config, comm, lambda record: record.level == 2)
    assert [report.level for report in result.levels] == [1, 2]
    assert result.levels[-1].iterations == 0
    assert "stopped" in result.reason
    assert result.theta.shape == problem.initial_theta.shape
    assert result.value == problem.value(result.theta)


@pytest.mark.two_ranks
def test_callbacks_see_where_the_descent_is(comm: MPI.Comm) -> None:
    """In the shape of the finest level at every iteration, and each record once."""
    config = parse_config(KINDS["free"])
    training = build_training(config, build(config, comm))
    seen: list[tuple[Record, Floats]] = []

    def follow(record: Record) -> None:
        seen.append((record, training.theta))

    result = training.run(follow)
    assert [record for record, _ in seen] == result.history
    assert {theta.shape for _, theta in seen} == {training.problem.initial_theta.shape}
    for (before, theta), (after, other) in pairwise(seen):
        # At a change of level it is carried on as it was.
        assert np.allclose(theta, other, rtol=1e-10, atol=1e-12) == (after.iteration == before.iteration)
    last = [(record.total, theta) for record, theta in seen if record.level == 3]
    np.testing.assert_array_equal(min(last, key=lambda each: each[0])[1], result.theta)


def test_an_error_in_a_callback_comes_through(comm: MPI.Comm) -> None:
    def fail(record: Record) -> None:
        if record.level == 2:
            raise KeyError("a caller's own")

    with pytest.raises(KeyError, match="a caller's own"):
        train_as_configured(parse_config(small(2)), comm, fail)


# -- levels that cannot be -------------------------------------------------------------------------------------------


def refusing(cells: set[int]) -> Callable[..., ControlProblem]:
    """A ``build`` that refuses intervals of so many cells."""

    def refuse(config: Config, comm: MPI.Comm, field: VectorField | None, **_mesh: object) -> ControlProblem:
        if config.domain.box is not None and config.domain.box.cells[0] in cells:
            raise InputError("too coarse for this", key="domain.box")
        return build(config, comm, field)

    return refuse


@pytest.mark.two_ranks
@pytest.mark.parametrize("cells", [{1: 4}, {2: 8}, {1: 4, 2: 8}], ids="without {}".format)
def test_coarse_levels_that_cannot_be_built_are_left_out(
    comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, cells: dict[int, int]
) -> None:
    config = parse_config(small(3, 8))
    monkeypatch.setattr(training_of_config, "build", refusing(set(cells.values())))
    said: list[str] = []
    training = build_training(config, build(config, comm), said.append)
    result = training.run()
    for level in cells:
        assert any(f"level {level} of 3 is left out" in text and "too coarse for this" in text for text in said), said
    assert {record.level for record in result.history} == {1, 2, 3} - set(cells)
    assert [report.level for report in result.levels] == sorted({1, 2, 3} - set(cells))
    assert result.value < result.history[0].total
    assert result.value == training.problem.value(result.theta)
    assert result.theta.shape == training.problem.initial_theta.shape


@pytest.mark.two_ranks
def test_coarse_levels_that_cannot_be_evaluated_are_left_out(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse layers are longer, and may need more steps than they may take."""
    table = small(2, 4, solver={"max_steps_per_layer": 1000}, field={"output_scale": 6.0})
    config = parse_config({**table, "field": {**table["field"], "layers": 4}})

    def capped(config: Config, comm: MPI.Comm, field: VectorField | None, **_mesh: object) -> ControlProblem:
        solver = config.solver.model_copy(update={"max_steps_per_layer": 1})
        return build(config.model_copy(update={"solver": solver}), comm, field)

    monkeypatch.setattr(training_of_config, "build", capped)
    said: list[str] = []
    problem = build(config, comm)
    result = build_training(config, problem, said.append).run()
    assert any("level 1 of 2 is left out" in text and "max_steps_per_layer" in text for text in said), said
    alone = minimise(build(config, comm), max_iterations=1)
    assert result.history[0].total == alone.history[0].total
    assert {record.level for record in result.history} == {2}
    assert result.value <= alone.history[0].total
    assert (result.iterations, result.status) == (2, "max_iterations")
    assert problem.rejected_evaluations >= 1


def test_a_start_that_cannot_be_evaluated_anywhere(comm: MPI.Comm) -> None:
    table = small(2, 4, solver={"max_steps_per_layer": 2})
    field = {"kind": "linear", "features": "translation", "layers": 2, "theta": [[50.0], [50.0]]}
    with pytest.raises(InputError, match=r"field\.theta"):
        train_as_configured(parse_config({**table, "field": field}), comm)


@pytest.mark.two_ranks
def test_it_is_told_which_level_begins(comm: MPI.Comm) -> None:
    config = parse_config(small(3))
    said: list[str] = []
    build_training(config, build(config, comm), said.append).run()
    layers = [each.field.layers for each in coarse_to_fine(config)]
    sizes = zip((4, 8, 32), (2, 2, 1), layers, strict=True)
    wanted = [f"level {n} of 3: {c} cells of degree {p}, {each} layers" for n, (c, p, each) in enumerate(sizes, 1)]
    assert said == wanted
    said.clear()
    config = parse_config(small(1))
    build_training(config, build(config, comm), said.append).run()
    assert said == []


@pytest.mark.two_ranks
def test_what_was_given_is_left_alone(comm: MPI.Comm) -> None:
    """A configuration trains the same a second time."""
    config = parse_config(small(2))
    text = json.dumps(config.model_dump(mode="json"))
    first, second = (train_as_configured(config, comm)[1] for _ in range(2))
    np.testing.assert_allclose(first.theta, second.theta, rtol=1e-9, atol=1e-12)
    assert json.dumps(config.model_dump(mode="json")) == text


# -- without a configuration -----------------------------------------------------------------------------------------


@pytest.mark.two_ranks
def test_a_list_of_problems_is_trained_as_configured_levels_are(comm: MPI.Comm) -> None:
    config = parse_config(small(3, 8))
    _, expected = train_as_configured(config, comm)
    levels = [build(each, comm) for each in coarse_to_fine(config)]
    result = train(levels, max_iterations=4)
    assert [report.level for report in result.levels] == [1, 2, 3]
    assert result.status == expected.status
    assert result.history["total"] == pytest.approx(expected.history["total"], rel=1e-9)
    elsewhere = 0.1 + levels[-1].initial_theta
    again = train(levels, elsewhere, max_iterations=0)
    np.testing.assert_array_equal(again.theta, elsewhere)
    assert again.value == levels[-1].value(elsewhere)


@pytest.mark.two_ranks
def test_levels_of_different_problems_are_refused(comm: MPI.Comm) -> None:
    finest = build(parse_config(small(1)), comm)
    with pytest.raises(InputError, match="at least one problem"):
        train([])
    others = {
        "horizon": small(1, field={"horizon": 0.123}),
        "number of labels": small(1, labelling=LABELLINGS[1]),
        "number of parameters per layer": small(1, field={"hidden": [3]}),
    }
    for what, table in others.items():
        with pytest.raises(InputError, match=f"its {what} is") as error:
            train([build(parse_config(table), comm), finest])
        assert error.value.key == "levels[0]"
    with pytest.raises(InputError, match="numbers are needed"):
        train([finest], np.zeros(3))
