"""Signals that ask a run to end: SIGINT, SIGTERM, SIGUSR1 (schedulers before the wall time), SIGHUP."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness import Ended, Fault, Verdict, command, ended, started, turn
from kills import ranks_of
from trainings import KINDS, Training, judged, reference

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
SECONDS = 10.0  # within which a run ends

# The first trial point takes many seconds to evaluate (the start, at which nothing moves, takes none): nothing comes to
# its end before the run has to.
LONG = ("domain.box.cells=[512,512]", 'field={kind="linear",features="translation",layers=1}')
FAR = (LONG[0], 'field={kind="linear",features="translation",layers=1,theta=[[2.6,0.5]]}')


def faults(quick: bool) -> Iterator[Fault]:
    """Every signal, to a single process, to a launcher, to one rank only; while J is evaluated for long."""
    group = "signals, a training"
    for name in SIGNALS[1:2] if quick else SIGNALS:
        for kind in list(KINDS)[:1] if quick else KINDS:
            yield Fault(group, f"{name}, {kind}", partial(_training, name, kind))
    group = "signals, two ranks"
    for name, to in (("SIGTERM", 1),) if quick else ((n, to) for n in SIGNALS for to in (None, 0, 1)):
        if (name, to) == ("SIGHUP", None):
            continue  # launchers do not pass it on
        whom = "the launcher" if to is None else f"rank {to} only"
        yield Fault(group, f"{name} to {whom}", partial(_two_ranks, name, to))
    group = "signals, while J is evaluated for long"
    for ranks, to in () if quick else ((1, 0), (2, 0), (2, 1)):
        yield Fault(group, f"to rank {to} of {ranks}", partial(_long, ranks, to))
    group = "signals, other commands"
    for which in () if quick else ("solve", "ideal", "verify", "compare"):
        yield Fault(group, which, partial(_other, which))
    if not quick:
        yield Fault(group, "train, while it starts", _starting)
        yield Fault(group, "train, Ctrl-C twice", _twice)


def _training(name: str, kind: str, folder: Path) -> Verdict:
    training = Training(folder, kind)
    reference(kind)
    with started(command(*training.arguments()), folder) as process:
        _until(process, training, 3)
        process.send_signal(getattr(signal, name))
        done = ended(process, 3 * SECONDS)
    return _interrupted(done, training, name) or judged(training, training.resume())


def _two_ranks(name: str, to: int | None, folder: Path) -> Verdict:
    training = Training(folder)
    reference("one mesh")
    with turn(True), started(command(*training.arguments(), ranks=2), folder) as process:
        _until(process, training, 3)
        for pid in [process.pid] if to is None else ranks_of(process.pid, to):
            os.kill(pid, getattr(signal, name))
        done = ended(process, 3 * SECONDS)
    return _interrupted(done, training, name) or judged(training, training.resume(), same=False)


def _long(ranks: int, to: int, folder: Path) -> Verdict:
    """Only the first iterate is there: it is what is kept."""
    training = Training(folder, more=LONG)
    with turn(ranks > 1), started(command(*training.arguments(), ranks=ranks), folder) as process:
        _until(process, training, 1)
        time.sleep(1.0)
        for pid in ranks_of(process.pid, to) if ranks > 1 else [process.pid]:
            os.kill(pid, signal.SIGTERM)
        done = ended(process, 3 * SECONDS)
    return _interrupted(done, training, "SIGTERM") or Verdict(not training.trouble(), training.trouble())


def _other(which: str, folder: Path) -> Verdict:
    training = Training(folder, more=() if which == "ideal" else FAR)
    arguments = [which, *training.arguments()[1:]]
    if which == "ideal":
        arguments += ["--set", "domain.box.cells=[96,96]", "--set", "ideal.gap_tolerance=1e-9"]
    with started(command(*arguments), folder) as process:
        deadline = time.monotonic() + 120.0
        begun = training.run / "config.resolved.toml"
        while not begun.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        time.sleep(2.0)
        process.send_signal(signal.SIGTERM)
        done = ended(process, 3 * SECONDS)
    return _interrupted(done, training, "SIGTERM") or Verdict(True)


def _starting(folder: Path) -> Verdict:
    """Nothing is there yet that could be lost, and no folder says that something is."""
    training = Training(folder)
    reference("one mesh")
    with started(command(*training.arguments()), folder) as process:
        time.sleep(0.6)
        process.send_signal(signal.SIGTERM)
        done = ended(process, 3 * SECONDS)
    if done.hung or done.code not in (2, -signal.SIGTERM):
        return Verdict(False, f"ended with {done.code} after {done.seconds:.1f} s", hung=done.hung)
    return judged(training, training.resume())


def _twice(folder: Path) -> Verdict:
    training = Training(folder, more=LONG)
    with started(command(*training.arguments()), folder) as process:
        _until(process, training, 1)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        done = ended(process, 3 * SECONDS)
    if done.seconds > 1.0 or done.code != 2:
        return Verdict(False, f"ended with {done.code} {done.seconds:.1f} s after the second one", hung=done.hung)
    return Verdict(not training.trouble(), training.trouble())


def _until(process: subprocess.Popen[str], training: Training, iterations: int, limit: float = 60.0) -> None:
    """Wait until so many lines of the history are written, or the process has ended."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and len(training.history()) < iterations and process.poll() is None:
        time.sleep(0.02)


def _interrupted(done: Ended, training: Training, name: str) -> Verdict | None:
    """What is wrong with the end of a run that was asked to end, or None."""
    if done.hung or done.seconds > SECONDS:
        return Verdict(False, f"took {done.seconds:.1f} s to end", hung=done.hung)
    if done.traceback:
        return Verdict(False, "told by a traceback", traceback=True)
    if done.code != 2:
        return Verdict(False, f"ended with {done.code}: {done.last_line}")
    if trouble := training.trouble():
        return Verdict(False, trouble)
    result = training.run / "result.json"
    document = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    if document.get("status") != "interrupted" or name not in document.get("reason", ""):
        return Verdict(False, f"the result says {document.get('status')}: {document.get('reason')}")
    told = [line for line in done.err.splitlines() if f"interrupted by {name}" in line]
    return None if len(told) == 1 else Verdict(False, f"told {len(told)} times: {done.err[-300:]}")
