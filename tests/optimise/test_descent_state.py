"""A descent that goes on from a state does what it would have done anyway, to the last bit."""

import dataclasses
from collections.abc import Callable, Iterable

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem
from thinning import thinned

from eulerian.app.build.network import build_particles
from eulerian.app.config import parse_config
from eulerian.base.errors import ComputationError
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise import Descent, DescentState, Method, Record, Settings, lbfgs_pairs, minimise

pytestmark = pytest.mark.two_ranks

ITERATIONS = 13  # past the first two renewals of the metric


def settings(method: str = "lmvm", **rest: object) -> Settings:
    return Settings(Method(method), ITERATIONS, 0.0, **rest)  # type: ignore[arg-type]


def states(problem: ReducedProblem, chosen: Settings) -> tuple[list[DescentState], list[Record]]:
    """Every state of a descent, and its records."""
    found: list[DescentState] = []
    descent = Descent(problem, chosen)
    history = descent.run(lambda _record: found.append(descent.state)).history
    return found, timeless(history)


def timeless(history: Iterable[Record]) -> list[Record]:
    return [dataclasses.replace(record, seconds=0.0) for record in history]


def particle_problem(comm: MPI.Comm) -> ReducedProblem:
    config = {
        "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [20]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [-0.3], "std": 0.4}]},
        "field": {"kind": "mlp", "hidden": [4], "layers": 3},
        "objective": {"kinetic": 0.5, "terminal": {"kind": "expression", "value": "(x**2 - 1)**2"}},
        "particles": {"count": 60},
    }
    return build_particles(parse_config(config), comm)


def mesh_problem(comm: MPI.Comm) -> ReducedProblem:
    return control_problem(comm, 1, 1, "two labels")


@pytest.mark.parametrize("method", thinned(["lmvm", "blmvm", "bqnls", "bncg", "cg"], {"lmvm", "bncg"}))
@pytest.mark.parametrize("make", [mesh_problem, particle_problem])
def test_every_state_goes_on_to_the_same_end(
    comm: MPI.Comm, make: Callable[[MPI.Comm], ReducedProblem], method: str
) -> None:
    found, history = states(make(comm), settings(method))
    assert len(found) == len(history) > 6
    for state in found[:: 1 if method == "lmvm" else 5]:
        again = Descent(make(comm), settings(method), state=state)
        result = again.run()
        assert timeless(result.history) == history
        assert result.theta.tobytes() == min(found, key=lambda each: each.history[-1].total).current.theta.tobytes()


def test_a_state_holds_only_the_evaluations_since_the_last_renewal(comm: MPI.Comm) -> None:
    found, _ = states(mesh_problem(comm), settings())
    firsts = [state.first for state in found]
    assert sorted(set(firsts)) == [0, 5, 10]
    for state in found:
        assert len(state.replay) <= 4 * (len(state.history) - state.first)


def test_a_long_theta_has_short_segments(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for evaluations is bounded, whatever the method: the optimiser is made anew, in a resumed run as well."""
    monkeypatch.setattr("eulerian.optimise.segment.MEMORY", 3)
    monkeypatch.setattr("eulerian.optimise.segment.LARGEST", 0)
    for method in ("lmvm", "bncg"):
        found, history = states(mesh_problem(comm), settings(method))
        assert max(len(state.history) - 1 - state.first for state in found) == 3
        result = Descent(mesh_problem(comm), settings(method), state=found[7]).run()
        assert timeless(result.history) == history


def test_elsewhere_it_goes_on_from_the_same_theta(comm: MPI.Comm) -> None:
    """On another processor J may differ in the last bit: nothing is lost or counted twice then either."""
    found, history = states(mesh_problem(comm), settings())
    state = found[8]
    first = state.replay[0]
    elsewhere = dataclasses.replace(
        state, replay=(dataclasses.replace(first, value=np.nextafter(first.value, np.inf)), *state.replay[1:])
    )
    result = Descent(mesh_problem(comm), settings(), state=elsewhere).run()
    assert timeless(result.history)[:9] == history[:9]
    assert [record.iteration for record in result.history] == list(range(ITERATIONS + 1))
    assert result.value < history[8].total
    assert result.value == pytest.approx(history[-1].total, rel=2e-2)


def test_an_end_may_be_moved(comm: MPI.Comm) -> None:
    """A descent that has reached its limit goes on with a higher one, as if it had had that from the start."""
    short = dataclasses.replace(settings(), max_iterations=6)
    found, _ = states(mesh_problem(comm), short)
    _, history = states(mesh_problem(comm), settings())
    assert timeless(Descent(mesh_problem(comm), settings(), state=found[-1]).run().history) == history
    again = Descent(mesh_problem(comm), short, state=found[-1]).run()
    assert (again.status, again.iterations) == ("max_iterations", 6)


def test_another_problem_is_noticed(comm: MPI.Comm) -> None:
    found, _ = states(mesh_problem(comm), settings())
    other = control_problem(comm, 1, 1, "two labels", objective={"kinetic": 0.9})
    with pytest.raises(ComputationError, match="has changed since"):
        Descent(other, settings(), state=found[4]).run()


def test_minimise_is_a_descent(comm: MPI.Comm) -> None:
    _, history = states(mesh_problem(comm), settings())
    result = minimise(mesh_problem(comm), max_iterations=ITERATIONS, gradient_tolerance=0.0)
    assert timeless(result.history) == history


def test_what_is_kept_does_not_grow(comm: MPI.Comm) -> None:
    found, _ = states(mesh_problem(comm), settings())
    assert all(len(state.current.points) <= lbfgs_pairs.MEMORY + 1 for state in found)
