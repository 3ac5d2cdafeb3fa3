"""Files that cannot be written: told with their name, nothing half written, numbers not lost. A limit on the size of
files stands for the full disk."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from configurations import small

from eulerian.app.config import parse_config
from eulerian.app.runs.files import append_text, write_atomically
from eulerian.app.tasks import run_solve, task
from eulerian.base.errors import ComputationError
from eulerian.transport.checkpointing import DiskStore

pytestmark = pytest.mark.one_process


@contextmanager
def files_of(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    with files_of(100):
        append_text(path, "a,b\n1,2\n")
        with pytest.raises(ComputationError, match=r"history\.csv cannot be written.*Free some space"):
            append_text(path, 50 * "3,4\n")
        assert path.read_text() == "a,b\n1,2\n"
        with pytest.raises(ComputationError, match="cannot be written"):
            append_text(tmp_path / "new.csv", 50 * "3,4\n")
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


def test_a_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "theta.npz"
    path.write_text("old")
    with files_of(100), pytest.raises(ComputationError, match=r"theta\.npz cannot be written"):
        write_atomically(path, lambda file: file.write(bytes(1000)))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["theta.npz"]


def test_no_room_for_densities_of_the_adjoint(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    with files_of(1000), pytest.raises(ComputationError, match=r"solver\.disk_directory"):
        store.write("a", np.zeros(1000))


def test_room_on_disk_is_used_again_and_never_seen(tmp_path: Path) -> None:
    store, out = DiskStore(tmp_path), np.zeros(100)
    with files_of(3 * 800):  # room for three
        for index in range(20):
            store.write(f"{index}", np.full(100, float(index)))
            if index >= 2:
                store.read(f"{index - 1}", out)
                assert np.all(out == index - 1)
                store.remove(f"{index - 2}")
    assert not list(tmp_path.iterdir())  # nothing is left even by a process that is killed


def test_output_that_fails_keeps_the_result(tmp_path: Path) -> None:
    config = small(output={"directory": str(tmp_path / "run"), "densities": 2})
    config["domain"] = {"box": {"lower": [-2.0], "upper": [2.0], "cells": [3000]}}
    with files_of(20_000):
        document = run_solve(parse_config(config))
    assert document["status"] == "failed"
    assert "cannot be written (File too large). Free some space" in document["reason"]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == document
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_result_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(output={"directory": str(tmp_path / "run"), "densities": 0})
    describe = task.describe
    monkeypatch.setattr(task, "describe", lambda *parts: describe(*parts) | {"long": 30_000 * "x"})
    with files_of(20_000), pytest.raises(ComputationError, match=r"result\.json cannot be written") as caught:
        run_solve(parse_config(config))
    document = json.loads(str(caught.value).splitlines()[-1])
    assert document["objective"]["total"] > 0.0
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_full_disk_behind_the_standard_output(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(parse_config(small()).to_toml())
    command = f"exec {sys.executable} -m eulerian solve model.toml --output run > /dev/full"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "result.json").is_file()
