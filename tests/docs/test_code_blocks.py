"""What README.md and the pages in docs/ show is true: commands run, Python runs, configurations are read.

The blocks of a page run in its order, in one temporary folder that stands for the clone (``meshes/`` is there), so that
a block may use what an earlier one of the same page has made.

* ``console``: a line that starts with ``$ `` is a command, the others are what it prints and are not compared. A
  backslash at the end continues a line.
* Commands that set up a machine or belong to other programs are checked, not run: see `check_setup`.
* Others run as they stand, with six changes: ``uv run`` is dropped (this environment is the one), ``mpirun`` starts
  two ranks whatever it says, runs that do not resume may overwrite their folder, and ``eulerian train`` and ``sweep``
  do two iterations, whatever is set; the convex solver, there and in ``eulerian ideal``, does twenty; animations have
  two frames. Runs of which nothing is plotted later draw no figures.
* ``toml``: with ``# NAME.toml`` as its first line the block is a whole configuration and is kept under that name;
  otherwise it is a part of one, and each of its tables replaces that of the last whole configuration of the page, or of
  the template ``gaussian``.
* ``python``: a program by itself, which is kept under NAME.py where its first line is ``# NAME.py``.
* ``json`` is read, ``bash`` is checked for its syntax, ``text`` is text.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from code_blocks import Block, blocks, commands, markdown, pages
from jobs import run_group
from paths import PACKAGE, ROOT

from eulerian.app.config import parse_config, read_config

pytestmark = pytest.mark.mpi  # commands are for one process to run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = {re.split(r"[\s\[<>=!~;]", name)[0] for name in PROJECT["dependencies"]}
OF_OTHER_PROGRAMS = {"rule"}  # tables of taplo, which checks TOML files
LANGUAGES = {"console", "toml", "python", "json", "bash", "text"}
SETUP = re.compile(
    r"((\./)?scripts/(?!examples)|(\./)?\.ci/|python3? scripts/(?!examples)|git |cd |(uv |python3? -m )?pip |"
    r"uv (sync|venv)|conda |mamba |sudo |apt-get |source |\. |sbatch |srun |squeue|scancel |paraview |jupyter |eval |"
    r"code |taplo )"
)

BLOCKS = [block for page in pages() for block in blocks(page)]
ALL = [
    pytest.param(block, id=f"{block.page.relative_to(ROOT)}:{block.line}-{block.language or 'none'}")
    for block in BLOCKS
]


def check_setup(command: str) -> None:
    """A command that sets up a machine names things that exist: scripts, extras, the packages of the stack."""
    words = shlex.split(command, comments=True)
    if words[0].removeprefix("./").startswith(("scripts/", ".ci/")):
        assert os.access(ROOT / words[0], os.X_OK), f"{words[0]} is no executable of the project"
    elif words[0].startswith("python") and words[1].startswith("scripts/"):
        assert (ROOT / words[1]).is_file(), f"{words[1]} is no script of the project"
    elif words[0] in {".", "source"}:
        assert words[1] == ".venv/bin/activate", command
    elif words[0] == "git":
        assert words[1] == "clone", command
    elif words[0] in {"conda", "mamba"} and {"create", "install"} & set(words):
        assert "conda-forge" in words, command
        assert any(word.startswith("fenics-dolfinx") for word in words), command
    elif words[0] == "jupyter":
        assert all((ROOT / word).exists() for word in words[2:] if not word.startswith("-")), command
    elif "install" in words and "pip" in words:
        check_requirements(words[words.index("install") + 1 :], command)


def check_requirements(words: list[str], command: str) -> None:
    """What pip is to install is the project with extras that it has, what it needs, or packages for a folder beside."""
    for word in words:
        if target := re.fullmatch(r"(\.[\w./-]*)(?:\[([\w,-]+)\])?", word):
            assert (ROOT / target[1] / "pyproject.toml").exists(), f"nothing to install at {target[1]}"
            extras = set(target[2].split(",") if target[2] else [])
            assert extras <= set(PROJECT["optional-dependencies"]), command
        elif not word.startswith("dist/"):
            known = word.startswith("-") or word == PROJECT["name"] or word in DEPENDENCIES
            assert known or "--target" in words, f"{word!r} in {command!r}"


def adapted(command: str, page: str) -> str:
    """A command of a page as it is run here."""
    command = re.sub(r"(^|\s)uv run\s+", r"\1", command)
    command = re.sub(r"\b(mpirun|mpiexec) -n \d+", r"\1 -n 2", command)
    if "--resume" not in command:
        command = re.sub(r"\beulerian (solve|train|verify) (?!-)\S+", r"\g<0> --overwrite", command)
        command = re.sub(r" --set optimiser\.max_iterations=\d+(?=\s|$)", "", command)
    command = re.sub(r"\beulerian (train|sweep) (?!-)\S+", r"\g<0> --set optimiser.max_iterations=2", command)
    command = re.sub(r"--animate( --frames \d+)?", "--animate --frames 2", command)
    runs = r"\beulerian (?:solve|train|sweep|ideal|compare) (?!-)(\S+)"
    told, file = re.search(r"--output (\S+)", command), re.search(runs, command)
    folder = told[1] if told else f"runs/{Path(file[1]).stem}" if file else ""
    if "output.figures" not in command and not re.search(rf"plot {folder}\b|{folder}/figures", page):
        command = re.sub(runs, r"\g<0> --set output.figures=false", command)
    return re.sub(r"\beulerian (train|ideal|sweep) (?!-)\S+", r"\g<0> --set ideal.max_iterations=20", command)


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which the tables of a part replace those of the same name."""
    result = {**whole, **part}
    # A part with nothing but tables below [objective] says nothing about the weights in it, nor about the other table.
    if set(part.get("objective", {})) <= {"terminal", "at"} and "objective" in part:
        result["objective"] = {**whole["objective"], **part["objective"]}
    elif "objective" in part and "terminal" not in part["objective"]:
        result["objective"] = {**part["objective"], "terminal": whole["objective"]["terminal"]}
    for name in ("domain", "density", "field"):  # which have keys that must be there
        if name in part and not _complete(name, part[name]):
            result[name] = {**whole[name], **part[name]}
    return result


def _complete(name: str, table: dict[str, Any]) -> bool:
    needed = {"domain": {"box", "file"}, "density": {"initial"}, "field": {"kind"}}
    return bool(needed[name] & set(table))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """The folders in which pages are acted out, made when they are needed."""
    made: dict[Path, Path] = {}
    for block in BLOCKS:
        if block.page not in made:
            made[block.page] = tmp_path_factory.mktemp(block.page.stem)
            (made[block.page] / "meshes").symlink_to(ROOT / "meshes")
            (made[block.page] / "scripts").symlink_to(ROOT / "scripts")
    return made


@pytest.mark.parametrize("block", ALL)
def test_block(block: Block, folders: dict[Path, Path]) -> None:
    folder = folders[block.page]
    assert block.language in LANGUAGES, f"a block of {block.language!r}: take one of {sorted(LANGUAGES)}"
    if block.language == "console":
        found = commands(block)
        assert found, "a console block without a command"
        for command in found:
            if SETUP.match(command):
                check_setup(command)
            else:
                run(["bash", "-euo", "pipefail", "-c", adapted(command, markdown(block.page))], folder)
    elif block.language == "python":
        if name := re.match(r"# ([\w-]+\.py)\b", block.text):
            (folder / name[1]).write_text(block.text, encoding="utf-8")
        compile(block.text, str(block.page), "exec")
        if re.search(r"^import torch$", block.text, re.MULTILINE):
            pytest.importorskip("torch")
        run([sys.executable, "-c", block.text], folder)
    elif block.language == "toml":
        read_toml(block, folder)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "bash":
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def read_toml(block: Block, folder: Path) -> None:
    """Read a configuration, or a part of one within the last whole one."""
    tables = tomllib.loads(block.text)
    if tables.keys() <= OF_OTHER_PROGRAMS:
        return
    if name := re.match(r"# ([\w-]+\.toml)\b", block.text):
        (folder / name[1]).write_text(block.text, encoding="utf-8")
        read_config(folder / name[1])
    else:
        parse_config(merged(last_whole(block), tomllib.loads(block.text)), folder)


def run(command: list[str], folder: Path) -> None:
    """Run a command to its end and show what it said when it fails."""
    done = run_group(command, 120, folder)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def last_whole(block: Block) -> dict[str, Any]:
    """The last whole configuration before a block on its page, or the template ``gaussian``."""
    before = [b for b in BLOCKS if b.page == block.page and b.language == "toml" and b.line < block.line]
    whole = [b.text for b in before if re.match(r"# [\w-]+\.toml\b", b.text)]
    template = PACKAGE / "app" / "templates" / "gaussian" / "gaussian.toml"
    return tomllib.loads(whole[-1] if whole else template.read_text(encoding="utf-8"))


@pytest.mark.parametrize("needed", ["scripts/demo", "scripts/test"])
def test_the_two_commands_for_a_fresh_machine_are_in_the_readme(needed: str) -> None:
    found = [command for block in blocks(ROOT / "README.md") for command in commands(block)]
    assert needed in {command.split()[0].removeprefix("./") for command in found}


@pytest.mark.parametrize("language", ["console", "python", "toml"])
def test_there_is_something_of_each_kind(language: str) -> None:
    assert any(block.language == language for block in BLOCKS)
