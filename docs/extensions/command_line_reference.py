"""The directive ``command-line``: every command with its arguments and examples, generated from the parser.

Options can be named elsewhere, as in ``{option}`eulerian train --resume```, and commands by their headings:
``command_line.md#eulerian-train``.
"""

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from eulerian.app import commands
from eulerian.app.cli.parser import build_parser, command_parsers
from eulerian.app.config.schema import sentence

COMMON = ("-h", "-q", "-v", "--no-python")
"""What is described once, for all commands that have it."""

WIDTH = 76

FAILURES = {
    "doctor": "something does not work here",
    "plot": "a figure could not be drawn, or solving forward again failed",
    "sweep": "some runs failed or have not come to their end",
}
"""When commands end with 2 that do not compute one run."""


class CommandLine(SphinxDirective):
    """All commands, as sections of the page."""

    def run(self) -> list[nodes.Node]:
        """Generate Markdown and have it parsed."""
        for module in (commands, inspect.getmodule(build_parser)):
            for file in Path(str(inspect.getfile(module))).parent.glob("*.py"):
                self.env.note_dependency(str(file))
        return self.parse_text_to_nodes("\n".join(lines(build_parser())), allow_section_headings=True)


def lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The Markdown: what all commands have, and then each of them."""
    parsers = command_parsers(parser)
    yield from ("## Options of all commands", "", ":::{program} eulerian", ":::")
    yield from option(next(action for action in parser._actions if "--version" in action.option_strings))
    for flag in COMMON:
        first = next(each for each in parsers.values() if flag in each._option_string_actions)
        yield from option(first._option_string_actions[flag])
    for command in commands.ALL:
        yield from section(parsers[command.name], command)


def section(parser: argparse.ArgumentParser, command: commands.Command) -> Iterator[str]:
    """One command."""
    yield from ("", f"## {parser.prog}", "", prose(str(parser.description)), "")
    yield from ("```text", *usage(parser), "```")
    if command.serial:
        yield from ("", "One process does it; under `mpirun` the other ranks have nothing to do.")
    if not command.runs_python:
        yield from ("", "It never runs Python code that a configuration names, so it has no `--no-python`.")
    yield from ("", f":::{{program}} {parser.prog}", ":::")
    for action in parser._actions:
        if not set(COMMON) & set(action.option_strings):
            yield from option(action)
    yield from ("", "Examples:", "", "```console", *(f"$ {example}" for example in command.examples), "```")
    failure = FAILURES.get(command.name, "the computation failed or was interrupted" if not command.serial else "")
    codes = "0: done; 1: the input is wrong" + (f"; 2: {failure}" if failure else "")
    yield from ("", f"[Exit codes](exit_codes.md): {codes}.")


def usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The usage in lines that fit on a page."""
    text = parser.format_usage().removeprefix(f"usage: {parser.prog} ")
    line = parser.prog
    for word in re.findall(r"\[(?:[^\[\]]|\[[^\]]*\])*\]|\S+", " ".join(text.split())):
        if len(line) + len(word) > WIDTH:
            yield line
            line = "   "
        line += f" {word}"
    yield line


def option(action: argparse.Action) -> Iterator[str]:
    """One argument or option."""
    value = "" if action.nargs == 0 else placeholder(action)
    names = [f"{name} {value}".strip() for name in action.option_strings] or [value]
    yield from ("", f":::{{option}} {', '.join(names)}", "", sentence(prose(action.help or "")))
    if action.choices and not {str(choice) for choice in action.choices} <= set(re.findall(r"\w+", action.help or "")):
        yield from ("", f"One of {', '.join(f'`{choice}`' for choice in action.choices)}.")
    if action.option_strings and action.required:
        yield from ("", "It has to be there.")
    yield ":::"


def placeholder(action: argparse.Action) -> str:
    """What stands for the value of an argument."""
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest)
    several = " …" if action.nargs == "+" else ""
    return f"[{name}]" if action.nargs == "?" else f"{name}{several}"


def prose(text: str) -> str:
    """Help as Markdown: nothing in it is markup, but options, keys and files are code."""
    text = re.sub(r"([\\*_<>$#`])", r"\\\1", text)
    return re.sub(
        r"(?<![\w`-])(--?[a-z][\w-]*|[\w./\\]+\.(?:csv|json|npz|toml|gif)|\[particles\]|kind = \"python\")", _code, text
    )


def _code(match: re.Match[str]) -> str:
    return f"`{match[0].replace(chr(92), '')}`"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
