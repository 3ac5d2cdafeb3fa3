"""From pydantic's findings to one message: the dotted key, what is wrong, the value and what to do."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from eulerian.app.config.model import Config
from eulerian.app.config.values import Section
from eulerian.base.errors import InputError

type Path = tuple[str | int, ...]

_MOST = 10
# Pydantic speaks of Python, our users write TOML.
_WORDING = {
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be a text in quotes",
    "tuple_type": "should be a list in [ ]",
    "path_type": "should be a path in quotes",
    "string_pattern_mismatch": "is malformed",
    "too_short": "should have {min_length} or more entries",
    "too_long": "should have {max_length} or fewer entries",
    "model_type": "should be a table",
    "model_attributes_type": "should be a table",
}


def input_error(error: ValidationError, data: object) -> InputError:
    """One InputError for everything that pydantic found; the first finding gives its key and value.

    Args:
        error: what validation of ``data`` raised.
        data: the nested tables as they were read.
    """
    # An unknown key often is the reason why another one is missing: it comes first.
    details = sorted(_findings(error), key=lambda detail: detail["type"] != "extra_forbidden")
    first, *others = [_translate(detail, data) for detail in details[: _MOST + 1]]
    if not others:
        return first
    lines = [f"  also {other}" for other in others]
    if len(details) > _MOST + 1:
        lines.append(f"  and {len(details) - _MOST - 1} more")
    return InputError(first.what, key=first.key, value=first.value, remedy="\n".join([first.remedy or "", *lines]))


def _findings(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found, without lists that are too short only because their entries were refused."""
    details = error.errors(include_url=False)
    above = {detail["loc"][:size] for detail in details for size in range(len(detail["loc"]))}
    return [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in above]


def _translate(detail: ErrorDetails, data: object) -> InputError:
    path = _without_tags(detail["loc"], data)
    kind, context = detail["type"], detail.get("ctx", {})
    value = _shown(detail["input"])
    match kind:
        case "eulerian":
            path += tuple(context["key"].split(".")) if context["key"] else ()
            what = context["what"]
            value = context["value"] if context["key"] else value
            remedy = context["remedy"]
        case "extra_forbidden":
            what, remedy = "unknown key", _nearest(path, data)
        case "missing":
            what, value, remedy = "is missing", None, ""
        case "union_tag_invalid":
            path += ("kind",)
            what, value, remedy = "unknown kind", context["tag"], _kinds(str(context["tag"]), context["expected_tags"])
        case "union_tag_not_found":
            path += ("kind",)
            what, value, remedy = "is missing", None, _kinds("", _tags(path[:-1], data))
        case "literal_error":
            what, remedy = detail["msg"].removeprefix("Input "), _near(value, context["expected"])
        case _:
            what, remedy = _WORDING.get(kind, detail["msg"].removeprefix("Input ")).format(**context), ""
    return InputError(what, key=dotted(path), value=value, remedy=remedy or _description(path, data))


def dotted(path: Path) -> str:
    """The key as it is written on the command line: ``density.initial.0.std``."""
    return ".".join(str(step) for step in path) or "configuration"


def _shown(value: object) -> object:
    """The value where it helps: whole tables do not, and paths are texts."""
    if isinstance(value, Mapping | Section):
        return None
    return str(value) if isinstance(value, PurePath) else value


def _without_tags(loc: Path, data: object) -> Path:
    """Pydantic's location without the kinds that it inserts where a table is one of several models."""
    path: list[str | int] = []
    fresh = False  # have we just entered a table? Only there a tag can stand.
    for step in loc:
        if isinstance(data, Mapping) and isinstance(step, int):
            continue  # one table, where there may be a list of them
        if fresh and isinstance(data, Mapping) and data.get("kind") == step:
            fresh = False
            continue
        if fresh and not isinstance(data, Mapping | list | tuple):  # nor is there anything below a value
            continue
        path.append(step)
        data, fresh = _entry(data, step), True
    return tuple(path)


def _entry(data: object, step: str | int) -> object:
    if isinstance(data, Mapping):
        return data.get(step)
    if isinstance(data, list | tuple) and isinstance(step, int) and step < len(data):
        return data[step]
    return None


def sections_in(annotation: object) -> list[type[Section]]:
    """The sections that a key of this type may have."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def _candidates(path: Path, data: object) -> Iterator[tuple[list[type[Section]], object, str]]:
    """Along a path: the models that the table there may have, its data, and the description of its key."""
    sections: list[type[Section]] = [Config]
    description = ""
    yield sections, data, description
    for step in path:
        if isinstance(step, str):
            section = _chosen(sections, data)
            field = section.model_fields.get(step) if section else None
            if field is None:
                return
            sections, description = sections_in(field.annotation), field.description or ""
        data = _entry(data, step)
        yield sections, data, description


def _chosen(sections: Sequence[type[Section]], data: object) -> type[Section] | None:
    if len(sections) == 1:
        return sections[0]
    kind = data.get("kind") if isinstance(data, Mapping) else None
    return next((section for section in sections if section.model_fields["kind"].default == kind), None)


def _description(path: Path, data: object) -> str:
    *_, (_, _, description) = _candidates(path, data)
    return f"Expected: {description}." if description else ""


def _tags(path: Path, data: object) -> str:
    *_, (sections, _, _) = _candidates(path, data)
    return ", ".join(repr(section.model_fields["kind"].default) for section in sections)


def _kinds(tag: str, expected: str) -> str:
    return f"{_near(tag, expected)} Kinds: {expected}.".strip()


def _near(value: object, expected: str) -> str:
    """The nearest of the quoted words in ``expected``."""
    near = get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def _nearest(path: Path, data: object) -> str:
    """For an unknown key: the nearest known one here, else the tables that know it."""
    *parents, name = path
    *_, (sections, inner, _) = _candidates(tuple(parents), data)
    section = _chosen(sections, inner)
    known = list(section.model_fields) if section else []
    here = f" of {dotted(tuple(parents))}" if parents else ""
    if section and "kind" in known:
        here += f" with kind {section.model_fields['kind'].default!r}"
    listing = f"Known keys{here}: {', '.join(known)}."
    near = get_close_matches(str(name), known, n=1)
    if near:
        return f"Did you mean {dotted((*parents, near[0]))}? {listing}"
    homes = dict.fromkeys(_homes(str(name), [Config], ""))
    return (f"It belongs to {' or '.join(homes)}. " if homes else "") + listing


def _homes(name: str, sections: Sequence[type[Section]], place: str) -> Iterator[str]:
    """Where in the tree a key of this name is known."""
    knowing = [section for section in sections if name in section.model_fields]
    if place and knowing:
        kinds = [repr(section.model_fields["kind"].default) for section in knowing if "kind" in section.model_fields]
        yield f"{place} with kind {' or '.join(kinds)}" if len(knowing) < len(sections) else place
    for section in sections:
        for key, field in section.model_fields.items():
            inner = sections_in(field.annotation)
            if inner:
                yield from _homes(name, inner, f"{place}.{key}" if place else key)
