"""Runs read back in Python: what is there, and what is said of it."""

from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

import eulerian
from eulerian.app.tasks import run_train
from eulerian.base.errors import InputError

TABLE = {
    "domain": {"box": {"lower": [-3.0], "upper": [3.0], "cells": [24]}},
    "density": {"initial": [{"kind": "gaussian", "mean": [-0.5], "std": 0.5}]},
    "field": {"kind": "mlp", "hidden": [4], "layers": 2},
    "objective": {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [0.5]}},
    "optimiser": {"max_iterations": 4},
    "ideal": {"certificate": "none"},
}


def test_a_training_is_read_back(comm: MPI.Comm, tmp_path: Path) -> None:
    config = eulerian.parse_config({**TABLE, "output": {"directory": str(tmp_path / "run"), "densities": 3}})
    document = run_train(config, comm)
    run = eulerian.load(tmp_path / "run", comm)
    assert run.theta.shape == (2, run.problem.layer_shape[1])
    assert run.problem.value(run.theta) == pytest.approx(document["objective"]["total"], rel=1e-12)
    assert run.result["objective"]["total"] == document["objective"]["total"]
    assert run.history["total"][-1] == pytest.approx(document["objective"]["total"], rel=1e-12)
    assert np.all(np.diff(run.history["iteration"]) == 1)
    assert run.config.field.kind == "mlp"
    assert run.flow.push([[0.0]]).x.shape == (1, 1)
    assert repr(run).startswith("LoadedRun(")
    assert "train" in repr(run)
    assert f"<td>{document['objective']['total']:.6g}</td>" in run._repr_html_()


def test_what_is_no_run(comm: MPI.Comm, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        eulerian.load(tmp_path, comm)
