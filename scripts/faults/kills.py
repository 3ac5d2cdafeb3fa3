"""kill -9 at random moments, of a single process and of one rank of two, and while kernels are compiled."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness import Fault, Verdict, command, ended, eulerian, started, turn
from trainings import KINDS, Training, judged, reference

SEED = 20240229


def faults(quick: bool) -> Iterator[Fault]:
    """60 of them; every moment from the start of the process to its end is as likely."""
    rng = random.Random(SEED)
    serial, parallel, compiling = (3, 1, 1) if quick else (40, 12, 8)
    for index in range(serial):
        kind, moment = list(KINDS)[index % len(KINDS)], rng.uniform(0.05, 1.0)
        name = f"{kind}, at {100 * moment:.0f} % of its time"
        yield Fault("kill -9 of a training", name, partial(_serial, kind, moment))
    for index in range(parallel):
        rank, again, moment = index % 2, (2, 1, 3)[index % 3], rng.uniform(0.1, 1.0)
        name = f"rank {rank} of two, at {100 * moment:.0f} % of its time, gone on with on {again}"
        yield Fault("kill -9 of one rank of two", name, partial(_one_rank, rank, moment, again))
    for _ in range(compiling):
        moment = rng.uniform(0.0, 1.0)
        name = f"at {100 * moment:.0f} % of the time of compiling"
        yield Fault("kill -9 while kernels are compiled", name, partial(_compiling, moment))


def _serial(kind: str, moment: float, folder: Path) -> Verdict:
    training = Training(folder, kind)
    reference(kind)
    with started(command(*training.arguments()), folder) as process:
        _wait(process, moment * _seconds(kind))
        process.kill()
        process.communicate()
    if trouble := training.trouble():
        return Verdict(False, trouble)
    return judged(training, training.resume())


def _one_rank(rank: int, moment: float, again: int, folder: Path) -> Verdict:
    training = Training(folder)
    reference("one mesh")
    with turn(True), started(command(*training.arguments(), ranks=2), folder) as process:
        _wait(process, moment * 1.5 * _seconds("one mesh"))
        for pid in ranks_of(process.pid, rank):
            os.kill(pid, signal.SIGKILL)
        done = ended(process, 30.0)
    if done.hung:
        return Verdict(False, "the other rank went on waiting", hung=True)
    if trouble := training.trouble():
        return Verdict(False, trouble)
    return judged(training, training.resume(again), same=False)


def _compiling(moment: float, folder: Path) -> Verdict:
    """The compiler's children are killed too, or live on: both happen."""
    training = Training(folder, more=("optimiser.max_iterations=3",))
    reference("one mesh", training.more)
    cache = {"XDG_CACHE_HOME": str(folder / "cache")}
    with started(command(*training.arguments()), folder, cache) as process:
        _wait(process, 0.5 + 6.0 * moment)
        process.kill()
        process.communicate()
    done = eulerian(folder, *training.arguments("--resume"), limit=120.0, extra=cache)
    return judged(training, done)


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)


_SECONDS: dict[str, float] = {}


def _seconds(kind: str) -> float:
    """How long a training takes that nothing happens to, with what it compiles in the cache."""
    if kind not in _SECONDS:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="eulerian-fault-") as folder:
            training = Training(Path(folder), kind)
            _SECONDS[kind] = eulerian(training.folder, *training.arguments(), limit=300.0).seconds
    return _SECONDS[kind]


def ranks_of(launcher: int, rank: int | None = None) -> list[int]:
    """Processes of a launcher that are ranks of a job, or one of them."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            group = os.getpgid(int(entry.name))
            session = os.getsid(int(entry.name))
        except OSError:
            continue
        numbers = [int(each[9:]) for each in variables if each.startswith(b"PMI_RANK=")]
        if numbers and launcher in (group, session, *_ancestors(int(entry.name))) and rank in (None, numbers[0]):
            found.append(int(entry.name))
    return found


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            return
        yield pid
