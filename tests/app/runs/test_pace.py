"""How long a computation will go on: nothing before that means something, then what is right and does not jump."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from configurations import small

from eulerian.app import tasks
from eulerian.app.config import parse_config
from eulerian.app.runs import progress as progress_module
from eulerian.app.runs.pace import IterationsToGo, Pace, in_words
from eulerian.app.runs.progress import Progress
from eulerian.ideal.problem import GapRecord
from eulerian.optimise import Record

pytestmark = pytest.mark.one_process


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def left(times: Any, total: int) -> list[float | None]:
    """What is told after each step of a computation whose steps take these times."""
    clock = Clock()
    pace, found = Pace(clock), []
    pace.mark(0)
    for done, seconds in enumerate(times, 1):
        clock.now += seconds
        pace.mark(done)
        found.append(pace.seconds(total))
    return found


def test_an_even_pace_is_told_exactly() -> None:
    found = left([1.0] * 20, 20)
    assert found[:2] == [None, None]
    assert found[2:] == pytest.approx([20.0 - done for done in range(3, 21)])


@pytest.mark.parametrize(("each", "first"), [(0.125, 16), (0.5, 4), (30.0, 3)])
def test_nothing_is_said_before_three_steps_and_two_seconds(each: float, first: int) -> None:
    told = [done for done, seconds in enumerate(left([each] * 30, 30), 1) if seconds is not None]
    assert told[0] == first
    assert told == list(range(first, 31))


def test_a_slow_beginning_is_forgotten_and_noise_does_not_make_it_jump() -> None:
    rng = np.random.default_rng(0)
    times = np.concatenate([[20.0, 10.0], rng.uniform(0.5, 1.5, 200)])
    found = left(times, len(times))
    truth = np.cumsum(times[::-1])[::-1]
    for done in range(20, 150):
        told = found[done]
        assert told is not None
        assert told == pytest.approx(truth[done + 1], rel=0.25)
    late = [seconds for seconds in found[20:150] if seconds]
    assert max(abs(a - b) / a for a, b in pairwise(late)) < 0.1  # of steps that differ by a factor of three


def test_what_is_said_twice_or_backwards_counts_once() -> None:
    clock = Clock()
    pace = Pace(clock)
    for done in (5, 5, 6, 6, 7, 3, 8):
        pace.mark(done)
        clock.now += 1.0
    assert pace.seconds(10) == pytest.approx(2 * 2.0)  # a step takes two seconds; 8 of 10 are done


def test_a_continued_run_begins_where_it_stands() -> None:
    clock = Clock()
    to_go, said = IterationsToGo(100, clock=clock), ""
    for iteration in range(90, 96):
        said = to_go(iteration)
        clock.now += 2.0
    assert said == "up to 10 s to go"


def test_nothing_is_said_of_levels_that_are_not_the_last() -> None:
    clock = Clock()
    to_go, said = IterationsToGo(40, levels=2, clock=clock), {}
    for level, iterations in ((1, range(12)), (2, range(11, 20))):
        for iteration in iterations:
            said[level, iteration] = to_go(iteration, level)
            clock.now += level * 1.0
    assert not any(text for (level, _), text in said.items() if level == 1)
    assert said[2, 12] == said[2, 13] == ""
    assert said[2, 15] == "up to 30 s to go"  # it began at 11, and has 20 of its own: 16 are left, of two seconds each


def test_nothing_is_said_of_meshes_that_are_adapted() -> None:
    clock = Clock()
    to_go = IterationsToGo(40, levels=None, clock=clock)
    for iteration in range(20):
        clock.now += 2.0
        assert to_go(iteration) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (9.4, "9 s"),
        (12.0, "10 s"),
        (57.0, "55 s"),
        (58.0, "1 min"),
        (150.0, "2 min"),
        (3540.0, "59 min"),
        (3600.0, "1 h"),
        (7800.0, "2 h 10 min"),
        (36_000.0, "10 h"),
        (172_000.0, "2.0 days"),
    ],
)
def test_words_are_as_rough_as_the_knowledge(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


@pytest.mark.parametrize(("terminal", "width"), [(False, 80), (True, 80), (True, 120)])
def test_iterations_and_gaps_say_it_and_leave_the_numbers_whole(
    terminal: bool, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress_module, "IterationsToGo", lambda *given: IterationsToGo(*given, clock=clock))
    monkeypatch.setenv("COLUMNS", str(width))
    progress = Progress(speaks=True, terminal=terminal)
    with progress.iterations(10) as observer:
        for iteration in range(6):
            observer(Record(iteration, 0.5, {}, 1.0, iteration, 0.1))
            clock.now += 3.0
    narrow = terminal and width < 100
    assert ("≤ 15 s" if narrow else "up to 15 s to go") in capsys.readouterr().out
    with progress.gaps(100) as observer:
        for iteration in (10, 20, 30, 40, 50):
            observer(GapRecord(iteration, 0.0796543, 0.0796492, 0.1, 0.0125, 1e-3, 1.0))
            clock.now += 60.0
    said = capsys.readouterr().out
    for text in ("≤ 5 min" if narrow else "up to 5 min to go", "0.0796543", "0.0796492", "gap = 1.25 %"):
        assert text in said


def test_a_long_solve_says_how_far_it_is(
    comm: MPI.Comm, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in no time says nothing."""
    table = small(field={"kind": "linear", "features": "translation", "layers": 6, "theta": [[0.5]]})
    config = parse_config(table, output=tmp_path / "run")
    tasks.run_solve(config, comm, progress=Progress(speaks=True))
    assert "time step" not in capsys.readouterr().out
    clock = Clock()

    def later() -> float:
        clock.now += 6.0
        return clock.now

    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=later))
    monkeypatch.setattr(progress_module, "Pace", lambda: Pace(clock))
    tasks.run_solve(config, comm, overwrite=True, progress=Progress(speaks=True))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time step ")]
    assert 3 <= len(lines) < 12
    assert "to go" not in lines[0]
    assert "about " in lines[-1]
    text = (tmp_path / "run" / "run.log").read_text()
    assert all(line in text for line in lines)
