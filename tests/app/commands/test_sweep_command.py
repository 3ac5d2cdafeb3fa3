"""Sweeps: every combination is run, what is done is kept, what was interrupted goes on, what fails does not end it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mpi4py import MPI

import pytest
from configurations import small
from jobs import Here, environment

from eulerian.app import tasks
from eulerian.app.commands.sweep import Sweep
from eulerian.app.config import parse_config
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.sweep_table import SweepRecord
from eulerian.app.tasks import SweepPlan
from eulerian.app.tasks import sweep as sweep_task
from eulerian.base import signals
from eulerian.base.errors import ComputationError, InputError
from eulerian.base.parallel import on_root

pytestmark = pytest.mark.two_ranks

KINETIC = "objective.kinetic=0.5,1.0"


@pytest.fixture
def model(tmp_path: Path, comm: MPI.Comm) -> Path:
    """A configuration that every test can sweep over."""
    output = {"directory": str(tmp_path / "run"), "densities": 0, "checkpoint_every": 1, "figures": False}
    table = small(output=output, ideal={"certificate": "none"})
    on_root(comm, lambda: (tmp_path / "model.toml").write_text(parse_config(table).to_toml()))
    return tmp_path / "model.toml"


def sweep(model: Path, comm: MPI.Comm, *settings: str, said: Any = None, **plan: Any) -> SweepRecord:
    record = tasks.run_sweep(model, settings, comm, plan=SweepPlan(**plan), progress=Progress(speaks=bool(said)))
    comm.barrier()
    return record


def statuses(record: SweepRecord) -> dict[str, str]:
    return {row["name"]: row["status"] for row in record.rows}


def result(model: Path, name: str) -> dict[str, Any]:
    return json.loads((model.parent / "run_sweep" / name / "result.json").read_text())


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask a sweep to end after so many looks for signals, for good, as a signal does."""

    def stop(calls: float) -> None:
        left = [calls]

        def asked() -> str | None:
            left[0] -= 1
            return "SIGTERM" if left[0] <= 0 else None

        monkeypatch.setattr(signals, "asked", asked)

    return stop


def test_every_combination_is_run_and_told(comm: MPI.Comm, model: Path) -> None:
    record = sweep(model, comm, KINETIC, "field.layers=1,3", "optimiser.max_iterations=2")
    names = [f"kinetic={kinetic},layers={layers}" for kinetic in ("0.5", "1.0") for layers in (1, 3)]
    assert statuses(record) == dict.fromkeys(names, "max_iterations")
    for row, name in zip(record.rows, names, strict=True):
        document = result(model, name)
        assert (row["objective"], row["iterations"], row["ranks"]) == (document["objective"]["total"], 2, comm.size)
        assert document["time"]["layers"] == row["field.layers"] == int(name[-1])
        assert row["objective.kinetic"] == float(name[8:11])
    folder = model.parent / "run_sweep"
    read = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [(row["name"], float(row["field.layers"])) for row in read] == [(name, int(name[-1])) for name in names]
    assert on_root(comm, lambda: SweepRecord.load(folder)).rows == record.rows
    assert not record.undone
    assert "kinetic=1.0,layers=3" in (folder / "run.log").read_text()


@pytest.mark.parametrize("command", ["solve", "ideal", "verify", "compare"])
def test_other_commands(comm: MPI.Comm, model: Path, command: str) -> None:
    record = sweep(model, comm, KINETIC, "field.theta=[[0.0, 0.5]]", "ideal.max_iterations=30", command=command)
    assert {result(model, name)["command"] for name in statuses(record)} == {command}
    assert sweep(model, comm, KINETIC, "field.theta=[[0.0, 0.5]]", "ideal.max_iterations=30", command=command).rows


@pytest.mark.one_process
def test_the_choices_of_the_command_line_are_the_tasks(here: Here, model: Path) -> None:
    for command in ("train", "solve", "ideal", "verify", "compare"):
        assert callable(getattr(tasks, f"run_{command}"))
        assert command in here("sweep", "--help").stdout
    assert Sweep.name == "sweep"
    assert "invalid choice" in here("sweep", model, "--command", "push", code=1).stderr


def test_particles_and_theta(comm: MPI.Comm, model: Path) -> None:
    few = "particles.count=50"
    trained = sweep(model, comm, KINETIC, few, method="particles")
    assert result(model, "kinetic=0.5")["particles"]["count"] == 50
    theta, output = model.parent / "run_sweep" / "kinetic=0.5", model.parent / "solves"
    for _ in range(2):  # what is there is recognised although its start is another than the configuration's
        found = sweep(model, comm, "density.degree=1,2", command="solve", theta=theta, output=output)
        assert statuses(found) == {"degree=1": "done", "degree=2": "done"}
    assert trained.rows[0]["objective"] == pytest.approx(found.rows[0]["objective"], rel=0.3)
    for plan, said in (
        ({"theta": theta}, "`train` takes no θ"),
        ({"command": "ideal", "method": "particles"}, "`ideal` has no methods"),
        ({"command": "solve", "output": output}, r"--theta: was .* in the sweep"),
        ({"command": "verify", "theta": theta, "output": output}, "--command: was solve"),
    ):
        with pytest.raises(InputError, match=said):
            sweep(model, comm, "density.degree=1,2", **plan)


def test_what_is_finished_is_kept(comm: MPI.Comm, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = sweep(model, comm, KINETIC)
    files = [model.parent / "run_sweep" / name / "result.json" for name in statuses(first)]
    before = [file.stat().st_mtime_ns for file in files]
    comm.barrier()
    capsys.readouterr()
    again = sweep(model, comm, KINETIC, said=True)
    assert capsys.readouterr().out.count(": kept, it is finished") == 2
    assert again.rows == first.rows
    assert [file.stat().st_mtime_ns for file in files] == before
    comm.barrier()
    larger = sweep(model, comm, "objective.kinetic=0.2,1.0,0.5")
    assert list(statuses(larger)) == ["kinetic=0.2", "kinetic=1.0", "kinetic=0.5"]
    assert [file.stat().st_mtime_ns for file in files] == before
    comm.barrier()
    sweep(model, comm, KINETIC, overwrite=True)
    assert all(file.stat().st_mtime_ns > time for file, time in zip(files, before, strict=True))


@pytest.mark.parametrize("looks", [1, 3, 5, 6, 8])
def test_an_interrupted_sweep_goes_on(comm: MPI.Comm, model: Path, stop_after: Any, looks: int) -> None:
    """Between its runs and inside of them; it ends as if nothing had been."""
    expected = sweep(model, comm, KINETIC, output=model.parent / "whole")
    stop_after(looks)
    record = sweep(model, comm, KINETIC)
    assert len(record.undone) == (2 if looks <= 5 else 1)
    assert {row["status"] for row in record.undone} <= {"waiting", "interrupted"}
    assert on_root(comm, lambda: SweepRecord.load(model.parent / "run_sweep")).rows == record.rows
    stop_after(float("inf"))
    resumed = sweep(model, comm, KINETIC)
    seconds = {"seconds": 0.0}
    assert [row | seconds for row in resumed.rows] == [row | seconds for row in expected.rows]
    for name in statuses(expected):
        folders = [model.parent / sweep / name for sweep in ("run_sweep", "whole")]
        assert history(folders[0]) == history(folders[1])
    log = (model.parent / "run_sweep" / "kinetic=0.5" / "run.log").read_text()
    assert ("Going on after iteration" in log) == (looks in (3, 5))


def test_a_run_that_was_ended_without_a_checkpoint_is_done_again(comm: MPI.Comm, model: Path) -> None:
    whole = sweep(model, comm, KINETIC, "output.checkpoint_every=0")
    files = [model.parent / "run_sweep" / name / "result.json" for name in statuses(whole)]
    interrupted = json.dumps(result(model, "kinetic=0.5") | {"status": "interrupted"})
    comm.barrier()
    on_root(comm, lambda: files[0].write_text(interrupted))
    on_root(comm, files[1].unlink)  # killed
    again = sweep(model, comm, KINETIC, "output.checkpoint_every=0")
    assert [row["objective"] for row in again.rows] == [row["objective"] for row in whole.rows]
    assert statuses(again) == statuses(whole)


def test_a_combination_that_fails_is_told_and_the_others_are_run(comm: MPI.Comm, model: Path) -> None:
    """One that fails on the way, one whose data do not fit, which only shows where they are built."""
    record = sweep(model, comm, "field.theta=[[0.0, 0.5]],[[0.0, 1e9]]", "density.initial.0.mean=[50.0],[-0.4]")
    assert [row["status"] for row in record.rows] == ["failed", "max_iterations", "failed", "failed"]
    outside, _, _, fast = (row["reason"] for row in record.rows)
    assert "outside the domain" in outside
    assert "J cannot be evaluated at the initial θ" in fast
    assert len(record.undone) == 3
    assert "failed" in (model.parent / "run_sweep" / "sweep.csv").read_text()


@pytest.mark.one_process
def test_an_error_that_nobody_expects_is_told_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tasks.run_train

    def run(config: Any, *arguments: Any, **more: Any) -> Any:
        if config.objective.kinetic == 0.5:
            raise ZeroDivisionError("a bug")
        return original(config, *arguments, **more)

    monkeypatch.setattr(tasks, "run_train", run, raising=False)
    record = sweep(model, MPI.COMM_SELF, KINETIC)
    assert [row["status"] for row in record.rows] == ["failed", "max_iterations"]
    assert "ZeroDivisionError: a bug" in record.rows[0]["reason"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["objective.kinetic=0.5,-1.0"], r"objective\.kinetic: .*\(with kinetic=-1\.0\)"),
        (["objective.kinetik=0.5,1.0"], r"objective\.kinetik: .*kinetik=0\.5"),
        ([KINETIC, "field.layers=2,two"], r"field\.layers: .*layers=two"),
        (["objective.kinetic=0.5"], "nothing to sweep"),
        ([KINETIC, "objective.kinetic=2"], "more than once"),
        (["output.directory=a,b"], "no key to be swept"),
    ],
)
def test_wrong_keys_and_values_are_found_before_the_first_run(
    comm: MPI.Comm, model: Path, settings: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        sweep(model, comm, *settings)
    comm.barrier()
    assert not (model.parent / "run_sweep").exists()


def test_another_configuration_is_noticed_before_anything_is_run(comm: MPI.Comm, model: Path, stop_after: Any) -> None:
    stop_after(3)
    sweep(model, comm, KINETIC)
    stop_after(float("inf"))
    for changed, said in (
        (["density.degree=2"], r"density\.degree: was '1' in .*kinetic=0\.5; got 2\. Set it back"),
        (["optimiser.max_iterations=9"], r"optimiser\.max_iterations: was '3'"),
        (["solver.disk=1 GiB", "adapt.rounds=1"], r"adapt\.\w+: was not set"),
    ):
        with pytest.raises(InputError, match=said):
            sweep(model, comm, KINETIC, *changed)
    with pytest.raises(InputError, match="--command: was train"):
        sweep(model, comm, KINETIC, command="solve")
    record = sweep(model, comm, KINETIC, "output.densities=2", "solver.memory=1 GiB")  # which change no number
    assert not record.undone


def test_folders_that_hold_other_things_are_left_alone(comm: MPI.Comm, model: Path) -> None:
    folder = model.parent / "other"
    on_root(comm, folder.mkdir)
    on_root(comm, lambda: (folder / "file").write_text("mine"))
    with pytest.raises(InputError, match="other things than a sweep"):
        sweep(model, comm, KINETIC, output=folder)
    with pytest.raises(InputError, match="is a file"):
        sweep(model, comm, KINETIC, output=folder / "file")
    sweep(model, comm, KINETIC)
    member = model.parent / "run_sweep" / "kinetic=2.0"
    on_root(comm, member.mkdir)
    on_root(comm, lambda: (member / "file").write_text("mine"))
    with pytest.raises(InputError, match="something else than a run"):
        sweep(model, comm, "objective.kinetic=0.5,2.0")
    on_root(comm, lambda: (model.parent / "run_sweep" / "sweep.json").write_text('{"keys": 3}'))
    with pytest.raises(InputError, match=r"sweep\.json: cannot be read"):
        sweep(model, comm, KINETIC)
    assert not sweep(model, comm, KINETIC, overwrite=True).undone
    assert (member / "file").read_text() == "mine"


def test_a_full_disk_under_the_table_does_not_end_it(
    comm: MPI.Comm, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, calls = SweepRecord.save, []

    def save(record: SweepRecord, folder: Path) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ComputationError("sweep.json cannot be written (No space left on device)")
        original(record, folder)

    monkeypatch.setattr(SweepRecord, "save", save)
    record = sweep(model, comm, KINETIC, said=comm.rank == 0)
    assert not record.undone
    if comm.rank == 0:
        assert "Warning: sweep.json cannot be written" in capsys.readouterr().out
    assert on_root(comm, lambda: SweepRecord.load(model.parent / "run_sweep")).rows == record.rows


@pytest.mark.one_process
@pytest.mark.usefixtures("model")
def test_the_command_line(here: Here) -> None:
    done = here("sweep", "model.toml", "--set", KINETIC, "--set", "density.initial.0.mean=[-0.4],[50]", code=2)
    lines = done.stdout.splitlines()
    assert lines[0] == "[1/4] kinetic=0.5,mean=-0.4"
    assert lines[1].startswith("    max_iterations: J = 0.")
    assert lines[3].startswith("    failed: density.initial.0: ")
    assert [line for line in lines if line.startswith("run ")]
    assert any(line.startswith("kinetic=1.0,mean=50 ") and " failed" in line for line in lines)
    assert "iteration " not in done.stdout
    assert done.stderr == "eulerian sweep: 2 of 4 runs failed or have not come to their end\n"
    said = here("sweep", "model.toml", "--set", KINETIC, "--output", "other", "--verbose").stdout
    assert "iteration    3 " in said
    assert here("sweep", "model.toml", "--set", KINETIC, "--output", "third", "--quiet").stdout == ""
    assert "forbidden" in here("sweep", "model.toml", "--no-python", "--set", "field.layers=1,2",
                               "--set", 'field={kind="python",object="m:f"}', code=1).stderr  # fmt: skip


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_do_the_same_runs_together(model: Path, mpirun: Any, ranks: int) -> None:
    expected = sweep(model, MPI.COMM_SELF, KINETIC, "field.theta=[[0.0, 0.5]],[[0.0, 1e9]]")
    settings = ["--set", KINETIC, "--set", "field.theta=[[0.0, 0.5]],[[0.0, 1e9]]", "--output", "parallel"]
    done = mpirun(ranks, [sys.executable, "-m", "eulerian", "sweep", "model.toml", *settings])
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("2 of 4 runs failed") == 1
    found = SweepRecord.load(model.parent / "parallel")
    assert statuses(found) == statuses(expected)
    for row, other in zip(found.rows, expected.rows, strict=True):
        if row["objective"] is not None:
            assert row["objective"] == pytest.approx(other["objective"], rel=1e-8)
            assert row["ranks"] == ranks


@pytest.mark.mpi
def test_a_rank_that_fails_alone_ends_the_job(model: Path, mpirun: Any) -> None:
    job = f"""
import sys
from pathlib import Path
from mpi4py import MPI
from eulerian.app import tasks
original = tasks.run_train
def run(config, *arguments, **more):
    if MPI.COMM_WORLD.rank == 1 and config.objective.kinetic == 1.0:
        raise ZeroDivisionError("mine alone")
    return original(config, *arguments, **more)
tasks.run_train = run
from eulerian.app import cli
sys.argv = ["eulerian", "sweep", {str(model)!r}, "--set", {KINETIC!r}]
cli.entry()
"""
    done = mpirun(2, job, timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "mine alone" in done.stderr
    record = SweepRecord.load(model.parent / "run_sweep")
    assert statuses(record) == {"kinetic=0.5": "max_iterations", "kinetic=1.0": "waiting"}


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_sweep_that_is_ended_from_outside_goes_on(tmp_path: Path, name: str) -> None:
    table = small(optimiser={"max_iterations": 30, "gradient_tolerance": 0.0})
    table["field"] = {"kind": "mlp", "hidden": [8], "layers": 4}
    table |= {"ideal": {"certificate": "none"}, "output": {"checkpoint_every": 1, "figures": False}}
    (tmp_path / "model.toml").write_text(parse_config(table).to_toml())
    command = [sys.executable, "-m", "eulerian", "sweep", "model.toml", "--set", KINETIC, "--output", "s", "--quiet"]
    history = tmp_path / "s" / "kinetic=0.5" / "history.csv"
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60.0
            while not history.exists() or history.read_text().count("\n") < 5:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(process.pid, getattr(signal, name))
            _, err = process.communicate(timeout=10.0)
        finally:
            process.kill()
    assert process.returncode == (2 if name == "SIGTERM" else -9), err
    expected = {"kinetic=0.5": "interrupted" if name == "SIGTERM" else "waiting", "kinetic=1.0": "waiting"}
    assert statuses(SweepRecord.load(tmp_path / "s")) == expected
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(statuses(SweepRecord.load(tmp_path / "s")).values()) == {"max_iterations"}
    assert "Going on after iteration" in (history.parent / "run.log").read_text()


def test_nothing_of_it_is_shared_between_the_runs(comm: MPI.Comm, model: Path) -> None:
    """The runs of a sweep are those of the command."""
    sweep(model, comm, KINETIC)
    config = parse_config(model.read_text(), model.parent, ["objective.kinetic=1.0"], output=model.parent / "alone")
    document = tasks.run_train(config, comm)
    assert result(model, "kinetic=1.0")["objective"] == document["objective"]
    assert sweep_task.COMPLETE
