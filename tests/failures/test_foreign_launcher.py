"""A launcher of another MPI starts ranks that never meet: they must not race for one run folder."""

import argparse
import os

import pytest

from eulerian.app.cli import launch

pytestmark = pytest.mark.one_process


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI_", "SLURM_")):
            monkeypatch.delenv(name)


def begun(_options: argparse.Namespace) -> int:
    raise AssertionError("the command was begun")


@pytest.mark.parametrize(
    ("rank", "size"),
    [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ],
)
def test_the_first_rank_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, size: str
) -> None:
    monkeypatch.setenv(size, "2")
    options = argparse.Namespace(name="train")
    for number in (0, 1):
        monkeypatch.setenv(rank, str(number))
        assert launch.together(begun, options) == 1
    said = capsys.readouterr().err
    assert said.startswith("eulerian train: was started on 2 ranks that do not meet")
    assert said.count("\n") == 1


def test_one_rank_of_a_launcher_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")  # of the whole job, inside which one process was started by hand
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert launch.together(lambda _options: 0, argparse.Namespace(name="train")) == 0
