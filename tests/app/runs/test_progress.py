"""What is said while a run works, and by whom."""

from dataclasses import replace

from mpi4py import MPI

import pytest

from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import classification_table, parts_table
from eulerian.ideal.problem import GapRecord
from eulerian.optimise import Record

RECORD = Record(3, 0.5, {"terminal": 0.5}, 1e-3, 5, 0.25)
GAP = GapRecord(30, 0.08, 0.079, 0.001, 0.0125, 3e-5, 1.5)


def test_only_rank_0_speaks(comm: MPI.Comm, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress.of(comm)
    progress.say("one", "", "two")
    with progress.iterations(5) as observer:
        observer(RECORD)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (3 if comm.rank == 0 else 0)
    if comm.rank == 0:
        assert lines[:2] == ["one", "two"]
        assert "J = 0.5 " in lines[2]
        assert "|∇J| = 1.000e-03" in lines[2]


def test_quiet(comm: MPI.Comm, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress.of(comm, quiet=True)
    progress.say("one")
    with progress.iterations(5) as observer:
        observer(RECORD)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_one_line_moves(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(speaks=True, terminal=True).iterations(5) as observer:
        observer(RECORD)
    out = capsys.readouterr().out
    assert "3/5" in out
    assert "J = 0.5" in out
    assert "1.000e-03" in out


def test_the_gap(comm: MPI.Comm, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress.of(comm).gaps(50) as observer:
        observer(replace(GAP, iteration=20))
        observer(GAP)  # 1, 2, 5, 10, 20, 50, … are told: there may be thousands
    if comm.rank == 0:
        line = "iteration   20   primal = 0.08         dual = 0.079        gap = 1.25 %   residual = 3.00e-05   1.5 s"
        assert capsys.readouterr().out == f"{line}\n"
    with Progress(speaks=True, terminal=True).gaps(50) as observer:
        observer(GAP)
    out = capsys.readouterr().out
    for text in ("30/50", "primal = 0.08", "dual = 0.079", "gap = 1.25 %"):
        assert text in out


def test_a_line_without_news_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate by Hopf–Lax has no iterations."""
    with Progress(speaks=True, terminal=True).gaps(50):
        pass
    assert not capsys.readouterr().out.strip()


def test_tables_leave_out_what_is_not_there() -> None:
    parts = {"terminal": 0.25, "kinetic": 0.0, "jacobian": 0.0, "parameters": 1e-4}
    table = parts_table({"start": (0.2501, parts), "end": (0.1, {**parts, "kinetic": 0.5})})
    assert [line.split()[0] for line in table.splitlines()] == ["start", "J", "terminal", "kinetic", "parameters"]
    assert classification_table({}) == ""
    shares = {"initial": None, "final": {"accuracy": 0.75, "correct": [0.5, 1.0]}}
    rows = classification_table({"classification": shares}).splitlines()
    assert [row.split()[-2:] for row in rows[1:]] == [["nan", "0.7500"], ["nan", "0.5000"], ["nan", "1.0000"]]


def test_parts_that_an_earlier_version_did_not_know() -> None:
    table = parts_table({"start": (0.2, {"kinetic": 0.1}), "end": (0.1, {"kinetic": 0.0, "interaction": 0.0})})
    assert [line.split()[0] for line in table.splitlines()] == ["start", "J", "kinetic"]
    told = parts_table({"start": (0.2, {"kinetic": 0.1}), "end": (0.1, {"kinetic": 0.0, "interaction": 0.1})})
    assert told.splitlines()[-1].split() == ["interaction", "nan", "0.1"]


@pytest.mark.parametrize("feasible", [True, False])
def test_what_is_no_flow_yet_is_an_estimate_without_gap(capsys: pytest.CaptureFixture[str], feasible: bool) -> None:
    with Progress(speaks=True).gaps(100) as observer:
        observer(replace(GAP, iteration=20, feasible=feasible))
    said = capsys.readouterr().out
    assert ("primal = " in said, "gap = " in said, "estimate = " in said) == (feasible, feasible, not feasible)
