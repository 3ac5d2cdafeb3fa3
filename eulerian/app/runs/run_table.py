"""Many runs in one table: what their folders say, whatever state these are in. Not collective: for one rank."""

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, final

from eulerian.app.runs.columns import csv_text, read_columns
from eulerian.app.runs.files import (
    CHECKPOINT,
    CONFIG,
    FIGURES,
    GAP,
    HISTORY,
    HISTORY_COLUMNS,
    LATER_COLUMNS,
    RESULT,
    is_run,
    number_at,
    plain,
)
from eulerian.base.data_frame import data_frame
from eulerian.base.errors import InputError
from eulerian.base.words import percent

type TableRow = dict[str, Any]

# Keys of a row and their titles; those without one are in files and in Python only.
COLUMNS: Mapping[str, str] = {
    "name": "run",
    "command": "command",
    "status": "status",
    "objective": "J",
    "verified": "verified J",
    "density_l1": "L¹ error",
    "gap": "gap",
    "iterations": "iterations",
    "cells": "cells",
    "ranks": "ranks",
    "seconds": "seconds",
    "warnings": "warnings",
    "resolved": "",
    "reason": "",
}

# What a narrow terminal does without, the first one first.
_LEAST = ("warnings", "ranks", "iterations", "cells", "command", "seconds", "gap")

_LONGEST = 300  # characters of a reason

_BAD = {"failed": "red", "damaged": "red", "foreign": "dim", "unreadable": "red"}
_UNDONE = {"interrupted": "yellow", "unfinished": "yellow", "waiting": "dim"}


@final
@dataclass(frozen=True, repr=False)
class RunTable:
    """Runs, a row each.

    Attributes:
        rows: one dict per run, with the keys ``columns``; None is what is not known.
        columns: keys and their titles on the terminal; an empty one is not shown there.
    """

    rows: list[TableRow]
    columns: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TableRow]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"RunTable({len(self.rows)} run{'' if len(self.rows) == 1 else 's'})"

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        shown = self._shown()
        head = "".join(f"<th>{escape(title)}</th>" for title in shown.values())
        lines = ("".join(f"<td>{escape(_cell(key, row[key]))}</td>" for key in shown) for row in self.rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def sorted(self, column: str, *, reverse: bool = False) -> "RunTable":
        """By a column, given by its key or its title; rows without a value there come last.

        Raises:
            InputError: there is no such column.
        """
        titles = {title: key for key, title in self.columns.items() if title}
        key = column if column in self.columns else titles.get(column)
        if key is None:
            remedy = f"There are {', '.join(self.columns)}."
            raise InputError("is no column of the table", key="sort", value=column, remedy=remedy)
        known = [row for row in self.rows if row[key] is not None]
        known.sort(key=lambda row: _natural(row[key]), reverse=reverse)
        return RunTable([*known, *(row for row in self.rows if row[key] is None)], self.columns)

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self.rows, ".rows, a list of dicts", list(self.columns))

    def csv(self) -> str:
        """All columns as a CSV file; what is not known is empty."""
        return csv_text(list(self.columns), self.rows, header=True)

    def json(self) -> str:
        """All rows as a JSON list; what is not known is null."""
        return json.dumps(plain(self.rows), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def for_terminal(self) -> str:
        """The table as the standard output wants it: as wide as a terminal, in colour."""
        if not sys.stdout.isatty():
            return self.text()
        return self.text(shutil.get_terminal_size().columns, colours="NO_COLOR" not in os.environ)

    def text(self, width: int | None = None, *, colours: bool = False) -> str:
        """The table in so many columns of letters, by default as many as it needs, and below it what went wrong.

        Where it would be too wide, some of its columns are left out, and named.
        """
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown, left_out = self._shown(), list[str]()
        while width and _natural_width(shown, self.rows) > width and (least := [k for k in _LEAST if k in shown]):
            left_out.append(shown.pop(least[0]))
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for key, title in shown.items():
            words = key in ("name", "command", "status") or any(isinstance(row[key], str) for row in self.rows)
            table.add_column(title, justify="left" if words else "right", overflow="fold")
        for row in self.rows:
            style = (_BAD | _UNDONE).get(str(row.get("status")), "")
            table.add_row(*(Text(_cell(key, row[key]), style if key == "status" else "") for key in shown))
        file = io.StringIO()
        width = max(40, width or 10_000)
        Console(file=file, width=width, force_terminal=colours, no_color=not colours, highlight=False).print(table)
        lines = [line.rstrip() for line in file.getvalue().splitlines()]
        if left_out:
            lines.append(f"(too narrow for: {', '.join(left_out)})")
        wrong = [row for row in self.rows if row["status"] in _BAD and row["reason"]]
        return "\n".join([*lines, *(f"{row['name']}: {_shortened(row['reason'])}" for row in wrong)])

    def _shown(self) -> dict[str, str]:
        """The columns that have a title, and in some row a value."""
        known = {key for key in self.columns for row in self.rows if row[key] is not None}
        return {key: title for key, title in self.columns.items() if title and (key in known or key == "name")}


def runs(folder: str | Path = "runs") -> RunTable:
    """All runs in a folder and below it, in the order of their names. Not collective: for one rank.

    Every folder that holds a run has a row, also one that is at work, was killed or is damaged: ``status`` is that of
    ``result.json``, or "unfinished" (there is none yet; J is that of the last iteration), "damaged" (it cannot be
    read), "foreign" (it is another program's), "unreadable" (a folder that may not be entered); ``reason`` says more.
    Links to folders and hidden folders are left out.

    Keys of a row: ``name``, relative to ``folder``; ``command``; ``status``; ``objective``, J; ``verified``, J of the
    network itself; ``density_l1``, the largest L¹ error of ρ(T) of a label, relative to its mass; ``gap``, to the lower
    bound; ``iterations``; ``cells``; ``ranks``; ``seconds``, without setting up; ``warnings``, their number;
    ``resolved``; ``reason``.

    Raises:
        InputError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError("is no folder", key=str(root), remedy="Name one that has run folders in it.")
    rows: list[TableRow] = []

    def unreadable(path: Path, error: OSError) -> None:
        rows.append(_row(_name(path, root), status="unreadable", reason=error.strerror))

    for place, folders, _ in os.walk(root, onerror=lambda error: unreadable(Path(error.filename), error)):
        path = Path(place)
        try:
            found = is_run(path)
        except OSError as error:  # it can be listed, but not entered
            unreadable(path, error)
            continue
        inner = (FIGURES, CHECKPOINT) if found else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in inner)
        if found:
            rows.append(run_row(path, _name(path, root)))
    rows.sort(key=lambda row: _natural(row["name"]))
    return RunTable(rows, COLUMNS)


def run_row(path: Path, name: str) -> TableRow:
    """What the folder of one run says, whatever state it is in."""
    if not (path / RESULT).is_file():
        return _unfinished(path, name)
    try:
        document = json.loads((path / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return _row(name, status="damaged", reason=f"{RESULT} cannot be read ({error})")
    known = document if isinstance(document, dict) else {}
    if not all(isinstance(known.get(key), str) for key in ("command", "status")):
        status = "damaged" if (path / CONFIG).is_file() else "foreign"
        return _row(name, status=status, reason=f"{RESULT} is not that of a run")
    verified = known.get("verified")
    by_label = verified.get("density_l1") if isinstance(verified, dict) else None
    errors = [error for error in (by_label if isinstance(by_label, list) else []) if number_at(error) is not None]
    warnings, resolved = known.get("warnings"), known.get("resolved")
    return _row(
        name,
        command=known["command"],
        status=known["status"],
        objective=number_at(known, "objective", "total"),
        verified=number_at(known, "verified", "objective", "total"),
        density_l1=max(errors, default=None),
        gap=number_at(known, "ideal" if known["command"] == "ideal" else "certificate", "gap"),
        iterations=number_at(known, "iterations"),
        cells=number_at(known, "mesh", "cells"),
        ranks=number_at(known, "ranks"),
        seconds=number_at(known, "seconds", "solve"),
        warnings=len(warnings) if isinstance(warnings, list) else None,
        resolved=resolved if isinstance(resolved, bool) else None,
        reason=known.get("reason") if isinstance(known.get("reason"), str) else None,
    )


def _unfinished(path: Path, name: str) -> TableRow:
    """A run that has no result: its last iteration, if it has one."""
    command = next((command for file, command in ((HISTORY, "train"), (GAP, "ideal")) if (path / file).is_file()), None)
    row = _row(name, command=command, status="unfinished", reason=f"there is no {RESULT}: it is at work, or was killed")
    with suppress(InputError):
        rows = read_columns(path / HISTORY, HISTORY_COLUMNS, "history", absent=LATER_COLUMNS)
        last = {key: number_at(float(values[-1])) for key, values in rows.items() if len(values)}
        iterations = last.get("iteration")
        row |= {"objective": last.get("total"), "verified": last.get("verified"), "seconds": last.get("seconds")}
        row["iterations"] = None if iterations is None else int(iterations)
    return row


def _row(name: str, **known: Any) -> TableRow:
    return {**dict.fromkeys(COLUMNS), "name": name, **known}


def _name(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    return name.encode("utf-8", "replace").decode("utf-8")  # a file's name may be any bytes


def _natural(value: Any) -> tuple[Any, ...]:
    """A key for sorting: texts with numbers in them by these, and before them numbers."""
    if isinstance(value, int | float):
        return (0, value, ())
    parts = re.split(r"(\d+)", value if isinstance(value, str) else str(value))
    return (1, 0, tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts))


def _natural_width(shown: Mapping[str, str], rows: Sequence[TableRow]) -> int:
    widths = (max([len(title), *(len(_cell(key, row[key])) for row in rows)]) for key, title in shown.items())
    return sum(widths) + 3 * (len(shown) - 1)


def _shortened(text: str) -> str:
    line = _cell("reason", " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _cell(key: str, value: Any) -> str:
    """A value as it is shown."""
    if value is None:
        return ""
    if key == "density_l1":
        return percent(value)
    if isinstance(value, float):
        return f"{value:.3g}" if key in ("gap", "seconds") else f"{value:.8g}"
    return re.sub(r"[\x00-\x1f\x7f]", "?", str(value))
