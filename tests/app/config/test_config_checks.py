"""Checks across sections, and configurations made of anything: only InputError may come out."""

import json
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from configurations import BASE
from hypothesis import given, settings
from hypothesis import strategies as st

from eulerian.app.config import Config, check_dimension, check_files, check_labels, parse_config
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process

repeatable = settings(derandomize=True, deadline=None, max_examples=300)


def _configured(terminal: str, *terms: str) -> Config:
    # A mesh file says nothing about its dimension when the configuration is read.
    text = f"""
    domain = {{ file = "{__file__}" }}
    field = {{ kind = "free" }}
    density = {{ initial = [{", ".join(terms)}] }}
    objective = {{ terminal = {terminal} }}
    """
    return parse_config(text)


GAUSSIAN = {dim: f"{{ kind = 'gaussian', mean = {[0.0] * dim}, std = 1 }}" for dim in (1, 2, 3)}
TARGET = {dim: f"{{ kind = 'quadratic', target = {[0.0] * dim} }}" for dim in (1, 2, 3)}


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_dimension(dim: int, wanted: int) -> None:
    uniform = f"{{ kind = 'uniform', lower = {[0.0] * dim}, upper = {[1.0] * dim} }}"
    samples = f"{{ kind = 'samples', file = '{__file__}', columns = {list(range(dim))} }}"
    formula = f"{{ kind = 'expression', value = '{'xyz'[dim - 1]}' }}"
    loss = f"{{ kind = 'expression', value = '{'xyz'[dim - 1]} + label' }}"
    to = "{{ kind = 'fixed', target = [{}] }}".format
    cases = {
        "density.initial.0.mean": _configured(TARGET[wanted], GAUSSIAN[dim]),
        "density.initial.1.lower": _configured(TARGET[wanted], GAUSSIAN[wanted], uniform),
        "density.initial.0.columns": _configured(TARGET[wanted], samples),
        "objective.terminal.target": _configured(TARGET[dim], GAUSSIAN[wanted]),
        "objective.terminal.targets": _configured(
            f"{{ kind = 'quadratic', targets = [{[0.0] * dim}] }}", GAUSSIAN[wanted]
        ),
        "density.initial.0.value": _configured(TARGET[wanted], formula),
        "objective.terminal.value": _configured(loss, GAUSSIAN[wanted]),
        "objective.terminal.target.0.mean": _configured(to(GAUSSIAN[dim]), GAUSSIAN[wanted]),
        "objective.terminal.target.1.lower": _configured(to(f"{GAUSSIAN[wanted]}, {uniform}"), GAUSSIAN[wanted]),
        "objective.terminal.target.0.columns": _configured(to(samples), GAUSSIAN[wanted]),
        "objective.terminal.target.0.value": _configured(to(formula), GAUSSIAN[wanted]),
    }
    for key, config in cases.items():
        # A formula in fewer variables than there are axes is right.
        if dim == wanted or (key.endswith("value") and dim < wanted):
            check_dimension(config, wanted)
        else:
            with pytest.raises(InputError) as caught:
                check_dimension(config, wanted)
            assert caught.value.key == key


@pytest.mark.parametrize("dim", [1, 3])
def test_pictures_are_flat(dim: int) -> None:
    picture = f"{{ kind = 'image', file = '{__file__}', lower = {[0.0] * dim}, upper = {[1.0] * dim} }}"
    with pytest.raises(InputError, match="dimension 2") as caught:
        check_dimension(_configured(TARGET[dim], picture), dim)
    assert caught.value.key == "density.initial.0.kind"
    target = f"{{ kind = 'l2', target = [{GAUSSIAN[dim]}, {picture}] }}"
    with pytest.raises(InputError, match="dimension 2") as caught:
        check_dimension(_configured(target, GAUSSIAN[dim]), dim)
    assert caught.value.key == "objective.terminal.target.1.kind"


def test_labels_that_only_a_file_knows() -> None:
    samples = f"{{ kind = 'samples', file = '{__file__}', columns = [0], label_column = 1 }}"
    config = _configured("{ kind = 'logistic', direction = [1.0] }", samples)
    assert config.n_labels is None
    check_labels(config, 2)
    with pytest.raises(InputError, match="3 labels") as caught:
        check_labels(config, 3)
    assert caught.value.key == "objective.terminal.kind"
    target = _configured(f"{{ kind = 'kl', target = [{GAUSSIAN[1]}] }}", samples)
    check_labels(target, 1)
    with pytest.raises(InputError, match=r"has 1 label, but .* there are 2 labels") as caught:
        check_labels(target, 2)
    assert caught.value.key == "objective.terminal.target"
    three = _configured("{ kind = 'cross_entropy', weights = [[1], [2], [3]], bias = [0, 0, 0] }", samples)
    check_labels(three, 3)
    for n_labels in (1, 2, 4):
        with pytest.raises(InputError, match=r"objective\.terminal"):
            check_labels(three, n_labels)


def test_files_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "mesh.msh").touch()
    config = parse_config(BASE, tmp_path, ["domain={file='mesh.msh'}"])
    check_files(config)
    (tmp_path / "mesh.msh").unlink()
    with pytest.raises(InputError, match="no such file") as caught:
        check_files(config)
    assert caught.value.key == "domain.file"
    assert caught.value.value == str(tmp_path / "mesh.msh")


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.integers(),
        st.floats(),
        st.sampled_from(
            ["gaussian", "uniform", "samples", "mlp", "linear", "quadratic", "cross_entropy", "scott", "x"]
        ),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["kind", "mean", "std", "file", "value", "label", "x"]), inner, max_size=3),
    ),
    max_leaves=5,
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, item in entries for place in _places(item, (*path, key)))][0 if path else 1 :]


PLACES = _places(tomllib.loads(BASE))


@repeatable
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_anything_anywhere_gives_input_errors_only(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    data: Any = deepcopy(tomllib.loads(BASE))
    for path, value in changes:
        table: Any = data
        for step in path[:-1]:
            inside = isinstance(table, dict) and step in table
            inside |= isinstance(table, list) and isinstance(step, int) and step < len(table)
            if not inside:
                break
            table = table[step]
        else:
            if isinstance(table, dict) or (isinstance(table, list) and isinstance(path[-1], int) and table):
                table[path[-1] if isinstance(table, dict) else 0] = value
    try:
        config = parse_config(data)
    except InputError as error:
        said = str(error)
    else:
        said = config.to_toml()
        assert parse_config(said) == config
    assert said


@repeatable
@given(
    st.sampled_from([".".join(map(str, path)) for path in PLACES] + ["", "a", "density.initial.9", "field.theta"]),
    st.one_of(st.text(max_size=20), VALUES.map(json.dumps)),
)
def test_any_override_gives_input_errors_only(key: str, value: str) -> None:
    try:
        outcome = repr(parse_config(BASE, overrides=[f"{key}={value}"]))
    except InputError as error:
        outcome = str(error)
    assert outcome


@repeatable
@given(
    st.one_of(
        st.text(), st.integers(0, len(BASE)).map(lambda n: BASE[:n]), st.integers(0, len(BASE)).map(lambda n: BASE[n:])
    )
)
def test_any_text_gives_input_errors_only(text: str) -> None:
    try:
        outcome = repr(parse_config(text))
    except InputError as error:
        outcome = str(error)
    assert outcome
