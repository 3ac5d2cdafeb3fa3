"""The page on the run folder names every file that a run leaves, every key of its result and every column."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from code_blocks import DOCS
from jobs import run_group

pytestmark = pytest.mark.mpi

NAMES = set(
    re.findall(r"[\w.*]+", " ".join(re.findall(r"`([^`]+)`", (DOCS / "reference/run_folder.md").read_text("utf-8"))))
)
KNOWN = NAMES | {part for name in NAMES for part in name.split(".")}

SMALL = (
    "domain.box={lower=[-3.0],upper=[3.0],cells=[24]}",
    'density.initial=[{kind="gaussian",mean=[-0.5],std=0.5}]',
    "objective.terminal.target=[1.0]",
    "optimiser.max_iterations=2",
    "ideal.max_iterations=20",
    "particles.count=200",
)
TERM = '{{kind="uniform",lower=[{0}],upper=[{1}],label={2}}}'
TWO_LABELS = f"density.initial=[{TERM.format(-2.0, 0.0, 0)},{TERM.format(0.0, 2.0, 1)}]"
SET = [word for key in SMALL for word in ("--set", key)]
COMMANDS = {
    "train": [*SET],
    "adapted": ["--set", "adapt.density=0.2", *SET],
    "levels": ["--set", "optimiser.levels=2", *SET],
    "particles": ["--method", "particles", *SET],
    "times": ["--set", 'objective.at=[{time=0.5,kind="quadratic",target=[0.0]}]', *SET],
    "classes": [*SET, "--set", TWO_LABELS, "--set", 'objective.terminal={kind="logistic",direction=[1.0]}'],
    "ideal": [*SET],
    "solve": ["--theta", "runs/train", *SET],
    "verify": ["--theta", "runs/train", *SET],
    "compare": ["--theta", "runs/train", *SET],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every command."""
    here = tmp_path_factory.mktemp("runs")
    assert run_group(["eulerian", "init", "gaussian"], 60, here).returncode == 0
    for name, options in COMMANDS.items():
        command = name if name in {"ideal", "solve", "verify", "compare"} else "train"
        figures = str(name == "train").lower()
        words = ["eulerian", command, "gaussian.toml", "--output", f"runs/{name}", "--quiet", *options]
        words += ["--set", f"output.figures={figures}"]
        done = run_group(words, 120, here)
        assert done.returncode == 0, done.stderr
    (here / "points.csv").write_text("x,label\n-0.5,0\n0.5,1\n", encoding="utf-8")
    push = ["eulerian", "push", "runs/classes", "--samples", "points.csv", "--columns", "x", "--label-column", "label"]
    done = run_group([*push, "--output", "runs/pushed.csv"], 60, here)
    assert done.returncode == 0, done.stderr
    return here / "runs"


def keys(document: Any) -> Iterator[str]:
    """All keys of nested tables."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from keys(value)
    elif isinstance(document, list):
        for value in document:
            yield from keys(value)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_is_documented(name: str, folder: Path) -> None:
    found = set(keys(json.loads((folder / name / "result.json").read_text(encoding="utf-8"))))
    by_label = {f"{key.removesuffix('_by_label')}" for key in found if key.endswith("_by_label")}
    assert by_label <= KNOWN
    undocumented = {key for key in found - KNOWN if not key.endswith("_by_label")}
    assert not undocumented


@pytest.mark.parametrize("name", COMMANDS)
def test_every_file_is_documented(name: str, folder: Path) -> None:
    for path in (folder / name).iterdir():
        known = path.name in KNOWN or any(Path(path.name).match(pattern) for pattern in NAMES if "*" in pattern)
        assert known or path.name in {"checkpoint", "figures"}, path.name


def test_every_key_of_a_summary_of_points_is_documented(folder: Path) -> None:
    assert set(keys(json.loads((folder / "pushed.json").read_text(encoding="utf-8")))) <= KNOWN


def test_every_column_is_documented(folder: Path) -> None:
    for file in ("train/history.csv", "ideal/gap.csv"):
        with (folder / file).open(encoding="utf-8", newline="") as stream:
            assert set(next(csv.reader(stream))) <= KNOWN


def test_the_page_knows_no_file_of_the_past(folder: Path) -> None:
    table = (DOCS / "reference/run_folder.md").read_text(encoding="utf-8").partition("(result-json)=")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    there = {path.name for name in COMMANDS for path in (folder / name).iterdir()}
    elsewhere = {"study.csv", "pushed_*.csv", "pushed_*.json", "sampled.csv", "sweep.csv", "sweep.json"}
    for name in re.findall(r"`([^`]+)`", " ".join(first)):
        assert name in elsewhere or name.rstrip("/") in there, name
