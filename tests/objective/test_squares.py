"""congestion and l2 by squares that move beside the densities: exact values, and that smearing and walls do not pay."""

import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import LABELLINGS

from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.control.control import ControlProblem
from eulerian.optimise import minimise

STD, RATE = 0.35, 2.0


def pressed(comm: MPI.Comm, form: str, **tables: Any) -> ControlProblem:
    """Two labels that v = −2 x presses to an eighth of their width within T = 1, on few cells."""
    config = {
        "domain": {"box": {"lower": [-2.0], "upper": [2.0], "cells": [32]}},
        "density": {
            "degree": 1,
            "initial": [
                {"kind": "gaussian", "mean": [0.0], "std": STD, "label": 0, "weight": 3.0},
                {"kind": "gaussian", "mean": [0.1], "std": STD, "label": 1, "weight": 1.0},
            ],
        },
        "field": {"kind": "linear", "features": "affine", "layers": 4, "horizon": 1.0, "theta": [[-RATE, 0.0]]},
        "objective": {
            "congestion": 0.8,
            "power_form": form,
            "terminal": {"kind": "quadratic", "target": [0.0], "weight": 0.0},
        },
    }
    config["objective"] |= tables.pop("objective", {})
    return build(parse_config(config | tables), comm)


def squares(std: float, distance: float) -> float:
    """∫ρ² of both labels together, for normal densities of this deviation so far apart."""
    same, mixed = (math.exp(-(r**2) / (4 * std**2)) / (2 * std * math.sqrt(math.pi)) for r in (0.0, distance))
    return (0.75**2 + 0.25**2) * same + 2 * 0.75 * 0.25 * mixed


def test_congestion_of_a_density_that_is_pressed(comm: MPI.Comm) -> None:
    exact = 0.4 * squares(STD, 0.1) * (math.exp(RATE) - 1.0) / RATE  # shape and distance shrink alike
    errors = {}
    for form in ("density", "companion"):
        problem = pressed(comm, form)
        problem.value(problem.initial_theta)
        errors[form] = problem.parts["congestion"] / exact - 1.0
    assert errors["density"] < -0.02
    assert abs(errors["companion"]) < 2e-3


@pytest.mark.parametrize("labelling", LABELLINGS[1:])
def test_distance_of_a_density_that_is_pressed(comm: MPI.Comm, labelling: str) -> None:
    """To a wider target, which the mesh resolves: what is left is the square of the pressed density."""
    wide, end = 0.6, STD * math.exp(-RATE)
    target = [
        {"kind": "gaussian", "mean": [0.0], "std": wide, "label": y, "weight": weight}
        for y, weight in enumerate((3, 1))
    ]
    exact = 0.0
    for mass, mean in ((0.75, 0.0), (0.25, 0.1 * math.exp(-RATE))):
        both = math.sqrt(end**2 + wide**2)
        product = math.exp(-0.5 * (mean / both) ** 2) / (both * math.sqrt(2 * math.pi))
        exact += mass**2 * ((1 / end + 1 / wide) / (4 * math.sqrt(math.pi)) - product)
    own: dict[str, Any] = {}
    if labelling == LABELLINGS[2]:
        own = {"field": {"kind": "free", "label_dependent": True, "layers": 4, "horizon": 1.0}}
    errors = {}
    for form in ("density", "companion"):
        objective = {"congestion": 0.0, "terminal": {"kind": "l2", "target": target}}
        problem = pressed(comm, form, objective=objective, **own)
        theta = problem.initial_theta
        if own:
            nodes = np.sort(problem.velocity_space.all_nodes(), axis=0)
            theta = np.tile((-RATE * nodes).ravel(), (4, 2))
        problem.value(theta)
        errors[form] = problem.parts["terminal"] / exact - 1.0
    assert errors["density"] < -0.05
    assert abs(errors["companion"]) < 5e-3


@pytest.mark.two_ranks
def test_pressing_into_walls_does_not_pay(comm: MPI.Comm) -> None:
    """Without any other cost no flow makes ∫ρ² less than that of the uniform density: walls are no way out."""
    config = {
        "domain": {"box": {"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "cells": [6, 6]}},
        "density": {"degree": 1, "initial": [{"kind": "gaussian", "mean": [0.2, -0.1], "std": 0.4}]},
        "field": {"kind": "mlp", "hidden": [8], "layers": 4, "horizon": 1.0, "seed": 0},
        "objective": {
            "kinetic": 1e-7,
            "congestion": 2.0,
            "terminal": {"kind": "quadratic", "target": [0.0, 0.0], "weight": 0.0},
        },
        "optimiser": {"max_iterations": 40},
    }
    problem = build(parse_config(config), comm)
    start = problem.value(problem.initial_theta)
    found = minimise(problem, max_iterations=40)
    assert 0.25 <= found.value <= 0.6 * start
