"""The examples in ``scripts/examples``: they run, serially and on two ranks, and show every public name."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import environment
from paths import SCRIPTS

import eulerian

EXAMPLES = sorted((SCRIPTS / "examples").glob("*.py"))

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyvista")
    command = [sys.executable, str(example)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("example", [path for path in EXAMPLES if "mpirun" in path.read_text()], ids=lambda p: p.stem)
def test_it_runs_on_two_ranks_and_says_the_same(example: Path, tmp_path: Path, mpirun: Callable[..., Any]) -> None:
    pytest.importorskip("pyvista")
    source = (
        f"import os, runpy, sys\nos.chdir({str(tmp_path)!r})\nsys.argv = [{str(example)!r}]\n"
        f"runpy.run_path({str(example)!r}, run_name='__main__')\n"
    )
    done = mpirun(2, source, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_public_name_is_shown_and_documented() -> None:
    shown = set(re.findall(r"\beu\.(\w+)", "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLES)))
    public = set(eulerian.__all__) - {"__version__"}
    assert public <= shown, f"shown in no example: {sorted(public - shown)}"
    assert shown <= public, f"in an example, but not public: {sorted(shown - public)}"
    for name in sorted(public - {"torch"}):
        assert (getattr(eulerian, name).__doc__ or "").strip(), f"{name} has no docstring"
