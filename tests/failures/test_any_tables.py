"""The reader of configurations, given anything: a configuration that survives being written, or an InputError."""

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from configurations import BASE
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerian.app.config import Config, parse_config
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process
repeatable = settings(derandomize=True, deadline=None, max_examples=250, database=None)

WORDS = st.sampled_from(
    [
        "kind",
        "mlp",
        "linear",
        "free",
        "python",
        "gaussian",
        "uniform",
        "expression",
        "samples",
        "image",
        "quadratic",
        "kl",
        "fixed",
        "x**2",
        "1/x",
        "../a",
        "a:b",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 12),
    st.floats(),
    st.floats(-3, 3),
    st.text(max_size=12),
    WORDS,
    st.dates(),
)
KEYS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "kind",
            "box",
            "lower",
            "cells",
            "file",
            "initial",
            "mean",
            "std",
            "hidden",
            "theta",
            "object",
            "terminal",
            "target",
            "layers",
            "label",
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=10,
)
SECTIONS = st.sampled_from(
    ["domain", "density", "field", "objective", "optimiser", "solver", "ideal", "particles", "output", "nonsense"]
)


def refused_or_stable(tables: Any) -> bool:
    """Whether the tables are a configuration; one that is survives a round trip. Nothing but InputError is raised."""
    try:
        found: Config | InputError = parse_config(tables)
    except InputError as error:
        found = error
    if isinstance(found, Config):
        assert parse_config(found.to_toml()) == found
        return True
    assert found.key
    assert len(str(found)) < 10_000
    return False


@repeatable
@given(st.dictionaries(SECTIONS, VALUES, max_size=6))
def test_any_tables(tables: dict[str, Any]) -> None:
    assert not refused_or_stable(tables), "nobody writes a whole configuration by chance"


def places(tables: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in nested tables and lists."""
    steps = tables.items() if isinstance(tables, dict) else enumerate(tables) if isinstance(tables, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from places(inner, (*path, step))


RIGHT = tomllib.loads(BASE)
PLACES = sorted(places(RIGHT), key=str)


@repeatable
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "leave out", "add"]), KEYS, VALUES), max_size=2)
)
def test_a_configuration_with_changes(changes: list[tuple[tuple[Any, ...], str, str, Any]]) -> None:
    tables = copy.deepcopy(RIGHT)
    for path, how, key, value in changes:
        inner: Any = tables
        try:
            for step in path[:-1]:
                inner = inner[step]
            if how == "set":
                inner[path[-1]] = value
            elif how == "leave out":
                del inner[path[-1]]
            else:
                inner[path[-1]][key] = value
        except (KeyError, IndexError, TypeError):  # an earlier change has taken the place away
            continue
    refused_or_stable(tables)


@repeatable
@given(
    st.one_of(
        st.text(),
        st.tuples(st.integers(0, len(BASE)), st.text(max_size=5)).map(lambda p: BASE[: p[0]] + p[1] + BASE[p[0] :]),
    )
)
def test_any_text(text: str) -> None:
    refused_or_stable(text)


def test_many_mistakes_are_told_soon_and_briefly() -> None:
    for tables in ({f"k{i}": i for i in range(100_000)}, {**RIGHT, "density": {"initial": [{"kind": 7}] * 50_000}}):
        assert not refused_or_stable(tables)


def test_no_python() -> None:
    text = BASE.replace('kind = "mlp"\nhidden = [16]', 'kind = "python"\nobject = "module:name"')
    assert parse_config(text).field.kind == "python"
    with pytest.raises(InputError, match=r"field\.kind.*--no-python"):
        parse_config(text, python=False)
    assert parse_config(BASE, python=False).field.kind == "mlp"
