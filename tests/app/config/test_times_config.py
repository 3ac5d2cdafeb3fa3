"""`[[objective.at]]`: terminal costs at given times, their keys and what is refused."""

from typing import Any

import pytest
from configurations import small

from eulerian.app.config import Config, check_dimension, check_labels, parse_config
from eulerian.app.config.levels import coarse_to_fine
from eulerian.base.errors import InputError
from eulerian.objective.cost_at import CostAt
from eulerian.objective.losses import QuadraticLoss

pytestmark = pytest.mark.one_process

NORMAL = {"kind": "gaussian", "mean": [0.2], "std": 0.4}
# How many labels there are only the file knows.
UNKNOWN = {"initial": [{"kind": "samples", "file": __file__, "columns": [0], "label_column": 1, "bandwidth": 0.1}]}
KINDS: dict[str, dict[str, Any]] = {
    "quadratic": {"target": [0.5]},
    "expression": {"value": "x**2"},
    "logistic": {"direction": [1.0], "offset": 0.2},
    "cross_entropy": {"weights": [[1.0], [-1.0]], "bias": [0.1, 0.2], "trainable": True},
    "kl": {"target": [NORMAL]},
    "l2": {"target": [NORMAL]},
    "mmd": {"target": [NORMAL], "width": 0.5},
    "interaction": {"kernel": [{"kind": "gaussian", "weight": -1.0, "width": 0.3}]},
}


def configured(*at: dict[str, Any], layers: int = 4, overrides: tuple[str, ...] = (), **tables: Any) -> Config:
    objective = {"kinetic": 0.5, "terminal": {"kind": "quadratic", "target": [0.5]}, "at": list(at)}
    field = {"kind": "linear", "features": "affine", "layers": layers}
    return parse_config(small(objective=objective, field=field, density=UNKNOWN, **tables), overrides=overrides)


@pytest.mark.parametrize("kind", KINDS)
def test_every_terminal_kind_has_its_keys(kind: str) -> None:
    config = configured({"time": 0.25, "weight": 2.0, "kind": kind, **KINDS[kind]})
    alone = parse_config(small(objective={"terminal": {"kind": kind, **KINDS[kind]}}, density=UNKNOWN))

    assert parse_config(config.to_toml()) == config
    (cost,) = config.objective.at
    given = cost.model_dump(exclude={"time", "weight"})
    assert given == alone.objective.terminal.model_dump(exclude={"weight"})
    (found,) = config.objective.costs_at(lambda terms, key, **_: (len(terms), key))
    assert (found.time, found.weight) == (0.25, 2.0)
    expected = alone.objective.terminal.cost(alone.objective, lambda terms, **_: (len(terms), "objective.at.0.target"))
    assert type(found.cost) is type(expected)
    assert repr(found.cost) == repr(expected)


def test_a_weight_counts_once() -> None:
    """`weight` of a quadratic loss is that of its cost at a time."""
    (found,) = configured({"time": 0.5, "kind": "quadratic", "target": [0.5], "weight": 3.0}).objective.costs_at(print)
    assert isinstance(found, CostAt)
    assert isinstance(found.cost, QuadraticLoss)
    assert found.weight * found.cost.weight == 3.0


def test_overrides_reach_it() -> None:
    at = {"time": 0.5, "kind": "kl", "target": [NORMAL]}
    sets = ("objective.at.0.time=0.75", "objective.at.0.target.0.std=0.3", "objective.at.0.weight=0")
    (cost,) = configured(at, overrides=sets).objective.at
    assert (cost.time, cost.target[0].std, cost.weight) == (0.75, 0.3, 0.0)
    assert configured(at, overrides=("objective.at=[]",)).objective.at == ()


@pytest.mark.parametrize(
    ("at", "key", "words"),
    [
        ({"time": 0.3, "kind": "quadratic", "target": [0.5]}, "time", "not the end of a layer: the 4 layers"),
        ({"time": 1.25, "kind": "quadratic", "target": [0.5]}, "time", "not the end of a layer"),
        ({"time": -0.25, "kind": "quadratic", "target": [0.5]}, "time", "greater than 0"),
        ({"kind": "quadratic", "target": [0.5]}, "time", "missing"),
        ({"time": 0.5, "kind": "quadratic", "target": [0.5], "weight": -1.0}, "weight", "greater than or equal"),
        ({"time": 0.5, "kind": "quadratic"}, "", "exactly one of"),
        ({"time": 0.5, "kind": "fixed", "target": [NORMAL]}, "kind", "held to a density exactly"),
        ({"time": 0.5, "kind": "quadratisch"}, "kind", "unknown kind"),
        ({"time": 0.5}, "kind", "missing"),
        ({"time": 0.5, "kind": "kl", "target": [NORMAL], "bias": [1.0]}, "bias", "unknown key"),
    ],
)
def test_what_is_wrong_is_named(at: dict[str, Any], key: str, words: str) -> None:
    good = {"time": 0.5, "kind": "kl", "target": [NORMAL]}
    with pytest.raises(InputError, match=words) as caught:
        configured(good, at)
    assert caught.value.key == f"objective.at.1.{key}".rstrip(".")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("at", "key"),
    [
        ({"kind": "quadratic", "target": [0.5, 0.5]}, "target"),
        ({"kind": "quadratic", "targets": [[0.5, 0.5]]}, "targets"),
        ({"kind": "expression", "value": "x + y"}, "value"),
        ({"kind": "kl", "target": [{**NORMAL, "mean": [0.0, 0.0]}]}, "target.0.mean"),
    ],
)
def test_dimensions_are_checked(at: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        check_dimension(configured({"time": 0.5, **at}), 1)
    assert caught.value.key == f"objective.at.0.{key}"


@pytest.mark.parametrize(
    ("kind", "key"), [("logistic", "kind"), ("cross_entropy", "weights"), ("kl", "target"), ("l2", "target")]
)
def test_labels_are_checked(kind: str, key: str) -> None:
    config = configured({"time": 0.5, "kind": kind, **KINDS[kind]})
    with pytest.raises(InputError) as caught:
        check_labels(config, 3)
    assert caught.value.key == f"objective.at.0.{key}"


def test_readouts_come_in_the_order_of_time() -> None:
    config = configured(*({"time": t, "kind": "cross_entropy", **KINDS["cross_entropy"]} for t in (0.75, 0.25)))
    keys = [key for key, _ in config.in_order_of_readouts]
    assert keys == ["objective.terminal", "objective.at.1", "objective.at.0"]


def test_times_end_layers_on_every_level() -> None:
    """Coarser levels have half as many layers, unless a time lies inside one of them then."""
    at = {"time": 2.0 / 3.0, "kind": "quadratic", "target": [0.5]}
    levels = coarse_to_fine(configured(at, layers=12, overrides=("optimiser.levels=3",)))
    assert [each.field.layers for each in levels] == [6, 12, 12]
    levels = coarse_to_fine(configured({**at, "time": 0.25}, layers=12, overrides=("optimiser.levels=3",)))
    assert [each.field.layers for each in levels] == [8, 12, 12]
