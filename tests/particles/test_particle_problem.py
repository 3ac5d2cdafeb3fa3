"""J and its gradient on particles: exact values, exact derivatives, independence of ranks and memory, intervals."""

import math
from typing import Any, Literal

from mpi4py import MPI

import numpy as np
import pytest
from particle_problems import N_LABELS, normal_sample, relative_entropy, require_exact, swarm, trained_readout
from scipy.special import ndtri
from scipy.stats import qmc

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.density.shapes import Formula, Gaussian
from eulerian.fields import Affine, Mlp, Translation
from eulerian.fields.base import VectorField
from eulerian.objective.costs import Costs
from eulerian.objective.distances import KullbackLeibler, SquaredDistance
from eulerian.objective.losses import QuadraticLoss
from eulerian.particles.flow import Scheme
from eulerian.particles.kl import kl_loss
from eulerian.particles.problem import ParticleProblem
from eulerian.particles.sample import ParticleSample, share
from eulerian.transport.time_grid import TimeGrid

pytestmark = pytest.mark.two_ranks

LOSSES = {"kl": relative_entropy, "readout": trained_readout}
METHODS = ("rk4", "dopri5")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("label_dependent", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_taylor(comm: MPI.Comm, loss: str, method: Literal["rk4", "dopri5"], label_dependent: bool, tied: bool) -> None:
    """The error of a difference quotient falls by four when it is halved: all costs at work, step sizes held."""
    require_taylor(swarm(comm, LOSSES[loss](), method, label_dependent=label_dependent, tied=tied))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("label_dependent", [False, True])
def test_taylor_with_a_limit_of_the_speed(
    comm: MPI.Comm, method: Literal["rk4", "dopri5"], label_dependent: bool
) -> None:
    """Divergences and Jacobian costs go through its second derivatives."""
    options: dict[str, Any] = {"method": method, "label_dependent": label_dependent}
    free = swarm(comm, relative_entropy(), **options)
    free.value(free.initial_theta)
    limit = 0.5 * free.speed
    problem = swarm(comm, relative_entropy(), max_speed=limit, **options)
    require_taylor(problem, 5e-3)
    problem.value(problem.initial_theta)
    assert 0.8 * limit < problem.speed <= limit


def require_taylor(problem: ParticleProblem, largest: float = 2e-2) -> None:
    """The rates are two, in one direction from the initial θ, step sizes held."""
    theta = problem.initial_theta
    _, gradient = problem.value_and_gradient(theta)
    steps = problem.steps
    require_exact(gradient, theta, lambda moved: problem.value_at_steps(moved, steps), largest)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_ranks_do_not_matter(comm: MPI.Comm, loss: str, method: Literal["rk4", "dopri5"]) -> None:
    """All ranks together against every rank for itself; 2 particles leave one of 3 ranks empty."""
    for n in (2, 23):
        together, alone = (
            swarm(each, LOSSES[loss](), method, n=n, label_dependent=True) for each in (comm, MPI.COMM_SELF)
        )
        theta = alone.initial_theta
        (value, gradient), (expected, exact) = (each.value_and_gradient(theta) for each in (together, alone))
        assert value == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(together.final_points, alone.final_points[share(n, comm)], atol=1e-12)
        for mine, theirs in zip(together.moments(), alone.moments(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-14)
        assert together.outside == pytest.approx(alone.outside)
        assert together.velocity_change(theta, 0.1 * theta) == pytest.approx(alone.velocity_change(theta, 0.1 * theta))
        if n > 2:
            assert together.interval("kinetic") == pytest.approx(alone.interval("kinetic"), rel=1e-10)
            np.testing.assert_allclose(together.gradient_interval(), alone.gradient_interval(), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_memory_changes_rounding_only(comm: MPI.Comm, method: Literal["rk4", "dopri5"]) -> None:
    """Positions where layers start are enough; the others are found again."""
    plenty = swarm(comm, relative_entropy(), method, label_dependent=True)
    least = 8 * 2 * 23 * 4
    little = swarm(comm, relative_entropy(), method, label_dependent=True, memory=least)
    theta = plenty.initial_theta
    (value, gradient), (same, found) = (each.value_and_gradient(theta) for each in (plenty, little))
    assert value == same
    np.testing.assert_allclose(found, gradient, rtol=1e-11, atol=1e-13)
    with pytest.raises(InputError, match=r"solver\.memory"):
        swarm(comm, relative_entropy(), method, memory=least - 1)


def test_memory_is_kept(comm: MPI.Comm) -> None:
    problem = swarm(comm, relative_entropy(), n=100, memory=8 * 2 * 100 * 4)
    problem.value(problem.initial_theta)
    flow = problem._last_sweep
    assert flow is not None
    assert sum(path.size for path in flow.paths) <= 8 * 2 * math.ceil(100 / comm.size) * 3


def test_layers_that_are_tied_are_equal_layers(comm: MPI.Comm) -> None:
    tied, free = swarm(comm, relative_entropy(), tied=True), swarm(comm, relative_entropy())
    row = tied.initial_theta
    value, gradient = tied.value_and_gradient(row)
    expected, by_layer = free.value_and_gradient(np.repeat(row, 3, axis=0))
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient, by_layer.sum(axis=0, keepdims=True), rtol=1e-12, atol=1e-14)


# -- exact values ----------------------------------------------------------------------------------------------------


def sobol_sample(comm: MPI.Comm, mean: float, std: float, replicates: int = 8, exponent: int = 7) -> ParticleSample:
    """A normal density in one dimension on independent scrambled Sobol sets, by its quantiles."""
    sets = [qmc.Sobol(1, rng=np.random.default_rng(r)).random_base2(exponent) for r in range(replicates)]
    x = mean + std * ndtri(np.concatenate(sets))
    n, own = len(x), share(len(x), comm)
    log_density = -0.5 * ((x[:, 0] - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    replicate = np.arange(n) // 2**exponent
    labels, weights = np.zeros(n, dtype=int), np.full(n, 1 / n)
    return ParticleSample(x[own], labels[own], weights[own], log_density[own], replicate[own], independent=False)


def on_line(
    comm: MPI.Comm, sample: ParticleSample, field: VectorField, terminal: Any, layers: int, **costs: Any
) -> ParticleProblem:
    return ParticleProblem(
        sample,
        field,
        terminal,
        Costs(**costs),
        TimeGrid(1.0, layers),
        comm=comm,
        n_labels=1,
        box=[[-6.0], [6.0]],
        initial_theta=np.zeros((layers, field.n_params(1))),
        steps_per_layer=2,
    )


def trained(problem: ParticleProblem) -> Floats:
    from eulerian.optimise import minimise

    result = minimise(problem, max_iterations=200, gradient_tolerance=1e-6)
    assert result.status == "converged", result.reason
    problem.value(result.theta)
    return result.theta


TARGET = QuadraticLoss(np.array([[1.3]]), 2.0)


@pytest.mark.parametrize("random", [False, True])
def test_translation_is_trained_to_its_exact_value(comm: MPI.Comm, random: bool) -> None:
    """T1: J = 1.44375, displacement 1.0625."""
    sample = sobol_sample(comm, -0.4, 0.6)
    if random:
        draws = normal_sample(comm, 4000, np.array([-0.4]), 0.6)
        sample = ParticleSample(draws.x, 0 * draws.labels, draws.weights, draws.log_density, draws.replicate)
    problem = on_line(comm, sample, Translation(1), TARGET, 4, kinetic=0.7, parameters=0.5)
    theta = trained(problem)
    half = problem.interval(level=0.999)
    assert abs(problem.value(theta) - 1.44375) < half
    assert (0.01 if random else 1e-5) < half < (0.15 if random else 0.03)
    assert theta.mean() == pytest.approx(1.0625, abs=0.05 if random else 1e-3)


@pytest.mark.parametrize(("kinetic", "penalty", "exact"), [(0.0, 0.1, 0.265254790239), (0.7, 0.05, 0.929671095510)])
def test_affine_field_is_trained_to_its_exact_value(
    comm: MPI.Comm, kinetic: float, penalty: float, exact: float
) -> None:
    """A1; 12 layers are almost as good as any function of time."""
    sample = sobol_sample(comm, -0.4, 0.6)
    problem = on_line(comm, sample, Affine(1), TARGET, 12, kinetic=kinetic, parameters=penalty)
    theta = trained(problem)
    assert exact - problem.interval(level=0.999) < problem.value(theta) < 1.002 * exact + problem.interval(level=0.999)


def test_quadratic_potential_is_linear_quadratic(comm: MPI.Comm) -> None:
    """v = −P(t)x/λ with P' = P²/λ − k, P(T) = κ costs P(0)/2 E|x|²: the bound that a fine affine field approaches."""
    k, penalty, kappa = 2.0, 0.5, 1.5
    root = math.sqrt(k * penalty)
    rate = root / penalty
    # P = root·coth-like: solved by separation, P(0) from P(T) = κ over a time 1
    shift = math.atanh(root / kappa) if kappa > root else math.atanh(kappa / root)
    start = root / math.tanh(rate + shift) if kappa > root else root * math.tanh(rate + shift)
    exact = 0.5 * start * (0.4**2 + 0.6**2)
    sample = sobol_sample(comm, -0.4, 0.6)

    loss = QuadraticLoss(np.array([[0.0]]), kappa)
    problem = on_line(comm, sample, Affine(1), loss, 12, kinetic=penalty, potential=f"{0.5 * k} * x**2")
    theta = trained(problem)
    assert abs(problem.value(theta) - exact) < problem.interval(level=0.999) + 1e-3 * exact
    assert problem.interval() < 0.02 * exact
    assert problem.parts["potential"] > 0.1 * exact


def test_relative_entropy_of_normal_densities(comm: MPI.Comm) -> None:
    """An affine flow takes N(m, s²) to another normal density: its divergence from the target is known."""
    sample, a, b = sobol_sample(comm, -0.4, 0.6), -0.7, 0.9
    problem = on_line(comm, sample, Affine(1), KullbackLeibler(Gaussian(0.2, std=0.5)), 3)
    found = problem.value(np.tile([a, b], (3, 1)))
    mean, std = -0.4 * math.exp(a) + b * math.expm1(a) / a, 0.6 * math.exp(a)
    exact = math.log(0.5 / std) + (std**2 + (mean - 0.2) ** 2) / (2 * 0.25) - 0.5
    assert abs(found - exact) < problem.interval(level=0.999) + 1e-6
    assert problem.interval() < 1e-2
    x = problem.final_points[:, 0]
    expected = -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(problem.final_log_density(), expected, atol=1e-4)
    trained(problem)
    assert abs(problem.parts["terminal"]) < 1e-3


# -- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("independent", [True, False])
def test_intervals_cover(independent: bool) -> None:
    """Of 200 samples about 90 % have the mean within the interval of that level."""
    hits = 0
    for seed in range(200):
        draws = normal_sample(MPI.COMM_SELF, 160, np.array([0.5]), 1.0, replicates=8, seed=seed)
        sample = ParticleSample(
            draws.x, 0 * draws.labels, draws.weights, None, draws.replicate, independent=independent
        )
        problem = on_line(MPI.COMM_SELF, sample, Translation(1), QuadraticLoss(np.array([[0.0]]), 2.0), 1)
        error = problem.value([[0.0]]) - 1.25
        hits += abs(error) < problem.interval("terminal", 0.9)
    assert 166 <= hits <= 192  # three standard deviations


def test_interval_of_one_label_is_that_of_a_mean(comm: MPI.Comm) -> None:
    draws = normal_sample(comm, 50, np.array([0.5]), 1.0)
    sample = ParticleSample(draws.x, 0 * draws.labels, draws.weights, None, draws.replicate)
    problem = on_line(comm, sample, Translation(1), QuadraticLoss(np.array([[0.0]]), 2.0), 1)
    problem.value([[0.0]])
    costs = np.concatenate(comm.allgather(draws.x[:, 0] ** 2))
    expected = ndtri(0.95) * costs.std(ddof=1) / math.sqrt(50)
    assert problem.interval("terminal", 0.9) == pytest.approx(expected, rel=1e-10)
    assert problem.interval("parameters") == 0.0


@pytest.mark.one_process
def test_labels_are_strata() -> None:
    """The difference between labels is no uncertainty."""
    sample = normal_sample(MPI.COMM_SELF, 50, np.array([0.0]), 1e-3)
    loss = QuadraticLoss(np.array([[0.0], [10.0]]), 1.0)
    problem = ParticleProblem(sample, Translation(1), loss, Costs(), TimeGrid(1.0, 1), comm=MPI.COMM_SELF)
    assert problem.value([[0.0]]) == pytest.approx(25.0, rel=0.01)
    assert problem.interval() < 0.01


@pytest.mark.parametrize("tied", [False, True])
def test_gradient_of_replicates(comm: MPI.Comm, tied: bool) -> None:
    """Each is the gradient of a problem with its particles only."""
    problem = swarm(comm, relative_entropy(), n=24, tied=tied)
    theta = problem.initial_theta
    _, gradient = problem.value_and_gradient(theta)
    by_replicate = problem.gradient_by_replicate()
    assert by_replicate.shape == (4, problem.n_params)
    np.testing.assert_allclose(by_replicate.mean(axis=0), gradient.ravel(), rtol=1e-10, atol=1e-12)
    alone = swarm(MPI.COMM_SELF, relative_entropy(), n=24, tied=tied)
    chosen = alone.sample.replicate == 1
    part = alone.sample
    log_density = part.log_density
    assert log_density is not None
    alone.sample = ParticleSample(
        part.x[chosen], part.labels[chosen], part.weights[chosen] * 4, log_density[chosen], part.replicate[chosen]
    )
    np.testing.assert_allclose(by_replicate[1], alone.value_and_gradient(theta)[1].ravel(), rtol=1e-10, atol=1e-12)
    errors = by_replicate.std(axis=0, ddof=1) / 2
    np.testing.assert_allclose(problem.gradient_interval().ravel(), errors, rtol=1e-10)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_relative_entropy_needs_the_initial_density(comm: MPI.Comm) -> None:
    known = normal_sample(comm, 8, np.zeros(2), 1.0)
    assert known.log_density is not None
    for log_density in (None, np.where(np.arange(len(known.x)) == 0, -np.inf, known.log_density)):
        sample = ParticleSample(known.x, known.labels, known.weights, log_density, known.replicate)
        target = KullbackLeibler(relative_entropy())
        with pytest.raises(InputError, match="log ρ₀"):
            ParticleProblem(sample, Affine(2), target, Costs(), TimeGrid(1.0, 1), comm=comm, n_labels=N_LABELS)


def test_samples_that_do_not_fit_are_refused(comm: MPI.Comm) -> None:
    good = normal_sample(comm, 8, np.zeros(2), 1.0)
    bad = {
        "weights": ParticleSample(good.x, good.labels, 0.5 * good.weights, None, good.replicate),
        "labels": ParticleSample(good.x, good.labels + 1, good.weights, None, good.replicate),
        "x": ParticleSample(good.x * np.nan, good.labels, good.weights, None, good.replicate),
    }
    good.check(comm, N_LABELS)
    for name, sample in bad.items():
        with pytest.raises(InputError, match=f"sample.{name}"):
            sample.check(comm, N_LABELS)


@pytest.mark.parametrize("method", METHODS)
def test_a_far_off_theta_is_rejected(comm: MPI.Comm, method: Literal["rk4", "dopri5"]) -> None:
    problem = on_line(comm, sobol_sample(comm, 0.0, 1.0, exponent=3), Affine(1), TARGET, 1)
    problem.scheme = Scheme(1.0, method, max_steps=100)
    assert problem.value([[1e200, 0.0]]) == math.inf
    assert problem.rejection
    assert problem.value([[0.1, 0.0]]) < math.inf
    with pytest.raises(RejectedEvaluation):
        problem.value_at_steps([[1e200, 0.0]], problem.steps)


# -- what a user has in hand -----------------------------------------------------------------------------------------


def test_points_a_function_and_weights_are_enough(comm: MPI.Comm) -> None:
    """The same problem from plain points and a plain function as from a sample and a loss with its derivative."""
    x = np.random.default_rng(0).normal([-0.5, 0.3], 0.5, (60, 2))
    target = np.array([1.0, -0.5])
    time, costs = TimeGrid(1.0, 2), Costs(kinetic=0.5, potential=lambda x: (x**2).sum(axis=1))
    plain = ParticleProblem(x, Mlp(2, (4,)), lambda x: 0.5 * ((x - target) ** 2).sum(axis=1), costs, time, comm=comm)
    sample = ParticleSample.of(x, comm)
    same_costs = Costs(kinetic=0.5, potential="x**2 + y**2")
    same = ParticleProblem(sample, Mlp(2, (4,)), QuadraticLoss(target), same_costs, time, comm=comm)
    theta = plain.initial_theta
    np.testing.assert_array_equal(theta, same.initial_theta)
    np.testing.assert_allclose(plain.box, [x.min(axis=0), x.max(axis=0)])
    (value, gradient), (expected, slope) = plain.value_and_gradient(theta), same.value_and_gradient(theta)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-9)


def test_targets_of_labels() -> None:
    loss = kl_loss({0: [Gaussian(0.0, std=1.0), Gaussian(1.0, std=0.5)], 1: Formula("exp(-x**2/2)")}, 1, 2)
    x = np.array([[0.3], [2.0]])
    first = 0.5 * (Gaussian(0.0, std=1.0).values(x) + Gaussian(1.0, std=0.5).values(x)) * 2.0 / 3.0
    expected = np.stack([-np.log(first), 0.5 * x[:, 0] ** 2 + np.log(3.0)], axis=1)
    np.testing.assert_allclose(loss.value(x, np.zeros(0)), expected)
    for target, message in (
        (Gaussian([0.0, 0.0], std=1.0), "dimension 2"),
        (Gaussian(0.0, std=1.0), "labels"),
        ("gaussian", "no shape"),
    ):
        with pytest.raises(InputError, match=message):
            kl_loss(target, 1, 2)


def test_what_particles_cannot_have(comm: MPI.Comm) -> None:
    sample, time = normal_sample(comm, 8, np.zeros(2), 1.0), TimeGrid(1.0, 1)
    target, field = Gaussian([0.0, 0.0], std=1.0), Affine(2)
    for terminal, costs, key in (
        (QuadraticLoss(np.zeros(2)), Costs(congestion=0.1), "costs.congestion"),
        (SquaredDistance(target), Costs(), "terminal"),
    ):
        with pytest.raises(InputError, match="how dense they are") as refused:
            ParticleProblem(sample, field, terminal, costs, time, comm=comm)
        assert refused.value.key == key
    for wrong, word in ((Affine(3), "dimension"), ("affine", "field")):
        with pytest.raises(InputError, match=word):
            ParticleProblem(sample, wrong, QuadraticLoss(np.zeros(2)), Costs(), time, comm=comm)
