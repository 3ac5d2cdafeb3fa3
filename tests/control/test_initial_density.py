"""J(θ, ρ₀): Taylor rates by ρ₀, what J is of a mesh function, zeros, and φ₀ of Hopf–Lax at the optimum."""

import math
from itertools import pairwise
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, box_space, control_problem, random_rows, theta_with_layers
from thinning import thinned

import eulerian as eu
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.density.gathered import GatheredDensity
from eulerian.objective.floored_entropy import entropy

TARGET = [
    {"kind": "gaussian", "mean": [0.2, -0.1], "std": 0.25, "label": 0, "weight": 2.0},
    {"kind": "uniform", "lower": [-0.4, -0.4], "upper": [0.4, 0.5], "label": 1},
]
# Distances, and the forms in which they and the costs of the density are taken.
COSTS: dict[str, Any] = {
    "every cost": {},
    "kl": {"terminal": {"kind": "kl", "target": TARGET}},
    "l2": {"terminal": {"kind": "l2", "target": TARGET}},
    "kl of the mesh": {"terminal": {"kind": "kl", "target": TARGET}, "entropy_form": "density"},
}
CASES = [(dim, degree, labelling, "every cost") for dim in (1, 2) for degree in (0, 1, 2) for labelling in LABELLINGS]
CASES += [(3, 1, LABELLINGS[0], "every cost")]
CASES += [(2, degree, labelling, cost) for degree in (1, 2) for labelling in LABELLINGS[1:] for cost in list(COSTS)[1:]]
ON_RANKS = [(2, 2, LABELLINGS[1], "kl"), (2, 1, LABELLINGS[2], "l2"), (1, 1, LABELLINGS[0], "every cost")]


def steps_towards(value: Any, exact: float, start: float, size: float) -> tuple[list[float], float]:
    """Taylor rates over halved steps, and the size of the last remainder relative to J."""
    remainders = [abs(value(size * 0.5**k) - start - size * 0.5**k * exact) for k in range(5)]
    rates = [math.log2(a / b) for a, b in pairwise(remainders)]
    return rates, remainders[-1] / abs(start)


@pytest.mark.parametrize(("dim", "degree", "labelling", "cost"), thinned(CASES, ON_RANKS, ON_RANKS[:2]))
def test_taylor_rates_by_the_initial_density(comm: MPI.Comm, dim: int, degree: int, labelling: str, cost: str) -> None:
    """Mass is moved between cells; with the limiter at work, and all that J takes from ρ₀ besides its transport."""
    problem = control_problem(comm, dim, degree, labelling, objective=COSTS[cost])
    theta, rho = theta_with_layers(problem), problem.initial.to_array()
    share = np.random.default_rng(5).uniform(-1.0, 1.0, (len(rho), 1, rho.shape[2]))

    value, by_theta, by_rho = problem.value_and_gradients(theta, rho)

    assert by_rho.shape == rho.shape
    assert by_theta.shape == theta.shape
    # Small steps along a line where the limiter switches nowhere: there J has a kink.
    rates, rest = steps_towards(
        lambda t: problem.value_from(theta, rho * (1.0 + t * share)), np.sum(by_rho * rho * share), value, 1e-4
    )
    assert min(rates) >= 1.9, rates
    assert rest < 1e-7


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_the_gradient_by_theta_is_that_of_the_same_function(comm: MPI.Comm, labelling: str) -> None:
    problem = control_problem(comm, 2, 1, labelling, cells=4)
    theta, rho = theta_with_layers(problem), problem.initial.to_array()
    rho = rho * np.random.default_rng(1).uniform(0.5, 1.5, (len(rho), 1, rho.shape[2]))
    value, by_theta, _ = problem.value_and_gradients(theta, rho)
    change = np.random.default_rng(2).standard_normal(theta.shape)
    rates, _ = steps_towards(
        lambda t: problem.value_from(theta + t * change, rho), np.sum(by_theta * change), value, 1e-4
    )
    assert min(rates) >= 1.9, rates


def test_what_j_is_of_a_mesh_function(comm: MPI.Comm) -> None:
    """Linear costs do not ask what ρ₀ was before its projection; entropies are those of the mesh function."""
    problem = control_problem(comm, 2, 2, objective={"congestion": 0.0, "entropy": 0.0})
    theta = theta_with_layers(problem)
    assert problem.value_from(theta, problem.initial) == pytest.approx(problem.value(theta), rel=1e-14)

    problem = control_problem(comm, 2, 2, objective={"congestion": 0.0, "entropy": 0.3})
    value, parts = problem.value(theta), problem.parts
    other = problem.value_from(theta, problem.initial)
    space = problem.density_space
    rule = space.quadrature(space.objective_degree)
    rho = space.evaluate(problem.initial.coefficients, rule.reference)[..., 0]
    local = float(np.sum(rule.weights * (entropy(rho, space.floor) - entropy(np.zeros(1), space.floor))))
    exact = problem.initial.exact
    assert exact is not None
    wanted = 0.3 * problem.horizon * (comm.allreduce(local) - exact.entropies(space)[1])
    assert wanted != 0.0
    assert other - value == pytest.approx(wanted, rel=1e-9)
    assert problem.parts["entropy"] - parts["entropy"] == pytest.approx(wanted, rel=1e-9)


def test_evaluations_are_kept_and_do_not_mix(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, LABELLINGS[1], cells=4)
    theta, rho = theta_with_layers(problem), problem.initial.to_array()
    own, gradient = problem.value_and_gradient(theta)
    value = problem.value_from(theta, rho)
    assert value != own  # squares and entropies
    count = problem.evaluations
    again, by_theta, by_rho = problem.value_and_gradients(theta, rho.copy())
    assert (again, problem.evaluations) == (value, count)
    by_rho[:] = 0.0  # the caller's own copy
    assert np.any(problem.value_and_gradients(theta, rho)[2])
    assert problem.evaluations == count
    # What is next to nothing is nothing again, to the last bit.
    assert problem.value(theta) == own
    np.testing.assert_array_equal(problem.value_and_gradient(theta)[1], gradient)
    assert problem.value_from(theta, 2.0 * rho) != value
    np.testing.assert_array_equal(problem.value_and_gradients(theta, rho)[1], by_theta)


def test_rejected_evaluations_have_no_derivatives(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    theta, rho = theta_with_layers(problem), problem.initial.to_array()
    value, by_theta, by_rho = problem.value_and_gradients(1e9 * theta, rho)
    assert value == math.inf
    assert problem.rejection
    assert not np.any(by_theta)
    assert not np.any(by_rho)
    assert by_rho.shape == rho.shape
    assert math.isfinite(problem.value_and_gradients(theta, rho)[0])


def test_what_is_no_density_is_refused(comm: MPI.Comm) -> None:
    problem = control_problem(comm, 2, 1, cells=4)
    rho = problem.initial.to_array()
    with pytest.raises(InputError, match=r"rho0: coefficients of all cells are an array \(32, 3, 1\)"):
        problem.value_from(problem.initial_theta, rho[1:])
    broken = rho.copy()
    broken[3, 0] = np.nan
    with pytest.raises(InputError, match="rho0: holds numbers that are not finite"):
        problem.value_and_gradients(problem.initial_theta, broken)
    other = control_problem(comm, 2, 1, cells=4)
    with pytest.raises(InputError, match="rho0: is of another space"):
        problem.value_from(problem.initial_theta, other.initial)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_where_the_density_is_zero(comm: MPI.Comm, degree: int) -> None:
    """There it is the adjoint state: the one-sided derivative by mass that the limiter leaves alone."""
    problem = one_sided_problem(comm, degree)
    theta, space = problem.initial_theta, problem.density_space
    rho = problem.initial.to_array()
    zero = np.all(rho == 0.0, axis=(1, 2))
    assert np.mean(zero) > 0.3

    value, _, by_rho = problem.value_and_gradients(theta, rho)

    # So wide a bump that nothing of it is limited: it is a linear function in the middle of the empty part.
    bump = GatheredDensity.gather(space, space.project(eu.Gaussian([1.5], std=0.3)).coefficients).coefficients
    linear = ControlProblem(
        space, problem.field, problem.initial, problem.terminal.loss, problem.costs, problem.grid, limiter=False
    )
    exact = linear.value_from(theta, rho + 1e-3 * bump) - linear.value_from(theta, rho)
    assert np.sum(by_rho * bump) == pytest.approx(1e3 * exact, rel=2e-2)
    change = problem.value_from(theta, rho + 1e-3 * bump) - value
    assert np.sum(by_rho * bump) == pytest.approx(1e3 * change, rel=2e-2)
    # Deep within, where mass never comes, nothing is limited: it is that of the linear scheme to rounding.
    x = GatheredDensity.gather(space, problem.initial.coefficients).vertices.mean(axis=1)[:, 0]
    np.testing.assert_allclose(by_rho[x > 2.2], linear.value_and_gradients(theta, rho)[2][x > 2.2], rtol=1e-9)


def one_sided_problem(comm: MPI.Comm, degree: int) -> ControlProblem:
    """Mass on the left, and so few steps that most of the right stays empty."""
    space = eu.DensitySpace(eu.box_mesh([-3.0], [3.0], [60], comm=comm), degree)
    time, costs = eu.TimeGrid(0.2, 2), eu.Costs(kinetic=0.5, potential="x**2/10")
    theta = np.array([0.1, 0.2])
    rho = space.project(eu.Uniform([-2.0], [-1.0]))
    return ControlProblem(space, eu.Linear(1, "affine"), rho, "(x - 1)**2", costs, time, initial_theta=theta)


# -- φ₀ ----------------------------------------------------------------------------------------------------------------


def optimal_flow(comm: MPI.Comm, dim: int, cells: int, degree: int, layers: int, *, limiter: bool) -> ControlProblem:
    """The optimum of a quadratic loss, whose velocities −s/(1 − ts)(x − c) an affine field has.

    Layers have one velocity each, that which takes every point from where it is at the layer's start to where it is at
    its end.
    """
    weight, horizon, centre, kinetic = 1.0, 1.0, np.array([1.0, -0.5])[:dim], 0.5
    space = box_space(comm, dim, cells, degree)
    s = weight / (kinetic / horizon + weight) / horizon
    reached = 1.0 - s * np.linspace(0.0, horizon, layers + 1)
    rates = np.diff(np.log(reached)) * layers / horizon
    theta = np.array([np.concatenate([(a * np.eye(dim)).ravel(), -a * centre]) for a in rates])
    return ControlProblem(
        space,
        eu.Linear(dim, "affine"),
        space.project(eu.Gaussian(np.array([-0.5, 0.3])[:dim], std=0.5)),
        eu.QuadraticLoss(centre, weight),
        eu.Costs(kinetic=kinetic),
        eu.TimeGrid(horizon, layers),
        initial_theta=theta,
        limiter=limiter,
    )


def points(dim: int) -> Floats:
    """Where potentials are compared, (500, dim)."""
    return np.random.default_rng(0).uniform(-2.0, 2.0, (500, dim))


def exact_potential(problem: ControlProblem) -> Floats:
    """φ₀ of Hopf–Lax at ``points``, (500,). Collective."""
    space, loss = problem.density_space, problem.terminal.loss
    ideal = eu.IdealProblem(space, problem.initial, loss, problem.costs.kinetic, problem.horizon)
    return eu.hopf_lax(ideal).potential(points(space.dim))[:, 0]


def errors_of_potential(problem: ControlProblem, theta: Floats, exact: Floats) -> tuple[float, float]:
    """|φ_h − φ₀| of φ_h = dJ/dρ₀: the largest in a box, and the mean over the mass. Collective."""
    space = problem.density_space
    _, _, by_rho = problem.value_and_gradients(theta, problem.initial)
    phi, x = space.from_array(space.representative(by_rho)), points(space.dim)
    error, mass = np.abs(phi(x)[:, 0] - exact), problem.initial(x)[:, 0]
    return float(error.max()), float((error * mass).sum() / mass.sum())


REFINED = {1: (20, 40, 80), 2: (8, 16, 32)}


@pytest.mark.parametrize(("dim", "degree"), thinned([(1, 1), (1, 2), (2, 1), (2, 2)], [(2, 2)]))
def test_the_derivative_is_the_potential_of_hopf_lax(comm: MPI.Comm, dim: int, degree: int) -> None:
    """All over the domain with the linear scheme; with the limiter, which is of ρ₀'s own making, where mass is."""
    linear, limited = [], []
    exact = exact_potential(optimal_flow(comm, dim, REFINED[dim][0], degree, 1, limiter=True))
    for cells in REFINED[dim]:
        layers = cells // 2 if dim == 2 else cells // 5
        problem = optimal_flow(comm, dim, cells, degree, layers, limiter=False)
        linear.append(errors_of_potential(problem, problem.initial_theta, exact)[0])
        problem = optimal_flow(comm, dim, cells, degree, layers, limiter=True)
        limited.append(errors_of_potential(problem, problem.initial_theta, exact)[1])
    assert min(math.log2(a / b) for a, b in pairwise(linear)) > 1.7, linear
    assert linear[-1] < 0.02
    assert min(math.log2(a / b) for a, b in pairwise(limited)) > 1.7, limited
    assert limited[-1] < 0.02


@pytest.mark.one_process
def test_a_free_velocity_finds_a_potential_that_is_no_parabola(comm: MPI.Comm) -> None:
    space = box_space(comm, 1, 60, 1, size=2.5)
    rho = space.project(eu.Gaussian([0.25], std=0.5))
    nodal, costs = eu.Nodal(eu.velocity_nodes(space)), eu.Costs(kinetic=2.0)
    problem = ControlProblem(space, nodal, rho, "(x**2 - 1)**2/4", costs, eu.TimeGrid(1.0, 6))
    exact = exact_potential(problem)
    before = errors_of_potential(problem, problem.initial_theta, exact)[1]
    found = eu.minimise(problem, max_iterations=60)
    after = errors_of_potential(problem, found.theta, exact)[1]
    assert after < 5e-4 < 0.02 * before


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_densities_as_arrays(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 4, 2, 2)
    rho = random_rows(space, 2, 3)
    cells = space.n_cells_global
    array = np.random.default_rng(3).standard_normal((cells, space.nd, 2))  # what random_rows has drawn
    density = space.from_array(array)
    np.testing.assert_array_equal(density.coefficients, rho)
    np.testing.assert_array_equal(density.to_array(), array)
    # ∫φψ of the function φ that represents the derivative ψ ↦ Σ array · ψ.
    phi, psi = (
        space.from_array(space.representative(array)),
        space.project({0: eu.Gaussian([0.0, 0.0], std=1.0), 1: eu.Gaussian([0.5, 0.0], std=1.0)}),
    )
    rule = space.quadrature(2 * space.degree)
    both = [space.evaluate(each.coefficients, rule.reference) for each in (phi, psi)]
    integral = comm.allreduce(float(np.einsum("cq,cqk,cqk->", rule.weights, *both)))
    assert integral == pytest.approx(float(np.sum(array * psi.to_array())), rel=1e-10)


@pytest.mark.parametrize("degree", [1, 2])
def test_the_derivative_of_the_limiter(comm: MPI.Comm, degree: int) -> None:
    space = box_space(comm, 2, 4, degree, 2)
    rho, g, change = (random_rows(space, 2, seed)[: space.n_owned] for seed in (1, 2, 3))
    rho[:, 0] = np.abs(rho[:, 0])
    rho[:2, 0] = 0.0  # empty cells lose their higher modes
    change[:2] = 0.0

    def limited(t: float) -> float:
        moved = rho + t * change
        space.limit(moved)
        return float(np.sum(g * moved))

    exact = float(np.sum(space.limit_vjp(rho, g) * change))
    start = np.sum(g * limited_copy(space, rho))
    assert start != pytest.approx(np.sum(g * rho))
    assert (limited(1e-6) - limited(-1e-6)) / 2e-6 == pytest.approx(exact, rel=1e-6)


def limited_copy(space: eu.DensitySpace, rho: Floats) -> Floats:
    found = rho.copy()
    space.limit(found)
    return found
