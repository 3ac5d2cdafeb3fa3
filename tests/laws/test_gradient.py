"""The gradient is that of the discrete J, limiter included; mass and sign are kept; whatever the terms of J are."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS, NO_DENSITY_COSTS, control_problem, limited_cells, problem_config, theta_with_layers
from thinning import thinned

from eulerian.analysis.verify import taylor_rates, taylor_remainders, verify
from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.control.control import ControlProblem
from eulerian.objective.parts import part_names

CASES = [(dim, degree, labelling) for dim in (1, 2, 3) for degree in (0, 1, 2) for labelling in LABELLINGS]
# A Latin square: every two of dimension, degree and labelling meet once.
SQUARE = [(dim, degree, LABELLINGS[(dim + degree) % 3]) for dim in (1, 2, 3) for degree in (0, 1, 2)]
OFF: dict[str, Any] = {
    "kinetic": 0.0,
    "jacobian": 0.0,
    "parameters": 0.0,
    "parameters_h1": 0.0,
    **NO_DENSITY_COSTS,
}
TRAINED = {"kind": "cross_entropy", "trainable": True, "weights": [[1.0, -0.5], [-0.3, 0.8]], "bias": [0.1, -0.2]}
# Terms of J, a weight, and the part that each of them shows up in.
TERMS: dict[str, tuple[Any, str]] = {
    "kinetic": (0.7, "kinetic"),
    "jacobian": (0.7, "jacobian"),
    "parameters": (0.7, "parameters"),
    "parameters_h1": (0.7, "parameters"),
    "potential": ("1 + x*y", "potential"),
    "congestion": (0.7, "congestion"),
    "entropy": (0.7, "entropy"),
}
TARGET = [
    {"kind": "gaussian", "mean": [0.2, -0.1], "std": 0.25, "label": 0, "weight": 2.0},
    {"kind": "uniform", "lower": [-0.4, -0.4], "upper": [0.4, 0.5], "label": 1},
]


@pytest.mark.parametrize(("dim", "degree", "labelling"), thinned(CASES, SQUARE))
def test_laws_with_the_limiter_at_work(comm: MPI.Comm, dim: int, degree: int, labelling: str) -> None:
    problem = control_problem(comm, dim, degree, labelling)

    laws = verify(problem, theta_with_layers(problem), np.random.default_rng(0))

    assert degree == 0 or limited_cells(problem) >= 20
    assert len(laws.taylor_rates) >= 3
    assert min(laws.taylor_rates) >= 1.9, laws
    assert laws.dot_error <= 1e-13
    assert laws.mass_error <= 1e-12
    assert laws.min_density >= -1e-12


@pytest.mark.parametrize(("dim", "degree", "labelling"), thinned(SQUARE, SQUARE[::4]))
def test_laws_with_a_limit_of_the_speed(comm: MPI.Comm, dim: int, degree: int, labelling: str) -> None:
    """In the user's units, and low enough to bend most of the velocities."""
    free = control_problem(comm, dim, degree, labelling)
    theta = theta_with_layers(free)
    free.value(theta)
    limit = 0.3 * free.speed
    problem = control_problem(comm, dim, degree, labelling, field={"max_speed": limit})

    laws = verify(problem, theta, np.random.default_rng(0))

    problem.value(theta)
    assert 0.6 * limit < problem.speed <= limit
    assert len(laws.taylor_rates) >= 3
    assert min(laws.taylor_rates) >= 1.9, laws
    assert max(laws.dot_error, laws.mass_error / 10.0) <= 1e-13
    assert laws.min_density >= -1e-12


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("degree", thinned([0, 1, 2], {2}))
def test_every_term_by_itself(comm: MPI.Comm, degree: int, term: str) -> None:
    weight, part = TERMS[term]
    objective = {**OFF, term: weight, "terminal": constant_loss(0.0)}
    problem = control_problem(comm, 2, degree, cells=4, objective=objective)
    theta = theta_with_layers(problem)

    value = problem.value(theta)

    assert set(problem.parts) == set(part_names())
    assert value == problem.parts[part]
    assert abs(value) > 1e-3
    assert all(problem.parts[name] == 0.0 for name in part_names() if name != part)
    assert min(taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(1)))) >= 1.9


def constant_loss(value: float) -> dict[str, Any]:
    return {"kind": "expression", "value": f"{value}"}


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_the_terminal_loss_by_itself(comm: MPI.Comm, degree: int) -> None:
    problem = control_problem(comm, 2, degree, cells=4, objective=OFF)
    theta = theta_with_layers(problem)

    assert problem.value(theta) == problem.parts["terminal"] > 0.0
    assert min(taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(1)))) >= 1.9


@pytest.mark.parametrize("labelling", LABELLINGS[1:])
@pytest.mark.parametrize("kind", ["kl", "l2"])
@pytest.mark.parametrize("degree", thinned([0, 1, 2], {1, 2}, {2}))
def test_the_distance_to_a_target_by_itself(comm: MPI.Comm, degree: int, kind: str, labelling: str) -> None:
    """The target of label 1 is zero on most of the domain, and so are parts of the densities."""
    objective = {**OFF, "terminal": {"kind": kind, "target": TARGET}}
    problem = control_problem(comm, 2, degree, labelling, cells=4, objective=objective)
    theta = theta_with_layers(problem)

    assert problem.value(theta) == problem.parts["terminal"] > 0.0
    assert min(taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(1)))) >= 1.9


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_tied_layers(comm: MPI.Comm, labelling: str) -> None:
    """One row for all layers: J is that of equal rows, the gradient their sum."""
    objective = {"parameters_h1": 0.0}  # of equal rows it is 0, but not its gradient
    tied = control_problem(comm, 2, 1, labelling, cells=4, field={"tied": True}, objective=objective)
    free = control_problem(comm, 2, 1, labelling, cells=4, objective=objective)
    row = theta_with_layers(tied)
    assert row.shape == (1, free.layer_shape[1])
    rows = np.repeat(row, free.n_layers, axis=0)

    value, gradient = tied.value_and_gradient(row)
    expected, gradients = free.value_and_gradient(rows)

    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient[0], gradients.sum(axis=0), rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(tied.split(row)[0], rows)
    assert tied.gradient_norm(row) == pytest.approx(free.gradient_norm(rows * free.scaling[0] ** 2 / 0.6))


@pytest.mark.parametrize("labelling", LABELLINGS[1:])
def test_a_readout_trained_with_the_field(comm: MPI.Comm, labelling: str) -> None:
    problem = control_problem(comm, 2, 1, labelling, objective={"terminal": TRAINED})
    layers = problem.initial_theta.size - 6
    np.testing.assert_array_equal(problem.initial_theta[layers:], [1.0, -0.5, -0.3, 0.8, 0.1, -0.2])
    theta = theta_with_layers(problem)

    laws = verify(problem, theta, np.random.default_rng(2))

    assert min(laws.taylor_rates) >= 1.9, laws
    _, gradient = problem.value_and_gradient(theta)
    assert gradient.shape == theta.shape == (problem.n_params,)
    assert np.all(np.abs(gradient[layers:]) > 1e-4)


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_the_gradient_at_rest(comm: MPI.Comm, labelling: str) -> None:
    """At v = 0 every facet sits where |v·n| is smoothed; no two layers differ, so the H¹ term is flat."""
    problem = control_problem(comm, 2, 1, labelling, field={"zero_init": True})
    theta = problem.initial_theta
    assert problem.velocity_change(np.zeros_like(theta), theta) == 0.0

    rates = taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(0)))

    assert min(rates) >= 1.9, rates


def test_parameter_costs_in_closed_form(comm: MPI.Comm) -> None:
    objective = {**OFF, "parameters": 0.3, "terminal": constant_loss(0.0)}
    theta = np.array([[0.1, 0.2], [0.0, -0.3], [0.4, 0.1]])

    problem = translation_problem(comm, objective)
    assert problem.value(theta) == pytest.approx(0.5 * 0.3 * 0.2 * np.sum(theta**2), rel=1e-14)

    problem = translation_problem(comm, {**objective, "parameters": 0.0, "parameters_h1": 0.5})
    # θ̇ is the difference quotient between the middles of neighbouring layers.
    expected = 0.5 * 0.5 * 0.2 * np.sum((np.diff(theta, axis=0) / 0.2) ** 2)
    assert problem.value(theta) == pytest.approx(expected, rel=1e-14)


def translation_problem(comm: MPI.Comm, objective: dict[str, Any]) -> ControlProblem:
    config = problem_config(2, 1, objective=objective)
    config["field"] = {"kind": "linear", "features": "translation", "layers": 3, "horizon": 0.6}
    return build(parse_config(config), comm)


def test_kinetic_cost_of_a_translation(comm: MPI.Comm) -> None:
    """|v|² is constant, so λ/2 ∫∫|v|²ρ = λ/2 |v|² T exactly, whatever the density does."""
    problem = translation_problem(comm, {**OFF, "kinetic": 0.7, "terminal": constant_loss(2.5)})
    theta = np.tile([0.3, -0.4], (3, 1))

    problem.value(theta)

    assert problem.parts["kinetic"] == pytest.approx(0.5 * 0.7 * 0.25 * 0.6, rel=1e-12)
    assert problem.parts["terminal"] == pytest.approx(2.5, rel=1e-12)
