"""The small types of which the configuration is made: numbers, vectors, matrices, paths, formulas."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from eulerian.app.config.schema import Says, TomlSchema
from eulerian.base.errors import InputError
from eulerian.base.formula import Expression

MAX_DIMENSION = 3
LARGEST, SMALLEST = 1e60, 1e-60  # the fifth powers are still numbers


class Section(BaseModel):
    """A table of the configuration: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def model_json_schema(cls, *options: Any, **more: Any) -> dict[str, Any]:
        """The JSON schema of its tables in TOML; options as in pydantic. Not collective."""
        given = more if len(options) > 2 else {"schema_generator": TomlSchema, **more}
        return super().model_json_schema(*options, **given)


def problem(what: str, *, key: str = "", value: object = None, remedy: str = "") -> PydanticCustomError:
    """An error to raise in a validator.

    Args:
        what: one sentence.
        key: the key at fault relative to the section that is being checked; empty for the section or value itself.
        value: the value at fault, where it is not what is being checked.
        remedy: what to do; empty for the description of the key.
    """
    return PydanticCustomError("eulerian", "{what}", {"what": what, "key": key, "value": value, "remedy": remedy})


def exactly_one(*keys: str) -> dict[str, Any]:
    """What a section with just one of some keys says in the JSON schema."""
    return {"oneOf": [{"required": [key]} for key in keys]}


def _absolute(path: Path, info: ValidationInfo) -> Path:
    # Without a context (a model built in Python) the path stays as it is, relative to the working directory.
    base = info.context.get("base") if isinstance(info.context, dict) else None
    return path if base is None else Path(os.path.abspath(base / path.expanduser()))


def _writable(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise problem("the path is not valid Unicode") from None
    if "\0" in str(path):
        raise problem("the path contains a zero byte")
    return path


def _text_path(value: object) -> object:
    if value == "":
        raise problem("the path is empty")
    return value


def _formula(variables: Sequence[str]) -> AfterValidator:
    """A validator of formulas in these variables; the text itself stays the value."""

    def check(text: str) -> str:
        try:
            Expression.parse(text, variables, "")
        except InputError as error:
            raise problem(error.what, remedy=error.remedy or "") from None
        return text

    return AfterValidator(check)


def _within_range(number: float) -> float:
    if abs(number) > LARGEST:
        raise problem(f"is beyond {LARGEST:g}, where squares and cubes overflow")
    return number


def _squarable(length: float) -> float:
    if length < SMALLEST:
        raise problem(f"is less than {SMALLEST:g}, where its square vanishes")
    return length


def _rectangular(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    if len({len(row) for row in rows}) > 1:
        raise problem(f"the rows have different lengths: {', '.join(str(len(row)) for row in rows[:10])}")
    return rows


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise problem("the first is not below the second")
    return bounds


def _column(value: object) -> object:
    if (
        isinstance(value, bool)
        or not isinstance(value, str | int)
        or value == ""
        or (isinstance(value, int) and value < 0)
    ):
        raise problem("is neither the name of a column nor its number (from 0)")
    return value


# TOML tells 1, 1.0, true and "1" apart, and so do we: `cells = [48.5]` or `limiter = "no"` are mistakes.
Real = Annotated[
    float, Strict(), AllowInfNan(False), AfterValidator(_within_range), Says(minimum=-LARGEST, maximum=LARGEST)
]
Positive = Annotated[Real, Field(gt=0)]
Length = Annotated[Positive, AfterValidator(_squarable), Says(minimum=SMALLEST)]
NonNegative = Annotated[Real, Field(ge=0)]
# TOML's inf is no number of JSON, where some editors make null of it.
_Side = Annotated[float, Strict(), Says(type=["number", "null"])]
Whole = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Strict(), Field(ge=1, le=2**31 - 1)]
Flag = Annotated[bool, Strict()]

Bounds = Annotated[tuple[_Side, _Side], AfterValidator(_ordered)]

Vector = Annotated[tuple[Real, ...], Field(min_length=1, max_length=MAX_DIMENSION)]
Matrix = Annotated[
    tuple[Annotated[tuple[Real, ...], Field(min_length=1)], ...], Field(min_length=1), AfterValidator(_rectangular)
]
Column = Annotated[
    str | int,
    PlainValidator(_column),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]}),
]
Columns = Annotated[tuple[Column, ...], Field(min_length=1, max_length=MAX_DIMENSION), Says(uniqueItems=True)]

TextPath = Annotated[
    Path, BeforeValidator(_text_path), AfterValidator(_writable), Says(minLength=1, pattern=r"^[^\u0000]+$")
]
FilePath = Annotated[TextPath, AfterValidator(_absolute)]

Formula = Annotated[str, Strict(), _formula(("x", "y", "z")), Says(minLength=1)]
LabelledFormula = Annotated[str, Strict(), _formula(("x", "y", "z", "label")), Says(minLength=1)]


_SIZE = re.compile(r"\s*(?P<number>[0-9]+(?:\.[0-9]*)?)\s*(?P<unit>[kKMGT]?i?B|)\s*")
_POWER = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


def _positive(pattern: re.Pattern[str]) -> str:
    """The same for JSON Schema, which looks for it anywhere and knows no names of groups; zero is left out."""
    return f"^(?=.*[1-9]){re.sub(r'[?]P<[a-z]+>', '', pattern.pattern)}$"


def bytes_of(text: str) -> int:
    """Bytes in a text such as ``4 GiB`` or ``500 MB``.

    Raises:
        PydanticCustomError: when the text is not a positive size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise problem("is not an amount of memory")
    unit = match["unit"]
    size = float(match["number"]) * (1024 if "i" in unit else 1000) ** _POWER[unit.rstrip("B").rstrip("i")]
    if not 1 <= size < 2**63:
        raise problem("must be at least one byte and less than 8 EiB")
    return int(size)


def _memory(text: str) -> str:
    bytes_of(text)
    return text


Memory = Annotated[str, Strict(), AfterValidator(_memory), Says(pattern=_positive(_SIZE))]


_TIME = re.compile(r"\s*(?P<number>[0-9]+(?:\.[0-9]*)?)\s*(?P<unit>s|min|h)\s*")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """Seconds in a text such as ``90 s``, ``15 min`` or ``1.5 h``.

    Raises:
        PydanticCustomError: when the text is not a positive time.
    """
    match = _TIME.fullmatch(text)
    if match is None or not 0.0 < float(match["number"]) < 1e9:
        raise problem("is not a time")
    return float(match["number"]) * _SECONDS[match["unit"]]


def _interval(value: object) -> object:
    if isinstance(value, str):
        seconds_of(value)
    elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise problem("is neither a number of iterations nor a time")
    return value


Interval = Annotated[
    int | str,
    PlainValidator(_interval),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
                {"type": "string", "pattern": _positive(_TIME)},
            ]
        }
    ),
]
