"""What particles pay for one another: values of the definitions, exact gradients, the same on any number of ranks."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from particle_problems import BOX, HORIZON, LAYERS, N_LABELS, normal_sample, require_exact, swarm

import eulerian as eu
from eulerian.base.errors import InputError
from eulerian.objective.time_rule import layer_rule
from eulerian.particles.sample import ParticleSample

pytestmark = pytest.mark.two_ranks

NEAR = eu.QuadraticLoss([0.3, -0.4])
KERNELS = [eu.GaussianInteraction(0.8, 0.4), eu.QuadraticInteraction(-0.5)]
TARGET = {
    0: [eu.Gaussian([0.5, -0.3], [[0.5, 0.2], [0.2, 0.8]]), eu.Uniform([-1.0, 0.0], [0.5, 1.0])],
    1: eu.Samples(np.random.default_rng(5).standard_normal((7, 2)), [0.4, 0.7]),
}
MMD = eu.MaximumMeanDiscrepancy(TARGET, 0.5, 2.0)
ENERGY = eu.InteractionEnergy(*KERNELS)
# The terminal cost, and what else there is.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mmd": (MMD, {}),
    "energy": (ENERGY, {}),
    "on the way": (NEAR, {"interaction": KERNELS}),
    "at several times": (ENERGY, {"at": [eu.CostAt(HORIZON / LAYERS, MMD, 1.5), eu.CostAt(HORIZON, ENERGY, 0.5)]}),
}


def crowd(comm: MPI.Comm, case: str, **more: Any) -> eu.ParticleProblem:
    terminal, options = CASES[case]
    return swarm(comm, terminal, **{"label_dependent": True, **options, **more})


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_exact(comm: MPI.Comm, case: str, tied: bool) -> None:
    problem = crowd(comm, case, tied=tied)
    theta = problem.initial_theta
    value, gradient = problem.value_and_gradient(theta)
    assert value == pytest.approx(sum(problem.parts.values()), rel=1e-13)
    require_exact(gradient, theta, problem.value)


@pytest.mark.parametrize("case", CASES)
def test_ranks_memory_and_replicates(comm: MPI.Comm, case: str) -> None:
    """All ranks together, with little memory, against every rank for itself; ∇J is the mean over replicates."""
    little = 8 * 2 * 24 * (LAYERS + 2)
    together, alone = crowd(comm, case, n=24, memory=little), crowd(MPI.COMM_SELF, case, n=24)
    theta = alone.initial_theta
    (value, gradient), (expected, exact) = (each.value_and_gradient(theta) for each in (together, alone))
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-12)
    by_replicate = together.gradient_by_replicate()
    np.testing.assert_allclose(by_replicate.mean(axis=0), gradient.ravel(), rtol=1e-10, atol=1e-12)
    assert alone.interval() > 0.0
    assert together.interval() == pytest.approx(alone.interval(), rel=1e-10)


def kernel(x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-0.5 * np.sum((x[:, None] - y) ** 2, axis=2) / width**2)


def interaction(x: np.ndarray) -> float:
    apart = np.sum((x[:, None] - x) ** 2, axis=2)
    return 0.5 * float(np.mean(0.8 * kernel(x, x, 0.4) - 0.25 * apart))


@pytest.mark.parametrize("label_dependent", [False, True])
def test_it_is_what_its_definition_says(label_dependent: bool) -> None:
    """Double sums over all pairs, at T and by the rule in time."""
    problem = crowd(MPI.COMM_SELF, "on the way", label_dependent=label_dependent, n=40)
    ended = crowd(MPI.COMM_SELF, "energy", label_dependent=label_dependent, n=40)
    theta = problem.initial_theta
    problem.value(theta)
    ended.value(theta)
    x, labels = problem.sample.x, problem.sample.labels
    steps = problem.scheme.steps_per_layer * LAYERS
    paths = problem.push(theta, x, labels, steps + 1)
    rule = layer_rule(problem.scheme.steps_per_layer)
    expected = sum(
        weight * HORIZON / LAYERS * interaction(paths[layer * problem.scheme.steps_per_layer + step])
        for layer in range(LAYERS)
        for step, weight in rule
    )
    assert problem.parts["interaction"] == pytest.approx(expected, rel=1e-9)
    assert ended.parts["terminal"] == pytest.approx(interaction(paths[-1]), rel=1e-9)


def test_mmd_is_what_its_definition_says() -> None:
    """By draws from the target, all pairs: within their error, label by label."""
    problem = crowd(MPI.COMM_SELF, "mmd", n=40)
    problem.value(problem.initial_theta)
    rng, n = np.random.default_rng(2), 4000
    halves = [rng.multivariate_normal([0.5, -0.3], [[0.5, 0.2], [0.2, 0.8]], n), rng.uniform([-1, 0], [0.5, 1], (n, 2))]
    chosen = rng.integers(7, size=n)
    centres = np.random.default_rng(5).standard_normal((7, 2))
    draws = [np.concatenate(halves), centres[chosen] + rng.standard_normal((n, 2)) * [0.4, 0.7]]
    # Every term has one share of the mass: two thirds for label 0, one for label 1.
    expected = 0.0
    for label, (target, mass) in enumerate(zip(draws, (2 / 3, 1 / 3), strict=True)):
        x = problem.final_points[problem.sample.labels == label]
        own = problem.masses()[label]
        both = kernel(x, target, 0.5).mean()
        itself = kernel(target[::2], target[1::2], 0.5).mean()
        expected += own**2 * kernel(x, x, 0.5).mean() - 2 * own * mass * both + mass**2 * itself
    assert problem.parts["terminal"] == pytest.approx(expected, abs=3e-3 * expected + 1e-3)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_particles_and_meshes_have_one_target(comm: MPI.Comm, dim: int) -> None:
    """A target of shapes on all of space, and the same one projected into a domain that holds it."""
    x = np.random.default_rng(0).normal(0.2, 0.5, (300, dim))
    shape = eu.Gaussian(np.linspace(0.3, -0.2, dim), std=0.6)
    space = eu.DensitySpace(eu.box_mesh([-4.0] * dim, [4.0] * dim, [[160], [40, 40], [12, 12, 12]][dim - 1], comm=comm))
    values = []
    for target in (shape, space.project(shape)):
        terminal = eu.MaximumMeanDiscrepancy(target, 0.8)
        field, time = eu.Linear(dim, "affine"), eu.TimeGrid(1.0, 1)
        problem = eu.ParticleProblem(x, field, terminal, eu.Costs(), time, comm=comm, seed=1)
        values.append(problem.value(np.full_like(problem.initial_theta, 0.1)))
    assert values[1] == pytest.approx(values[0], rel=[1e-6, 1e-5, 1e-3][dim - 1])


def test_the_optimum_is_that_of_quadratic_attraction(comm: MPI.Comm) -> None:
    """The fluctuation's P' = P²/λ − w, P(T) = κ; the sample has the moments of the density."""
    x = np.random.default_rng(1).standard_normal((64, 1))
    x = -0.4 + 0.6 * (x - x.mean()) / x.std()
    costs = eu.Costs(kinetic=0.7, interaction=eu.QuadraticInteraction(0.9))
    field, terminal = eu.Linear(1, "affine"), eu.QuadraticLoss([1.3], 2.0)
    problem = eu.ParticleProblem(x, field, terminal, costs, eu.TimeGrid(1.5, 16), comm=comm)
    result = eu.minimise(problem, max_iterations=60)
    # Velocities that are constant in a layer cost a little more than any.
    assert 0.0 < result.value / 0.69379791554 - 1.0 < 1.3e-3


def test_what_cannot_be_is_named(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match="method"):
        crowd(comm, "on the way", method="dopri5")
    assert np.isfinite(crowd(comm, "energy", method="dopri5").value(crowd(comm, "energy").initial_theta))
    formula = eu.MaximumMeanDiscrepancy({0: eu.Formula("1"), 1: eu.Gaussian([0, 0], std=1.0)}, 0.5)
    with pytest.raises(InputError, match=r"terminal\.target"):
        swarm(comm, formula)
    with pytest.raises(InputError, match=r"terminal\.target"):
        swarm(comm, eu.MaximumMeanDiscrepancy(eu.Gaussian([0, 0], std=1.0), 0.5))


def test_particles_that_fly_apart_are_a_rejected_trial(comm: MPI.Comm) -> None:
    sample = normal_sample(comm, 24, np.zeros(2), 0.6)
    terminal = eu.InteractionEnergy(eu.GaussianInteraction(1.0, 0.1))
    field, time = eu.Linear(2, "affine"), eu.TimeGrid(1.0, 2)
    problem = eu.ParticleProblem(sample, field, terminal, eu.Costs(), time, comm=comm, n_labels=N_LABELS, box=BOX)
    assert isinstance(sample, ParticleSample)
    for size in (20.0, 1e200):
        assert problem.value(np.full_like(problem.initial_theta, size)) == np.inf
        assert "particles are too far apart" in problem.rejection or "not finite" in problem.rejection
    assert np.isfinite(problem.value(problem.initial_theta))
