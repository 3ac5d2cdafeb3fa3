"""Minima of the affine problem: exact values, constant running cost, envelope identities, layers and iterations."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
import scipy.optimize
from problems import orders
from thinning import thinned

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.optimise import OptimiseResult, minimise

# What a minimum is like is found out on one rank, that two find it too on two; a line is cut alike by two and by three.
pytestmark = pytest.mark.two_ranks

# v = ax + b on N(-.4, .6²), loss |x - 1.3|², T = 1.
MEAN, STD, TARGET, WEIGHT = -0.4, 0.6, 1.3, 2.0
# λ, ε, the exact minimum over functions of time, and how near 16 layers come to it.
EXACT = [(0.7, 0.5, 1.311071967431, 1e-4), (0.7, 0.05, 0.929671095510, 2e-4), (0.0, 0.1, 0.265254790239, 6e-4)]


def affine(
    comm: MPI.Comm, layers: int, kinetic: float, parameters: float, features: str = "affine", **solver: Any
) -> ControlProblem:
    return build(
        parse_config(
            {
                "domain": {"box": {"lower": [-4.0], "upper": [4.0], "cells": [48]}},
                "density": {"degree": 2, "initial": [{"kind": "gaussian", "mean": [MEAN], "std": STD}]},
                "field": {"kind": "linear", "features": features, "layers": layers},
                "objective": {
                    "kinetic": kinetic,
                    "parameters": parameters,
                    "terminal": {"kind": "quadratic", "target": [TARGET], "weight": WEIGHT},
                },
                "solver": solver,
            }
        ),
        comm,
    )


def solved(problem: ControlProblem, tolerance: float = 1e-6) -> OptimiseResult:
    result = minimise(problem, max_iterations=200, gradient_tolerance=tolerance)
    assert result.status == "converged", result.reason
    problem.value(result.theta)
    return result


def layered(theta: Floats, kinetic: float, parameters: float) -> float:
    """J of the affine problem for θ (L, 2) = (a, b) constant in layers, in closed form."""
    theta = theta.reshape(-1, 2)
    dt, mean, variance, cost = 1.0 / len(theta), MEAN, STD**2, 0.0
    for a, b in theta:
        a = a if abs(a) > 1e-9 else 1e-9
        speed = a * mean + b
        growth = np.exp(a * dt)
        cost += 0.5 * kinetic * (speed**2 + a**2 * variance) * (growth**2 - 1.0) / (2.0 * a)
        cost += 0.5 * parameters * dt * (a**2 + b**2)
        mean, variance = mean + speed * (growth - 1.0) / a, variance * growth**2
    return float(cost + 0.5 * WEIGHT * ((mean - TARGET) ** 2 + variance))


@pytest.mark.parametrize(("kinetic", "parameters", "exact", "tolerance"), thinned(EXACT, EXACT[1:2]))
def test_exact_minima(comm: MPI.Comm, kinetic: float, parameters: float, exact: float, tolerance: float) -> None:
    problem = affine(comm, 16, kinetic, parameters)

    result = solved(problem)

    assert result.value == pytest.approx(exact, rel=tolerance)
    assert result.value > exact  # θ constant in layers is a restriction; the transport's error is smaller
    # Against the same problem with as many layers only the transport's own error is left.
    oracle = scipy.optimize.minimize(layered, np.zeros(32), args=(kinetic, parameters), tol=1e-9)
    assert result.value == pytest.approx(oracle.fun, rel=5e-6)
    assert layered(result.theta, kinetic, parameters) == pytest.approx(oracle.fun, rel=5e-6)


def test_exact_minimum_over_translations(comm: MPI.Comm) -> None:
    problem = affine(comm, 8, 0.7, 0.5, "translation")

    result = solved(problem)

    assert result.value == pytest.approx(1.44375, rel=1e-6)
    np.testing.assert_allclose(result.theta, 1.0625, atol=1e-5)
    assert problem.statistics.mean[0, 0] == pytest.approx(MEAN + 1.0625, abs=1e-5)
    assert problem.statistics.covariance[0, 0, 0] == pytest.approx(STD**2, rel=1e-5)


@pytest.mark.one_process
def test_running_cost_is_constant_along_the_minimum(comm: MPI.Comm) -> None:
    """In the limit of many layers: its means over L layers differ by O(L⁻²)."""
    spreads = []
    for layers in (8, 16):
        problem = affine(comm, layers, 0.7, 0.5)
        problem.value(np.tile([0.3, 0.5], (layers, 1)))
        assert np.ptp(problem.running_cost()) > 0.02  # it is not constant elsewhere
        solved(problem, 1e-8)
        cost = problem.running_cost()
        assert np.sum(cost) / layers == pytest.approx(problem.parts["kinetic"] + problem.parts["parameters"], rel=1e-12)
        spreads.append(np.ptp(cost) / np.mean(cost))
    assert spreads[-1] <= 2e-4, spreads
    assert orders(spreads)[0] >= 1.8, spreads


@pytest.mark.one_process
def test_envelope_identities(comm: MPI.Comm) -> None:
    """dJ*/dλ = K/λ and dJ*/dε = R/ε for the kinetic part K and the parameters' part R."""
    kinetic, parameters, h = 0.7, 0.5, 0.02
    problem = affine(comm, 4, kinetic, parameters)
    solved(problem)
    parts = problem.parts

    def minimum(lam: float, epsilon: float) -> float:
        return solved(affine(comm, 4, lam, epsilon), tolerance=1e-5).value

    by_kinetic = (minimum(kinetic + h, parameters) - minimum(kinetic - h, parameters)) / (2 * h)
    by_parameters = (minimum(kinetic, parameters + h) - minimum(kinetic, parameters - h)) / (2 * h)
    # The differences are of second order in h, and J* is of slope and curvature about 1.
    assert by_kinetic == pytest.approx(parts["kinetic"] / kinetic, rel=1e-3)
    assert by_parameters == pytest.approx(parts["parameters"] / parameters, rel=1e-3)


@pytest.mark.one_process
def test_layers_do_not_change_the_iteration(comm: MPI.Comm) -> None:
    counts = [solved(affine(comm, layers, 0.7, 0.5)).iterations for layers in (2, 8, 24)]
    assert max(counts) <= min(counts) + 5, counts
