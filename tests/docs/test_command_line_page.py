"""The reference of the command line, which is generated: every command, option and example is there."""

import re
import sys

import pytest
from code_blocks import DOCS

from eulerian.app import commands
from eulerian.app.cli.parser import build_parser

pytestmark = pytest.mark.one_process

pytest.importorskip("sphinx")
sys.path.append(str(DOCS / "extensions"))

from command_line_reference import COMMON, command_parsers, lines, prose  # noqa: E402

PARSER = build_parser()
TEXT = "\n".join(lines(PARSER))
SECTIONS = dict(re.findall(r"(?ms)^## (eulerian \w+|Options of all commands)$(.*?)(?=^## |\Z)", TEXT))
ALL = pytest.mark.parametrize("command", commands.ALL, ids=lambda command: command.name)


@ALL
def test_every_command_is_there(command: commands.Command) -> None:
    section = SECTIONS[f"eulerian {command.name}"]
    assert f"\n{command.help[0].upper()}" in section
    for example in command.examples:
        assert f"\n$ {example}\n" in section
    assert "[Exit codes](exit_codes.md): 0: done; 1: the input is wrong" in section
    assert f":::{{program}} eulerian {command.name}" in section
    named = [
        option
        for line in re.findall(r":::\{option\} (.*)", section)
        for option in re.findall(r"(?<!\S)--?[\w-]+", line)
    ]
    options = {name for action in command_parsers(PARSER)[command.name]._actions for name in action.option_strings}
    common = {
        name
        for names in re.findall(r":::\{option\} (.*)", SECTIONS["Options of all commands"])
        for name in names.split(", ")
    }
    assert set(COMMON) <= common
    assert sorted(named) == sorted(options - common)


def test_every_argument_is_explained() -> None:
    for name, text in re.findall(r":::\{option\} (.*?)\n\n(.*?)\n", TEXT):
        assert len(text) > 5, name
        assert text[0].isupper() or text[0] in "`-", name
        assert text.endswith("."), name


@ALL
def test_the_table_of_the_page_has_every_command(command: commands.Command) -> None:
    page = (DOCS / "reference" / "command_line.md").read_text("utf-8")
    assert f"[`{command.name}`](#eulerian-{command.name})" in page


def test_help_is_no_markup() -> None:
    assert (
        prose("with --restart: of theta.npz; see [particles], a_b")
        == "with `--restart`: of `theta.npz`; see `[particles]`, a\\_b"
    )
