"""Runs with costs at several times: training, going on, another run's θ, what is told of each time."""

import json
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from run_folders import numbers, read_csv, write_csv

from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.progress import Progress
from eulerian.app.tasks.loaded_run import load
from eulerian.base.errors import InputError

pytestmark = pytest.mark.two_ranks

READOUT = {"kind": "cross_entropy", "trainable": True}
NORMALS = [{"kind": "gaussian", "mean": [0.3 * y], "std": 0.5, "label": y} for y in range(2)]
AT = [
    {"time": 0.75, "weight": 0.5, **READOUT},
    {"time": 0.25, "weight": 2.0, **READOUT},
    {"time": 0.5, "weight": 0.3, "kind": "kl", "target": NORMALS},
    {"time": 0.75, "weight": 0.0, "kind": "kl", "target": NORMALS},
]


def configure(folder: Path, run: str = "run", *overrides: str, **tables: Any) -> Config:
    config = {
        "domain": {"box": {"lower": [-3.0], "upper": [3.0], "cells": [32]}},
        "density": {
            "initial": [{"kind": "gaussian", "mean": [0.8 * y - 0.4], "std": 0.5, "label": y} for y in range(2)]
        },
        "field": {"kind": "mlp", "hidden": [4], "layers": 4},
        "objective": {"kinetic": 0.1, "parameters": 0.01, "terminal": READOUT, "at": AT},
        "optimiser": {"max_iterations": 8},
        "particles": {"count": 64},
        "output": {"directory": str(folder / run), "densities": 3, "checkpoint_every": 2},
        **tables,
    }
    return parse_config(config, folder, overrides)


def readout_of(run: Path) -> Any:
    with np.load(run / "theta.npz") as file:
        return file["readout"]


RUNS = {
    "densities": (tasks.run_train, tasks.run_solve),
    "particles": (tasks.run_train_particles, tasks.run_solve_particles),
}


@pytest.mark.parametrize("method", RUNS)
def test_a_run_goes_on_and_is_taken_up(comm: MPI.Comm, tmp_path: Path, method: str) -> None:
    """Bit for bit; and its θ and its readouts, one for each of three times, give the same J elsewhere."""
    train, solve = RUNS[method]
    whole = train(configure(tmp_path, "whole"), comm)
    train(configure(tmp_path, "part", "optimiser.max_iterations=4"), comm)
    resumed = train(configure(tmp_path, "part"), comm, resume=True)
    comm.barrier()
    assert resumed["objective"] == whole["objective"]
    assert abs(whole["objective"]["intermediate"]) > 0.1
    readout = readout_of(tmp_path / "whole")
    assert readout.tobytes() == readout_of(tmp_path / "part").tobytes()
    assert readout.shape == (12,)
    assert len(set(np.round(readout[::4], 6).tolist())) == 3
    again = solve(configure(tmp_path, "again"), comm, theta=tmp_path / "whole")
    assert again["objective"]["total"] == pytest.approx(whole["objective"]["total"], rel=1e-12)
    fewer = configure(tmp_path, "fewer", objective={"terminal": READOUT, "at": AT[1:]})
    with pytest.raises(InputError, match="--theta: has 2 columns, but the domain has dimension 1"):
        solve(fewer, comm, theta=tmp_path / "whole")


def test_every_time_is_told(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tasks.run_train(configure(tmp_path), comm, progress=Progress.of(comm))
    said = capsys.readouterr().out
    at = document["verified"]["at"]
    assert [(each["time"], each["weight"]) for each in at] == [(0.25, 2.0), (0.5, 0.3), (0.75, 0.5), (0.75, 0.0)]
    parts = document["verified"]["objective"]
    assert parts["intermediate"] == pytest.approx(sum(each["weight"] * each["value"] for each in at))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["verified"]["at"] == at
    if comm.rank == 0:
        assert "The cost at t = 0.75 is" in said
        assert said.count("held out") == 1
        assert "intermediate  " in said
    run = load(tmp_path / "run", comm)
    assert run.problem.value(run.theta) == pytest.approx(document["objective"]["total"], rel=1e-12)
    points = run.flow.push(np.array([[0.1]]), [0])
    assert points.x.shape == (1, 1)


def test_particles_tell_every_time(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tasks.run_train_particles(configure(tmp_path), comm, progress=Progress.of(comm))
    said = capsys.readouterr().out
    at = document["particles"]["at"]
    parts = document["objective"]
    assert parts["intermediate"] == pytest.approx(sum(each["weight"] * each["value"] for each in at))
    assert all(each["interval"] > 0.0 for each in at)
    assert document["particles"]["interval"]["intermediate"] > 0.0
    if comm.rank == 0:
        assert said.count("cost at t = 0.75") == 2


def test_what_particles_cannot_have_is_named(comm: MPI.Comm, tmp_path: Path) -> None:
    at = [AT[0], {"time": 0.5, "kind": "l2", "target": NORMALS}]
    config = configure(tmp_path, objective={"terminal": READOUT, "at": at})
    with pytest.raises(InputError, match=r"objective\.at\.1\.kind.*how dense they are"):
        tasks.run_train_particles(config, comm)
    flat = {"kind": "uniform", "lower": [-1.0], "upper": [1.0]}
    at = [AT[0], {"time": 0.5, "kind": "kl", "target": [{**flat, "label": y} for y in range(2)]}]
    config = configure(tmp_path, objective={"terminal": READOUT, "at": at})
    with pytest.raises(InputError, match=r"objective\.at\.1\.target\.0\.kind"):
        tasks.run_train_particles(config, comm)


@pytest.mark.parametrize(("levels", "adapt"), [(3, None), (1, {"density": 0.2, "objective": 0.05, "max_cells": 400})])
def test_other_meshes_have_the_costs_too(comm: MPI.Comm, tmp_path: Path, levels: int, adapt: Any) -> None:
    tables = {} if adapt is None else {"adapt": adapt}
    document = tasks.run_train(configure(tmp_path, "run", f"optimiser.levels={levels}", **tables), comm)
    assert document["status"] != "failed"
    parts = document["objective"]
    assert parts["intermediate"] == pytest.approx(document["verified"]["objective"]["intermediate"], rel=0.05)
    assert readout_of(tmp_path / "run").shape == (12,)


def test_push_takes_the_readout_of_the_end(comm: MPI.Comm, tmp_path: Path) -> None:
    tasks.run_train(configure(tmp_path), comm)
    run = load(tmp_path / "run", comm)
    x = np.array([[0.3], [-0.7]])
    file = write_csv(comm, tmp_path / "points.csv", ["x", "label"], np.column_stack([x, [0, 1]]))
    tasks.run_push(tmp_path / "run", file, comm)
    found = read_csv(comm, tmp_path / "run" / "pushed_points.csv")
    weights, bias = np.split(readout_of(tmp_path / "run")[:4], 2)
    logits = run.flow.push(x).x * weights + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([numbers(found[f"p_{y}"]) for y in range(2)], axis=1), expected, atol=1e-5)


def test_the_convex_solver_knows_no_times(comm: MPI.Comm, tmp_path: Path) -> None:
    objective = {"kinetic": 1.0, "terminal": {"kind": "kl", "target": NORMALS}}
    config = configure(tmp_path, objective={**objective, "at": [AT[3], AT[2]]})
    with pytest.raises(InputError, match=r"objective\.at\.1\.time.*the convex solver knows"):
        tasks.run_ideal(config, comm)
    free = {"kind": "free", "layers": 4, "theta": "ideal"}
    with pytest.raises(InputError, match=r"objective\.at\.1\.time.*the convex solver knows"):
        tasks.run_train(configure(tmp_path, field=free, objective={**objective, "at": [AT[3], AT[2]]}), comm)


@pytest.mark.figures
def test_a_run_draws_its_times(comm: MPI.Comm, tmp_path: Path) -> None:
    tasks.run_train(configure(tmp_path), comm)
    comm.barrier()
    assert (tmp_path / "run" / "figures" / "times.png").is_file()
    tasks.run_train(
        configure(tmp_path, objective={"kinetic": 0.1, "terminal": READOUT, "at": []}), comm, overwrite=True
    )
    comm.barrier()
    assert not (tmp_path / "run" / "figures" / "times.png").exists()
    assert not (tmp_path / "run" / "figures" / "times.npz").exists()
