"""The run folder: who may write there, and that nothing in it is ever half written."""

import csv
import json
import math
import os
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest

from eulerian.app.runs.files import GAP_COLUMNS, HISTORY_COLUMNS, write_atomically
from eulerian.app.runs.folder import RunFolder
from eulerian.base.errors import ComputationError, InputError


def finished_run(comm: MPI.Comm, path: Path) -> RunFolder:
    run = RunFolder.claim(comm, path)
    run.start("a = 1\n")
    on_rank_0(comm, lambda: run.append_history_here(dict.fromkeys(HISTORY_COLUMNS, 1.0)))
    run.write_theta(np.ones((2, 3)))
    run.write_result({"status": "converged"})
    return run


def on_rank_0(comm: MPI.Comm, work) -> None:
    if comm.rank == 0:
        work()
    comm.barrier()


def test_a_run_writes_its_files(comm: MPI.Comm, tmp_path: Path) -> None:
    run = finished_run(comm, tmp_path / "deep" / "run")
    comm.barrier()
    assert (run.path / "config.resolved.toml").read_text() == "a = 1\n"
    assert json.loads((run.path / "result.json").read_text()) == {"status": "converged"}
    with np.load(run.path / "theta.npz", allow_pickle=False) as data:
        assert data.files == ["theta"]
        assert np.array_equal(data["theta"], np.ones((2, 3)))
    assert not list(run.path.rglob("*.part"))


def test_theta_file_holds_a_trained_readout(comm: MPI.Comm, tmp_path: Path) -> None:
    run = RunFolder.claim(comm, tmp_path / "run")
    run.start("")
    run.write_theta(np.zeros((1, 2)), np.arange(4.0))
    with np.load(run.path / "theta.npz") as data:
        assert np.array_equal(data["readout"], np.arange(4.0))


def test_a_run_is_not_overwritten_unasked(comm: MPI.Comm, tmp_path: Path) -> None:
    finished_run(comm, tmp_path / "run")
    with pytest.raises(InputError, match=r"output\.directory.*already holds a run.*--overwrite"):
        RunFolder.claim(comm, tmp_path / "run")


def test_an_unfinished_run_counts_as_a_run(comm: MPI.Comm, tmp_path: Path) -> None:
    RunFolder.claim(comm, tmp_path / "run").start("")
    with pytest.raises(InputError, match="already holds a run"):
        RunFolder.claim(comm, tmp_path / "run")


def test_claiming_changes_nothing(comm: MPI.Comm, tmp_path: Path) -> None:
    finished_run(comm, tmp_path / "run")
    RunFolder.claim(comm, tmp_path / "run", overwrite=True)
    RunFolder.claim(comm, tmp_path / "other")
    comm.barrier()
    assert (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "other").exists()


def test_overwriting_deletes_the_run_and_only_the_run(comm: MPI.Comm, tmp_path: Path) -> None:
    path = finished_run(comm, tmp_path / "run").path

    def work() -> None:
        (path / "figures").mkdir()
        for name in ("densities.pvd", "densities_000001_p0.vtu", "figures/history.png", "notes.txt", "my_result.json"):
            (path / name).write_text("x")

    on_rank_0(comm, work)
    RunFolder.claim(comm, path, overwrite=True).start("b = 2\n")
    comm.barrier()
    assert sorted(file.name for file in path.iterdir()) == ["config.resolved.toml", "my_result.json", "notes.txt"]
    assert (path / "config.resolved.toml").read_text() == "b = 2\n"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(comm: MPI.Comm, tmp_path: Path, overwrite: bool) -> None:
    on_rank_0(comm, lambda: (tmp_path / "history.csv").write_text("mine"))
    with pytest.raises(InputError, match="other things than a run"):
        RunFolder.claim(comm, tmp_path, overwrite)
    assert (tmp_path / "history.csv").read_text() == "mine"


def test_an_empty_folder_may_be_used(comm: MPI.Comm, tmp_path: Path) -> None:
    on_rank_0(comm, lambda: (tmp_path / "run").mkdir())
    RunFolder.claim(comm, tmp_path / "run").start("")
    comm.barrier()
    assert (tmp_path / "run" / "config.resolved.toml").exists()


def test_a_file_in_the_place_of_the_folder(comm: MPI.Comm, tmp_path: Path) -> None:
    on_rank_0(comm, lambda: (tmp_path / "run").write_text("x"))
    with pytest.raises(InputError, match="is a file"):
        RunFolder.claim(comm, tmp_path / "run", overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder.claim(comm, tmp_path / "run" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(comm: MPI.Comm, tmp_path: Path) -> None:
    on_rank_0(comm, lambda: tmp_path.chmod(0o500))
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder.claim(comm, tmp_path / "run")
    comm.barrier()
    on_rank_0(comm, lambda: tmp_path.chmod(0o700))


def test_history_is_appended_line_by_line(comm: MPI.Comm, tmp_path: Path) -> None:
    run = RunFolder.claim(comm, tmp_path / "run")
    run.start("")
    for i in range(3):
        row = dict.fromkeys(HISTORY_COLUMNS, 0.1 * i) | {"iteration": i, "evaluations": np.int64(i)}
        row["gradient_norm"] = math.nan if i == 1 else 1e-30
        on_rank_0(comm, lambda row=row: run.append_history_here(row))
        with (run.path / "history.csv").open(newline="") as file:
            assert len(list(csv.reader(file))) == i + 2
        comm.barrier()
    comm.barrier()
    with (run.path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HISTORY_COLUMNS
    assert rows[2]["iteration"] == rows[2]["evaluations"] == "2"
    assert float(rows[2]["total"]) == 0.2
    assert [row["gradient_norm"] for row in rows] == ["1e-30", "", "1e-30"]


def test_gaps_have_a_file_of_their_own(comm: MPI.Comm, tmp_path: Path) -> None:
    run = RunFolder.claim(comm, tmp_path / "run")
    run.start("")
    run.append_gap(dict.fromkeys(GAP_COLUMNS, 0.5) | {"iteration": 10, "primal": math.inf})
    comm.barrier()
    with (run.path / "gap.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == GAP_COLUMNS
    assert (rows[0]["iteration"], rows[0]["primal"], rows[0]["dual"]) == ("10", "", "0.5")
    assert not (run.path / "history.csv").exists()
    comm.barrier()
    run.start("")
    comm.barrier()
    assert not (run.path / "gap.csv").exists()


def test_a_broken_write_leaves_the_old_file(tmp_path: Path, comm: MPI.Comm) -> None:
    path = tmp_path / f"file{comm.rank}"
    path.write_text("old")

    def fail(file) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(ComputationError, match=f"{path.name} cannot be written.*disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(f".{path.name}*"))


def test_an_error_on_rank_0_reaches_every_rank(comm: MPI.Comm, tmp_path: Path) -> None:
    run = RunFolder(comm, tmp_path / "nowhere")
    with pytest.raises(ComputationError, match="nowhere"):
        run.append_gap(dict.fromkeys(GAP_COLUMNS, 1.0))
