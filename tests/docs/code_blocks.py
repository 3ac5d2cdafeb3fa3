"""The pages of the documentation, and the fenced blocks in them."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from paths import ROOT

DOCS = ROOT / "docs"


class Block(NamedTuple):
    """One fenced block: its page, its language, its text and the number of its first line."""

    page: Path
    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """README, and every page of the site that somebody wrote."""
    written = [path for path in DOCS.rglob("*") if path.suffix in {".md", ".ipynb"} or path.parent.name == "learn"]
    here = [
        path for path in written if path.is_file() and "_build" not in path.parts and "__pycache__" not in path.parts
    ]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "scripts" / "README.md", *sorted(here)]


def markdown(page: Path) -> str:
    """Its text, line by line as it stands in the file; of a script the comments that are text, other lines empty."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".py":
        return text
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("# %%"):
            inside = "[markdown]" in line
            line = ""
        lines.append(line.removeprefix("#").removeprefix(" ") if inside else "")
    return "\n".join(lines) + "\n"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. (Directives of Sphinx, whose language is in braces, are none.)"""
    text = markdown(page)
    for match in re.finditer(r"^( *)```([\w-]*)(\{[\w:-]+\})?[^\n]*\n(.*?)^\1``` *$", text, re.DOTALL | re.MULTILINE):
        if not match[3]:
            yield Block(page, match[2], textwrap.dedent(match[4]), text.count("\n", 0, match.start(4)) + 1)


def commands(block: Block) -> list[str]:
    """The commands of a console block."""
    lines = re.sub(r"\\\n\s*(> )?", "", block.text).splitlines()
    return [line[2:].strip() for line in lines if line.startswith("$ ")]
