"""`solve` and `train` with `--method particles`: what the run folder holds, and what is said."""

import csv
import json
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from jobs import Here

from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.figures.draw import draw_run
from eulerian.app.runs.particles import ParticlePaths
from eulerian.base.errors import InputError

pytestmark = pytest.mark.two_ranks

TWO_LABELS = """
[domain]
box = {{ lower = {lower}, upper = {upper}, cells = {cells} }}
[[density.initial]]
kind = "gaussian"
mean = {mean}
std = 0.3
[[density.initial]]
kind = "gaussian"
mean = {mean}
std = 0.4
label = 1
[field]
kind = "mlp"
hidden = [4]
layers = 2
[objective]
kinetic = 0.3
potential = "x**2"
[objective.terminal]
kind = "cross_entropy"
trainable = true
[particles]
count = 200
replicates = 4
[optimiser]
max_iterations = 3
"""


def configure(path: Path, dim: int = 2, *overrides: str) -> Config:
    text = TWO_LABELS.format(lower=[-1.5] * dim, upper=[2.0] * dim, cells=[6] * dim, mean=[0.5] * dim)
    return parse_config(text, path, overrides, output=path / "run")


def result(path: Path) -> dict[str, Any]:
    return json.loads((path / "run" / "result.json").read_text())


@pytest.mark.figures
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_solve(comm: MPI.Comm, tmp_path: Path, dim: int) -> None:
    document = tasks.run_solve_particles(configure(tmp_path, dim), comm)
    comm.barrier()
    assert result(tmp_path) == document
    assert (document["command"], document["method"], document["status"]) == ("solve", "particles", "done")
    objective = document["objective"]
    assert objective["terminal"] == pytest.approx(np.log(2.0))
    assert objective["total"] == pytest.approx(sum(value for name, value in objective.items() if name != "total"))
    found = document["particles"]
    assert (found["count"], found["sampling"], found["seed"], found["stepping"]) == (200, "random", 0, "rk4")
    assert set(found["interval"]) == {"total", "terminal", "potential"}
    assert found["outside"] == 0.0
    assert document["mass"]["initial"] == document["mass"]["final"] == pytest.approx([0.5, 0.5])
    assert np.shape(document["moments"]["covariance"]) == (2, dim, dim)
    assert document["mesh"]["dimension"] == dim
    assert document["time"]["steps_per_layer"] == [4, 4]
    figures = {file.name for file in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {"particles.npz", "particles.png"}
    paths = ParticlePaths.load(tmp_path / "run" / "figures" / "particles.npz")
    assert paths.positions.shape == (41, 200, dim)
    assert (len(paths.outline) > 0) == (dim == 2)
    assert np.all(paths.positions[-1] == paths.positions[0])  # zero_init


def test_train(comm: MPI.Comm, tmp_path: Path) -> None:
    document = tasks.run_train_particles(configure(tmp_path, 2, 'particles.method="dopri5"'), comm)
    comm.barrier()
    assert result(tmp_path) == document
    assert document["status"] == "max_iterations"
    assert document["iterations"] == 3
    assert document["gradient_norm"] > 0.0
    found = document["particles"]
    assert found["gradient_error"] > 0.0
    assert found["fresh"]["seed"] == 1
    fresh = found["fresh"]["total"] - document["objective"]["total"]
    assert 0.0 < abs(fresh) < 4 * (found["fresh"]["interval"] + found["interval"]["total"])
    assert "sample" in document["no_certificate"]
    with (tmp_path / "run" / "history.csv").open() as file:
        totals = [float(row["total"]) for row in csv.DictReader(file)]
    assert len(totals) == 4
    assert totals[-1] == pytest.approx(document["objective"]["total"])
    assert totals[-1] < totals[0]
    with np.load(tmp_path / "run" / "theta.npz") as arrays:
        assert arrays["theta"].shape == (2, 22)
        assert arrays["readout"].shape == (6,)
    if comm.rank == 0:
        drawn = draw_run(tmp_path / "run")
        assert {file.name for file in drawn} == {"particles.png", "history.png"}


def test_the_end_does_not_depend_on_the_ranks(comm: MPI.Comm, tmp_path: Path) -> None:
    """A run on all ranks against runs of each rank alone, at the start."""
    together = tasks.run_solve_particles(configure(tmp_path, 2, "field.zero_init=false"), comm)
    folder = tmp_path / f"rank{comm.rank}"
    alone = tasks.run_solve_particles(configure(folder, 2, "field.zero_init=false"), MPI.COMM_SELF)
    for name, value in alone["objective"].items():
        assert together["objective"][name] == pytest.approx(value, rel=1e-9), name
    for name, value in alone["particles"]["interval"].items():
        assert together["particles"]["interval"][name] == pytest.approx(value, rel=1e-7), name
    np.testing.assert_allclose(together["moments"]["mean"], alone["moments"]["mean"], rtol=1e-9)


def test_refused_before_the_folder_is_touched(comm: MPI.Comm, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"objective\.congestion"):
        tasks.run_train_particles(configure(tmp_path, 2, "objective.congestion=0.1"), comm)
    assert not (tmp_path / "run").exists()


@pytest.mark.one_process
def test_command_line(tmp_path: Path, here: Here) -> None:
    text = TWO_LABELS.format(lower=[-1.5], upper=[2.0], cells=[12], mean=[0.5])
    (tmp_path / "two.toml").write_text(text)
    done = here("train", "two.toml", "--method", "particles", "--output", "run")
    assert "200 particles in 1-D drawn (random), 2 labels, rk4" in done.stdout
    assert "95 % confidence intervals: total ±" in done.stdout
    assert "J on particles that were not trained on:" in done.stdout
    wrong = here("solve", "two.toml", "--method", "particles", "--set", "objective.entropy=1", code=1)
    assert "objective.entropy: particles cannot have this: particles know where they are, not how dense" in wrong.stderr
    here("verify", "two.toml", "--method", "particles", code=1)
