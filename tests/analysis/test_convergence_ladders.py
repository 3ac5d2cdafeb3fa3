"""Ladders, references and rates on made-up numbers; times on a problem that counts its evaluations."""

import math

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem

from eulerian.analysis.convergence import (
    Reference,
    Resolution,
    Rung,
    Trial,
    best_reference,
    disagreement,
    ladders,
    mesh_reference,
    observed_rate,
    sampled_reference,
)
from eulerian.analysis.gradient_match import GradientMatch
from eulerian.analysis.stopwatch import EvaluationCost, Seconds, clocked, evaluation_cost

pytestmark = pytest.mark.two_ranks

COST = EvaluationCost(Seconds(0.1, 0.1), Seconds(0.3, 0.4))
TRUTH = np.array([3.0, 4.0])
ONES = np.ones(2)


def mesh_trial(h: float, error: float, degree: int = 1) -> Trial:
    """Everything off by ``error``, relative to the truth."""
    gradients = (TRUTH * (1.0 + error))[None]
    return Trial(Resolution("mesh", degree, 10, h), np.array([2.0 + 2.0 * error]), gradients, 3.0 * error, COST, 0.0)


def test_two_gradients() -> None:
    scaling = np.array([2.0, 1.0])
    match = GradientMatch.of(np.array([[6.0], [0.0]]), np.array([6.0, 4.0]), scaling)
    assert match.cosine == pytest.approx(3.0 / 5.0)
    assert match.relative_error == pytest.approx(4.0 / 5.0)
    nothing = GradientMatch.of(np.zeros(2), np.zeros(2), scaling)
    assert math.isnan(nothing.cosine)
    assert math.isnan(nothing.relative_error)


def test_rates_of_every_error() -> None:
    reference = Reference("the truth", 2.0, TRUTH, 0.0)
    meshes = [Rung.of(mesh_trial(h, 0.1 * h**2), reference, ONES) for h in (0.5, 0.25, 0.125)]
    rng = np.random.default_rng(0)
    clouds = []
    for n in (100, 400, 1600):
        spread = rng.standard_normal(4000) / math.sqrt(n)
        gradients = TRUTH * (1.0 + spread[:, None])
        trial = Trial(Resolution("random", particles=n), 2.0 + 2.0 * spread, gradients, n ** (-1 / 3), COST, 0.0)
        clouds.append(Rung.of(trial, reference, ONES))
    assert list(ladders([*clouds, *meshes])) == ["random particles", "mesh, degree 1"]
    for error in ("objective_error", "gradient_error", "density_error"):
        assert observed_rate(meshes, error) == pytest.approx(2.0)
    assert observed_rate(clouds, "objective_error") == pytest.approx(0.5, abs=0.02)
    assert observed_rate(clouds, "gradient_error") == pytest.approx(0.5, abs=0.02)
    assert observed_rate(clouds, "density_error") == pytest.approx(1 / 3)
    assert math.isnan(observed_rate(meshes[:1], "density_error"))
    assert meshes[0].gradient_cosine == pytest.approx(1.0)


def test_the_finest_mesh_is_a_reference() -> None:
    rungs = [mesh_trial(h, 0.08 * h**2) for h in (1.0, 0.5, 0.25)]
    found = mesh_reference(rungs, ONES)
    assert found.value == rungs[-1].values[0]
    assert found.error == pytest.approx(0.08 * 0.25**2, rel=0.02)
    itself = Rung.of(rungs[-1], found, ONES)
    assert math.isnan(itself.gradient_error)
    assert itself.density_error == pytest.approx(3.0 * 0.08 * 0.25**2)
    assert observed_rate([Rung.of(rung, found, ONES) for rung in rungs], "gradient_error") > 2.0


def test_the_better_reference_is_taken() -> None:
    rng = np.random.default_rng(1)
    gradients = TRUTH + 0.1 * rng.standard_normal((400, 2))
    sampled = sampled_reference("400 sets", np.full(400, 2.0), gradients, ONES)
    assert sampled.error == pytest.approx(0.1 * math.sqrt(2.0 / 400) / 5.0, rel=0.1)
    coarse, fine = (mesh_reference([mesh_trial(0.5, 4 * e), mesh_trial(0.25, e)], ONES) for e in (0.1, 1e-5))
    assert best_reference((sampled, coarse)) is sampled
    assert best_reference((sampled, fine)) is fine
    assert best_reference((Reference("unknown", 0.0, TRUTH, math.nan), coarse)) is coarse
    assert disagreement(coarse, fine, ONES) == pytest.approx(0.1, rel=1e-3)


def test_times_are_of_work_that_was_done(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 1, 1)
    theta = problem.initial_theta
    problem.value(theta)
    cost = evaluation_cost(problem, theta, at_least=1e9, most=3)
    assert problem.evaluations == 4
    assert np.array_equal(problem.theta, theta)
    assert 0.0 < cost.value.wall < cost.gradient.wall
    assert 0.0 < cost.value.cpu <= cost.gradient.cpu
    assert comm.allgather(cost) == [cost] * comm.size
    result, seconds = clocked(comm, lambda: sum(range(10**6)))
    assert result == 499999500000
    # Processor time is summed over ranks.
    assert seconds.cpu > comm.size * 0.001
