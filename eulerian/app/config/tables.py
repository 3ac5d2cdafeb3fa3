"""Nested tables as Python hands them over: dicts with arrays, paths and sections in them, as TOML would have them."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from eulerian.app.config.values import Section
from eulerian.base.errors import InputError

_REMEDY = (
    "A configuration holds tables, lists, arrays, texts, paths, numbers and booleans. Objects are for the library: "
    "build(config, field=...), ControlProblem(...)."
)
_DEEPEST = 32


def plain_tables(source: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested tables with arrays as lists and sections as tables.

    Raises:
        InputError: there is something else among them; names its key and its type.
    """
    return {_name(name, ""): _plain(value, str(name)) for name, value in source.items()}


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Section):
        return plain_tables(value.model_dump(exclude_none=True))
    if value is None or isinstance(value, str | bool | int | float | PurePath):
        return getattr(value, "tolist", lambda: value)()  # NumPy's float64 is a float, and has it
    if key.count(".") > _DEEPEST:
        raise InputError("is nested too deeply", key=key[:80], remedy="Tables have at most five levels.")
    if isinstance(value, Mapping):
        return {_name(name, key): _plain(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}.{index}") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):  # arrays, and the numbers in them, of NumPy, JAX and PyTorch
        return _plain(value.tolist(), key)
    kind = type(value)
    raise InputError(f"is an object of type {kind.__module__}.{kind.__qualname__}", key=key, remedy=_REMEDY)


def _name(name: object, table: str) -> str:
    if not isinstance(name, str):
        raise InputError(
            "the names of keys are texts", key=table or "configuration", value=name, remedy="Write them in quotes."
        )
    return name
