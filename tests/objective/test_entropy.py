"""∫ρ log ρ by its balance: closed forms, the derivative, walls, and what an optimiser cannot gain."""

import math
from contextlib import nullcontext
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem, projected, random_rows, warped_mesh, wave
from thinning import thinned

from eulerian.analysis.verify import taylor_rates, taylor_remainders
from eulerian.app.build.mixture import exact_density
from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base import parallel
from eulerian.base.errors import EulerianWarning
from eulerian.control.control import ControlProblem
from eulerian.density.space import DensitySpace
from eulerian.objective.entropy import EntropyBalance
from eulerian.optimise import minimise
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]
DELTA = 1e-3


def total(comm: MPI.Comm, value: float) -> float:
    return float(parallel.sum_all(comm, np.array([value]))[0])


def balance_on(comm: MPI.Comm, dim: int, degree: int, delta: float = DELTA) -> EntropyBalance:
    return EntropyBalance(VelocitySpace(DensitySpace(warped_mesh(comm, dim), degree)), delta)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_what_linear_velocities_do_to_a_uniform_density(comm: MPI.Comm, dim: int, degree: int) -> None:
    """v = Ax: −tr A times the mass; where v points outwards the wall gives back what the divergence takes.

    For A = I and ρ = 1 on [-1, 1]^dim the flux through the walls is the divergence, so nothing is left; for A = −I
    the walls say nothing.
    """
    balance = balance_on(comm, dim, degree, delta=0.0)
    space = balance.space.density_space
    one = projected(space, np.ones((space.n_owned, len(space.quadrature(2).reference), 1)), space.quadrature(2))[..., 0]
    volume = total(comm, float(space.quadrature(0).weights.sum()))
    rates = [
        total(comm, float(np.vdot(balance.rate(sign * balance.space.x), one[: space.n_owned]))) for sign in (1, -1)
    ]
    assert rates[0] == pytest.approx(0.0, abs=1e-12 * volume)
    assert rates[1] == pytest.approx(dim * volume, rel=1e-12)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_the_derivative_by_the_velocity(comm: MPI.Comm, dim: int, degree: int) -> None:
    balance = balance_on(comm, dim, degree)
    x, n = balance.space.x, balance.space.density_space.n_owned
    occupation = random_rows(balance.space.density_space, 1, 3)[:n, :, 0]
    v, w, h = wave(x), wave(x, seed=5), 1e-6
    slope = total(comm, float(np.vdot(balance.velocity_gradient(v, occupation), w)))
    ahead, behind = (total(comm, float(np.vdot(balance.rate(v + s * h * w), occupation))) for s in (1.0, -1.0))
    assert slope == pytest.approx((ahead - behind) / (2.0 * h), rel=1e-7)


@pytest.mark.two_ranks
def test_the_entropy_of_densities(comm: MPI.Comm) -> None:
    """Normal: −½ log(2πe σ²) each, for labels with their share of the mass; uniform: −log volume."""
    terms: list[dict[str, Any]] = [
        {"kind": "gaussian", "mean": [0.1], "std": 0.3, "label": 0, "weight": 1.0},
        {"kind": "uniform", "lower": [-2.0], "upper": [1.0], "label": 1, "weight": 3.0},
    ]
    config = parse_config(line(terms, objective={"terminal": {"kind": "expression", "value": "0"}}))
    space = build(config, comm).density_space
    by_label, together = exact_density(space, config.density.initial).entropies(space)
    normal = -0.5 * math.log(2.0 * math.pi * math.e * 0.3**2)
    expected = [0.25 * (normal + math.log(0.25)), 0.75 * math.log(0.75 / 3.0)]
    np.testing.assert_allclose(by_label, expected, rtol=2e-3)
    assert together > by_label.sum() + 0.1  # both lie in one place


def line(initial: list[dict[str, Any]], cells: int = 60, degree: int = 1, **tables: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "domain": {"box": {"lower": [-4.0], "upper": [4.0], "cells": [cells]}},
        "density": {"degree": degree, "initial": initial},
        "field": {"kind": "linear", "features": "affine", "layers": 4},
        "objective": {"kinetic": 0.7},
    }
    for name, table in tables.items():
        config[name] = {**config[name], **table}
    return config


NORMAL = {"kind": "gaussian", "mean": [-0.4], "std": 0.6}
TARGET = {"kind": "kl", "target": [{"kind": "gaussian", "mean": [1.3], "std": 0.3}]}
RATE = 0.9  # of contraction: v = −RATE (x − 0.2)


def contracting(comm: MPI.Comm, cells: int, degree: int, form: str) -> tuple[ControlProblem, dict[str, float]]:
    objective = {"terminal": TARGET, "entropy": 0.5, "entropy_form": form}
    config = line([NORMAL], cells, degree, objective=objective, field={"theta": [[-RATE, 0.2 * RATE]]})
    problem = build(parse_config(config), comm)
    problem.value(problem.initial_theta)
    return problem, problem.parts


@pytest.mark.two_ranks
@pytest.mark.parametrize("degree", [1, 2])
def test_a_normal_density_that_is_pressed(comm: MPI.Comm, degree: int) -> None:
    """x ↦ 0.2 + (x − 0.2)e^(−rt) keeps densities normal: KL and entropy in closed form; the mesh's own are far off."""
    mean, std = 0.2 - 0.6 * math.exp(-RATE), 0.6 * math.exp(-RATE)
    kl = math.log(0.3 / std) + (std**2 + (mean - 1.3) ** 2) / (2 * 0.3**2) - 0.5
    entropy = 0.5 * (-0.5 * math.log(2 * math.pi * math.e * 0.6**2) + RATE / 2)
    coarse, fine = (contracting(comm, cells, degree, "balance")[1] for cells in (40, 80))
    for part, exact in (("terminal", kl), ("entropy", entropy)):
        assert abs(fine[part] - exact) < 0.35 * abs(coarse[part] - exact) + 1e-7
        assert fine[part] == pytest.approx(exact, rel=2e-3)
    density = contracting(comm, 80, degree, "density")[1]["entropy"]
    assert abs(density - entropy) > 3 * abs(fine["entropy"] - entropy)


@pytest.mark.parametrize("tied", thinned([True, False], {False}))
@pytest.mark.parametrize("labelling", ["one label", "two labels", "a field per label"])
@pytest.mark.parametrize("kind", ["kl", "entropy"])
def test_taylor_with_walls(comm: MPI.Comm, kind: str, labelling: str, tied: bool) -> None:
    """Densities reach the walls, and the field points through them."""
    if kind == "entropy" and labelling == "a field per label":
        pytest.skip("has no balance")
    labels = range(1 if labelling == "one label" else 2)
    target = [{"kind": "gaussian", "mean": [0.5, 0.3 * y], "std": 0.4, "label": y} for y in labels]
    quadratic = {"kind": "quadratic", "target": [0.0, 0.0]}
    problem = control_problem(
        comm,
        2,
        1,
        labelling,
        cells=4,
        density={"initial": [{"kind": "uniform", "lower": [-1, -1], "upper": [1, 1], "label": y} for y in labels]},
        field={"tied": tied},
        objective={
            "parameters_h1": 0.0,
            "congestion": 0.0,
            "terminal": {"kind": "kl", "target": target} if kind == "kl" else quadratic,
            "entropy": 0.3 if kind == "entropy" else 0.0,
            "entropy_form": "balance",
        },
    )
    theta = np.random.default_rng(4).standard_normal(problem.initial_theta.shape)
    rates = taylor_rates(taylor_remainders(problem, theta, np.random.default_rng(1)))
    assert min(rates) >= 1.9, rates


@pytest.mark.two_ranks
@pytest.mark.filterwarnings("ignore::eulerian.base.errors.EulerianWarning")
def test_an_optimiser_is_not_paid_for_walls_or_diffusion(comm: MPI.Comm) -> None:
    """Hardly any kinetic cost on a coarse mesh: KL stays ≥ 0, and the flow that is found is really good."""
    objective = {"kinetic": 1e-7, "terminal": TARGET}
    config = line([NORMAL], 24, 1, objective=objective, field={"kind": "mlp", "hidden": [8], "seed": 3})
    config["field"].pop("features")
    problem = build(parse_config(config), comm)
    value = minimise(problem, max_iterations=60).value
    assert -1e-3 < value < 0.1


@pytest.mark.two_ranks
def test_labels_that_part_keep_the_mesh_s_entropy(comm: MPI.Comm) -> None:
    initial = [{**NORMAL, "label": y} for y in (0, 1)]
    objective = {"entropy": 0.1, "terminal": {"kind": "expression", "value": "0"}}
    field = {"kind": "mlp", "hidden": [3], "label_dependent": True}
    config = line(initial, objective=objective, field=field)
    config["field"].pop("features")
    told = pytest.warns(EulerianWarning, match=r"objective\.entropy is taken from the mesh's density")
    with told if comm.rank == 0 else nullcontext():
        problem = build(parse_config(config), comm)
    assert problem.running.entropy is None
    assert problem.running.nonlinear is not None
    assert problem.running.nonlinear.entropy == 0.1


@pytest.mark.two_ranks
def test_the_best_flow_between_normal_densities(comm: MPI.Comm) -> None:
    """The minimum over (m, s) of KL + λ/(2T)((m − m₀)² + (s − s₀)²), T = 1.5, is 0.66771808228."""
    field = {"kind": "linear", "features": "affine", "layers": 16, "horizon": 1.5}
    problem = build(parse_config(line([NORMAL], 80, 2, objective={"terminal": TARGET}, field=field)), comm)
    value = minimise(problem, max_iterations=60).value
    assert value == pytest.approx(0.66771808228, rel=2e-4)
    assert value > 0.66771808228
