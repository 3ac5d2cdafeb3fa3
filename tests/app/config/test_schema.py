"""The JSON schema says of a configuration what the parser says, as far as a schema can."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from configurations import BASE
from paths import PACKAGE
from test_config import CLASSIFIERS, FIELDS, MINIMAL, TERMINALS, TERMS, TWO_LABELS
from test_config_errors import FLAT, GAUSSIAN, WRONG

import eulerian
from eulerian.app.config import Config, parse_config
from eulerian.app.config.schema import described, kind_of, meaning, summary
from eulerian.app.config.tables import apply_overrides
from eulerian.app.config.values import Section
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process

jsonschema = pytest.importorskip("jsonschema")
if not hasattr(jsonschema, "Draft202012Validator"):
    pytest.skip("jsonschema is older than this dialect: scripts/setup renews the environment", allow_module_level=True)

SCHEMA = Config.model_json_schema()
TEMPLATES = sorted((PACKAGE / "app" / "templates").glob("*/*.toml"))

# What a schema cannot say: that files exist, that formulas can be read, that lengths and numbers in different places
# fit one another, and that 8.0 is no whole number.
UNSAID = {
    "domain.box.cells=[48]",
    "domain.box.cells=[20000, 20000]",
    "domain.box.cells=[2000000000, 2000000000]",
    "domain.refine=8",
    "domain.box.upper=[3.0, -3.0]",
    "domain.box.upper=[3.0]",
    "domain={ file = 'nowhere.msh' }",
    "domain={ file = '.' }",
    "density.initial.0.mean=[nan, 0]",
    "density.initial.0.mean=[0]",
    "density.initial.0.label=1",
    "density.initial.0.label=2000000000",
    "field.layers=8.0",
    "field.theta=[[1, 2], [3]]",
    "field.theta=[[1, nan]]",
    "field.theta=[[1], [2]]",
    "field.theta=start.npz",
    "field={ kind = 'python', object = 'm:f', folder = 'nowhere' }",
    "optimiser.bounds=[1.0, 1.0]",
    "optimiser.bounds=[nan, 1.0]",
    "optimiser.bounds=[inf, inf]",
    "objective.parameters=nan",
    "objective.terminal.target=[1.0, 2.0, 3.0]",
    "objective.terminal={ kind = 'quadratic', targets = [[0, 0], [1, 1]] }",
    "objective.terminal={ kind = 'quadratic', targets = [[0]] }",
    "objective.terminal={ kind = 'quadratic', targets = [[0, 0], [0]] }",
    "objective.terminal={ kind = 'expression', value = 'x + foo' }",
    "objective.terminal={ kind = 'expression', value = 'x + z' }",
    "objective.terminal={ kind = 'logistic', direction = [1, 0] }",
    "objective.terminal={ kind = 'cross_entropy', trainable = true }",
    f"objective.terminal={{ kind = 'fixed', target = [{{ {GAUSSIAN} }}] }}",
    f"objective.terminal={{ kind = 'kl', target = [{{ {FLAT}, label = 2 }}] }}",
    f"objective.terminal={{ kind = 'kl', target = [{{ {FLAT} }}, {{ {FLAT}, label = 1 }}] }}",
    "objective.terminal={ kind='l2', target=[{ kind='image', file = 'no.png', lower = [0, 0], upper = [1, 1]}]}",
    "objective.terminal={ kind = 'l2', target = [{ kind = 'expression', value = 'x + z' }] }",
    "solver.memory=99999999999 TiB",
    *(override for override, *_ in WRONG if len(override) > 1000),  # the name of no file
}


def said(tables: dict[str, Any]) -> list[str]:
    """What the schema says against a configuration."""
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(tables)
    return [f"{error.json_path}: {error.message}" for error in found]


def changed(text: str, *overrides: str) -> dict[str, Any]:
    return apply_overrides(tomllib.loads(text), overrides)


def sections() -> dict[str, type[Section]]:
    """Every section by its name, found from the root."""
    found: dict[str, type[Section]] = {}

    def visit(annotation: object) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Section) and annotation.__name__ not in found:
            found[annotation.__name__] = annotation
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for part in get_args(annotation):
            visit(part)

    visit(Config)
    return found


KEYS = [(section, key) for section in sections().values() for key in section.model_fields]
IDS = [f"{section.__name__}.{key}" for section, key in KEYS]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert eulerian.__version__ in SCHEMA["$id"]
    assert eulerian.__version__ in SCHEMA["title"]
    json.dumps(SCHEMA, allow_nan=False)
    assert eulerian.Config.model_json_schema() == SCHEMA
    assert json.dumps(Config.model_json_schema("by_alias"), allow_nan=False)


def tables(item: Any) -> Iterator[dict[str, Any]]:
    """Every table of the schema."""
    if isinstance(item, dict):
        yield item
    for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from tables(inner)


def test_every_table_is_closed_and_speaks_json_schema() -> None:
    for each in tables(SCHEMA):
        if each.get("type") == "object":
            assert each["additionalProperties"] is False
        assert each.get("type") != "null"
        assert not {"gt", "ge", "lt", "le", "discriminator"} & set(each) or "properties" in each
    assert len({each["title"] for each in SCHEMA["$defs"].values()}) > 20


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_templates_are_right(file: Path) -> None:
    assert said(tomllib.loads(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "override"),
    [
        (MINIMAL, ""),
        *((MINIMAL, f"density.initial=[{term}]") for term, *_ in TERMS),
        *((MINIMAL, f"field={field}") for field, _ in FIELDS),
        *((MINIMAL, f"objective.terminal={terminal}") for terminal, _ in TERMINALS),
        *((TWO_LABELS, f"objective.terminal={terminal}") for terminal, _ in CLASSIFIERS),
        (BASE, "optimiser.bounds=[-inf, 1]"),
        (BASE, "optimiser={ bounds = [0.0, inf], method = 'bncg', petsc_options = '-tao_ls_type armijo -a 1e-3' }"),
        (BASE, "solver.memory='500 MB'"),
        (BASE, "solver={ memory = '1000000', disk = '1.5GiB' }"),
        (BASE, "output.checkpoint_every='1.5 h'"),
        (BASE, "output.checkpoint_every='60 s'"),
        (BASE, "output.checkpoint_every=0"),
        (BASE, "objective.potential='x**2/2'"),
        (BASE, "objective.potential={ object = 'm:V', readout = [1] }"),
        (BASE, "objective.interaction={ kind = 'quadratic', weight = -1 }"),
        (BASE, "objective.interaction=[{ kind = 'gaussian', weight = 1, width = 0.1 }]"),
        (BASE, "objective.at=[{ kind = 'quadratic', target = [0, 0], time = 0.5, weight = 0 }]"),
        (BASE, "adapt={}"),
        (BASE, "adapt={ rounds = 2 }"),
        (BASE, "particles.replicates=2"),
    ],
)
def test_what_the_parser_takes_the_schema_takes(text: str, override: str, tmp_path: Path) -> None:
    for name in ("data.csv", "shape.png", "start.npz"):
        (tmp_path / name).touch()
    parse_config(text, tmp_path, [override] if override else [])
    assert said(changed(text, *([override] if override else []))) == []


MORE_WRONG = [
    "objective.at=[{ kind = 'fixed', target = [], time = 0.5 }]",
    "objective.at=[{ kind = 'quadratic', target = [0, 0] }]",
    "objective.at=[{ kind = 'quadratic', target = [0, 0], time = 0 }]",
    "objective.interaction=[]",
    "objective.interaction={ kind = 'quadratic' }",
    "objective.interaction={ kind = 'quadratic', weight = 1, width = 1 }",
    "objective.interaction={ weight = 1 }",
    "objective.potential=3",
    "objective.potential={ kind = 'python' }",
    "optimiser.bounds=[0, 1, 2]",
    "optimiser.bounds=['a', 1]",
    "optimiser.petsc_options='-a -PREFIX_push x'",
    "output.checkpoint_every='60'",
    "output.checkpoint_every='0 s'",
    "output.checkpoint_every=true",
    "particles.columns=['a', 'b']",
    "particles.label_column='c'",
    "particles.file='data.csv'",
    "particles.replicates=1",
    "particles.tolerance=1e-14",
    "adapt.density=2",
    "density.initial=[{ kind = 'samples', file = 'data.csv', columns = ['a', 'a'] }]",
    "density.initial=[{ kind = 'samples', file = 'data.csv', columns = ['', 'a'] }]",
    "density.initial=[{ kind = 'samples', file = 'data.csv', columns = ['a', 'b'], bandwidth = 0 }]",
    "density.initial=[{ kind = 'samples', file = 'data.csv', columns = ['a', 'b'], label_column = 'c', label = 1 }]",
]


@pytest.mark.parametrize("override", [*(row[0] for row in WRONG), *MORE_WRONG])
def test_what_the_schema_refuses_the_parser_refuses(override: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    with pytest.raises(InputError):
        parse_config(BASE, tmp_path, [override])
    assert bool(said(changed(BASE, override))) != (override in UNSAID)


@pytest.mark.parametrize(
    "overrides",
    [
        ["adapt={}", "optimiser.levels=2"],
        ["adapt={}", "field={ kind = 'free' }"],
        ["field.tied=true", "field.theta=[[1.0], [1.0]]"],
    ],
)
def test_keys_that_exclude_one_another(overrides: list[str]) -> None:
    with pytest.raises(InputError):
        parse_config(BASE, overrides=overrides)
    assert said(changed(BASE, *overrides))


@pytest.mark.parametrize("name", ["domain", "density", "field", "objective"])
def test_tables_that_have_to_be_there(name: str) -> None:
    data = tomllib.loads(BASE)
    del data[name]
    assert any(name in text for text in said(data))


@pytest.mark.parametrize(("section", "key"), KEYS, ids=IDS)
def test_every_key_is_described(section: type[Section], key: str) -> None:
    """And has a default, or has to be there, or is none by default."""
    table = SCHEMA if section is Config else SCHEMA["$defs"].get(section.__name__)
    if table is None:  # a kind that is only there to be refused
        return
    said, field = table["properties"][key], section.model_fields[key]
    assert said["title"] == key
    assert len(said["description"]) > 20
    assert said["description"].endswith(".")
    assert "``" not in said["description"]
    if key == "kind":
        assert said["const"] == kind_of(section)
        return
    assert ("default" in said) + (key in table.get("required", ())) + (
        field.get_default(call_default_factory=True) is None
    ) == 1 or (section is Config)
    assert field.description
    assert section is Config or field.examples


def test_meanings_are_those_of_the_class_that_declares_a_key() -> None:
    found = sections()
    assert "no part of J" in meaning(found["MmdTerminalAt"], "weight")
    assert "no part of J" not in meaning(found["MmdTerminal"], "weight")
    assert meaning(found["MlpField"], "layers") == meaning(found["LinearField"], "layers") != ""
    assert described(found["Objective"], "kinetic").startswith("λ in λ/2")
    assert summary(Config) == "Everything that a run needs to know."
