"""Nested tables of a configuration: made plain, with single keys set (``--set``), and compared key by key."""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
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


_EXAMPLE = "Write KEY=VALUE, like objective.kinetic=0.1 or density.initial.0.mean=[0.5, 0.0]."
_TOO_DEEP = 32


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the nested tables with each ``KEY=VALUE`` set in turn.

    Values are TOML; a bare word that is not TOML is a text (``field.features=translation``). Numbers index lists.

    Raises:
        InputError: for a malformed override, or a key that leads through something else than tables and lists.
    """
    result = deepcopy(dict(data))
    for override in overrides:
        if not _is_unicode(override):  # bytes of a command line that are not UTF-8 could not be written back
            raise InputError("an override is not valid Unicode", key="--set", value=override, remedy=_EXAMPLE)
        key, equals, text = override.partition("=")
        path = [step.strip() for step in key.split(".")]
        if not equals or not all(path):
            raise InputError("an override needs a key and a value", key="--set", value=override, remedy=_EXAMPLE)
        if len(path) > _TOO_DEEP:
            raise InputError("the key of an override has too many parts", key="--set", value=override, remedy=_EXAMPLE)
        _assign(result, path, parse_value(text.strip(), key.strip()))
    return result


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested tables; None takes it out, which leaves its default.

    Raises:
        InputError: it leads through something else than tables and lists.
    """
    path = key.split(".")
    _assign(data, path, value)
    if value is None:
        table: Any = data
        for step in path[:-1]:
            table = table[int(step) if isinstance(table, list) else step]
        if isinstance(table, dict):
            del table[path[-1]]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_value(text: str, key: str) -> Any:
    """The value of an override: TOML, or a bare word.

    Raises:
        InputError: TOML was meant, and is not right; or there is nothing.
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError) as error:
        # Quotes and brackets show that TOML was meant; all else is a bare word: a kind, a path, a formula.
        if text[:1] in {'"', "'", "[", "{"}:
            what = f"the value is not valid TOML ({error})"
            raise InputError(what, key=key, value=text, remedy="Check the quotes and brackets.") from None
        if not text:
            raise InputError("the override has no value", key=key, remedy=_EXAMPLE) from None
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def _assign(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    table: Any = data
    for depth, step in enumerate(path):
        here, last = ".".join(path[: depth + 1]), depth == len(path) - 1
        if isinstance(table, list):
            index = _index(step, table, here)
            if last:
                table[index] = value
            table = table[index]
        elif isinstance(table, dict):
            if last:
                table[step] = value
            table = table.setdefault(step, {})
        else:
            what = f"{'.'.join(path[:depth])} is neither a table nor a list"
            raise InputError(what, key=".".join(path), value=table, remedy="Set it as a whole.")


def _index(step: str, entries: Sequence[object], here: str) -> int:
    if step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(entries):
        return int(step)
    what = f"the list has {len(entries)} entries, numbered from 0"
    raise InputError(what, key=here, value=step, remedy="Use one of these numbers, or set the whole list.")


def changed_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], harmless: Callable[[str], bool] = lambda _: False
) -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with the old and the new value; None where there is none.

    Args:
        old: nested tables, as TOML has them.
        new: others.
        harmless: keys that may differ.
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = dict.fromkeys([*after, *before])
    pairs = [(key, before.get(key), after.get(key)) for key in keys if not harmless(key)]
    return [(key, a, b) for key, a, b in pairs if a != b]


def _flat(item: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below an item with its key; numbers are the keys of tables in a list."""
    if isinstance(item, Mapping):
        for name, inner in item.items():
            yield from _flat(inner, f"{path}.{name}" if path else name)
    elif isinstance(item, list) and item and all(isinstance(row, Mapping) for row in item):
        for number, row in enumerate(item):
            yield from _flat(row, f"{path}.{number}")
    elif item != []:  # an empty list says no more than none: runs of versions that had no such key go on
        yield path, item
