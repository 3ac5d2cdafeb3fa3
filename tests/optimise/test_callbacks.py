"""What looks at each iteration of a call from Python: callbacks, a bar, the log, and Ctrl-C on any rank."""

import logging
import signal
import sys
import threading
import time
from types import ModuleType
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem

from eulerian import minimise, train
from eulerian.base.signals import CtrlC
from eulerian.control.control import ControlProblem
from eulerian.optimise import Record, callbacks

pytestmark = pytest.mark.two_ranks


def small(comm: MPI.Comm, cells: int = 8) -> ControlProblem:
    return control_problem(comm, 1, 1, cells=cells)


def test_a_callback_ends_all_ranks_though_only_one_wants_it(comm: MPI.Comm) -> None:
    last = comm.size - 1
    result = minimise(small(comm), callback=lambda record: comm.rank == last and record.iteration == 2)
    assert (result.status, result.iterations, result.reason) == ("stopped", 2, "stopped by the caller")
    assert result.value == min(result.history["total"])


def pressed_at(comm: MPI.Comm, iteration: int) -> callbacks.Callback:
    """Sends Ctrl-C to the last rank after an iteration, and goes on."""

    def press(record: Record) -> None:
        if record.iteration == iteration and comm.rank == comm.size - 1:
            signal.raise_signal(signal.SIGINT)

    return press


def test_ctrl_c_on_one_rank_gives_the_best_iterate_on_all(comm: MPI.Comm) -> None:
    before = signal.getsignal(signal.SIGINT)
    problem = small(comm)
    result = minimise(problem, max_iterations=30, gradient_tolerance=0.0, callback=pressed_at(comm, 3))
    assert (result.status, result.iterations) == ("interrupted", 3)
    assert "Ctrl-C" in result.reason
    assert result.value == min(result.history["total"]) == problem.value(result.theta)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(set(comm.allgather(result.theta.tobytes()))) == 1
    assert minimise(problem, max_iterations=1).status == "max_iterations"


def test_ctrl_c_on_a_coarse_level(comm: MPI.Comm) -> None:
    levels = [small(comm, 4), small(comm, 8)]
    result = train(levels, max_iterations=8, gradient_tolerance=0.0, callback=pressed_at(comm, 2))
    assert (result.status, result.iterations, len(result.levels)) == ("interrupted", 2, 1)
    assert result.value == levels[1].value(result.theta)  # θ is that of the finest level


def test_ctrl_c_again_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eulerian.base.signals._TWICE", 0.0)
    with CtrlC() as ctrl_c:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        assert ctrl_c.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_press_that_arrives_twice_is_one() -> None:
    """A terminal and a launcher may both pass it on."""
    with CtrlC() as ctrl_c:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert ctrl_c.pressed


def test_handlers_of_others_and_other_threads_are_left_alone(comm: MPI.Comm) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        result = minimise(small(comm), max_iterations=2, callback=pressed_at(comm, 1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.status == "max_iterations"
    assert len(heard) == int(comm.rank == comm.size - 1)
    found: list[bool] = []

    def listen() -> None:
        with CtrlC():
            found.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [True]


class Bar:
    """Stands in for tqdm."""

    def __init__(self, total: int) -> None:
        self.total, self.n, self.texts = total, 0, list[str]()
        BARS.append(self)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.texts.append("closed")

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        assert not refresh
        self.texts.append(text)

    def update(self, n: int) -> None:
        self.n += n


BARS: list[Bar] = []


def test_a_bar_on_rank_0(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    module: Any = ModuleType("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    BARS.clear()
    result = minimise(small(comm), max_iterations=3, gradient_tolerance=0.0, progress=True)
    assert len(BARS) == int(comm.rank == 0)
    for bar in BARS:
        assert (bar.total, bar.n, bar.texts[-1]) == (3, 3, "closed")
        assert f"J = {result.history[-1].total:.8g}" in bar.texts[-2]
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # where it is not installed: a line that is written anew
    minimise(small(comm), max_iterations=3, gradient_tolerance=0.0, progress=True)
    error = capfd.readouterr().err
    assert ("\r   3/3   J = " in error) == (comm.rank == 0)


def test_the_log_is_silent_until_it_is_asked_for(
    comm: MPI.Comm, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    minimise(small(comm), max_iterations=2)
    assert capfd.readouterr() == ("", "")
    with caplog.at_level(logging.INFO, logger="eulerian"):
        train([small(comm, 4), small(comm, 8)], max_iterations=2, gradient_tolerance=0.0)
    texts = [record.getMessage() for record in caplog.records]
    if comm.rank:
        assert texts == []
        return
    assert texts[0] == "level 1 of 2: 4 cells of degree 1, 3 layers"
    assert sum(text.startswith("iteration ") for text in texts) == 6
    assert sum("the limit of 2 iterations was reached" in text for text in texts) == 2


def test_no_bar_and_no_listener_change_the_iterates(comm: MPI.Comm) -> None:
    plain = minimise(small(comm), max_iterations=4)
    watched = minimise(small(comm), max_iterations=4, progress=True, callback=lambda _record: None)
    np.testing.assert_array_equal(watched.history["total"], plain.history["total"])
