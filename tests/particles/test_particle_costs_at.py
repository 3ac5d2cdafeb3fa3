"""Particles that pay at several times: exact gradients, J as a sum, the optimum of the composed problem."""

from typing import Any, Literal

from mpi4py import MPI

import numpy as np
import pytest
from particle_problems import HORIZON, LAYERS, normal_sample, relative_entropy, require_exact, swarm, trained_readout
from test_particle_problem import METHODS, sobol_sample, trained

from eulerian.base.errors import InputError
from eulerian.density.shapes import Gaussian
from eulerian.fields import Affine
from eulerian.objective.cost_at import CostAt
from eulerian.objective.costs import Costs
from eulerian.objective.distances import FixedDensity, KullbackLeibler, SquaredDistance
from eulerian.objective.losses import QuadraticLoss
from eulerian.objective.point_loss import PointLoss
from eulerian.particles.problem import ParticleProblem
from eulerian.transport.time_grid import TimeGrid

pytestmark = pytest.mark.two_ranks

FIRST, SECOND = HORIZON / LAYERS, 2 * HORIZON / LAYERS
NEAR = QuadraticLoss(np.array([0.3, -0.4]))
# The terminal loss, and costs at given times.
CASES: dict[str, tuple[PointLoss, list[CostAt]]] = {
    "losses, two at T": (NEAR, [CostAt(SECOND, NEAR, 2.0), CostAt(HORIZON, trained_readout())]),
    "kl before": (NEAR, [CostAt(FIRST, KullbackLeibler(relative_entropy()), 1.5)]),
    "kl at all times": (
        relative_entropy(),
        [CostAt(SECOND, relative_entropy(), 0.5), CostAt(FIRST, relative_entropy(), 2.0)],
    ),
    "readouts": (trained_readout(), [CostAt(SECOND, trained_readout(), 0.7), CostAt(FIRST, trained_readout(), 2.0)]),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_exact(comm: MPI.Comm, case: str, method: Literal["rk4", "dopri5"], tied: bool) -> None:
    loss, at = CASES[case]
    problem = swarm(comm, loss, method, label_dependent=True, tied=tied, at=at)
    theta = problem.initial_theta
    value, gradient = problem.value_and_gradient(theta)
    assert value == pytest.approx(sum(problem.parts.values()), rel=1e-13)
    assert abs(problem.parts["intermediate"]) > 0.05
    steps = problem.steps
    require_exact(gradient, theta, lambda moved: problem.value_at_steps(moved, steps))


@pytest.mark.parametrize("case", CASES)
def test_ranks_memory_and_replicates(comm: MPI.Comm, case: str) -> None:
    """All ranks together, with little memory, against every rank for itself; ∇J is the mean over replicates."""
    loss, at = CASES[case]
    layers = {cost.time for cost in at} | {HORIZON}
    little = 8 * 2 * 24 * (LAYERS + len(layers))
    together = swarm(comm, loss, n=24, label_dependent=True, memory=little, at=at)
    alone = swarm(MPI.COMM_SELF, loss, n=24, label_dependent=True, at=at)
    theta = alone.initial_theta
    (value, gradient), (expected, exact) = (each.value_and_gradient(theta) for each in (together, alone))
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-12)
    by_replicate = together.gradient_by_replicate()
    np.testing.assert_allclose(by_replicate.mean(axis=0), gradient.ravel(), rtol=1e-10, atol=1e-12)
    assert alone.interval("intermediate") > 0.0
    assert together.interval("intermediate") == pytest.approx(alone.interval("intermediate"), rel=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_j_is_the_sum_over_the_times(comm: MPI.Comm, case: str) -> None:
    """What a cost adds is what a problem that ends there has as its terminal cost."""
    loss, at = CASES[case]
    whole = swarm(comm, loss, at=at)
    rows, readout = whole.split(whole.initial_theta)
    whole.value(whole.initial_theta)
    found = 0.0
    for cost, own in zip(sorted(at, key=lambda each: each.time), whole.ends.costs[1:], strict=True):
        layers = round(LAYERS * cost.time / HORIZON)
        short = ParticleProblem(
            whole.sample,
            whole.field,
            cost.cost,
            Costs(),
            TimeGrid(cost.time, layers),
            comm=comm,
            n_labels=whole.n_labels,
            steps_per_layer=2,
        )
        found += cost.weight * short.value(
            np.concatenate([rows[:layers].ravel(), readout[own.readout]]).reshape(short.initial_theta.shape)
        )
    parts, bare = whole.parts, swarm(comm, loss)
    bare.value(np.concatenate([rows.ravel(), readout[: loss.n_readout]]).reshape(bare.initial_theta.shape))
    later = parts["terminal"] + parts["intermediate"] - bare.parts["terminal"]
    assert later == pytest.approx(found, rel=1e-12)


def test_a_cost_without_weight_is_no_part(comm: MPI.Comm) -> None:
    bare, more = (swarm(comm, NEAR, at=at) for at in ([], [CostAt(FIRST, NEAR, 0.0)]))
    (value, gradient), (same, equal) = (each.value_and_gradient(each.initial_theta) for each in (bare, more))
    assert value == same
    np.testing.assert_array_equal(gradient, equal)


def test_the_optimum_is_that_of_the_composed_problem(comm: MPI.Comm) -> None:
    """Q1a with ½|x + 0.2|² at T/2: J* = 0.72682783018867 for any velocity; those of 12 layers come close."""
    at = [CostAt(0.75, QuadraticLoss([-0.2]))]
    problem = ParticleProblem(
        sobol_sample(comm, -0.4, 0.6, exponent=9),
        Affine(1),
        QuadraticLoss([1.3], 2.0),
        Costs(kinetic=0.7),
        TimeGrid(1.5, 12),
        at=at,
        comm=comm,
        initial_theta=np.zeros((12, 2)),
    )
    value = problem.value(trained(problem))
    half = problem.interval(level=0.999)
    assert half < 2e-3
    assert -half < value - 0.72682783018867 < half + 2e-3


@pytest.mark.parametrize(
    ("at", "key", "words"),
    [
        (CostAt(0.3, NEAR), r"at\[0\].time", "not the end of a layer"),
        (CostAt(1.0, SquaredDistance(Gaussian([0.0, 0.0], std=1.0))), r"at\[0\]", "how dense they are"),
        (CostAt(1.0, FixedDensity(Gaussian([0.0, 0.0], std=1.0))), r"at\[0\]", "held to a final density"),
        (CostAt(1.0, KullbackLeibler(Gaussian([0.0], std=1.0))), r"at\[0\].target", "dimension"),
        (CostAt(1.0, QuadraticLoss([0.0])), r"at\[0\].target", "dimension"),
    ],
)
def test_what_particles_cannot_have_is_named(comm: MPI.Comm, at: CostAt, key: str, words: str) -> None:
    sample = normal_sample(comm, 8, np.zeros(2), 1.0)
    with pytest.raises(InputError, match=f"{key}.*{words}"):
        ParticleProblem(sample, Affine(2), NEAR, Costs(), TimeGrid(2.0, 2), at=[at], comm=comm, n_labels=2)


def test_a_relative_entropy_on_the_way_needs_the_initial_density(comm: MPI.Comm) -> None:
    known: Any = normal_sample(comm, 8, np.zeros(2), 1.0)
    sample = type(known)(known.x, known.labels, known.weights, None, known.replicate)
    at = [CostAt(1.0, KullbackLeibler(relative_entropy()))]
    with pytest.raises(InputError, match="log ρ₀"):
        ParticleProblem(sample, Affine(2), NEAR, Costs(), TimeGrid(2.0, 2), at=at, comm=comm, n_labels=2)
