"""The example of every key is right: it is accepted within a configuration in which the key has its place."""

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from eulerian.app.config import Config, parse_config
from eulerian.app.config.schema import kind_of
from eulerian.app.config.toml import dump_key
from eulerian.app.config.values import Section

pytestmark = pytest.mark.one_process

# What kinds need besides the keys that have to be there, and what a key takes the place of or brings with it.
NEEDS: dict[str, dict[str, Any]] = {
    "gaussian": {"std": 0.5},
    "quadratic": {"target": [1.0, -0.5]},
    "cross_entropy": {"trainable": True},
}
REPLACES = {"covariance": "std", "targets": "target"}
TWO_LABELS = ("logistic", "cross_entropy")
SAMPLES = {"file": "samples.csv", "columns": ["a", "b"]}
FILES = ("theta.npz", "disk.msh", "data.csv", "samples.csv", "shape.png")


def places() -> dict[str, tuple[type[Section], str]]:
    """Every section by where it stands: its key, and its kind."""
    found: dict[str, tuple[type[Section], str]] = {}

    def visit(annotation: object, key: str) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Section):
            name = f"{key}({kind_of(annotation)})"
            if name not in found and not (key == "objective.at" and kind_of(annotation) == "fixed"):
                found[name] = annotation, key
                for inner, field in annotation.model_fields.items():
                    visit(field.annotation, f"{key}.{inner}".lstrip("."))
        for part in get_args(annotation):
            visit(part, key)

    visit(Config, "")
    return found


PLACES = places()
CASES = [
    pytest.param(name, key, example, id=f"{name}.{key}-{number}")
    for name, (section, place) in PLACES.items()
    for key, field in section.model_fields.items()
    if place
    for number, example in enumerate(field.examples or ())
]


def table(section: type[Section]) -> dict[str, Any]:
    """With the least keys, each with its example; a ``kernel`` is a quadratic one where both would do."""
    kind = kind_of(section)
    needed = {
        key: field.examples[0] for key, field in section.model_fields.items() if field.examples and field.is_required()
    }
    own = NEEDS.get(kind, {}) if kind != "gaussian" or "mean" in section.model_fields else {}
    if kind == "quadratic" and "target" not in section.model_fields:
        own = {}
    return ({"kind": kind} if kind else {}) | needed | own


def configuration(place: str, given: dict[str, Any]) -> dict[str, Any]:
    """A whole one that has a table in its place."""
    first = {"kind": "gaussian", "mean": [0.0, 0.0], "std": 0.5}
    whole: dict[str, Any] = {
        "domain": {"box": {"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "cells": [8, 8]}},
        "density": {"initial": [first]},
        "field": {"kind": "mlp"},
        "objective": {"terminal": {"kind": "quadratic", "target": [0.0, 0.0]}},
    }
    labels = 2 if given.get("kind") in TWO_LABELS or "targets" in given else 1
    if labels == 2 or given.get("label") == 1:
        whole["density"]["initial"].append(first | {"label": labels - 1})
    match place.split("."):
        case ["density", "initial"]:
            whole["density"]["initial"].append(given)
        case ["objective", "at"]:
            whole["objective"]["at"] = [given]
        case ["objective", *_, "target"] if given.get("label") == 1:
            whole["density"]["initial"].append(first | {"label": 1})
            return with_table(whole, place, [first, given])
        case ["objective", *_, "target"]:
            return with_table(whole, place, [given])
        case _:
            return with_table(whole, place, given)
    return whole


def with_table(whole: dict[str, Any], place: str, given: Any) -> dict[str, Any]:
    """A table put where it belongs, below one of the kind that has such a key."""
    *above, name = place.split(".")
    inner = whole
    for depth, step in enumerate(above):
        if step in ("terminal", "at"):
            kind = {"kernel": {"kind": "interaction"}, "target": {"kind": "kl"}}[name]
            inner[step] = kind if step == "terminal" else [kind | {"time": 0.5}]
        inner = inner.setdefault(step, {})
        inner = inner[0] if isinstance(inner, list) else inner
        assert depth < 4
    inner[name] = inner.get(name, {}) | given if isinstance(given, dict) and "kind" not in given else given
    return whole


@pytest.mark.parametrize(("name", "key", "example"), CASES)
def test_examples_are_accepted(name: str, key: str, example: Any, tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file).touch()
    (tmp_path / "code").mkdir()
    section, place = PLACES[name]
    given = table(section)
    if section.__name__ == "Particles" and key in ("file", "columns", "label_column"):
        given |= SAMPLES
    given.pop(REPLACES.get(key, ""), None)
    given |= tomllib.loads(dump_key(key, example))
    whole = configuration(place, given)
    if place == "domain" and key == "file":
        del whole["domain"]["box"]
    elif place in ("objective", "density"):
        whole[place] |= given
    parse_config(whole, tmp_path)


def test_all_keys_have_examples() -> None:
    assert len(CASES) > 150
    for section, place in PLACES.values():
        for key, field in section.model_fields.items():
            assert not place or key == "kind" or field.examples, f"{section.__name__}.{key}"
