"""Costs at several times by characteristics: closed forms of affine flows, costs that are held out, walls."""

import math
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from test_characteristics import KL_STD, KL_TARGET, LAYERS, MEAN, STD, TARGET, Shift, gap_square, line, moments, problem

from eulerian.analysis import point_transport
from eulerian.analysis.characteristics import TrueObjective, verify
from eulerian.app.build.network import build
from eulerian.app.config import parse_config
from eulerian.base import parallel

M, S = (float(each) for each in moments(np.array(0.5)))
# A cost at half of the time, and its exact value.
COSTS: dict[str, tuple[dict[str, Any], float]] = {
    "quadratic": ({"target": [0.3]}, 0.5 * ((M - 0.3) ** 2 + S**2)),
    "kl": ({"target": TARGET}, math.log(KL_STD / S) + (S**2 + (M - KL_TARGET) ** 2) / (2.0 * KL_STD**2) - 0.5),
    "l2": (
        {"target": TARGET},
        0.25 / math.sqrt(math.pi) * (1.0 / S + 1.0 / KL_STD) - gap_square(M, S, KL_TARGET, KL_STD),
    ),
}


def at(kind: str, weight: float, time: float = 0.5) -> dict[str, Any]:
    return {"time": time, "kind": kind, "weight": weight, **COSTS[kind][0]}


@pytest.mark.parametrize("weight", [0.0, 3.0])
@pytest.mark.parametrize("kind", COSTS)
def test_costs_are_those_of_the_closed_form(comm: MPI.Comm, kind: str, weight: float) -> None:
    p = problem(comm, line(kinetic=0.7, at=[at(kind, weight)]))
    found = verify(p, p.initial_theta)
    (cost,) = found.at
    exact = COSTS[kind][1]
    assert (cost.time, cost.weight) == (0.5, weight)
    assert cost.error < 1e-4
    # A relative entropy knows its floor of 1e-8 of a uniform density.
    assert abs(cost.value - exact) <= 2.0 * cost.error + (1e-6 if kind == "kl" else 1e-9)
    assert found.objective["intermediate"] == pytest.approx(weight * cost.value, rel=1e-13)
    assert p.parts["intermediate"] == pytest.approx(weight * exact, rel=0.01)
    assert found.objective["total"] == pytest.approx(math.fsum(found.objective.values()) - found.objective["total"])
    assert found.document["at"][0]["value"] == cost.value
    assert ("held out" in found.statement) is (weight == 0.0)
    truth, why = TrueObjective(p).value(p.initial_theta)
    assert not why
    assert truth == pytest.approx(found.objective["total"], abs=1.01 * found.own_error * abs(truth) + 1e-12)


def test_costs_at_the_end_belong_to_the_terminal_part(comm: MPI.Comm) -> None:
    p = problem(comm, line(at=[at("kl", 2.0, 1.0), at("l2", 0.5, 1.0), at("kl", 1.0, 0.25)]))
    found = verify(p, p.initial_theta)
    early, *late = found.at
    assert (early.time, [each.time for each in late]) == (0.25, [1.0, 1.0])
    m, s = (float(each) for each in moments(np.array(1.0)))
    terminal = 0.5 * ((m - 0.2) ** 2 + s**2) + 2.0 * late[0].value + 0.5 * late[1].value
    assert found.objective["terminal"] == pytest.approx(terminal, abs=1e-6)
    assert found.objective["intermediate"] == early.value
    assert found.logarithmic


@pytest.mark.parametrize("degree", [0, 1])
def test_the_distance_of_densities_is_that_of_a_fine_mesh(comm: MPI.Comm, degree: int) -> None:
    config = line(at=[at("quadratic", 0.0)])
    config["density"]["degree"] = degree
    p = problem(comm, config)
    (cost,) = verify(p, p.initial_theta).at
    rule = p.density_space.quadrature(20)
    exact = np.exp(-0.5 * ((rule.points[..., 0] - M) / S) ** 2) / (S * math.sqrt(2.0 * math.pi))
    values = p.density_space.evaluate(p.density_at(LAYERS // 2), rule.reference)[..., 0]
    distance = parallel.sum_all(comm, np.array([np.vdot(rule.weights, np.abs(values - exact))]))[0]
    assert cost.density_l1 is not None
    assert cost.density_l1[0] == pytest.approx(distance, rel=0.05)


def test_blocks_of_points_change_nothing(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(comm, line(at=[at("kl", 2.0)]))
    whole = verify(p, p.initial_theta)
    monkeypatch.setattr(point_transport, "_BLOCK", 50)
    cut = verify(p, p.initial_theta)
    assert cut.at[0].value == pytest.approx(whole.at[0].value, rel=1e-13)
    assert cut.at[0].density_l1 == pytest.approx(whole.at[0].density_l1, rel=1e-12)


def test_walls_count_from_when_they_are_touched(comm: MPI.Comm) -> None:
    """Before the mass comes to the wall its entropy is known, afterwards it is not; losses always are."""
    config = line(at=[at("kl", 1.0, time) for time in (0.25, 1.0)] + [at("quadratic", 0.0, 1.0)])
    config["field"]["theta"] = [[0.0, 0.0]] + [[0.0, 8.0]] * (LAYERS - 1)
    p = problem(comm, config)
    found = verify(p, p.initial_theta)
    assert found.touched_mass > 0.5
    early, late, loss = found.at
    assert early.value == pytest.approx(math.log(KL_STD / 0.5) + (0.25 + 0.25) / (2.0 * KL_STD**2) - 0.5, abs=1e-5)
    assert math.isnan(late.value)
    assert loss.value > 0.0
    assert "not known" in late.statement


def test_a_field_without_jacobian_leaves_losses(comm: MPI.Comm) -> None:
    config = line(at=[at("quadratic", 1.0), at("kl", 1.0)])
    del config["field"]["theta"]
    p = build(parse_config(config), comm, field=Shift())  # type: ignore[arg-type]
    found = verify(p, p.initial_theta)
    loss, entropy = found.at
    assert loss.value == pytest.approx(0.5 * ((MEAN + 0.5 - 0.3) ** 2 + STD**2), rel=1e-5)
    assert math.isnan(entropy.value)
    assert loss.density_l1 is None
    assert math.isnan(found.objective["intermediate"])
