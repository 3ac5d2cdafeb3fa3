"""The reference has every public name."""

import ast
import re

import pytest
from code_blocks import DOCS
from paths import PACKAGE

import eulerian

pytestmark = pytest.mark.one_process

REFERENCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference" / "python").glob("*.md")))
DOCUMENTED = set(re.findall(r"^\.\. auto\w+:: eulerian\.([\w.]+)$", REFERENCE, re.MULTILINE))


def test_every_public_name_is_in_the_reference() -> None:
    public = set(eulerian.__all__) - {"__version__", "jax", "torch", "scipy"}
    assert public <= DOCUMENTED, f"missing: {sorted(public - DOCUMENTED)}"


@pytest.mark.parametrize("framework", ["jax", "torch", "scipy"])
def test_every_name_for_other_frameworks_is_in_the_reference(framework: str) -> None:
    source = (PACKAGE / framework / "__init__.py").read_text(encoding="utf-8")  # the framework may not be there
    exported = re.search(r"^__all__ = (\[.*?\])", source, re.DOTALL | re.MULTILINE)
    assert exported is not None
    names = {f"{framework}.{name}" for name in ast.literal_eval(exported[1])}
    assert names <= DOCUMENTED, f"missing: {sorted(names - DOCUMENTED)}"


def test_every_example_is_shown() -> None:
    examples = {path.name for path in (DOCS.parent / "scripts" / "examples").glob("*.py")}
    shown = set(re.findall(r"literalinclude\} \S+/examples/(\S+)", REFERENCE))
    assert shown == examples
