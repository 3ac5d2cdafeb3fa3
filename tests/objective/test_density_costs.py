"""Costs and distances of densities: closed forms, and what they do to the best flow."""

import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem, random_density, random_rows, warped_mesh

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.build.network import build
from eulerian.app.config import Box, Domain, GaussianTerm, UniformTerm, parse_config
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace
from eulerian.objective.floored_entropy import entropy, entropy_slope
from eulerian.objective.point_functions import as_point_function
from eulerian.objective.running import PotentialCost
from eulerian.objective.terminal import KullbackLeiblerLoss, SquaredDistanceLoss
from eulerian.optimise import minimise

STD = 0.4


def line(comm: MPI.Comm, cells: int = 200, degree: int = 2, n_labels: int = 1) -> DensitySpace:
    box = Box(lower=(-4.0,), upper=(4.0,), cells=(cells,))
    return DensitySpace(create_mesh(comm, Domain(box=box)), degree, n_labels)


def normal(space: DensitySpace, mean: float, std: float) -> Floats:
    return initial_density(space, [GaussianTerm(mean=(mean,), std=std)])


def summed(comm: MPI.Comm, value: float) -> float:
    return float(parallel.sum_all(comm, np.array([value]))[0])


def test_divergence_of_normal_densities(comm: MPI.Comm) -> None:
    space = line(comm)
    loss = KullbackLeiblerLoss(space, normal(space, 0.3, 0.6))
    expected = math.log(0.6 / STD) + (STD**2 + 0.3**2) / (2 * 0.6**2) - 0.5
    assert loss.evaluate(normal(space, 0.0, STD), np.zeros(0)).value == pytest.approx(expected, rel=1e-4)
    same = KullbackLeiblerLoss(space, normal(space, 0.0, STD)).evaluate(normal(space, 0.0, STD), np.zeros(0))
    assert same.value == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(same.density, 0.0, atol=1e-12)


def test_divergence_where_densities_vanish(comm: MPI.Comm) -> None:
    """Disjoint supports: infinite without a floor, about log(ρ/δ) with it."""
    space = line(comm, cells=64, degree=0)
    left = initial_density(space, [UniformTerm(lower=(-2.0,), upper=(-1.0,))])
    right = initial_density(space, [UniformTerm(lower=(1.0,), upper=(2.0,))])
    loss = KullbackLeiblerLoss(space, right).evaluate(left, np.zeros(0))
    floor = 1e-8 / 8.0
    assert space.floor == pytest.approx(floor, rel=1e-12)
    expected = (1.0 + floor) * math.log((1.0 + floor) / floor) + floor * math.log(floor / (1.0 + floor))
    assert loss.value == pytest.approx(expected, rel=1e-12)
    assert np.all(np.isfinite(loss.density))


def test_squared_distance(comm: MPI.Comm) -> None:
    space = line(comm)
    loss = SquaredDistanceLoss(space, normal(space, 0.0, 0.6))

    def product(a: float, b: float) -> float:
        return 1.0 / math.sqrt(2.0 * math.pi * (a**2 + b**2))

    expected = 0.5 * (product(STD, STD) - 2 * product(STD, 0.6) + product(0.6, 0.6))
    assert loss.evaluate(normal(space, 0.0, STD), np.zeros(0)).value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [KullbackLeiblerLoss, SquaredDistanceLoss])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_derivatives_of_distances(comm: MPI.Comm, degree: int, kind: type) -> None:
    space = DensitySpace(warped_mesh(comm, 2), degree, 2)
    rho, change = random_density(space, 2, 1), random_rows(space, 2, 2)
    rho[:, 0] += 0.1  # near zero the logarithm bends on the scale of the floor
    loss = kind(space, random_density(space, 2, 3))
    slope = summed(comm, float(np.vdot(loss.evaluate(rho, np.zeros(0)).density, change[: space.n_owned])))
    h = 1e-5
    ahead, behind = (loss.evaluate(rho + s * h * change, np.zeros(0)).value for s in (1.0, -1.0))
    assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)
    assert loss.evaluate(rho, np.zeros(0)).value > 0.0
    assert loss.initial_readout().size == 0


def test_entropy_below_zero_is_its_tangent() -> None:
    floor, rho = 1e-3, np.array([-0.2, -1e-9, 0.0, 0.3])
    h = 1e-7
    np.testing.assert_allclose(
        entropy_slope(rho, floor), (entropy(rho + h, floor) - entropy(rho - h, floor)) / (2 * h), rtol=1e-3
    )
    assert entropy(np.array([-0.2]), floor)[0] == pytest.approx(floor * math.log(floor) - 0.2 * (math.log(floor) + 1))


def test_potential_of_a_normal_density(comm: MPI.Comm) -> None:
    space = line(comm)
    total = normal(space, 0.1, STD)[: space.n_owned, :, 0]
    potential = summed(
        comm, float(np.vdot(PotentialCost(space, as_point_function("x**2/2", 1, "V")).vector(np.zeros(0)), total))
    )
    assert potential == pytest.approx(0.5 * (STD**2 + 0.01), rel=1e-5)


def test_a_potential_that_is_not_finite_is_refused(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match=r"costs\.potential"):
        PotentialCost(line(comm), as_point_function("log(x)", 1, "costs.potential"))


@pytest.mark.parametrize(("form", "tolerance"), [("density", 1e-12), ("companion", 0.03)])
def test_congestion_is_of_all_labels_together(comm: MPI.Comm, form: str, tolerance: float) -> None:
    """Two labels in the same place cost as one label of the whole mass, whoever moves them.

    Where they have velocities of their own, products of different labels are the mesh's whatever the form is.
    """
    parts = []
    for labelling in ("one label", "two labels", "a field per label"):
        terms = [
            {"kind": "gaussian", "mean": [0.0, 0.1], "std": 0.25, "label": y} for y in range(1 + (labelling[0] != "o"))
        ]
        problem = control_problem(
            comm,
            2,
            1,
            labelling,
            cells=8,
            density={"initial": terms},
            field={"zero_init": True},
            objective={
                "terminal": {"kind": "quadratic", "target": [0.0, 0.0]},
                "congestion": 0.5,
                "entropy": 0.2,
                "entropy_form": "density",
                "power_form": form,
            },
        )
        problem.value(problem.initial_theta)
        parts.append((problem.parts["congestion"], problem.parts["entropy"]))
    np.testing.assert_allclose(parts[1:], [parts[0]] * 2, rtol=tolerance)


def crowd(**objective: Any) -> dict[str, Any]:
    return {
        "domain": {"box": {"lower": [-3.0], "upper": [3.0], "cells": [80]}},
        "density": {"degree": 2, "initial": [{"kind": "gaussian", "mean": [-0.3], "std": 0.5}]},
        "field": {"kind": "linear", "features": "affine", "layers": 8},
        "objective": {"kinetic": 0.7, "terminal": {"kind": "quadratic", "target": [0.0], "weight": 1.5}, **objective},
    }


@pytest.mark.two_ranks
def test_a_quadratic_potential_is_linear_quadratic_control(comm: MPI.Comm) -> None:
    """v = −P(t)x/λ with P' = P²/λ − k, P(T) = κ, and J* = P(0)/2 (m₀² + σ₀²): affine fields attain it."""
    k, kinetic, weight = 0.8, 0.7, 1.5
    root = math.sqrt(k * kinetic)
    start = root * math.tanh(root / kinetic + math.atanh(weight / root)) if weight < root else None
    start = start if start is not None else root / math.tanh(root / kinetic + math.atanh(root / weight))
    exact = 0.5 * start * (0.3**2 + 0.5**2)
    problem = build(parse_config(crowd(potential=f"{k}*x**2/2")), comm)

    value = minimise(problem, max_iterations=40).value

    assert exact < value < 1.006 * exact
    assert problem.parts["potential"] > 0.1 * value


@pytest.mark.two_ranks
def test_congestion_flattens_the_peak(comm: MPI.Comm) -> None:
    """The stronger γ, the lower the largest density on the way; an affine field can only widen it."""
    peaks, values = [], []
    for congestion in (0.0, 0.1, 0.4, 1.6):
        config = crowd(congestion=congestion, terminal={"kind": "expression", "value": "0"})
        problem = build(parse_config(config), comm)
        values.append(minimise(problem, max_iterations=15).value)
        peaks.append(problem.density_space.extrema(problem.final_density)[1])
    assert np.all(np.diff(peaks) < -0.01), peaks
    assert np.all(np.diff(values) > 0.0), values
    assert values[0] == pytest.approx(0.0, abs=1e-12)
