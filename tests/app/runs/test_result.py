"""The contents of result.json: every key of the interface, plain JSON only."""

import json
import math
from types import SimpleNamespace
from typing import ClassVar

from mpi4py import MPI

import numpy as np
import pytest

import eulerian
from eulerian.app.runs.files import plain
from eulerian.app.runs.result import Outcome, describe
from eulerian.control.control import ControlProblem
from eulerian.control.statistics import Statistics
from eulerian.objective.parts import part_names

INTERFACE = json.loads("""
{"status": "", "reason": "", "command": "train",
 "objective": {"total": 0, "terminal": 0, "kinetic": 0, "jacobian": 0, "parameters": 0},
 "iterations": 0, "evaluations": 0, "rejected_evaluations": 0, "gradient_norm": 0,
 "mass": {"initial": [1.0], "final": [1.0], "relative_error": 0, "boundary": 0}, "density": {"min": 0, "max": 0},
 "moments": {"mean": [[0, 0]], "covariance": [[[0, 0], [0, 0]]]},
 "time": {"layers": 8, "steps_per_layer": [12], "horizon": 1.0},
 "mesh": {"dimension": 2, "cells": 0, "dofs": 0, "h_min": 0, "h_max": 0},
 "ranks": 1, "seconds": {"setup": 0, "solve": 0, "forward": 0, "gradient": 0},
 "versions": {"eulerian": "0.2.0", "dolfinx": "0.11.0"}}
""")


def keys(tree: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, item in tree.items():
        found |= {prefix + name} | (keys(item, f"{prefix}{name}.") if isinstance(item, dict) else set())
    return found


class FakeProblem(ControlProblem):
    """Two right-angled triangles per rank."""

    seconds_forward, seconds_gradient = 0.5, 0.0
    parts: ClassVar[dict[str, float]] = {}
    statistics = Statistics(
        steps_per_layer=(3, 4),
        mass_initial=np.array([0.25, 0.75]),
        mass_final=np.array([0.25, 0.75 * (1 + 1e-9)]),
        boundary_masses=np.array([[0.0, 1e-12], [0.0, 0.0], [0.0, 0.0]]),
        density_min=-1e-18,
        density_max=np.inf,
        mean=np.zeros((2, 2)),
        covariance=np.zeros((2, 2, 2)),
        seconds_forward=0.5,
        seconds_gradient=0.0,
        evaluations=7,
        rejected_evaluations=2,
    )

    def __init__(self, comm: MPI.Comm, parts: dict[str, float]) -> None:
        triangles = np.array([[[0, 0], [3, 0], [0, 4]], [[0, 0], [1, 0], [0, 1]]], dtype=float)
        self.density_space = SimpleNamespace(comm=comm, dim=2, nd=3, n_owned=2, vertices=triangles)
        self.n_layers, self.horizon, self.parts = 2, 1.5, parts
        self.evaluations, self.rejected_evaluations = 7, 2


def strict(document: dict) -> dict:
    return json.loads(json.dumps(plain(document), allow_nan=False))


def test_full_document(comm: MPI.Comm) -> None:
    parts = {**dict.fromkeys(part_names(), 0.0), "terminal": 0.5, "kinetic": 0.25}
    outcome = Outcome("verify", "done", "all laws hold", 0.75, parts, extra={"verify": {"dot_error": np.float64(0.0)}})
    document = strict(describe(outcome, FakeProblem(comm, parts), comm.size))
    assert keys(INTERFACE) - keys(document) == set()
    assert document["objective"] == {"total": 0.75, **parts}
    assert document["mesh"] == {
        "dimension": 2,
        "cells": 2 * comm.size,
        "dofs": 6 * comm.size,
        "h_min": math.sqrt(2.0),
        "h_max": 5.0,
    }
    assert document["time"] == {"layers": 2, "steps_per_layer": [3, 4], "horizon": 1.5}
    assert document["mass"]["relative_error"] == pytest.approx(1e-9)
    assert (document["evaluations"], document["rejected_evaluations"], document["ranks"]) == (7, 2, comm.size)
    assert document["density"] == {"min": -1e-18, "max": None}  # what is not finite is null
    assert document["gradient_norm"] is None
    assert document["seconds"]["gradient"] is None
    assert document["verify"] == {"dot_error": 0.0}
    assert document["versions"]["eulerian"] == eulerian.__version__
    assert document["versions"]["dolfinx"].startswith("0.")


@pytest.mark.parametrize("built", [False, True])
def test_a_failure_has_every_key_too(comm: MPI.Comm, built: bool) -> None:
    problem = FakeProblem(comm, {}) if built else None
    document = strict(describe(Outcome("train", "failed", "no compiler"), problem, comm.size))
    assert keys(INTERFACE) - keys(document) == set()
    assert (document["status"], document["reason"]) == ("failed", "no compiler")
    assert document["objective"]["total"] is None
    assert document["mass"]["final"] is None
    assert document["evaluations"] == (7 if built else 0)
    assert document["time"]["layers"] == (2 if built else None)


def test_plain_json() -> None:
    value = {
        "a": np.float32(0.5),
        "b": [np.nan, -np.inf, 1e300],
        "c": np.arange(3),
        "d": (np.int64(2), np.bool_(True), False),
        "e": {1: None},
        "f": "text",
    }
    assert plain(value) == {
        "a": 0.5,
        "b": [None, None, 1e300],
        "c": [0, 1, 2],
        "d": [2, True, False],
        "e": {"1": None},
        "f": "text",
    }
    assert [type(item) for item in plain(value)["d"]] == [int, bool, bool]
