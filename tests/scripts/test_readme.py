"""What README.md shows is true: its commands run, its Python runs, its configurations are read.

The blocks run in the order of the file, in one temporary folder that stands for the clone (``meshes/`` is there), so
that a block may use what an earlier one has made.

* ``console``: a line that starts with ``$ `` is a command, the others are what it prints and are not compared.
  ``bash`` and ``sh``: every line is a command. A backslash at the end continues a line; comments are passed over.
* Commands that set up a machine are checked, not run: see `check_setup`.
* Others run as they stand, with five changes: ``uv run`` is dropped (this environment is the one), ``mpirun`` starts
  two ranks whatever it says, runs that do not resume may overwrite their folder, and ``eulerian train`` and ``sweep``
  do two iterations; the convex solver, there and in ``eulerian ideal``, does twenty. Runs with a folder of their
  own, of which nothing is plotted later, draw no figures.
* ``toml``: with ``# NAME.toml`` as its first line the block is a whole configuration and is kept under that name;
  otherwise it is a part of one, and each of its tables replaces that of the last whole configuration.
* ``python``: a program by itself.
"""

import os
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jobs import run_group
from paths import ROOT

from eulerian.app.config import parse_config, read_config

pytestmark = pytest.mark.mpi  # commands are for one process to run

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SETUP = re.compile(
    r"((\./)?scripts/|(\./)?\.ci/|git |cd |(uv |python3? -m )?pip |uv sync|conda |mamba |sudo |apt-get |source |\. )"
)


class Block(NamedTuple):
    """One fenced block: its language, its text and the number of its first line."""

    language: str
    text: str
    line: int


def read_blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text."""
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1``` *$", text, re.DOTALL | re.MULTILINE):
        yield Block(match[2], textwrap.dedent(match[3]), text.count("\n", 0, match.start(3)) + 1)


def read_commands(block: Block) -> list[str]:
    """The commands of a console or shell block."""
    lines = re.sub(r"\\\n\s*(> )?", "", block.text).splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


BLOCKS = list(read_blocks(README))
ALL = [pytest.param(block, id=f"line-{block.line}-{block.language}") for block in BLOCKS]
COMMANDS = [
    command for block in BLOCKS if block.language in {"console", "bash", "sh"} for command in read_commands(block)
]


def check_setup(command: str) -> None:
    """A command that sets up a machine names things that exist: scripts, extras, the packages of the stack."""
    words = shlex.split(command, comments=True)
    if words[0].removeprefix("./").startswith(("scripts/", ".ci/")):
        assert os.access(ROOT / words[0], os.X_OK), f"{words[0]} is no executable of the project"
    elif words[0] in {".", "source"}:
        assert words[1:] == [".venv/bin/activate"], command
    elif words[0] == "git":
        assert words[1] == "clone", command
    elif words[0] in {"conda", "mamba"} and {"create", "install"} & set(words):
        assert "conda-forge" in words, command
        assert any(word.startswith("fenics-dolfinx") for word in words), command
    elif "install" in words and "pip" in words:
        for word in words[words.index("install") + 1 :]:
            if target := re.fullmatch(r"(\.[\w./-]*)(?:\[([\w,-]+)\])?", word):
                assert (ROOT / target[1] / "pyproject.toml").exists(), f"nothing to install at {target[1]}"
                extras = set(target[2].split(",") if target[2] else [])
                assert extras <= set(PROJECT["optional-dependencies"]), command
            else:
                assert word.startswith("-") or word == PROJECT["name"], f"{word!r} in {command!r}"


def adapted(command: str) -> str:
    """A command as it is run here."""
    command = re.sub(r"(^|\s)uv run\s+", r"\1", command)
    command = re.sub(r"\b(mpirun|mpiexec) -n \d+", r"\1 -n 2", command)
    if "--resume" not in command:
        command = re.sub(r"\beulerian (solve|train|verify) (?!-)\S+", r"\g<0> --overwrite", command)
    command = re.sub(r"\beulerian (train|sweep) \S+", r"\g<0> --set optimiser.max_iterations=2", command)
    if (folder := re.search(r"--output (\S+)", command)) and f"plot {folder[1]}" not in README:
        command = re.sub(r"\beulerian (solve|train|ideal|compare) \S+", r"\g<0> --set output.figures=false", command)
    return re.sub(r"\beulerian (train|ideal|sweep) \S+", r"\g<0> --set ideal.max_iterations=20", command)


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which the tables of a part replace those of the same name."""
    result = {**whole, **part}
    # A part with [objective.terminal] alone says nothing about the weights in [objective].
    if set(part.get("objective", {})) == {"terminal"}:
        result["objective"] = {**whole["objective"], **part["objective"]}
    return result


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the README is acted out."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "meshes", folder / "meshes")
    return folder


@pytest.mark.parametrize("block", ALL)
def test_block(block: Block, clone: Path) -> None:
    if block.language in {"console", "bash", "sh"}:
        commands = read_commands(block)
        assert commands, "a console block without a command"
        for command in commands:
            if SETUP.match(command):
                check_setup(command)
            else:
                run(["bash", "-euo", "pipefail", "-c", adapted(command)], clone)
    elif block.language == "python":
        run([sys.executable, "-c", block.text], clone)
    elif block.language == "toml":
        first = block.text.partition("\n")[0]
        if name := re.fullmatch(r"# ([\w-]+\.toml)\b.*", first):
            (clone / name[1]).write_text(block.text, encoding="utf-8")
            read_config(clone / name[1])
        else:
            parse_config(merged(last_whole(block), tomllib.loads(block.text)), clone)


def run(command: list[str], folder: Path) -> None:
    """Run a command to its end and show what it said when it fails."""
    done = run_group(command, 120, folder)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def last_whole(block: Block) -> dict[str, Any]:
    """The last whole configuration before a block."""
    whole = [
        b for b in BLOCKS if b.language == "toml" and b.line < block.line and re.match(r"# [\w-]+\.toml\b", b.text)
    ]
    assert whole, "a part of a configuration before any whole one: name the first block in its first line (# NAME.toml)"
    return tomllib.loads(whole[-1].text)


@pytest.mark.parametrize("needed", ["scripts/demo", "scripts/test"])
def test_the_two_commands_for_a_fresh_machine_are_there(needed: str) -> None:
    assert needed in {command.split()[0].removeprefix("./") for command in COMMANDS}


@pytest.mark.parametrize("language", ["console", "python", "toml"])
def test_there_is_something_of_each_kind(language: str) -> None:
    assert any(block.language == language for block in BLOCKS)


def test_local_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
