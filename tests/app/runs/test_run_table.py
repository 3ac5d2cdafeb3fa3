"""Many runs in one table, whatever state their folders are in."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from configurations import small
from jobs import Here

import eulerian
from eulerian.app import tasks
from eulerian.app.config import parse_config
from eulerian.app.runs import run_table
from eulerian.app.runs.run_table import COLUMNS, RunTable, runs
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process

RESULT: dict[str, Any] = {
    "command": "train",
    "status": "converged",
    "reason": "the gradient is small",
    "objective": {"total": 0.25},
    "verified": {"objective": {"total": 0.2475}, "density_l1": [0.01, 0.04]},
    "certificate": {"gap": 0.001},
    "iterations": 12,
    "mesh": {"cells": 512},
    "ranks": 2,
    "seconds": {"solve": 1.5},
    "warnings": ["one", "two"],
    "resolved": True,
}
HISTORY = (
    "iteration,total,terminal,kinetic,jacobian,parameters,gradient_norm,evaluations,seconds,potential,congestion,entropy,"
    "level,verified\n0,2.0,2.0,0,0,0,1.0,1,0.1,0,0,0,1,\n7,0.5,0.5,0,0,0,0.1,9,3.5,0,0,0,1,0.4\n"
)


def leave(folder: Path, result: object = None, **files: str) -> None:
    folder.mkdir(parents=True)
    if result is not None:
        (folder / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    for name, text in files.items():
        (folder / {"config": "config.resolved.toml", "history": "history.csv"}[name]).write_text(text)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Runs in every state, and things that are none."""
    leave(tmp_path / "b" / "run10", RESULT)
    leave(tmp_path / "b" / "run9", RESULT | {"status": "failed", "reason": "J\nis [bold]NaN[/bold]", "objective": None})
    leave(tmp_path / "b" / "run10" / "inside", RESULT)
    leave(tmp_path / "b" / "run10" / "figures" / "no_run", RESULT)
    leave(tmp_path / "at_work", None, config="", history=HISTORY)
    leave(tmp_path / "no_iteration", None, config="", history="")
    leave(tmp_path / "damaged_history", None, config="", history="iteration\nx\n")
    leave(tmp_path / "cut", '{"command": "train"', config="")
    leave(tmp_path / "no_text", None, config="")
    (tmp_path / "no_text" / "result.json").write_bytes(b"\xff\xfe\x00")
    leave(tmp_path / "deep", "[" * 100_000, config="")
    leave(tmp_path / "other_program", {"answer": 42})
    leave(tmp_path / "list", "[1, 2]", config="")
    leave(tmp_path / "odd", {key: "text" for key in RESULT} | {"ranks": True})
    leave(tmp_path / "nan", json.dumps(RESULT | {"objective": {"total": float("nan")}}))
    leave(tmp_path / ".hidden", RESULT)
    leave(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nothing" / "file").write_text("")
    return tmp_path


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in runs(folder).rows}


def test_a_run_in_all_its_columns(many: Path) -> None:
    assert rows_of(many)["b/run10"] == {
        "name": "b/run10",
        "command": "train",
        "status": "converged",
        "objective": 0.25,
        "verified": 0.2475,
        "density_l1": 0.04,
        "gap": 0.001,
        "iterations": 12,
        "cells": 512,
        "ranks": 2,
        "seconds": 1.5,
        "warnings": 2,
        "resolved": True,
        "reason": "the gradient is small",
    }


def test_every_state_is_told_and_nothing_else_is_there(many: Path) -> None:
    assert {name: row["status"] for name, row in rows_of(many).items()} == {
        "at_work": "unfinished",
        "b/run9": "failed",
        "b/run10": "converged",
        "b/run10/inside": "converged",
        "cut": "damaged",
        "damaged_history": "unfinished",
        "deep": "damaged",
        "list": "damaged",
        "nan": "converged",
        "no_iteration": "unfinished",
        "no_text": "damaged",
        "odd": "text",
        "other_program": "foreign",
    }


def test_what_is_not_known_is_none(many: Path) -> None:
    rows = rows_of(many)
    assert all(list(row) == list(COLUMNS) for row in rows.values())
    assert rows["nan"]["objective"] is None
    assert rows["odd"]["ranks"] is None
    assert rows["odd"]["cells"] is None
    json.loads(runs(many).json(), parse_constant=pytest.fail)


def test_a_run_at_work_shows_its_last_iteration(many: Path) -> None:
    row = rows_of(many)["at_work"]
    shown = {key: row[key] for key in ("command", "objective", "verified", "iterations", "seconds")}
    assert shown == {"command": "train", "objective": 0.5, "verified": 0.4, "iterations": 7, "seconds": 3.5}
    assert isinstance(row["iterations"], int)


def test_names_are_in_the_order_of_their_numbers(many: Path) -> None:
    names = [row["name"] for row in runs(many)]
    assert names.index("b/run9") + 1 == names.index("b/run10")


@pytest.mark.parametrize("reverse", [False, True])
def test_sorting(many: Path, reverse: bool) -> None:
    by_title, by_key = (runs(many).sorted(column, reverse=reverse).rows for column in ("J", "objective"))
    values = [row["objective"] for row in by_key]
    known = [value for value in values if value is not None]
    assert by_title == by_key
    assert known == sorted(known, reverse=reverse) == values[: len(known)]
    with pytest.raises(InputError, match=r"sort: is no column.*'nothing'.*objective"):
        runs(many).sorted("nothing")
    with pytest.raises(InputError, match="is no column"):
        runs(many).sorted("")


def test_a_run_itself_is_a_table_of_one(many: Path) -> None:
    assert [row["name"] for row in runs(many / "b" / "run9")] == ["."]


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        runs(tmp_path / "missing")


def test_folders_that_may_not_be_entered_are_told(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_run(path: Path) -> bool:
        if path.name == "nothing":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    def scandir(path: Any) -> Any:
        if os.fspath(path).endswith("list"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return list_folder(path)

    original, list_folder = run_table.is_run, os.scandir
    monkeypatch.setattr(run_table, "is_run", is_run)
    monkeypatch.setattr(os, "scandir", scandir)
    rows = rows_of(many)
    for name in ("nothing", "list"):
        assert (rows[name]["status"], rows[name]["reason"]) == ("unreadable", "Permission denied")
    assert "b/run10" in rows


def test_the_table_says_what_went_wrong(many: Path) -> None:
    text = str(runs(many))
    lines = text.splitlines()
    assert lines[0].split() == [
        *("run", "command", "status", "J", "verified", "J", "L¹", "error", "gap"),
        *("iterations", "cells", "ranks", "seconds", "warnings"),
    ]
    (line,) = (line for line in lines if line.startswith("b/run10 "))
    assert " ".join(line.split()) == "b/run10 train converged 0.25 0.2475 4 % 0.001 12 512 2 1.5 2"
    assert "b/run9: J is [bold]NaN[/bold]" in lines
    assert any(line.startswith("cut: result.json cannot be read") for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_table_leaves_columns_out_and_says_so(many: Path, width: int) -> None:
    lines = runs(many).text(width).splitlines()
    table = lines[: lines.index(next(line for line in lines if line.startswith("(too narrow for: ")))]
    assert max(map(len, table)) <= width
    assert len(table) == 2 + len(runs(many))  # no cell is cut in two
    assert "verified J" in table[0]


def test_csv_and_json_have_everything(many: Path) -> None:
    table = runs(many)
    read = list(csv.DictReader(io.StringIO(table.csv())))
    assert [row["name"] for row in read] == [row["name"] for row in table]
    assert json.loads(table.json()) == table.rows
    (row,) = (row for row in read if row["name"] == "b/run10")
    assert (float(row["objective"]), row["resolved"], row["warnings"]) == (0.25, "True", "2")


def test_the_command(many: Path, here: Here) -> None:
    said = here("runs", ".", "--sort", "J", "--csv", "all.csv", "--json", "all.json").stdout
    assert said == str(runs(many).sorted("J")) + "\n"
    assert (many / "all.csv").read_text() == runs(many).sorted("J").csv()
    assert here("runs", ".", "--json", "-").stdout == runs(many).json() == here("runs", ".", "--json", "-", "-q").stdout
    assert here("runs", "nothing").stdout == "no runs in nothing\n"
    assert here("runs", ".", "--quiet").stdout == ""
    assert "missing: is no folder" in here("runs", "missing", code=1).stderr
    assert "'nothing'" in here("runs", ".", "--sort", "nothing", code=1).stderr


def test_runs_as_they_are_made(tmp_path: Path) -> None:
    config = parse_config(small(), output=tmp_path / "run")
    document = tasks.run_train(config)
    tasks.run_ideal(config.replace({"output.directory": str(tmp_path / "best")}))
    best, row = eulerian.runs(tmp_path).rows
    assert row["objective"] == document["objective"]["total"]
    assert row["verified"] == document["verified"]["objective"]["total"]
    assert row["gap"] == document["certificate"]["gap"] > 0.0
    assert row["density_l1"] == max(document["verified"]["density_l1"])
    assert row["seconds"] > 0.0
    assert best["gap"] == json.loads((tmp_path / "best" / "result.json").read_text())["ideal"]["gap"]
    assert best["cells"] == row["cells"] == 24


def test_pandas(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"Install pandas, or take \.rows"):
        runs(many).to_pandas()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns)))
    table = runs(many)
    assert table.to_pandas() == (table.rows, list(COLUMNS))


def test_in_notebooks(many: Path) -> None:
    table = runs(many)
    assert repr(table) == "RunTable(13 runs)"
    html = table._repr_html_()
    assert html.count("<tr>") == 14
    assert repr(RunTable(table.rows[:1], COLUMNS)) == "RunTable(1 run)"


def test_it_needs_neither_mpi_nor_meshes(many: Path) -> None:
    code = (
        f"import sys, eulerian; eulerian.runs({str(many)!r}).text()\n"
        "print([name for name in ('mpi4py', 'petsc4py', 'dolfinx', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
