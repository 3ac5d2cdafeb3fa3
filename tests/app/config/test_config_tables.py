"""Configurations as dicts: arrays are lists, objects are refused by name; copies with other values are checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configurations import small

import eulerian
from eulerian.app.config import Config, parse_config
from eulerian.app.config.tables import changed_keys
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process


def tables() -> dict[str, Any]:
    """In two dimensions, with everything that a script may hand over."""
    return {
        "domain": {"box": {"lower": np.array([-1.0, -1.0]), "upper": (1, np.float64(1.0)), "cells": np.array([4, 4])}},
        "density": {"initial": [{"kind": "gaussian", "mean": np.zeros(2), "covariance": 0.1 * np.eye(2)}]},
        "field": {"kind": "linear", "features": "affine", "layers": np.int64(2), "theta": np.full((1, 6), 0.1)},
        "objective": {"kinetic": np.float32(0.5), "terminal": {"kind": "quadratic", "target": np.array([0.5, 0.0])}},
        "solver": {"limiter": np.bool_(True)},
        "output": {"directory": Path("runs") / "here"},
    }


def test_arrays_are_lists() -> None:
    config = parse_config(tables())
    assert config.domain.box is not None
    assert config.domain.box.cells == (4, 4)
    assert config.density.initial[0].covariance == ((0.1, 0.0), (0.0, 0.1))  # type: ignore[union-attr]
    assert (config.objective.kinetic, config.field.layers, config.solver.limiter) == (0.5, 2, True)
    assert parse_config(config.to_toml()) == config


def test_a_problem_is_built_of_tables() -> None:
    problem = eulerian.build(tables())
    assert problem.value(problem.initial_theta) == eulerian.build(parse_config(tables())).value(problem.initial_theta)


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (lambda t: t["field"].update(kind=object()), "field.kind", "object of type builtins.object"),
        (lambda t: t["density"]["initial"].append(np.random.default_rng(0)), "density.initial.1", "Generator"),
        (
            lambda t: t["objective"]["terminal"].update(target=np.array([1.0, None])),
            "objective.terminal.target.1",
            "number",
        ),
        (
            lambda t: t["objective"].update(terminal=lambda x: x),
            "objective.terminal",
            "builtins.function",
        ),
        (lambda t: t["objective"].update(kinetic=1j), "objective.kinetic", "complex"),
        (lambda t: t["objective"].update({3: 1.0}), "objective", "names of keys are texts; got 3"),
        (lambda t: t["solver"].update(cfl=np.array([0.5])), "solver.cfl", "should be a number"),
    ],
)
def test_objects_are_refused_by_key_and_type(change: Callable[[Any], None], key: str, said: str) -> None:
    source = tables()
    change(source)
    with pytest.raises(InputError, match=said) as caught:
        parse_config(source)
    assert caught.value.key == key
    assert caught.value.remedy


def test_tables_that_contain_themselves() -> None:
    source = tables()
    source["field"]["more"] = source
    with pytest.raises(InputError, match="nested too deeply"):
        parse_config(source)


def test_a_copy_with_other_values() -> None:
    config = parse_config(small())
    changes = {"objective.kinetic": 0.125, "density.initial.0.std": 0.4, "output.directory": Path("elsewhere")}
    other = config.replace(changes)
    assert isinstance(other, Config)
    assert (other.objective.kinetic, other.density.initial[0].std) == (0.125, 0.4)  # type: ignore[union-attr]
    assert config.objective.kinetic != 0.125
    assert other.replace({key: _value(config, key) for key in changes}) == config
    section = {"kinetic": 2.0, "terminal": config.objective.terminal}
    assert config.replace({"objective": section}).objective.kinetic == 2.0
    assert config.replace({"adapt": {"density": 0.1}}).replace({"adapt": None}) == config


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for step in key.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"objective.kinetic": -1.0}, "objective.kinetic"),
        ({"objective.kinetik": 1.0}, "objective.kinetik"),
        ({"density.initial.7.std": 1.0}, "density.initial.7"),
        ({"field.layers.0": 1}, "field.layers.0"),
        ({"objective.terminal": object()}, "objective.terminal"),
        ({"objective.terminal.target": np.zeros(3)}, "objective.terminal.target"),
    ],
)
def test_a_copy_is_checked(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(small()).replace(changes)
    assert caught.value.key == key


def test_an_empty_list_is_as_good_as_none() -> None:
    """Runs of versions that had no such key go on."""
    assert changed_keys({"a": {"b": 1}}, {"a": {"b": 1, "c": []}}) == []
    assert changed_keys({"a": {"c": [1]}}, {"a": {"c": []}}) == [("a.c", [1], None)]
    assert changed_keys({"a": {"c": 0}}, {"a": {}}) == [("a.c", 0, None)]
