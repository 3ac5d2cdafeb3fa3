"""The rows of a CSV file as other programs write them: their separator, their names, and all of one width.

Fields stay texts here: a separator, names and rows come out. Not collective.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self, final

from eulerian.base.errors import InputError
from eulerian.base.memory_limits import require_readable

type Column = str | int

# In order of precedence: a comma may also be a decimal comma, and a blank part of a name.
_DELIMITERS = ("\t", ";", "|", ",")
_BLANK = " "
_NAMES = {"\t": "tab", ";": "semicolon", "|": "bar", ",": "comma", _BLANK: "blank"}
_CSV = (
    "Give a CSV file in UTF-8: a line for each sample, values separated by commas (or semicolons, tabs, blanks), "
    "perhaps a line of names first."
)
_EXPANSION = 10.0  # bytes in memory, at least, for a byte of a file

_LINE_END = re.compile(r"\r\n|\r|\n")  # and no others: str.splitlines also cuts at what may stand inside a field
_EXCEL = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DIGITS = re.compile(r"[+-]?\d+", re.ASCII)

# How programs write that there is no value: those of pandas, and the numbers that are none.
_MISSING = {
    *("NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "<NA>", "NULL", "null", "None"),
    *("nan", "NaN", "NAN", "-nan", "-NaN", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}


class Row(NamedTuple):
    """One line of a file. A tuple, since there may be a million of them.

    Attributes:
        line: its number in the file, from 1.
        cells: without surrounding blanks.
        quoted: whether it begins with a quote.
    """

    line: int
    cells: list[str]
    quoted: bool = False


@final
@dataclass(frozen=True)
class Sheet:
    """The data of a file.

    Attributes:
        names: of the columns; empty without a line of names.
        rows: the data, all of one width, which is that of the names where there are any.
        delimiter: between the fields.
    """

    names: list[str]
    rows: list[Row]
    delimiter: str

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.rows[0].cells)


def is_missing(text: str) -> bool:
    """Whether a field says that there is no value."""
    return not text or text in _MISSING


def read_sheet(path: Path, columns: Sequence[Column], label_column: Column | None, key: str) -> Sheet:
    """Read the rows of a file.

    Fields are separated by tabs, semicolons, bars, commas or, where there are none of these, blanks: whichever every
    line has. Taken as their programs mean them are: a line ``sep=;`` of Excel, empty fields at the end of a line, names
    behind a ``#`` as ``numpy.savetxt`` writes them, and row names without a name of their own as R's ``write.table``
    writes them, which are left out. Other lines that begin with ``#``, and lines without any value, are skipped.

    Args:
        path: the file.
        columns: wanted coordinates, by name or by number from 0: a line of names is recognised by them.
        label_column: the wanted column of classes.
        key: of the file, for messages.

    Raises:
        InputError: the file cannot be read, is empty, or a line has more or fewer fields than the first one.
    """
    lines = _Lines.of(_text(path, key))
    if not lines.data:
        raise InputError("the file of samples is empty", key=key, value=str(path), remedy=_CSV)
    try:
        delimiter = lines.delimiter or _choose_delimiter([line for _, line in lines.data])
        rows = list(_cut(lines.data, delimiter, key))
    except csv.Error as error:
        raise InputError(f"cannot read the samples: {error}", key=key, value=str(path), remedy=_CSV) from error
    if not rows:
        raise InputError("the file of samples is empty", key=key, value=str(path), remedy=_CSV)
    sheet = _named(lines.comments, rows, columns, label_column, delimiter)
    if not sheet.rows:
        raise InputError("the file has a line of names but no data", key=key, value=str(path), remedy=_CSV)
    return _even(sheet, key)


# -- lines -----------------------------------------------------------------------------------------------------------


def _text(path: Path, key: str) -> str:
    """The content of a file, in UTF-8 or, where its first two bytes say so, in UTF-16."""
    try:
        require_readable(path, _EXPANSION, key)
        content = path.read_bytes()
        utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # "Unicode text" of Excel
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8 or UTF-16"
        raise InputError(f"cannot read the samples: {reason}", key=key, value=str(path), remedy=_CSV) from error


@final
@dataclass(frozen=True)
class _Lines:
    """A file cut into lines with their numbers.

    Attributes:
        data: what is neither empty nor a comment.
        comments: those before the data, without their ``#``.
        delimiter: that Excel names in a line of its own; empty without one.
    """

    data: list[tuple[int, str]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    delimiter: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        lines = cls()
        for number, line in enumerate(_LINE_END.split(text), 1):
            if not line.strip():
                continue
            if line.lstrip().startswith("#"):
                if not lines.data:
                    lines.comments.append(re.sub("^#+ *", "", line.lstrip()))
            elif number == 1 and (excel := _EXCEL.fullmatch(line.strip(" "))):
                lines = replace(lines, delimiter=excel[1])
            else:
                lines.data.append((number, line))
        return lines


def _choose_delimiter(lines: Sequence[str]) -> str:
    """The separator of the fields: what all lines have, else all but the names, else most."""
    for part in (lines, lines[1:]):
        for delimiter in (*_DELIMITERS, _BLANK):
            if part and all(_separates(line, delimiter) for line in part):
                return delimiter
    counts = {delimiter: sum(_separates(line, delimiter) for line in lines) for delimiter in (*_DELIMITERS, _BLANK)}
    if counts[_BLANK] <= len(lines) / 2:
        counts[_BLANK] = 0  # of a few names, say
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ","


def _separates(line: str, delimiter: str) -> bool:
    """Whether a line has several fields."""
    line = _prepared(line, delimiter)
    return delimiter in line and ('"' not in line or len(next(_reader([line], delimiter))) > 1)


def _prepared(line: str, delimiter: str) -> str:
    return line.replace("\t", _BLANK).strip() if delimiter == _BLANK else line


def _reader(lines: Iterable[str], delimiter: str) -> Any:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


def _cut(lines: Sequence[tuple[int, str]], delimiter: str, key: str) -> Iterator[Row]:
    """The fields of every line that has a value."""
    reader = _reader((_prepared(line, delimiter) for _, line in lines), delimiter)
    for count, (cells, (number, line)) in enumerate(zip(reader, lines, strict=False), 1):
        if reader.line_num != count:
            what = f"a quoted text that begins in line {number} goes over several lines"
            raise InputError(what, key=key, remedy="Close or remove the quotes.")
        texts = [cell.strip() for cell in cells]
        if any(texts):
            yield Row(number, texts, line.lstrip().startswith('"'))


# -- names -----------------------------------------------------------------------------------------------------------


def _named(
    comments: Sequence[str], rows: list[Row], columns: Sequence[Column], label_column: Column | None, delimiter: str
) -> Sheet:
    """The rows below the line of names, if there is one."""
    first = rows[0].cells
    wanted = {column for column in columns if isinstance(column, str)}
    if not wanted and isinstance(label_column, str):
        wanted = {label_column}
    if not wanted:
        names = _are_names(first, [column for column in columns if isinstance(column, int)])
        return Sheet(first, rows[1:], delimiter) if names else Sheet([], rows, delimiter)
    if not wanted <= set(first):
        for comment in reversed(comments):
            for each in (delimiter, *_DELIMITERS, _BLANK):
                names_behind = [name.strip() for name in next(_reader([_prepared(comment, each)], each), [])]
                if len(names_behind) == len(first) and wanted <= set(names_behind):
                    return Sheet(names_behind, rows, delimiter)
    return Sheet(first, rows[1:], delimiter)


def _are_names(first: Sequence[str], columns: Sequence[int]) -> bool:
    """Whether the first line holds names, where columns are given by number: then no such field is a value.

    What means a missing value is no name. pandas numbers its columns from 0 behind an index without a
    name.
    """
    if first[0] == "" and len(first) > 1 and list(first[1:]) == [str(i) for i in range(len(first) - 1)]:
        return True
    texts = [first[column] for column in columns if column < len(first)]
    values = (_NUMBER.fullmatch(text) or text in _MISSING or text.lstrip("+-").lower() in _INFINITE for text in texts)
    return bool(texts) and not any(values)


_INFINITE = ("inf", "infinity")


# -- widths ----------------------------------------------------------------------------------------------------------


def _even(sheet: Sheet, key: str) -> Sheet:
    """All rows of one width. Fields may be empty beyond the last name, or missing where that has no name.

    Raises:
        InputError: a row has more or fewer fields than there are names, or than the first row has.
    """
    model = sheet.names or sheet.rows[0].cells
    most, least = len(model), len(_trimmed(model, 1))
    rows = [row if len(row.cells) == most else row._replace(cells=_trimmed(row.cells, most)) for row in sheet.rows]
    if sheet.names and _has_row_names(rows, sheet.delimiter, least):
        # Columns are numbered as their names are.
        return replace(sheet, names=sheet.names[:least], rows=[row._replace(cells=row.cells[1:]) for row in rows])
    for row in rows:
        if not least <= len(row.cells) <= most:
            raise _uneven(sheet, row.line, row.cells, least if len(row.cells) < least else most, key)
        row.cells.extend([""] * (most - len(row.cells)))
    return replace(sheet, rows=rows)


def _trimmed(cells: Sequence[str], width: int) -> list[str]:
    """Without empty fields at the end, where there are more than ``width``."""
    end = len(cells)
    while end > width and not cells[end - 1]:
        end -= 1
    return list(cells[:end])


def _has_row_names(rows: Sequence[Row], delimiter: str, width: int) -> bool:
    """Whether each row has a name in front that the line of names does not count, as R writes them.

    Where commas separate, one field too many may also be a decimal comma, or a comma inside a text: only quotes tell.
    """
    if any(len(row.cells) != width + 1 for row in rows) or len({row.cells[0] for row in rows}) < len(rows):
        return False
    return delimiter != "," or all(row.quoted for row in rows)


def _uneven(sheet: Sheet, line: int, cells: Sequence[str], width: int, key: str) -> InputError:
    """What to say of a row that is too long or too short."""
    standard = "the line of names" if sheet.names else f"line {sheet.rows[0].line}"
    what = f"line {line} has {_fields(len(cells))}, but {standard} has {width}"
    name = _NAMES.get(sheet.delimiter, repr(sheet.delimiter))
    if len(cells) < width:
        cause, remedy = "a value is missing?", "Fill or remove the line."
    elif sheet.delimiter == "," and _may_hold_decimal_commas(cells):
        cause, remedy = "a decimal comma?", "Write decimal points, or separate the fields by semicolons."
        if all(_DIGITS.fullmatch(cell) for cell in cells) and len(cells) == width + 1:
            remedy += " If these are row names, put them in quotes or leave them out."
    else:
        cause, remedy = f"a {name} inside an unquoted field?", f"Put the field in quotes, or remove the {name}."
    return InputError(f"{what} ({cause})", key=key, value=sheet.delimiter.join(cells), remedy=remedy)


def _may_hold_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether two whole numbers follow one another, and no number has a decimal point."""
    integers = [_DIGITS.fullmatch(cell) is not None for cell in cells]
    points = any("." in cell and _NUMBER.fullmatch(cell) for cell in cells)
    return not points and any(a and b for a, b in pairwise(integers))


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"
