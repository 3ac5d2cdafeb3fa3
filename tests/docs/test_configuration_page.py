"""The reference of the configuration, which is generated: every key is there, with an anchor that nothing else has."""

import re
import sys
from collections import Counter

import pytest
from code_blocks import DOCS

from eulerian.app.config import Config
from eulerian.app.config.schema import kind_of

pytestmark = pytest.mark.one_process

pytest.importorskip("sphinx")
sys.path.append(str(DOCS / "extensions"))

from configuration_reference import Page, prose, sections_in, words  # noqa: E402

TEXT = "\n".join(Page().lines())
ANCHORS = [anchor for line in re.findall(r":anchors: (.*)", TEXT) for anchor in line.split()]


def keys(annotation: object, place: str) -> set[str]:
    """The anchors of all keys of the tables that a key may have, but of tables in these."""
    found = set()
    for section in sections_in(annotation):
        kind = kind_of(section)
        for name in section.model_fields:
            found |= {(place, kind, name)} if name != "kind" else set()
    return found


@pytest.mark.parametrize("table", Config.model_fields)
def test_every_key_has_an_anchor(table: str) -> None:
    for place, kind, name in keys(Config.model_fields[table].annotation, table):
        assert {f"{place}.{name}", f"{place}.{kind}.{name}"} & set(ANCHORS)


def test_anchors_are_there_once() -> None:
    assert len(ANCHORS) > 120
    assert max(Counter(ANCHORS).values()) == 1
    wanted = {
        "objective.kinetic",
        "field.hidden",
        "field.mlp.hidden",
        "domain.box.cells",
        "density.initial.gaussian.std",
    }
    assert wanted | {"objective.at.time", "objective.terminal.kl.target", "objective.potential.object"} <= set(ANCHORS)


def test_links_inside_of_the_page_lead_somewhere() -> None:
    labels = set(re.findall(r"(?m)^\((.*)\)=$", TEXT)) | set(Config.model_fields)
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= labels | set(ANCHORS)


def test_every_key_has_its_type_and_example() -> None:
    entries = re.findall(r"::::\{configuration-key\} (.*?)\n(.*?)\n::::", TEXT, re.DOTALL)
    assert len(entries) > 100
    for name, text in entries:
        *_, about, _, told = text.splitlines()
        assert len(about) > 10, name
        assert about.endswith("."), name
        assert re.search(r"\*type\* \S.* · (\*required\*|\*default\* \S+).* · \*example\* `\w+ = ", told), name


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, "whole number ≥ 1"),
        ({"type": "integer", "minimum": 0, "maximum": 2}, "whole number from 0 to 2"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number > 0, ≤ 1"),
        ({"type": "number", "minimum": 1e-60, "maximum": 1e60}, "number > 0"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, "list of lists of numbers"),
        ({"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "integer"}}, "list of 1 to 3 whole numbers"),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/X"}]}, "text or table"),
        ({"enum": ["a", "b"], "type": "string"}, '`"a"`, `"b"`'),
    ],
)
def test_types_in_words(schema: dict[str, object], said: str) -> None:
    assert words(schema) == said


def test_words_of_docstrings_are_no_markup() -> None:
    assert prose('∫|v|²ρ_0 * ``a_b`` or "hopf_lax"') == r'∫|v|²ρ\_0 \* `a_b` or `"hopf_lax"`'
