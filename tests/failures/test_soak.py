"""The soak: a short run is flat, flushed and told once, and what is not is found."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import environment
from paths import SCRIPTS

pytestmark = pytest.mark.one_process


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "faults"))
    import soak

    yield soak
    sys.modules.pop("soak", None)


def test_a_short_run_is_flat(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPTS / "faults/soak.py"),
        "--quick",
        "--iterations",
        "16",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 of 17 iterations were on disk when told" in done.stdout
    assert "communicators: 0 are left" in done.stdout
    assert "Vector" in done.stdout


def watched(soak: Any, count: int = 40) -> Any:
    """A run that nothing is wrong with."""
    samples = [
        soak.Sample(i, [100.0, 90.0], [17, 19], [2.0 * i, 2.1 * i], i + 1, 10, True, True) for i in range(count + 1)
    ]
    return soak.Watched(0, samples, [f"iteration {i}" for i in range(count + 1)])


def grown(run: Any) -> None:
    run.samples[-1].resident[1] += 20.0


def opened(run: Any) -> None:
    run.samples[-3].files[0] += 5


def unflushed(run: Any) -> None:
    run.samples[20].flushed = False


def without_checkpoint(run: Any) -> None:
    run.samples[12].checkpoint = False


def told_twice(run: Any) -> None:
    run.lines.append("iteration 3")


def left_out(run: Any) -> None:
    del run.samples[30]


def slower(run: Any) -> None:
    for sample in run.samples[30:]:
        sample.seconds = [seconds + 3.0 * (sample.iteration - 30) for seconds in sample.seconds]


def failed(run: Any) -> None:
    run.code = 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (grown, "rank 1 grew by 20.0 MiB"),
        (opened, "open files went from 19 to 22"),
        (unflushed, "not flushed: iterations [20]"),
        (without_checkpoint, "no checkpoint at iterations [12]"),
        (told_twice, "told more than once"),
        (left_out, "were told"),
        (slower, "a time step took"),
        (failed, "exit code 2"),
    ],
)
def test_what_is_not_flat_is_found(soak: Any, tmp_path: Path, spoil: Any, words: str) -> None:
    assert soak.judge(watched(soak), tmp_path, 40) == []
    run = watched(soak)
    spoil(run)
    failures = soak.judge(run, tmp_path, 40)
    assert any(words in failure for failure in failures), failures


def test_objects_that_are_left_are_found(soak: Any, tmp_path: Path) -> None:
    text = "Object Type          Creations   Destructions\n\n        Vector   300    280\n           Tao     4      3\n"
    (tmp_path / "petsc.log").write_text(text)
    (tmp_path / "communicators.json").write_text("3")
    assert list(soak.judge_objects(tmp_path, 1, [])) == [
        "20 PETSc objects of the class Vector are left",
        "1 PETSc objects of the class Tao are left",
        "3 communicators are left",
    ]
    lines = ["PETSc garbage", "Rank 0:: Total entries: 40", "Rank 1:: Total entries: 0"]
    assert list(soak.judge_objects(tmp_path, 2, lines))[-1] == "40 PETSc objects were dropped and not destroyed"
