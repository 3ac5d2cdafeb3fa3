"""What README quotes of a training is what it says."""

import re

import pytest
from code_blocks import blocks
from jobs import run_group
from paths import ROOT

pytestmark = pytest.mark.mpi

NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


def test_the_last_lines_of_a_training_are_those_of_the_readme(tmp_path: pytest.TempPathFactory) -> None:
    [quoted] = [block.text for block in blocks(ROOT / "README.md") if block.language == "text"]
    for command in ("init gaussian", "train gaussian.toml --set output.figures=false"):
        done = run_group(["eulerian", *command.split()], 120, tmp_path)
        assert done.returncode == 0, done.stderr
    said, shown = " ".join(done.stdout.split()), " ".join(quoted.split())
    pattern = re.sub(NUMBER, "@", shown)
    found = re.search(re.escape(pattern).replace("@", f"({NUMBER})"), said)
    assert found is not None, said[-1000:]
    # Errors of errors, and what is left of a difference, depend on the machine's rounding; the numbers do not.
    for told, expected in zip(found.groups(), re.findall(NUMBER, shown), strict=True):
        assert float(told) == pytest.approx(float(expected), rel=0.3, abs=2e-5)
