"""Writing TOML: plain data to text, in the layout that a person would choose."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dump_toml(data: Mapping[str, object]) -> str:
    """A TOML document of nested mappings, lists or tuples, texts, paths, numbers and booleans.

    Raises:
        TypeError: for other values; TOML has no null.
    """
    return "\n".join(_table(data, ())).strip() + "\n"


def dump_key(name: str, value: object) -> str:
    """One key and its value in one line; errors as for ``dump_toml``."""
    return f"{_key(name)} = {_value(value)}"


def _table(data: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    """Lines of one table: plain keys first, because a header ends the table before it."""
    for name, item in data.items():
        if not _is_table(item) and not _is_table_array(item):
            yield dump_key(name, item)
    for name, item in data.items():
        inner = (*path, _key(name))
        header = ".".join(inner)
        if isinstance(item, Mapping):
            yield from ("", f"[{header}]")
            yield from _table(item, inner)
        elif _is_table_array(item) and isinstance(item, list | tuple):
            for row in item:
                yield from ("", f"[[{header}]]")
                yield from _table(row, inner)


def _is_table(item: object) -> bool:
    return isinstance(item, Mapping)


def _is_table_array(item: object) -> bool:
    return isinstance(item, list | tuple) and bool(item) and all(isinstance(row, Mapping) for row in item)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    # JSON's escapes are also TOML's; only DEL is allowed raw in JSON and not in TOML.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(item: object) -> str:
    match item:
        case bool():
            return "true" if item else "false"
        case int():
            return str(int(item))
        case float():
            return _float(float(item))
        case str():
            return _text(item)
        case PurePath():
            return _text(str(item))
        case list() | tuple():
            return f"[{', '.join(_value(x) for x in item)}]"
        case Mapping():
            inner = ", ".join(f"{_key(name)} = {_value(x)}" for name, x in item.items())
            return f"{{ {inner} }}" if inner else "{}"
    raise TypeError(f"TOML cannot hold {type(item).__name__} {item!r}")


def _float(number: float) -> str:
    if math.isnan(number):
        return "nan"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return repr(number)  # the shortest text that reads back as the same number; "1e-06" is valid TOML
