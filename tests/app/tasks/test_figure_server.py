"""Figures that a process draws beside a run: they are the same, and whatever becomes of it is told."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from configurations import small

from eulerian.app import tasks
from eulerian.app.config import parse_config
from eulerian.app.runs.files import HISTORY_COLUMNS
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.snapshots import Snapshots
from eulerian.app.tasks import drawing
from eulerian.app.tasks.drawing import FigureServer, draw_figures, drawing_beside, drawn_beside, figures_drawn
from eulerian.base.errors import EulerianWarning

SERVER = "import os, signal, time, eulerian.app.tasks.figure_server as server\n"

BOX = {"lower": [-3.0], "upper": [3.0], "cells": [16]}  # no mass at the boundary, of which there would be a figure
MODEL = small(domain={"box": BOX}, optimiser={"max_iterations": 2}, output={"densities": 0})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with a history and densities."""
    path = tmp_path / "run"
    (path / "figures").mkdir(parents=True)
    rows = [",".join([str(1.0 / (1 + i))] * len(HISTORY_COLUMNS)) for i in range(9)]
    (path / "history.csv").write_text("\n".join([",".join(HISTORY_COLUMNS), *rows]) + "\n")
    points = np.array([[[0.0], [0.5]], [[0.5], [1.0]]])
    density, velocity = np.ones((2, 2, 2, 1)), np.zeros((2, 2, 2, 1, 1))
    Snapshots(np.linspace(0, 1, 2), points, density, velocity).save(path / "figures" / "snapshots.npz")
    return path


@contextmanager
def server() -> Iterator[FigureServer]:
    started = FigureServer()
    try:
        yield started
    finally:
        started.close()


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "figures").glob("*.png")}


@pytest.mark.one_process
def test_figures_are_those_of_this_process(folder: Path) -> None:
    with server() as beside:
        beside.ask(folder, (), ("history",))
        beside.ask(folder, ("history",), ())  # before the others are drawn
        assert beside.wait() == ([], "")
        drawn = pictures(folder)
        assert drawn.keys() == {"densities.png", "history.png"}
        for path in (folder / "figures").glob("*.png"):
            path.unlink()
        assert beside.wait() == ([], "")  # nothing is asked
    drawing.draw_run(folder)
    assert pictures(folder) == drawn


@pytest.mark.one_process
def test_data_that_cannot_be_drawn_and_files_that_cannot_be_written_are_told_apart(folder: Path) -> None:
    (folder / "figures" / "snapshots.npz").write_bytes(b"damaged")
    (folder / "figures" / "history.png").mkdir()
    with server() as beside:
        beside.ask(folder, (), ())
        (failure,), error = beside.wait()
    assert failure.startswith(f"{folder / 'figures' / 'densities.png'} could not be drawn: ")
    assert "history.png" in error


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("program", "told"),
    [
        (
            "server._drawn = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nserver.main()",
            "process was ended by SIGKILL",
        ),
        ("raise SystemExit(3)", "has ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("server._drawn = lambda *_: time.sleep(600)\nserver.main()", "has said nothing for 3 s"),
        ("time.sleep(600)", "has said nothing for 3 s"),
    ],
)
def test_a_process_that_dies_or_hangs_is_told_and_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    monkeypatch.setattr(drawing, "_PROGRAM", ("-c", SERVER + program))
    monkeypatch.setattr(drawing, "_PATIENCE", 3.0)
    with server() as beside:
        beside.ask(folder, ("history",), ())
        if told.startswith("process"):
            monkeypatch.setattr(drawing, "_PATIENCE", 60.0)
        failures, error = beside.wait()
    assert told in " ".join(failures)
    assert not error
    assert not pictures(folder)
    with pytest.raises(ProcessLookupError):
        os.killpg(beside._process.pid, 0)


@pytest.mark.one_process
def test_it_joins_no_job_and_ends_with_the_run() -> None:
    program = (
        "import os, pathlib, sys, time\n"
        "os.environ['PMI_RANK'] = os.environ['PMI_FD'] = '7'\n"
        "from eulerian.app.tasks.drawing import FigureServer\n"
        "process = FigureServer()._process.pid\n"
        "time.sleep(0.5)\n"
        "print(process, b'PMI_' in pathlib.Path(f'/proc/{process}/environ').read_bytes(), flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    process, leaked = done.stdout.split()
    assert leaked == "False"
    for _ in range(100):
        try:
            os.killpg(int(process), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the server outlives the run")


def run_folder(comm: MPI.Comm, path: Path, *, figures: bool = True) -> RunFolder:
    return RunFolder(comm, path, figures=figures)


@pytest.mark.one_process
@pytest.mark.parametrize(("cores", "figures", "allowed"), [(1, True, True), (2, False, True), (2, True, False)])
def test_none_is_started_without_need(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cores: int, figures: bool, allowed: bool
) -> None:
    def fail() -> None:
        raise AssertionError

    monkeypatch.undo()
    monkeypatch.setattr("eulerian.base.parallel.own_cores", lambda: frozenset(range(cores)))
    monkeypatch.setattr(drawing, "FigureServer", fail)
    monkeypatch.setattr(drawing, "_allowed", allowed)
    with drawn_beside(run_folder(MPI.COMM_SELF, folder, figures=figures)):
        assert drawing._beside is None


@pytest.mark.two_ranks
@pytest.mark.figures
def test_all_ranks_hear_of_it(comm: MPI.Comm, tmp_path: Path) -> None:
    """As many cores as ranks and more are there by the fixture of all tests."""
    run = run_folder(comm, tmp_path)
    if comm.rank == 0:
        (tmp_path / "history.csv").write_text(f"{','.join(HISTORY_COLUMNS)}\n{','.join(HISTORY_COLUMNS)}\n")
    comm.barrier()
    with drawing_beside(), drawn_beside(run):
        assert drawing._beside is not None
        assert len(drawing._beside) == (comm.rank == 0)
        draw_figures(run, only=("history",))
        if comm.rank == 0:
            with pytest.warns(EulerianWarning, match="history.png could not be drawn"):
                assert not figures_drawn(run)
        else:
            assert not figures_drawn(run)
    assert drawing._beside is None


@pytest.mark.one_process
@pytest.mark.figures
def test_a_run_says_at_its_end_what_became_of_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with drawing_beside():
        document = tasks.run_train(parse_config(MODEL, tmp_path, ["output.directory=one"]), MPI.COMM_SELF)
        assert document["status"] == "max_iterations"
        assert pictures(tmp_path / "one").keys() == {"densities.png", "history.png"}
        figures = tmp_path / "two" / "figures"
        start = RunFolder.start

        def with_an_obstacle(run: RunFolder, *arguments: object) -> None:
            start(run, *arguments)  # type: ignore[arg-type]
            (figures / "densities.png").mkdir(parents=True)

        monkeypatch.setattr(RunFolder, "start", with_an_obstacle)
        document = tasks.run_train(parse_config(MODEL, tmp_path, ["output.directory=two"]), MPI.COMM_SELF)
    assert document["status"] == "failed"
    assert "then the output failed" in document["reason"]
    assert document["certificate"]["gap"] > 0.0
    assert (figures / "history.png").is_file()
