"""The log of a run: what it has told, in its folder, whatever the terminal heard and however it ended."""

import os
import re
import resource
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

import eulerian
from eulerian.app import tasks
from eulerian.app.config import Config, parse_config
from eulerian.app.runs.run_log import RunLog
from eulerian.app.tasks import train as train_task
from eulerian.base.errors import ComputationError, InputError
from eulerian.base.log import RUN_LOGGER
from eulerian.base.parallel import on_root

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4}  (INFO|WARNING|ERROR) "


def config_in(folder: Path, **sections: object) -> Config:
    return parse_config(small(**sections), folder.parent, output=folder)


def log_of(comm: MPI.Comm, folder: Path) -> str:
    comm.barrier()
    return on_root(comm, lambda: (folder / "run.log").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", ["solve", "train", "ideal", "verify", "compare"])
def test_every_command_that_makes_a_run_leaves_one(comm: MPI.Comm, tmp_path: Path, command: str) -> None:
    getattr(tasks, f"run_{command}")(config_in(tmp_path / "run", output={"densities": 0}), comm)
    text = log_of(comm, tmp_path / "run")
    lines = text.splitlines()
    assert re.match(STAMP, lines[0])
    ranks = f"{comm.size} rank" + ("s" if comm.size > 1 else "")
    assert lines[0].endswith(f"eulerian {eulerian.__version__}: {command}, {ranks}")
    assert lines[1].split("command line: ")[1]
    for name in ("dolfinx", "petsc", "python", "numpy", "MPI"):
        assert name in lines[3]
    assert text.count(f"eulerian {eulerian.__version__}: ") == 1  # of rank 0 alone
    assert re.search(rf"{STAMP}.*(done|converged|max_iterations): ", text)
    assert re.search(rf"(?m)^{STAMP} +end, after .* s$", lines[-1])
    assert not any(isinstance(handler, RunLog) for handler in RUN_LOGGER.handlers)


def test_iterations_and_warnings_are_in_it_although_nothing_is_said(
    comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = {"box": {"lower": [-0.6], "upper": [0.6], "cells": [24]}}
    tasks.run_train(config_in(tmp_path / "run", domain=narrow), comm)
    text = log_of(comm, tmp_path / "run")
    assert capsys.readouterr().out == ""
    assert len(re.findall(rf"(?m)^{STAMP} +iteration +\d+   J = ", text)) == 4
    assert re.search(r"(?m) WARNING  Warning: .*outside the domain", text)
    assert "\n" + " " * 35 + "J " in text  # further lines of a table stand below its first


def test_a_resumed_run_goes_on_in_it_and_a_new_one_begins_anew(comm: MPI.Comm, tmp_path: Path) -> None:
    config = config_in(tmp_path / "run", output={"densities": 0, "checkpoint_every": 1})
    tasks.run_train(config, comm)
    before = log_of(comm, tmp_path / "run")
    longer = config.replace({"optimiser.max_iterations": 5})
    tasks.run_train(longer, comm, resume=True)
    after = log_of(comm, tmp_path / "run")
    assert after.startswith(before)
    assert "Going on after iteration 3." in after[len(before) :]
    tasks.run_train(config, comm, overwrite=True)
    assert log_of(comm, tmp_path / "run").count(f"eulerian {eulerian.__version__}: ") == 1


def test_a_run_that_is_verified_again_says_so_in_it(comm: MPI.Comm, tmp_path: Path) -> None:
    tasks.run_solve(config_in(tmp_path / "run", output={"densities": 0}), comm)
    before = log_of(comm, tmp_path / "run")
    tasks.run_verify_run(tmp_path / "run", comm)
    after = log_of(comm, tmp_path / "run")
    assert after.startswith(before)
    assert "verify --run" in after[len(before) :]
    assert "for the network itself" in after[len(before) :]


def test_wrong_input_touches_no_log(comm: MPI.Comm, tmp_path: Path) -> None:
    config = config_in(tmp_path / "run", output={"densities": 0})
    tasks.run_solve(config, comm)
    before = log_of(comm, tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        tasks.run_train(config, comm)
    assert log_of(comm, tmp_path / "run") == before


def test_an_error_is_in_it(comm: MPI.Comm, tmp_path: Path) -> None:
    config = config_in(tmp_path / "run", solver={"max_steps_per_layer": 1})
    with pytest.raises(ComputationError):
        tasks.run_train(config.replace({"field.theta": [[0.0, 50.0]]}), comm)
    text = log_of(comm, tmp_path / "run")
    assert re.search(r"(?m) ERROR +J cannot be evaluated at the initial θ", text)
    assert "Traceback" not in text
    assert text.count(" ERROR ") == 1


@pytest.mark.one_process
def test_an_error_that_nobody_expects_is_in_it_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(train_task, "build_training", fail)
    with pytest.raises(ZeroDivisionError):
        tasks.run_train(config_in(tmp_path / "run"))
    text = (tmp_path / "run" / "run.log").read_text()
    assert re.search(r"(?s) ERROR +an unexpected error\n +Traceback .* in fail.*ZeroDivisionError: a bug\n$", text)


@pytest.mark.one_process
def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    complaints: list[str] = []
    log = RunLog(MPI.COMM_SELF, complaints.append)
    log.start(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    RUN_LOGGER.addHandler(log)
    try:
        RUN_LOGGER.info("one")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        RUN_LOGGER.info("two " + 100 * "x")
        RUN_LOGGER.info("three " + 100 * "x")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        RUN_LOGGER.info("four")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        RUN_LOGGER.removeHandler(log)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "one",
        "[2 messages are missing here: they could not be written]",
        "four",
    ]
    (complaint,) = complaints
    assert re.search(r"run\.log cannot be written \(File too large\)\. Free some space.*The run goes on", complaint)


@pytest.mark.one_process
def test_a_run_on_a_full_disk_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise ComputationError("run.log cannot be written (No space left on device)")

    monkeypatch.setattr("eulerian.app.runs.run_log.append_text", full)
    document = tasks.run_train(config_in(tmp_path / "run"))
    assert document["status"] == "max_iterations"
    assert [text for text in document["warnings"] if "run.log" in text] == [
        "run.log cannot be written (No space left on device). The run goes on"
    ]


@pytest.mark.one_process
def test_quiet_commands_and_odd_command_lines(here: Here, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(parse_config(small()).to_toml())
    here("solve", "model.toml", "--output", "r n", "--quiet")
    text = (tmp_path / "r n" / "run.log").read_text()
    assert "command line: eulerian solve model.toml --output 'r n' --quiet\n" in text
    assert "written to r n: " in text


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_run_that_is_ended_from_outside_leaves_it(tmp_path: Path, name: str) -> None:
    table = small(optimiser={"max_iterations": 10**6, "gradient_tolerance": 0.0}, output={"checkpoint_every": "1 h"})
    table["field"] = {"kind": "mlp", "hidden": [8], "layers": 4}
    (tmp_path / "model.toml").write_text(parse_config(table).to_toml())
    command = [sys.executable, "-m", "eulerian", "train", "model.toml", "--output", "run", "--quiet"]
    log = tmp_path / "run" / "run.log"
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60.0
            while not log.exists() or "iteration    3 " not in log.read_text():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(process.pid, getattr(signal, name))
            process.wait(20.0)
        finally:
            process.kill()
    text = log.read_text()
    assert text.endswith("\n")
    assert ("interrupted by SIGTERM" in text) == (name == "SIGTERM")


@pytest.mark.mpi
def test_a_rank_that_fails_alone_writes_it_itself(tmp_path: Path, mpirun: Any) -> None:
    done = mpirun(
        2,
        f"""
from mpi4py import MPI
import eulerian
from eulerian.app import tasks
from eulerian.app.config import parse_config
from eulerian.app.tasks import train
original = train.finite_value
def fail(*arguments):
    if MPI.COMM_WORLD.rank == 1:
        raise ZeroDivisionError("mine")
    return original(*arguments)
train.finite_value = fail
tasks.run_train(parse_config({small()!r}, output="run"))
""",
    )
    assert done.returncode != 0
    text = (tmp_path / "run" / "run.log").read_text()
    assert re.search(r"(?s) ERROR +\[rank 1\] an unexpected error\n.*ZeroDivisionError: mine", text), text
