"""The keys that a configuration has or may have, with what is expected of them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from eulerian.app.config.messages import sections_in
from eulerian.app.config.model import Config
from eulerian.app.config.schema import kind_of
from eulerian.app.config.values import Section


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
        key: dotted, as it is written on the command line.
        description: what is expected of it.
        values: all that it may be, where these are few.
    """

    key: str
    description: str
    values: tuple[str, ...] = ()


def known_keys(tables: Mapping[str, Any] | None = None) -> Iterator[Key]:
    """All keys that may be set in a configuration, but for those of tables in lists that it does not have.

    Args:
        tables: its nested tables, unchecked; None for any, whose lists have one table.
    """
    yield from dict.fromkeys(_keys([Config], tables, ""))


def is_list(annotation: object) -> bool:
    """Whether a key of this type has a list of tables."""
    return "tuple[" in str(annotation)


def _keys(sections: Sequence[type[Section]], table: Mapping[str, Any] | None, place: str) -> Iterator[Key]:
    """The keys of a table that is one of some sections."""
    kind = None if table is None else table.get("kind")
    chosen = [section for section in sections if kind_of(section) == kind] or list(sections)
    if any(map(kind_of, sections)):
        yield Key(f"{place}kind", "what the other keys are", tuple(kind_of(section) for section in sections))
    for section in chosen:
        for name, field in section.model_fields.items():
            if name != "kind":
                inner, key = sections_in(field.annotation), f"{place}{name}"
                if not inner or name == "potential":  # which may also be a formula
                    yield Key(key, field.description or "", _values(field.annotation))
                yield from _inner_keys(inner, None if table is None else table.get(name), field.annotation, key, table)


def _inner_keys(
    sections: Sequence[type[Section]], value: object, annotation: object, key: str, table: Mapping[str, Any] | None
) -> Iterator[Key]:
    """The keys of the table, or of the tables in a list, that a key has."""
    if not sections:
        return
    if isinstance(value, list):
        for number, row in enumerate(value):
            if isinstance(row, Mapping):
                yield from _keys(sections, row, f"{key}.{number}.")
    elif isinstance(value, Mapping):
        yield from _keys(sections, value, f"{key}.")
    elif value is None and not is_list(annotation):
        yield from _keys(sections, None, f"{key}.")
    elif value is None and table is None:
        yield from _keys(sections, None, f"{key}.0.")


def _values(annotation: Any) -> tuple[str, ...]:
    """All values of a type that has few, as TOML or a shell has them."""
    if annotation is bool:
        return ("true", "false")
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return tuple(map(str, parts))
    found = list(map(_values, parts[:1] if get_origin(annotation) is Annotated else parts))
    return tuple(itertools.chain(*found)) if all(found) and get_origin(annotation) is not tuple else ()
