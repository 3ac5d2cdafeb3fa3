"""Links inside the documentation lead somewhere, and the README stays one sitting long."""

import json
import re
from pathlib import Path

import pytest
from code_blocks import markdown, pages
from paths import ROOT

pytestmark = pytest.mark.one_process


def links(page: Path) -> list[str]:
    """What the links and images of a page point to, without anchors."""
    text = markdown(page)
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    prose = re.sub(r"^( *)(```+)[^\n]*\n.*?^\1\2 *$", "", text, flags=re.DOTALL | re.MULTILINE)
    figures = re.findall(r"^:::+\{(?:figure|image)\} (\S+)", prose, re.MULTILINE)
    return [target.partition("#")[0] for target in [*re.findall(r"\]\(([^)\s]+)\)", prose), *figures]]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if target and "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_one_sitting_long() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
