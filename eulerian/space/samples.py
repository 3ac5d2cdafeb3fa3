"""Data in CSV files: coordinates and classes. Not collective: call it on one rank."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eulerian.arrays import Floats, Ints
from eulerian.config import SamplesTerm
from eulerian.errors import InputError
from eulerian.machine import require_readable

_DELIMITERS = (",", ";", "\t")
_CSV = "Give a CSV file in UTF-8: a line for each sample, values separated by commas, perhaps a line of names first."
_EXPANSION = 10.0  # bytes in memory, at least, for a byte of a file


@dataclass(frozen=True)
class Samples:
    """Rows of a CSV file.

    Attributes:
        points: (n, d) coordinates, finite.
        labels: (n,) class of each row, numbered from 0 in sorted order; all 0 without a column of classes.
        classes: the classes' names.
    """

    points: Floats
    labels: Ints
    classes: tuple[str, ...]


def read_samples(term: SamplesTerm, key: str) -> Samples:
    """Read the columns that a term names.

    The file has values separated by commas (or semicolons or tabs), with or without a line of names; empty lines and
    lines that start with ``#`` are skipped. Classes are sorted as numbers where all are numbers, else as text.

    Args:
        term: file, columns and label_column.
        key: dotted key of the term, for messages.

    Raises:
        InputError: the file cannot be read, a column is missing or a value is not a finite number.
    """
    rows = _read_rows(Path(term.file), f"{key}.file")
    names, rows = _split_header(rows, term, f"{key}.file")
    columns = [_find(column, names, len(rows[0][1]), f"{key}.columns") for column in term.columns]
    points = np.array([[_number(line, row, column, f"{key}.file") for column in columns] for line, row in rows])
    if term.label_column is None:
        return Samples(points, np.zeros(len(rows), dtype=np.int32), ("",))
    column = _find(term.label_column, names, len(rows[0][1]), f"{key}.label_column")
    texts = [_cell(line, row, column, f"{key}.file") for line, row in rows]
    classes, labels = np.unique(np.array(texts), return_inverse=True)
    if all(_is_number(text) for text in texts):
        # 1 and 1.0 are one class.
        values, labels = np.unique([float(text) for text in texts], return_inverse=True)
        classes = np.array([f"{value:g}" for value in values])
    return Samples(points, labels.ravel().astype(np.int32), tuple(classes.tolist()))


type _Rows = list[tuple[int, list[str]]]


def _read_rows(path: Path, key: str) -> _Rows:
    """Lines with their numbers, cut into cells without surrounding blanks."""
    try:
        require_readable(path, _EXPANSION, key)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the samples: {reason}", key=key, value=str(path), remedy=_CSV) from error
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError("the file of samples is empty", key=key, value=str(path), remedy=_CSV)
    delimiter = max(_DELIMITERS, key=lines[0][1].count)
    try:
        cells = list(csv.reader((line for _, line in lines), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"cannot read the samples: {error}", key=key, value=str(path), remedy=_CSV) from error
    if len(cells) != len(lines):
        raise InputError("a quoted text goes over several lines", key=key, value=str(path), remedy="Remove the quotes.")
    return [(n, [cell.strip() for cell in row]) for (n, _), row in zip(lines, cells, strict=True)]


def _split_header(rows: _Rows, term: SamplesTerm, key: str) -> tuple[list[str], _Rows]:
    """The names of the columns (empty without a line of names), and the other lines."""
    first = rows[0][1]
    named = any(isinstance(column, str) for column in (*term.columns, term.label_column))
    numbers = [column for column in term.columns if isinstance(column, int) and column < len(first)]
    if not named and all(_is_number(first[column]) for column in numbers):
        return [], rows
    if len(rows) == 1:
        what = "the file has a line of names but no data"
        raise InputError(what, key=key, value=str(term.file), remedy=_CSV)
    return first, rows[1:]


def _find(column: str | int, names: list[str], width: int, key: str) -> int:
    """Number of a column."""
    if isinstance(column, str):
        if column not in names:
            raise InputError(
                "no such column", key=key, value=column, remedy=f"The columns are: {', '.join(names)[:500]}"
            )
        return names.index(column)
    if column >= width:
        what, remedy = f"no such column: the file has {width}", f"Use a number from 0 to {width - 1}."
        raise InputError(what, key=key, value=column, remedy=remedy)
    return column


def _cell(line: int, row: list[str], column: int, key: str) -> str:
    if column >= len(row) or not row[column]:
        raise InputError(
            f"a value is missing in line {line}, column {column}", key=key, remedy="Fill or remove the line."
        )
    return row[column]


def _number(line: int, row: list[str], column: int, key: str) -> float:
    text = _cell(line, row, column, key)
    if not _is_number(text):
        what = f"line {line}, column {column} is not a finite number"
        raise InputError(what, key=key, value=text, remedy="Correct or remove the line.")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
