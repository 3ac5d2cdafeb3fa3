"""Signals that ask a run to end, in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs import SCRIPTS, environment, turn

pytestmark = pytest.mark.mpi  # processes and jobs of their own

MODEL = """
[domain]
box = { lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [24, 24] }
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.5
[field]
kind = "mlp"
layers = 4
[objective]
kinetic = 0.5
[objective.terminal]
kind = "quadratic"
target = [1.0, -0.5]
[optimiser]
max_iterations = 100000
gradient_tolerance = 0.0
[output]
checkpoint_every = "1 h"
"""


@contextmanager
def training(folder: Path, *launcher: str) -> Iterator[subprocess.Popen[str]]:
    """A training that would take for ever, past its third iteration."""
    (folder / "model.toml").write_text(MODEL)
    command = [*launcher, sys.executable, "-m", "eulerian", "train", "model.toml", "--output", "run", "--quiet"]
    pipe = subprocess.PIPE
    with (
        turn(command),
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            history, deadline = folder / "run" / "history.csv", time.monotonic() + 60.0
            while not history.exists() or history.read_text().count("\n") < 4:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def check_interrupted(folder: Path, process: subprocess.Popen[str], name: str) -> None:
    """It ends within ten seconds, says so once, and leaves a checkpoint of its last iteration."""
    _, err = process.communicate(timeout=10.0)
    assert process.returncode == 2, err
    assert err.count(f"interrupted by {name}") == 1
    document = json.loads((folder / "run" / "result.json").read_text())
    assert document["status"] == "interrupted"
    lines = (folder / "run" / "history.csv").read_text().splitlines()
    assert document["iterations"] == int(lines[-1].split(",")[0])
    assert (folder / "run" / "checkpoint" / "latest.npz").exists()
    assert (folder / "run" / "theta.npz").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_single_process(tmp_path: Path, name: str) -> None:
    if name == "SIGINT" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("a shell has its background jobs ignore Ctrl-C, and so do their children")
    with training(tmp_path) as process:
        process.send_signal(getattr(signal, name))
        check_interrupted(tmp_path, process, name)


def test_one_rank_of_two(tmp_path: Path) -> None:
    launcher = os.path.join(SCRIPTS, "mpiexec")
    with training(tmp_path, launcher if os.path.exists(launcher) else "mpiexec", "-n", "2") as process:
        os.kill(rank_one(process.pid), signal.SIGTERM)
        check_interrupted(tmp_path, process, "SIGTERM")


def rank_one(group: int) -> int:
    """The second rank of the job that a launcher has started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                parents = ancestors(int(entry.name))
            except OSError:
                continue
            if b"PMI_RANK=1" in variables and group in parents and b"eulerian" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise AssertionError("there is no second rank")


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        found.append(pid)
    return found
