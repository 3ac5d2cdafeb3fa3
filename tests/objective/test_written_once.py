"""Rule of the house: the parts of J, and the kinds of terminals, density terms and fields, are listed once."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eulerian
from eulerian.app.config import density, field, functionals, losses
from eulerian.app.config.values import Section
from eulerian.objective.parts import part_names

pytestmark = pytest.mark.one_process

PACKAGE = Path(eulerian.__file__).parent
ENOUGH = 3  # names in one literal that make it a list of them


def kinds(module: Any) -> set[str]:
    """The ``kind`` of every section that a module of the configuration defines."""
    sections = [found for found in vars(module).values() if isinstance(found, type) and issubclass(found, Section)]
    names = {section.model_fields["kind"].default for section in sections if "kind" in section.model_fields}
    return {name for name in names if isinstance(name, str)}


LISTS = {
    "parts of J": set(part_names()),
    "kinds of terminals": kinds(losses) | kinds(functionals),
    "kinds of density terms": kinds(density),
    "kinds of fields": kinds(field),
}


def literals(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """The strings of every tuple, list, set and dict (its keys), with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items) | ast.Dict(keys=items):
                strings = {item.value for item in items if isinstance(item, ast.Constant)}
                yield node.lineno, {each for each in strings if isinstance(each, str)}


def repeated(source: str, names: set[str]) -> list[int]:
    """Lines of a module where names are listed."""
    return [line for line, strings in literals(ast.parse(source)) if len(strings & names) >= ENOUGH]


@pytest.mark.parametrize("what", LISTS)
def test_no_list_of_names_is_written_a_second_time(what: str) -> None:
    names = LISTS[what]
    assert len(names) > ENOUGH
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "objective" / "parts.py"  # the home of the parts; the kinds' are the sections themselves
        for line in repeated(path.read_text("utf-8"), names)
    }
    assert not found, f"{what} are listed in {sorted(found)}: ask their home instead"


@pytest.mark.parametrize(
    "source",
    [
        '("terminal", "kinetic", 1, "entropy")',
        '{"terminal": 0, "kinetic": 1, "entropy": f(2)}',
        'x = {"kinetic", "jacobian", "parameters"}',
    ],
)
def test_a_second_list_is_found(source: str) -> None:
    assert repeated(source, LISTS["parts of J"]) == [1]
    assert not repeated('("terminal", "kinetic")', LISTS["parts of J"])
