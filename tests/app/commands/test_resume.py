"""Trainings that are broken off and gone on with, as run folders tell it."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from jobs import SCRIPTS, Here

from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.train_checkpoint import read_checkpoint
from eulerian.base import signals
from eulerian.base.errors import ComputationError, InputError

pytestmark = pytest.mark.two_ranks

MODEL = """
[domain]
box = { lower = [-2.0], upper = [2.0], cells = [24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.4]
std = 0.4
[field]
kind = "mlp"
hidden = [4]
layers = 3
[objective]
kinetic = 0.5
[objective.terminal]
kind = "expression"
value = "(x**2 - 1)**2"
[optimiser]
max_iterations = 9
gradient_tolerance = 0.0
[ideal]
certificate = "none"
[particles]
count = 50
[output]
densities = 2
checkpoint_every = 4
"""


def configure(path: Path, *overrides: str, run: str = "run") -> Config:
    return parse_config(MODEL, path, overrides, output=path / run)


def train(comm: MPI.Comm, config: Config, method: str = "densities", **options: Any) -> dict[str, Any]:
    run = tasks.run_train_particles if method == "particles" else tasks.run_train
    document = run(config, comm, **options)
    comm.barrier()
    return dict(document)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def theta(folder: Path) -> Any:
    with np.load(folder / "theta.npz") as data:
        return data["theta"]


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    levels = [{**level, "seconds": 0.0} for level in document.get("levels", [])]
    verified = document["verified"] and {**document["verified"], "seconds": 0.0}
    return {**document, "seconds": None, "levels": levels, "verified": verified}


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask a training to end after so many iterations, as a signal does."""

    def stop(calls: int) -> None:
        left = [calls]

        def asked() -> str | None:
            left[0] -= 1
            return "SIGTERM" if left[0] == 0 else None

        monkeypatch.setattr(signals, "asked", asked)

    return stop


@pytest.mark.parametrize("method", ["densities", "particles"])
@pytest.mark.parametrize("when", [1, 4, 7])
def test_interrupted_and_resumed(comm: MPI.Comm, tmp_path: Path, stop_after: Any, method: str, when: int) -> None:
    expected = train(comm, configure(tmp_path, run="whole"), method)
    stop_after(when)
    config = configure(tmp_path)
    document = train(comm, config, method)
    assert (document["status"], document["iterations"]) == ("interrupted", when - 1)
    assert "SIGTERM" in document["reason"]
    assert json.loads((config.output.directory / "result.json").read_text()) == document
    assert history(config.output.directory) == history(tmp_path / "whole")[:when]
    assert theta(config.output.directory).shape == (3, 13)
    stop_after(-1)
    resumed = train(comm, config, method, resume=True)
    assert without_times(resumed) == without_times(expected)
    assert history(config.output.directory) == history(tmp_path / "whole")
    assert theta(config.output.directory).tobytes() == theta(tmp_path / "whole").tobytes()


COARSE = (
    'optimiser.stop="verified"',
    "optimiser.max_iterations=30",
    "domain.box={lower=[-3.0],upper=[3.0],cells=[10]}",
    'objective.terminal={kind="quadratic",target=[1.0]}',
    "output.densities=0",
)


@pytest.mark.parametrize("when", [2, 5, 8, 11])
def test_a_run_that_ends_by_its_true_j(comm: MPI.Comm, tmp_path: Path, stop_after: Any, when: int) -> None:
    """It says which iterate it has kept, and does so too if it was interrupted."""
    expected = train(comm, configure(tmp_path, *COARSE, run="whole"))
    assert expected["status"] == "converged"
    kept, rows = expected["stop"]["kept"], history(tmp_path / "whole")
    assert f"iterate {kept} of {expected['iterations']} is kept" in expected["reason"]
    checked = {row["iteration"]: float(row["verified"]) for row in rows if row["verified"]}
    assert len(checked) == expected["stop"]["checks"] < len(rows)
    assert checked[str(kept)] == min(checked.values()) == expected["stop"]["verified"]
    assert expected["verified"]["objective"]["total"] == pytest.approx(checked[str(kept)], rel=1e-3)
    assert expected["objective"]["total"] == float(rows[kept]["total"])
    stop_after(when)
    config = configure(tmp_path, *COARSE)
    assert train(comm, config)["status"] == "interrupted"
    stop_after(-1)
    resumed = train(comm, config, resume=True)
    assert without_times(resumed) == without_times(expected)
    assert history(config.output.directory) == rows
    assert theta(config.output.directory).tobytes() == theta(tmp_path / "whole").tobytes()


def test_what_ends_a_run_may_be_changed(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(comm, configure(tmp_path, *COARSE))
    capsys.readouterr()
    assert train(comm, configure(tmp_path, *COARSE), resume=True, progress=Progress.of(comm)) == first
    assert comm.rank > 0 or 'set optimiser.stop to "gradient"' in capsys.readouterr().out
    more = train(comm, configure(tmp_path, *COARSE, 'optimiser.stop="gradient"'), resume=True)
    assert more["iterations"] > first["iterations"]
    assert more["objective"]["total"] < first["objective"]["total"]  # of the mesh
    assert "stop" not in more
    back = train(comm, configure(tmp_path, *COARSE, "optimiser.max_iterations=60"), resume=True)
    assert back["stop"]["kept"] == first["stop"]["kept"]


@pytest.mark.parametrize("when", [3, 7, 8, 14])
def test_levels(comm: MPI.Comm, tmp_path: Path, stop_after: Any, when: int) -> None:
    """On a coarse mesh, at its end, at the next one's start, and on the finest."""
    overrides = ("optimiser.levels=3", "optimiser.max_iterations=12", "output.densities=0")
    expected = train(comm, configure(tmp_path, *overrides, run="whole"))
    stop_after(when)
    config = configure(tmp_path, *overrides)
    document = train(comm, config)
    assert document["status"] == "interrupted"
    assert len(history(config.output.directory)) == when
    stop_after(-1)
    resumed = train(comm, config, resume=True)
    assert without_times(resumed) == without_times(expected)
    assert history(config.output.directory) == history(tmp_path / "whole")


def test_a_killed_run_begins_again_at_its_last_checkpoint(comm: MPI.Comm, tmp_path: Path) -> None:
    """What came after the checkpoint stands in the history once, though it was computed twice."""
    train(comm, configure(tmp_path, run="whole"))
    config = configure(tmp_path)
    train(comm, config)
    folder = config.output.directory
    if comm.rank == 0:  # iteration 8 is in the one before the last, which is of the end
        (folder / "checkpoint" / "previous.npz").replace(folder / "checkpoint" / "latest.npz")
        (folder / "result.json").unlink()
        with (folder / "history.csv").open("a") as file:
            file.write("10,0.1,")  # and the process died while it wrote
    comm.barrier()
    train(comm, config, resume=True)
    assert history(folder) == history(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped", "missing"])
def test_the_one_before_the_last_serves_when_the_last_is_damaged(comm: MPI.Comm, tmp_path: Path, damage: str) -> None:
    config = configure(tmp_path, "output.densities=0")
    train(comm, config)
    whole = history(config.output.directory)
    latest = config.output.directory / "checkpoint" / "latest.npz"
    if comm.rank == 0:
        data = latest.read_bytes()
        half = len(data) // 2
        changed = {
            "truncated": data[:half],
            "garbage": b"\x00" * len(data),
            "flipped": data[:half] + bytes(255 - byte for byte in data[half : half + 64]) + data[half + 64 :],
        }
        if damage == "missing":
            latest.unlink()
        else:
            latest.write_bytes(changed[damage])
    comm.barrier()
    found = read_checkpoint(config.output.directory)
    assert found is not None
    assert found.state.history[-1].iteration == 8
    comm.barrier()
    train(comm, config, resume=True)
    assert history(config.output.directory) == whole
    if comm.rank == 0:
        for path in latest.parent.iterdir():
            path.write_bytes(b"PK")
    comm.barrier()
    with pytest.raises(InputError, match="none of the checkpoints can be read"):
        train(comm, config, resume=True)


def test_nothing_was_kept_yet(comm: MPI.Comm, tmp_path: Path) -> None:
    """Neither a folder nor a checkpoint: the run begins at the start; a complete run without one is not touched."""
    config = configure(tmp_path, "output.checkpoint_every=0", "output.densities=0")
    assert train(comm, config, resume=True)["iterations"] == 9
    with pytest.raises(InputError, match="without checkpoints"):
        train(comm, config, resume=True)
    comm.barrier()
    if comm.rank == 0:
        (config.output.directory / "result.json").unlink()
    comm.barrier()
    assert train(comm, config, resume=True)["iterations"] == 9
    assert len(history(config.output.directory)) == 10


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("objective.kinetic=0.6", "objective.kinetic"),
        ("domain.box.cells=[25]", "domain.box.cells"),
        ("density.initial.0.std=0.5", "density.initial.0.std"),
        ("field.seed=3", "field.seed"),
        ("optimiser.method=cg", "optimiser.method"),
        ("solver.cfl=0.5", "solver.cfl"),
    ],
)
def test_a_changed_configuration_is_refused(comm: MPI.Comm, tmp_path: Path, override: str, key: str) -> None:
    config = configure(tmp_path, "optimiser.max_iterations=1", "output.densities=0")
    train(comm, config)
    before = sorted(path.name for path in config.output.directory.iterdir())
    with pytest.raises(InputError) as caught:
        train(comm, configure(tmp_path, override), resume=True)
    assert caught.value.key == key
    assert "in the run that is to go on" in str(caught.value)
    assert sorted(path.name for path in config.output.directory.iterdir()) == before


def test_particles_do_not_go_on_with_densities(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(tmp_path, "optimiser.max_iterations=1", "output.densities=0")
    train(comm, config)
    with pytest.raises(InputError, match="a training on densities"):
        train(comm, config, "particles", resume=True)


def test_harmless_changes(comm: MPI.Comm, tmp_path: Path) -> None:
    whole = train(comm, configure(tmp_path, run="whole"))
    train(comm, configure(tmp_path, "optimiser.max_iterations=5", "output.densities=0"))
    changes = ('output.checkpoint_every="1 h"', 'solver.memory="1 GiB"', "ideal.max_iterations=7")
    assert train(comm, configure(tmp_path, *changes), resume=True)["objective"] == whole["objective"]
    assert history(tmp_path / "run") == history(tmp_path / "whole")


def test_checkpoints_by_time(comm: MPI.Comm, tmp_path: Path) -> None:
    rare = configure(tmp_path, 'output.checkpoint_every="1 h"', "output.densities=0")
    train(comm, rare)
    files = sorted(path.name for path in (rare.output.directory / "checkpoint").iterdir())
    assert files == ["latest.npz"]  # of the end
    often = configure(tmp_path, 'output.checkpoint_every="0.000001 s"', "output.densities=0", run="often")
    train(comm, often)
    assert sorted(path.name for path in (often.output.directory / "checkpoint").iterdir()) == [
        "latest.npz",
        "previous.npz",
    ]


def test_the_user_is_told(comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(tmp_path, "optimiser.max_iterations=3", "output.densities=0")
    train(comm, config)
    train(comm, configure(tmp_path), resume=True, progress=Progress.of(comm))
    if comm.rank == 0:
        assert "Going on after iteration 3." in capsys.readouterr().out


def test_a_run_at_its_end_can_be_gone_on_with(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(tmp_path)
    first = train(comm, config)
    assert without_times(train(comm, config, resume=True)) == without_times(first)


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", ["densities", "particles"])
def test_a_finished_run_is_not_touched(
    comm: MPI.Comm, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(tmp_path, "optimiser.max_iterations=4")
    first = train(comm, config, method)
    before = everything(config.output.directory)
    comm.barrier()
    capsys.readouterr()
    assert train(comm, config, method, resume=True, progress=Progress.of(comm)) == first
    assert comm.rank > 0 or "The run is finished: 4 iterations are done. To go on, raise" in capsys.readouterr().out
    for limit in (3, 0):
        with pytest.raises(InputError, match="4 iterations are done already") as caught:
            train(comm, configure(tmp_path, f"optimiser.max_iterations={limit}"), method, resume=True)
        assert (caught.value.key, caught.value.value) == ("optimiser.max_iterations", limit)
    comm.barrier()
    assert everything(config.output.directory) == before


def test_a_converged_run_is_not_touched(comm: MPI.Comm, tmp_path: Path) -> None:
    """Until a smaller gradient is asked for."""
    changes = ("optimiser.max_iterations=200", "output.densities=0")
    config = configure(tmp_path, *changes, "optimiser.gradient_tolerance=0.2")
    first = train(comm, config)
    assert first["status"] == "converged"
    before = everything(config.output.directory)
    comm.barrier()
    assert train(comm, config, resume=True) == first
    assert everything(config.output.directory) == before
    comm.barrier()
    more = train(comm, configure(tmp_path, *changes, "optimiser.gradient_tolerance=0.01"), resume=True)
    assert more["iterations"] > first["iterations"]


def test_levels_that_are_finished(comm: MPI.Comm, tmp_path: Path) -> None:
    """Each may take half: a limit that one of them has passed is refused, one that both have reached is the end."""
    overrides = ("optimiser.levels=2", "output.densities=0")
    config = configure(tmp_path, *overrides, "optimiser.max_iterations=8")
    first = train(comm, config)
    assert [level["iterations"] for level in first["levels"]] == [4, 4]
    before = everything(config.output.directory)
    comm.barrier()
    assert train(comm, config, resume=True) == first
    for limit in (7, 8):  # rounded up
        assert train(comm, configure(tmp_path, *overrides, f"optimiser.max_iterations={limit}"), resume=True) == first
    with pytest.raises(InputError, match="8 iterations are done already, and each of 2 levels"):
        train(comm, configure(tmp_path, *overrides, "optimiser.max_iterations=6"), resume=True)
    assert everything(config.output.directory) == before
    comm.barrier()
    assert train(comm, configure(tmp_path, *overrides, "optimiser.max_iterations=12"), resume=True)["iterations"] == 10


def test_a_finished_run_may_leave_more(comm: MPI.Comm, tmp_path: Path) -> None:
    """Files that were not asked for before: without an iteration more."""
    first = train(comm, configure(tmp_path, "output.densities=0"))
    again = train(comm, configure(tmp_path, "output.densities=3"), resume=True)
    assert without_times(again) == without_times(first)
    assert len(list((tmp_path / "run").glob("densities_*.vtu"))) == 3 * comm.size


@pytest.mark.parametrize("method", ["densities", "particles"])
def test_no_iteration_more_where_j_is_rounded_otherwise(comm: MPI.Comm, tmp_path: Path, method: str) -> None:
    """As on another number of ranks: a run that was killed at its end, before its result was written."""
    config = configure(tmp_path, "optimiser.max_iterations=6")
    first = train(comm, config, method)
    folder = config.output.directory
    rows = history(folder)
    comm.barrier()
    if comm.rank == 0:
        found = read_checkpoint(folder)
        assert found is not None
        descent = found.state.descent
        replayed = tuple(replace(each, value=each.value * (1.0 + 1e-12)) for each in descent.replay)
        state = replace(found.state, descent=replace(descent, replay=replayed))
        replace(found, state=state).write(folder)
        (folder / "result.json").unlink()
    comm.barrier()
    again = train(comm, config, method, resume=True)
    assert (again["status"], again["iterations"]) == ("max_iterations", 6)
    assert again["objective"]["total"] == pytest.approx(first["objective"]["total"], rel=1e-9)
    assert history(folder) == rows


def test_nothing_to_go_on_from_is_a_warning(comm: MPI.Comm, tmp_path: Path) -> None:
    config = configure(tmp_path, "optimiser.max_iterations=1", "output.densities=0")
    (warning,) = train(comm, config, resume=True)["warnings"]
    assert "begins at the start" in warning


@pytest.mark.mpi
def test_on_other_numbers_of_ranks(tmp_path: Path, here: Here, mpirun: Any) -> None:
    """From two ranks to one to two: every iteration once, and as low as ever."""
    (tmp_path / "model.toml").write_text(MODEL)
    whole = train(MPI.COMM_SELF, configure(tmp_path, "optimiser.max_iterations=12", run="whole"))

    def run(ranks: int, limit: int, *more: str) -> None:
        command = ["train", "model.toml", "--output", "run", "--set", f"optimiser.max_iterations={limit}", *more]
        if ranks == 1:
            here(*command)
            return
        done = mpirun(ranks, [f"{SCRIPTS}/eulerian", *command], cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    run(2, 4)
    run(1, 7, "--resume")
    run(2, 12, "--resume")
    before = everything(tmp_path / "run")
    run(1, 12, "--resume")
    assert everything(tmp_path / "run") == before
    rows = history(tmp_path / "run")
    assert [int(row["iteration"]) for row in rows] == list(range(13))
    assert [float(row["total"]) for row in rows[:5]] == pytest.approx(
        [float(row["total"]) for row in history(tmp_path / "whole")[:5]], rel=1e-9
    )
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["ranks"] == 2
    assert found["objective"]["total"] == pytest.approx(whole["objective"]["total"], rel=2e-2)


FIELD = """
import jax, equinox as eqx
from eulerian.jax import equinox_field
field = equinox_field(eqx.nn.MLP(1, 1, 4, 1, activation=ACTIVATION, key=jax.random.key(0)), dtype="float64")
"""


@pytest.mark.parametrize("method", ["densities", "particles"])
def test_another_model_is_refused_and_the_run_stays(
    comm: MPI.Comm, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J at the checkpoint's θ is another one: that shows before anything of the finished run is gone."""
    pytest.importorskip("equinox")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the module changes within a second

    def configured(activation: str, *overrides: str) -> Config:
        if comm.rank == 0:
            (tmp_path / "own_model.py").write_text(FIELD.replace("ACTIVATION", activation))
        comm.barrier()
        sys.modules.pop("own_model", None)
        own = MODEL.replace('kind = "mlp"\nhidden = [4]', 'kind = "python"\nobject = "own_model:field"')
        return parse_config(own, tmp_path, overrides, output=tmp_path / "run")

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    train(comm, configured("jax.numpy.tanh"), method)
    before = files()
    assert {"theta.npz", "densities.pvd", "result.json"} <= {path.name for path in before} or method == "particles"
    comm.barrier()
    other = configured("jax.numpy.sin", "optimiser.max_iterations=12")
    with pytest.raises(ComputationError, match="J at the θ of the checkpoint was"):
        train(comm, other, method, resume=True)
    comm.barrier()
    assert files() == before
    comm.barrier()
    same = configured("jax.numpy.tanh", "optimiser.max_iterations=12")
    assert train(comm, same, method, resume=True)["iterations"] == 12
