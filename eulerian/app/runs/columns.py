"""Tables of numbers as CSV files: histories, gaps and studies. What is not known is an empty cell. Not collective."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from eulerian.app.runs.files import plain
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError

type Row = Mapping[str, Any]

_NONE: Mapping[str, str] = MappingProxyType({})


def csv_text(columns: Sequence[str], rows: Iterable[Row], *, header: bool) -> str:
    """Rows as lines of a table; numbers keep all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    known = plain(value)
    return known if isinstance(known, str) else "" if known is None else repr(known)


def read_rows(
    path: Path, columns: Sequence[str], key: str, absent: Mapping[str, str] = _NONE, text: str = ""
) -> list[Row]:
    """Rows of a table: numbers, NaN in an empty cell.

    Args:
        path: the file.
        columns: that it has.
        key: what errors call the table.
        absent: columns that files of earlier versions may not have, and the cells that are meant there.
        text: the column that is no number, if there is one.

    Raises:
        InputError: it is not such a file.
        FileNotFoundError: there is none.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        missing = {name: cell for name, cell in absent.items() if rows and name not in rows[0]}
        return [
            {name: cells[name] if name == text else float(cells[name] or "nan") for name in columns}
            for cells in (row | missing for row in rows)
        ]
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, TypeError) as error:
        remedy = "It is damaged: run the command again."
        raise InputError(f"cannot be read ({error})", key=key, value=str(path), remedy=remedy) from error


def read_columns(path: Path, columns: Sequence[str], key: str, absent: Mapping[str, str] = _NONE) -> dict[str, Floats]:
    """Columns of a table of numbers, empty ones if there is no such file. Arguments and errors as of ``read_rows``."""
    try:
        rows = read_rows(path, columns, key, absent)
    except FileNotFoundError:
        rows = []
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in columns}
