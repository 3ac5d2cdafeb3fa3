"""Data in CSV files: coordinates and classes. Not collective: call it on one rank."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np

from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import EulerianWarning, InputError
from eulerian.density.csv_rows import Row, Sheet, is_missing, read_sheet
from eulerian.density.shape import LabelledShape
from eulerian.density.shapes import Samples

# Stricter than Python's float, which also takes 1_000, nan, inf, and digits of other scripts.
_POINT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_COMMA = re.compile(r"[+-]?(?:\d+,?\d*|,\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_INTEGER = re.compile(r"([+-]?)(0|[1-9]\d*)(?:\.0*)?", re.ASCII)


@dataclass(frozen=True)
class SampleTable:
    """Rows of a CSV file.

    Attributes:
        points: (n, d) coordinates, finite.
        labels: (n,) class of each row, numbered from 0 in sorted order; all 0 without a column of classes.
        classes: the classes' names.
    """

    points: Floats
    labels: Ints
    classes: tuple[str, ...]


def read_samples(
    file: str | Path, columns: Sequence[str | int], label_column: str | int | None = None, *, key: str = "samples"
) -> SampleTable:
    """Read columns of coordinates, and perhaps one of classes.

    What kinds of files there are, says ``read_sheet``. Numbers have decimal points, or all of them decimal commas.
    A class is called as it is written; classes are sorted as numbers where all are numbers, else as text.

    Args:
        file: its path.
        columns: of the coordinates, by name or by number from 0.
        label_column: of the classes, likewise; None if there are none.
        key: dotted key of the samples, for messages.

    Raises:
        InputError: the file cannot be read, a column is missing, a value is not a finite number, or a class is missing.
    """
    sheet = read_sheet(Path(file), tuple(columns), label_column, f"{key}.file")
    points = _numbers(sheet, [_find(column, sheet, f"{key}.columns") for column in columns], f"{key}.file")
    if label_column is None:
        return SampleTable(points, np.zeros(len(sheet.rows), dtype=np.int32), ("",))
    column = _find(label_column, sheet, f"{key}.label_column")
    labels, classes = _classes([_class(row, column, f"{key}.file") for row in sheet.rows])
    return SampleTable(points, labels, classes)


def kernel_estimates(table: SampleTable, bandwidth: float | Literal["scott"], key: str) -> list[LabelledShape]:
    """A kernel estimate of each class that has samples, with its share of them.

    Args:
        table: the samples.
        bandwidth: of the kernels, or "scott" for Scott's rule for every class.
        key: of the samples, for messages.

    Raises:
        InputError: a class has too few different samples for Scott's rule.
    """
    found = []
    for label in np.unique(table.labels).tolist():
        own = table.labels == label
        shape = Samples(table.points[own], bandwidth, key=f"{key}.bandwidth")
        found.append(LabelledShape(shape, label, float(np.mean(own)), key, table.classes[label]))
    return found


def class_key(name: str) -> str:
    """Classes are the same if their keys are: texts, but ``7``, ``+7`` and ``7.0`` have one key.

    ``007`` and ``1e3`` are texts of their own: zeros in front belong to codes.
    """
    integer = _INTEGER.fullmatch(name)
    if integer is None:
        return name
    sign, digits = integer.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def compare_classes(named: Mapping[str, tuple[str, ...]]) -> None:
    """Warn where files of one mixture have other classes than the first of them: they are numbered file by file.

    Args:
        named: the classes of each file, by its key.
    """
    first, *others = named.items() or [("", ())]
    for key, classes in others:
        if set(map(class_key, classes)) != set(map(class_key, first[1])):
            mine, its = (", ".join(names[:9]) for names in (classes, first[1]))
            text = f"the classes of {key} ({mine}) are not those of {first[0]} ({its}); each file's are taken in order"
            warnings.warn(
                f"{text}. Put all samples into one file, if that is not meant.", EulerianWarning, stacklevel=2
            )


def _find(column: str | int, sheet: Sheet, key: str) -> int:
    """Number of a column."""
    names, width = sheet.names, sheet.width
    if isinstance(column, str):
        if column not in names:
            what, remedy = "no such column", f"The columns are: {', '.join(names)[:500]}"
            raise InputError(what, key=key, value=column, remedy=remedy)
        if names.count(column) > 1:
            what, remedy = f"{names.count(column)} columns have this name", "Name it by its number, from 0."
            raise InputError(what, key=key, value=column, remedy=remedy)
        return names.index(column)
    if column >= width:
        what, remedy = f"no such column: the file has {width}", f"Use a number from 0 to {width - 1}."
        raise InputError(what, key=key, value=column, remedy=remedy)
    return column


# -- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(sheet: Sheet, columns: Sequence[int], key: str) -> Floats:
    """The coordinates (n, d)."""
    texts = [[_cell(row, column, key) for column in columns] for row in sheet.rows]
    # One comma decides for the whole file: 1.5 beside 1,5 is a thousand and a half to some.
    commas = [text for row in texts for text in row if "," in text]
    if commas and all(_THOUSANDS.fullmatch(text) for text in commas):
        what = "may be written with decimal commas or with commas between thousands"
        raise InputError(what, key=key, value=commas[0], remedy="Write decimal points, and nothing between thousands.")
    decimal = bool(commas)
    return np.array(
        [
            [_number(text, decimal, row.line, column, key) for text, column in zip(values, columns, strict=True)]
            for row, values in zip(sheet.rows, texts, strict=True)
        ]
    )


def _cell(row: Row, column: int, key: str) -> str:
    if not row.cells[column]:
        what = f"a value is missing in line {row.line}, column {column}"
        raise InputError(what, key=key, remedy="Fill or remove the line.")
    return row.cells[column]


def _number(text: str, commas: bool, line: int, column: int, key: str) -> float:
    """The number that a text means."""
    if (_COMMA if commas else _POINT).fullmatch(text) and math.isfinite(value := float(text.replace(",", "."))):
        return value
    what, remedy = f"line {line}, column {column} is not a finite number", "Correct or remove the line."
    if commas and "." in text:
        what = f"line {line}, column {column} has a decimal point, but the file has decimal commas"
        remedy = "Write all numbers in one way, and nothing between thousands."
    raise InputError(what, key=key, value=text, remedy=remedy)


# -- classes ---------------------------------------------------------------------------------------------------------


def _class(row: Row, column: int, key: str) -> str:
    text = _cell(row, column, key)
    if is_missing(text):
        what = f"the class is missing in line {row.line}, column {column}"
        raise InputError(what, key=key, value=text, remedy="Fill or remove the line.")
    return text


def _classes(texts: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """The class of each row (n,), and the names of the classes."""
    keys = {text: class_key(text) for text in dict.fromkeys(texts)}
    spellings: dict[str, list[str]] = {}
    for text, key in keys.items():
        spellings.setdefault(key, []).append(text)
    numbers = all(_POINT.fullmatch(key) for key in spellings)
    ordered = sorted(spellings, key=lambda key: (Decimal(key) if numbers else 0, key))
    position = {key: label for label, key in enumerate(ordered)}
    names = (spellings[key][0] if len(spellings[key]) == 1 else key for key in ordered)
    return np.array([position[keys[text]] for text in texts], dtype=np.int32), tuple(names)
