"""Runs end with their verification: in the result, on the terminal, as a warning where the mesh does not resolve."""

import json
from pathlib import Path
from typing import Any

from mpi4py import MPI

import pytest
from jobs import Here

from eulerian.analysis import characteristics
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.progress import Progress
from eulerian.app.tasks import run_solve, run_train, run_verify_run
from eulerian.app.tasks.verify import unresolved
from eulerian.base.errors import ComputationError, InputError

pytestmark = pytest.mark.two_ranks


def tables(folder: Path, cells: int, **objective: Any) -> Config:
    """A normal density on a line that is moved and pressed together."""
    config = {
        "domain": {"box": {"lower": [-3.0], "upper": [3.0], "cells": [cells]}},
        "density": {"initial": [{"kind": "gaussian", "mean": [-0.4], "std": 0.4}]},
        "field": {"kind": "linear", "features": "affine", "layers": 2, "theta": [[-0.8, 0.6]]},
        "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [0.5]}, **objective},
        "optimiser": {"max_iterations": 3},
        "output": {"directory": str(folder / "run"), "densities": 0},
    }
    return parse_config(config)


def test_a_solve_that_is_not_resolved_says_so(
    comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run_solve(tables(tmp_path, 20), comm, progress=Progress.of(comm))
    found = document["verified"]
    assert document["resolved"] is False
    assert set(found["objective"]) == set(document["objective"])
    ratio = document["objective"]["total"] / found["objective"]["total"]
    assert found["relative_error"] == pytest.approx(ratio - 1.0, abs=1e-12)
    assert 0.05 < found["density_l1"][0] < 0.5
    assert found["own_error"] < 1e-3
    [warning] = [text for text in document["warnings"] if "L¹" in text]
    assert "density.degree = 2" in warning
    if comm.rank == 0:
        told = capsys.readouterr().out
        assert "for the network itself" in told
        assert f"Warning: {warning}" in told
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["verified"] == found
    assert stored["warnings"] == document["warnings"]


def test_a_training_that_is_resolved(comm: MPI.Comm, tmp_path: Path) -> None:
    document = run_train(tables(tmp_path, 200), comm)
    assert document["resolved"] is True
    assert document["warnings"] == []
    assert "of the flow itself" in document["certificate"]["statement"]
    true = sum(document["verified"]["objective"][name] for name in ("terminal", "kinetic"))
    assert document["certificate"]["gap"] == pytest.approx(true - document["certificate"]["ideal"])


def test_a_verification_that_fails_is_no_failure_of_the_run(
    comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ComputationError("somewhere else the field is not defined")

    monkeypatch.setattr(characteristics, "verify", fail)
    document = run_train(tables(tmp_path, 20), comm)
    assert document["status"] == "max_iterations"
    assert document["verified"] is document["resolved"] is None
    assert any("could not be verified: somewhere else" in text for text in document["warnings"])
    assert "those of the mesh" in document["certificate"]["statement"]


def test_a_run_is_verified_afterwards_where_it_is(comm: MPI.Comm, tmp_path: Path) -> None:
    before = run_train(tables(tmp_path, 20), comm)
    path = tmp_path / "run" / "result.json"
    if comm.rank == 0:
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, "verified": None, "resolved": None, "warnings": ["another"]}))
    comm.barrier()
    after = run_verify_run(tmp_path / "run", comm)
    comm.barrier()
    for name in ("total", "terminal", "kinetic"):
        assert after["verified"]["objective"][name] == pytest.approx(before["verified"]["objective"][name], rel=1e-12)
    assert after["warnings"][-1] == "another" or after["warnings"][0] == "another"
    assert any("L¹" in text for text in after["warnings"])
    stored = json.loads(path.read_text())
    kept = {key: value for key, value in before.items() if key not in ("verified", "resolved", "warnings")}
    assert {key: stored[key] for key in kept} == kept
    assert sorted(stored["warnings"]) == sorted(after["warnings"])
    again = run_verify_run(tmp_path / "run", comm)
    assert sorted(again["warnings"]) == sorted(after["warnings"])


@pytest.mark.one_process
def test_the_command_line(tmp_path: Path, here: Here) -> None:
    run_solve(tables(tmp_path, 20), MPI.COMM_SELF)
    assert "for the network itself" in here("verify", "--run", "run").stdout
    here("verify", code=1)
    assert "does not go with --run" in here("verify", "--run", "run", "--output", "x", code=1).stderr


@pytest.mark.one_process
def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        run_verify_run(tmp_path, MPI.COMM_SELF)


@pytest.mark.one_process
def test_the_warning_has_the_figures_of_all_labels() -> None:
    import numpy as np

    found = characteristics.Verification({"total": 1.0}, {"total": 1.1}, 0.0, np.array([0.1, 0.02]), 0.0, 0.0)
    assert "10 %, 2 % of the mass by label" in unresolved(found)
    assert "+10 %" in unresolved(found)


@pytest.mark.one_process
@pytest.mark.parametrize("touched", [0.01, 0.2, 0.9])
def test_a_finer_mesh_is_no_remedy_for_what_piles_up_at_a_wall(touched: float) -> None:
    import numpy as np

    found = characteristics.Verification({"total": 1.0}, {"total": 1.1}, 0.0, np.array([0.9]), touched, 0.0)
    text = unresolved(found)
    assert ("where mass piles up and a density has no limit: take a larger domain" in text) == (touched > 0.05)
    assert ("Refine the mesh" in text) == (touched < 0.5)
