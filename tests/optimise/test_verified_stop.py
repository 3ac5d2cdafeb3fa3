"""Descents that end by J of the network: on a mesh that pays for its own diffusion they end early, and better."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest

import eulerian as eu
from eulerian.analysis.characteristic_costs import CharacteristicCosts
from eulerian.analysis.characteristics import verify
from eulerian.app.build.network import build, build_particles
from eulerian.app.build.training import build_training, start_problem
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.train_checkpoint import Checkpoint, read_checkpoint
from eulerian.base.errors import ComputationError, InputError
from eulerian.base.parallel import on_root
from eulerian.control.control import ControlProblem
from eulerian.optimise import Descent, DescentState, Method, OptimiseResult, Record, Settings, TrainingState
from eulerian.optimise.verified_stop import PATIENCE, falls_no_more, is_due

pytestmark = pytest.mark.two_ranks

SETTINGS = Settings(Method("lmvm"), 30, 0.0, stop="verified")


def coarse(cells: int = 10, dim: int = 1, **tables: Any) -> Config:
    """A normal density that is to go somewhere, on a mesh that is far too coarse for it."""
    config: dict[str, Any] = {
        "domain": {"box": {"lower": [-3.0] * dim, "upper": [3.0] * dim, "cells": [cells] * dim}},
        "density": {"degree": 1, "initial": [{"kind": "gaussian", "mean": [-0.5, 0.3][:dim], "std": 0.5}]},
        "field": {"kind": "mlp", "hidden": [6], "layers": 3},
        "objective": {
            "kinetic": 0.5,
            "parameters": 1e-6,
            "terminal": {"kind": "quadratic", "target": [1.0, -0.5][:dim]},
        },
    }
    for table, values in tables.items():
        config[table] = {**config.get(table, {}), **values}
    return parse_config(config)


def walled() -> Config:
    """What J wants is pressed against the wall, and J has a cost of the density, which mass at walls has not."""
    terminal = {"kind": "quadratic", "target": [6.0]}
    return coarse(24, objective={"kinetic": 0.02, "congestion": 0.1, "terminal": terminal})


def record(iteration: int, verified: float | None, *, mesh: float = 1.0) -> Record:
    return Record(iteration, mesh, {"terminal": mesh}, 1.0, iteration, 0.0, verified=verified)


def timeless(history: Sequence[Record]) -> list[Record]:
    return [dataclasses.replace(each, seconds=0.0) for each in history]


def states(problem: ControlProblem, settings: Settings) -> tuple[list[DescentState], OptimiseResult]:
    found: list[DescentState] = []
    descent = Descent(problem, settings)
    return found, descent.run(lambda _record: found.append(descent.state))


# -- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
def test_checks_get_rarer() -> None:
    due = [iteration for iteration in range(500) if is_due(iteration)]
    assert due[:13] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18]
    gaps = np.diff(due)
    assert np.all(np.diff(gaps) >= 0)
    assert np.all(gaps[9:] <= 0.25 * np.array(due[9:-1]))
    assert len(due) < 30


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], False),
        ([1.0, 0.5, 0.6, 0.7, 0.8], True),
        ([1.0, 0.5, 0.6, None, 0.7], False),  # two checks
        ([1.0, 0.5, None, 0.6, 0.7, None, 0.8], True),
        ([1.0, 0.5, 0.6, 0.7, 0.4], False),
        ([1.0, 0.5, 0.5 - 1e-5, 0.5 - 2e-5, 0.5 - 3e-5], True),  # less than counts
        ([1.0, 0.5, 0.5 - 3e-5, 0.5 - 6e-5, 0.5 - 9e-5], False),  # little by little
        ([None] * 9, False),
        ([], False),
    ],
)
def test_patience(values: list[float | None], ends: bool) -> None:
    history = [record(20 + number, value, mesh=0.5) for number, value in enumerate(values)]
    assert falls_no_more(history) is ends


@pytest.mark.one_process
def test_the_error_of_the_mesh_is_a_limit() -> None:
    """What is a fall on a good mesh is none on one that is off by far more."""
    values = [0.5, 0.4985, 0.497, 0.4955]
    assert not falls_no_more([record(20 + i, value, mesh=value) for i, value in enumerate(values)])
    assert falls_no_more([record(20 + i, value, mesh=value + 0.5) for i, value in enumerate(values)])


@pytest.mark.one_process
def test_not_in_the_first_iterations() -> None:
    assert not falls_no_more([record(i, 1.0) for i in range(6)])
    assert falls_no_more([record(i, 1.0) for i in range(11)])


# -- descents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2])
def test_on_a_coarse_mesh_it_ends_sooner_and_lower(comm: MPI.Comm, dim: int) -> None:
    """There J of the mesh goes on falling while that of the network rises."""
    problem = build(coarse(dim=dim), comm)
    usual = eu.minimise(problem, max_iterations=30)
    found = eu.minimise(build(coarse(dim=dim), comm), max_iterations=30, stop="verified")
    assert usual.value < found.value  # on the mesh
    theirs, ours = (verify(problem, each.theta).objective["total"] for each in (usual, found))
    assert ours < 0.99 * theirs
    assert found.iterations <= 0.6 * usual.iterations
    assert found.status == "converged"
    assert found.kept is not None
    ending = f"the network's own J has not fallen for {PATIENCE} checks; iterate {found.kept} of {found.iterations}"
    assert found.reason == f"{ending} is kept"
    checks = {each.iteration: each.verified for each in found.history if each.verified is not None}
    assert found.verified == checks[found.kept] == min(checks.values())
    assert found.verified == pytest.approx(ours, rel=3e-4)
    assert found.value == problem.value(found.theta) == found.history[found.kept].total
    assert found.parts == problem.parts
    # The way is the usual one, as far as it goes, and all ranks have come to the same.
    apart = [dataclasses.replace(each, verified=None) for each in timeless(found.history)]
    assert apart == timeless(usual.history)[: len(apart)]
    assert len(set(comm.allgather(found.theta.tobytes()))) == 1


def test_a_fine_mesh_is_followed_to_the_end(comm: MPI.Comm) -> None:
    usual = eu.minimise(build(coarse(60), comm), max_iterations=9)
    found = eu.minimise(build(coarse(60), comm), max_iterations=9, stop="verified")
    assert found.theta.tobytes() == usual.theta.tobytes()
    assert (found.status, found.reason) == (usual.status, usual.reason)
    assert not is_due(found.iterations)  # but the last iterate is looked at
    assert found.verified is not None
    assert found.verified < min(each.verified for each in found.history if each.verified is not None)


def test_the_limit_comes_first(comm: MPI.Comm) -> None:
    found = eu.minimise(build(coarse(), comm), max_iterations=9, stop="verified")
    assert found.status == "max_iterations"
    assert f"iterate {found.kept} of 9 is kept, where the network's own J is lowest" in found.reason
    assert found.kept is not None
    assert 0 < found.kept < 9


def test_a_callback_comes_first(comm: MPI.Comm) -> None:
    found = eu.minimise(build(coarse(), comm), stop="verified", callback=lambda each: each.iteration == 8)
    assert found.status == "stopped"
    assert found.verified == min(each.verified for each in found.history if each.verified is not None)


def test_by_default_nothing_is_verified(comm: MPI.Comm) -> None:
    found = eu.minimise(build(coarse(), comm), max_iterations=3)
    assert found.verified is None
    assert all(each.verified is None for each in found.history)
    assert np.all(np.isnan(found.history["verified"]))


# -- where it cannot be ----------------------------------------------------------------------------------------------


class Shift:
    """v = θ, without a Jacobian."""

    def n_params(self, dim: int) -> int:
        return dim

    def init(self, rng: np.random.Generator) -> Any:  # noqa: ARG002
        return np.zeros(1)

    def value(self, theta: Any, x: Any) -> Any:
        return np.broadcast_to(theta, x.shape).copy()

    def vjp(self, theta: Any, x: Any, w: Any) -> Any:  # noqa: ARG002
        return w.sum(axis=0)


@pytest.mark.parametrize("congestion", [0.0, 0.1])
def test_fields_without_a_jacobian(comm: MPI.Comm, congestion: float) -> None:
    """Enough for losses, not for costs of the density."""
    problem = build(coarse(objective={"congestion": congestion}), comm, field=Shift())  # type: ignore[arg-type]
    if congestion == 0.0:
        assert eu.minimise(problem, max_iterations=3, stop="verified").verified is not None
        return
    with pytest.raises(InputError, match=r"no method jacobian.*Set it to \"gradient\"") as caught:
        eu.minimise(problem, stop="verified")
    assert (caught.value.key, caught.value.value) == ("stop", "verified")


def test_particles(comm: MPI.Comm) -> None:
    problem = build_particles(coarse(particles={"count": 20}), comm)
    with pytest.raises(InputError, match="is not that of a mesh") as caught:
        eu.minimise(problem, stop="verified")
    assert caught.value.key == "stop"


def test_another_word(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match="Choose one of gradient, verified") as caught:
        eu.minimise(build(coarse(), comm), stop="early")
    assert (caught.value.key, caught.value.value) == ("stop", "early")


def test_mass_at_walls_leaves_the_usual_descent(comm: MPI.Comm) -> None:
    usual = eu.minimise(build(walled(), comm), max_iterations=12)
    found = eu.minimise(build(walled(), comm), max_iterations=12, stop="verified")
    assert found.theta.tobytes() == usual.theta.tobytes()
    assert found.reason.startswith(f"{usual.reason}; J of the network itself had no say: ")
    assert "of the mass has touched a wall" in found.reason
    assert found.verified is None
    known = [each.iteration for each in found.history if each.verified is not None]
    assert known == list(range(len(known)))  # once lost it is not asked for again
    assert 0 < len(known) < 9


def test_a_field_that_fails_leaves_the_usual_descent(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ComputationError("the field failed")

    monkeypatch.setattr(CharacteristicCosts, "carried", fail)
    found = eu.minimise(build(coarse(), comm), max_iterations=5, stop="verified")
    assert found.status == "max_iterations"
    assert found.reason.endswith("J of the network itself had no say: the field failed")


# -- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [coarse(), walled()])
def test_every_state_goes_on_to_the_same_end(comm: MPI.Comm, config: Config) -> None:
    found, whole = states(build(config, comm), SETTINGS)
    assert len(found) == len(whole.history)
    for state in found[::3] + found[-1:]:
        result = Descent(build(config, comm), SETTINGS, state=state).run()
        assert timeless(result.history) == timeless(whole.history)
        assert result.theta.tobytes() == whole.theta.tobytes()
        assert (result.status, result.reason, result.verified) == (whole.status, whole.reason, whole.verified)


@pytest.mark.parametrize("config", [coarse(), walled()])
def test_a_state_survives_its_file(comm: MPI.Comm, tmp_path: Path, config: Config) -> None:
    found, _ = states(build(config, comm), SETTINGS)
    state = found[9]
    kept = Checkpoint("", "densities", (1.0, {}), state.current.theta, None, None, TrainingState(1, state))
    on_root(comm, lambda: kept.write(tmp_path))
    again = on_root(comm, lambda: read_checkpoint(tmp_path))
    assert again is not None
    read = again.state.descent
    assert timeless(read.history) == timeless(state.history)
    assert read.lost == state.lost
    assert (read.current.verified is None) == (state.current.verified is None)
    if state.current.verified is not None and read.current.verified is not None:
        assert read.current.verified.theta.tobytes() == state.current.verified.theta.tobytes()
        assert read.current.verified.verified == state.current.verified.verified
    result = Descent(build(config, comm), SETTINGS, state=read).run()
    assert result.theta.tobytes() == states(build(config, comm), SETTINGS)[1].theta.tobytes()


def test_an_end_may_be_moved(comm: MPI.Comm) -> None:
    """The look at the last iterate leaves no trace in a run that goes on."""
    short = dataclasses.replace(SETTINGS, max_iterations=9)
    found, _ = states(build(coarse(), comm), short)
    _, whole = states(build(coarse(), comm), SETTINGS)
    result = Descent(build(coarse(), comm), SETTINGS, state=found[-1]).run()
    assert timeless(result.history) == timeless(whole.history)
    assert result.theta.tobytes() == whole.theta.tobytes()
    other = Descent(build(coarse(), comm), dataclasses.replace(SETTINGS, stop="gradient"), state=found[-1]).run()
    assert other.iterations > whole.iterations


# -- several meshes --------------------------------------------------------------------------------------------------


def test_levels(comm: MPI.Comm) -> None:
    """A coarse level ends where the network is best, and the next one begins there."""
    levels = [build(coarse(cells), comm) for cells in (6, 12)]
    found = eu.train(levels, max_iterations=30, stop="verified")
    usual = eu.train([build(coarse(cells), comm) for cells in (6, 12)], max_iterations=30)
    assert found.levels[0].iterations <= usual.levels[0].iterations
    first = [each for each in found.history if each.level == 1]
    checks = {each.verified: each for each in first if each.verified is not None}
    assert checks[min(checks)].iteration < first[-1].iteration
    assert f"iterate {found.kept} of {found.iterations} is kept" in found.reason
    second = next(each for each in found.history if each.level == 2)
    assert second.verified == pytest.approx(min(checks), rel=1e-3)  # the same flow, by the points of another mesh
    ours, theirs = (verify(levels[-1], each.theta).objective["total"] for each in (found, usual))
    assert ours < theirs


def test_adapted_meshes(comm: MPI.Comm) -> None:
    tables = {"optimiser": {"stop": "verified", "max_iterations": 60}, "adapt": {"density": 0.2, "objective": 0.1}}
    config = coarse(16, **tables)
    found = build_training(config, start_problem(config, comm)).run()
    assert found.iterations < 60
    assert found.status == "converged"
    assert "the network's own J has not fallen" in found.reason


def test_a_training_that_cannot_be_verified_names_its_key(comm: MPI.Comm) -> None:
    config = coarse(objective={"congestion": 0.1}, optimiser={"stop": "verified"})
    problem = build(config, comm, field=Shift())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be told") as caught:
        build_training(config, problem)
    assert caught.value.key == "optimiser.stop"
