"""What distinguishes two configurations, by key."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any


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
    else:
        yield path, item
