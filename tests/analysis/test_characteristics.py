"""Verification by characteristics: against closed forms of affine flows, at walls, and on any number of ranks."""

import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem

from eulerian.analysis.characteristics import TrueObjective, Verification, verify
from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem

A, B, LAYERS, HORIZON = -0.6, 0.3, 4, 1.0
MEAN, STD = -0.4, 0.5


def line(**objective: Any) -> dict[str, Any]:
    """A normal density on a line that an affine velocity a x + b presses together."""
    terminal = objective.pop("terminal", {"kind": "quadratic", "target": [0.2]})
    return {
        "domain": {"box": {"lower": [-5.0], "upper": [5.0], "cells": [80]}},
        "density": {"degree": 1, "initial": [{"kind": "gaussian", "mean": [MEAN], "std": STD}]},
        "field": {
            "kind": "linear",
            "features": "affine",
            "layers": LAYERS,
            "horizon": HORIZON,
            "theta": [[A, B]] * LAYERS,
        },
        "objective": {"terminal": terminal, **objective},
    }


def problem(comm: MPI.Comm, config: dict[str, Any]) -> ControlProblem:
    return build(parse_config(config), comm)


def moments(t: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the normal density at time t."""
    return (MEAN + B / A) * np.exp(A * t) - B / A, STD * np.exp(A * t)


def over_time(values: Floats) -> float:
    """∫ over [0, T] of values at the points of a Gauss rule."""
    return float(0.5 * HORIZON * TIMES[1] @ values)


TIMES = np.polynomial.legendre.leggauss(20)
T = 0.5 * HORIZON * (TIMES[0] + 1.0)
(M, S), (M1, S1) = moments(T), moments(np.array(HORIZON))
KL_TARGET, KL_STD = 0.1, 0.4


def gap_square(m: Any, s: Any, n: float, r: float) -> Any:
    """∫ of the product of two normal densities."""
    v = s**2 + r**2
    return np.exp(-0.5 * (m - n) ** 2 / v) / np.sqrt(2.0 * np.pi * v)


TARGET = [{"kind": "gaussian", "mean": [KL_TARGET], "std": KL_STD}]
CASES: dict[str, tuple[dict[str, Any], str, float]] = {
    "quadratic": ({}, "terminal", float(0.5 * ((M1 - 0.2) ** 2 + S1**2))),
    "kinetic": ({"kinetic": 0.7}, "kinetic", 0.35 * over_time((A * M + B) ** 2 + A**2 * S**2)),
    "jacobian": ({"jacobian": 0.3}, "jacobian", 0.15 * A**2 * HORIZON),
    "potential": ({"potential": "x**2"}, "potential", over_time(M**2 + S**2)),
    "congestion": ({"congestion": 0.4}, "congestion", 0.2 * over_time(1.0 / (2.0 * np.sqrt(np.pi) * S))),
    "entropy": ({"entropy": 0.3}, "entropy", 0.3 * over_time(-0.5 * np.log(2.0 * np.pi * np.e * S**2))),
    "kl": (
        {"terminal": {"kind": "kl", "target": TARGET}},
        "terminal",
        float(np.log(KL_STD / S1) + (S1**2 + (M1 - KL_TARGET) ** 2) / (2.0 * KL_STD**2) - 0.5),
    ),
    "l2": (
        {"terminal": {"kind": "l2", "target": TARGET}},
        "terminal",
        float(
            0.5 / (2.0 * np.sqrt(np.pi) * S1)
            + 0.5 / (2.0 * np.sqrt(np.pi) * KL_STD)
            - gap_square(M1, S1, KL_TARGET, KL_STD)
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_are_those_of_the_closed_form_within_the_own_error(comm: MPI.Comm, name: str) -> None:
    objective, part, exact = CASES[name]
    p = problem(comm, line(**objective))
    found = verify(p, p.initial_theta)
    total = found.objective["total"]
    # A relative entropy knows its floor of 1e-8 of a uniform density.
    slack = 1e-6 if name == "kl" else 1e-9
    assert abs(found.objective[part] - exact) <= 2.0 * found.own_error * abs(total) + slack
    assert found.own_error < 2e-4
    assert found.relative_error == pytest.approx(p.value(p.initial_theta) / total - 1.0)
    assert found.touched_mass == 0.0
    assert not found.reason


@pytest.mark.parametrize("name", CASES)
def test_the_quick_value_is_that_of_the_coarser_rule(comm: MPI.Comm, name: str) -> None:
    p = problem(comm, line(parameters=0.1, **CASES[name][0]))
    found = verify(p, p.initial_theta)
    truth = TrueObjective(p)
    assert truth.obstacle is None
    evaluations = p.evaluations
    value, why = truth.value(p.initial_theta)
    total = found.objective["total"]
    assert abs(value - total) == pytest.approx(found.own_error * abs(total), rel=1e-6, abs=1e-12)
    assert not why
    # The mesh is not asked, and another θ has another J.
    assert truth.value(0.9 * p.initial_theta)[0] != value
    assert truth.value(p.initial_theta)[0] == value
    assert p.evaluations == evaluations


def test_the_quick_value_of_labels_that_meet(comm: MPI.Comm) -> None:
    p = problem(comm, crossing())
    found = verify(p, p.initial_theta)
    total = found.objective["total"]
    assert TrueObjective(p).value(p.initial_theta)[0] == pytest.approx(total, abs=1.01 * found.own_error * abs(total))


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_the_distance_of_densities_is_that_of_a_fine_mesh(comm: MPI.Comm, degree: int) -> None:
    config = line()
    config["density"]["degree"] = degree
    p = problem(comm, config)
    found = verify(p, p.initial_theta)
    rule = p.density_space.quadrature(20)
    exact = np.exp(-0.5 * ((rule.points[..., 0] - M1) / S1) ** 2) / (S1 * math.sqrt(2.0 * math.pi))
    values = p.density_space.evaluate(p.final_density, rule.reference)[..., 0]
    distance = parallel.sum_all(comm, np.array([np.vdot(rule.weights, np.abs(values - exact))]))[0]
    assert found.density_l1 is not None
    assert found.density_l1[0] == pytest.approx(distance, rel=0.05)
    assert found.resolved() is bool(distance < 0.05)
    assert found.resolved(density=1.1 * distance, objective=1.0) is True
    assert found.resolved(density=0.8 * distance) is False


def crossing() -> dict[str, Any]:
    """Two labels that move through one another by velocities ±1."""
    return {
        "domain": {"box": {"lower": [-4.0], "upper": [4.0], "cells": [80]}},
        "density": {
            "initial": [
                {"kind": "gaussian", "mean": [-0.5], "std": 0.3, "label": 0},
                {"kind": "gaussian", "mean": [0.5], "std": 0.4, "label": 1, "weight": 2.0},
            ]
        },
        "field": {
            "kind": "linear",
            "features": "translation",
            "label_dependent": True,
            "layers": 4,
            "theta": [[1.0, -1.0]],
        },
        "objective": {
            "congestion": 1.0,
            "entropy": 1.0,
            "entropy_form": "density",
            "terminal": {"kind": "quadratic", "target": [0.0]},
        },
    }


def test_labels_that_move_by_themselves_meet(comm: MPI.Comm) -> None:
    p = problem(comm, crossing())
    found = verify(p, p.initial_theta)
    a, b = T - 0.5, 0.5 - T
    own = (1.0 / 9.0 / 0.3 + 4.0 / 9.0 / 0.4) / (2.0 * math.sqrt(math.pi))
    exact = 0.5 * own + (2.0 / 9.0) * over_time(gap_square(a, 0.3, b, 0.4))
    assert found.objective["congestion"] == pytest.approx(exact, rel=3e-4)
    x = np.linspace(-4.0, 4.0, 4001)
    normal = [
        np.exp(-0.5 * ((x - m[:, None]) / s) ** 2) / (s * math.sqrt(2.0 * math.pi)) for m, s in ((a, 0.3), (b, 0.4))
    ]
    total = normal[0] / 3.0 + 2.0 * normal[1] / 3.0
    entropy = over_time(np.sum(total * np.log(total + 1e-300), axis=1) * (x[1] - x[0]))
    assert found.objective["entropy"] == pytest.approx(entropy, rel=3e-4)


def test_mass_at_a_wall_stays_there_and_has_no_density(comm: MPI.Comm) -> None:
    """Everything is pushed against the right wall, at 1."""
    config = line(terminal={"kind": "quadratic", "target": [0.0]}, congestion=0.1)
    config["domain"]["box"].update(lower=[-1.0], upper=[1.0])
    config["density"]["initial"][0].update(mean=[0.0], std=0.1)
    config["field"]["theta"] = [[0.0, 3.0]] * LAYERS
    p = problem(comm, config)
    found = verify(p, p.initial_theta)
    assert found.objective["terminal"] == pytest.approx(0.5, abs=1e-12)
    assert found.touched_mass == pytest.approx(1.0)
    assert math.isnan(found.objective["congestion"])
    assert math.isnan(found.objective["total"])
    assert "congestion, because" in found.reason
    assert "wall" in found.statement


class Shift:
    """A field with no more than a mesh needs."""

    def n_params(self, dim: int, /) -> int:
        return dim

    def init(self, rng: np.random.Generator, /) -> Floats:  # noqa: ARG002 - the protocol's argument
        return np.ones(1)

    def value(self, theta: Floats, x: Floats) -> Floats:
        return np.broadcast_to(theta, x.shape).copy()

    def vjp(self, theta: Floats, x: Floats, w: Floats) -> Floats:  # noqa: ARG002 - the protocol's arguments
        return np.asarray(w.sum(axis=0))


def test_without_a_jacobian_there_are_linear_costs(comm: MPI.Comm) -> None:
    config = line(kinetic=1.0, entropy=0.1)
    del config["field"]["theta"]
    p = build(parse_config(config), comm, field=Shift())  # type: ignore[arg-type]
    found = verify(p, p.initial_theta)
    assert found.objective["terminal"] == pytest.approx(0.5 * ((MEAN + 1.0 - 0.2) ** 2 + STD**2), rel=1e-6)
    assert found.objective["kinetic"] == pytest.approx(0.5, rel=1e-6)
    assert math.isnan(found.objective["entropy"])
    assert found.density_l1 is None
    assert found.resolved() is None
    assert "jacobian" in found.reason
    assert "jacobian" in (TrueObjective(p).obstacle or "")


def test_a_nodal_field_is_the_finite_element_velocity(comm: MPI.Comm) -> None:
    config = line(kinetic=1.0)
    config["field"] = {"kind": "free", "layers": LAYERS, "horizon": HORIZON}
    p = problem(comm, config)
    nodes = p.velocity_space.all_nodes()[:, 0]
    theta = np.tile(A * nodes + B, (LAYERS, 1))  # affine velocities are finite elements
    found = verify(p, theta)
    assert found.objective["terminal"] == pytest.approx(CASES["quadratic"][2], rel=1e-5)
    assert found.objective["kinetic"] == pytest.approx(CASES["kinetic"][2] / 0.7, rel=1e-5)


def test_a_density_that_jumps_inside_cells_has_its_mass_and_moments(comm: MPI.Comm) -> None:
    config = line(kinetic=0.0, terminal={"kind": "quadratic", "target": [0.0]})
    config["density"]["initial"] = [{"kind": "uniform", "lower": [-0.713], "upper": [0.911]}]
    config["domain"]["box"]["cells"] = [20]
    config["field"]["theta"] = [[0.0, 0.0]] * LAYERS
    p = problem(comm, config)
    found = verify(p, p.initial_theta)
    assert found.objective["terminal"] == pytest.approx((0.911**3 + 0.713**3) / (6.0 * 1.624), rel=2e-3)
    assert found.own_error < 5e-3


@pytest.mark.parametrize("labelling", ["two labels", "a field per label"])
def test_the_number_of_ranks_does_not_matter(comm: MPI.Comm, labelling: str) -> None:
    together, alone = (control_problem(c, 2, 1, labelling, 8) for c in (comm, MPI.COMM_SELF))
    here, there = verify(together, together.initial_theta), verify(alone, alone.initial_theta)
    assert here.touched_mass == pytest.approx(there.touched_mass, rel=1e-10, abs=1e-14)
    for name, value in there.objective.items():
        assert here.objective[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)
    assert here.density_l1 == pytest.approx(there.density_l1, rel=1e-8)


def test_tolerances_are_of_the_parts_or_of_nats() -> None:
    def found(mesh: float, logarithmic: bool) -> Verification:
        parts = {"total": 0.1, "terminal": 1.1, "entropy": -1.0}
        return Verification(parts, {"total": mesh}, 0.0, np.array([0.01]), 0.0, 0.0, logarithmic)

    assert found(0.12, False).resolved() is True  # 1 % of the sizes of the parts
    assert found(0.13, False).resolved() is False
    assert found(0.104, True).resolved() is True
    assert found(0.106, True).resolved() is False
