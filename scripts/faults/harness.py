"""What the fault injections in this folder share: a fault, a verdict on it, and programs that are started and watched.

A fault is one thing that goes wrong, at one place, in a run of its own; ``inject`` makes it go wrong and says what came
of it. Every program has a time limit: one that passes it hung.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True)
class Verdict:
    """What came of a fault.

    Attributes:
        survived: what was promised for this fault was kept.
        note: why not, or what was seen.
        hung: something did not end in time.
        traceback: a user was shown Python's own account of an error in the input.
        lost: iterations of a training that are missing from its history, or stand there twice.
    """

    survived: bool
    note: str = ""
    hung: bool = False
    traceback: bool = False
    lost: int = 0


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        group: the kind of fault, a row of the table.
        name: what goes wrong.
        inject: makes it go wrong in an empty folder, and judges.
    """

    group: str
    name: str
    inject: Callable[[Path], Verdict]


@dataclass(frozen=True)
class Ended:
    """A program that has ended.

    Attributes:
        code: its exit code; negative for a signal.
        out: what it printed.
        err: what it complained about.
        seconds: from start to end.
        hung: it had to be ended.
    """

    code: int
    out: str
    err: str
    seconds: float
    hung: bool

    @property
    def traceback(self) -> bool:
        """Whether Python's own account of an error was shown."""
        return "Traceback" in self.err + self.out

    @property
    def last_line(self) -> str:
        """The last thing it said."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else ""


def launcher() -> str:
    """The launcher of this environment's MPI."""
    own = SCRIPTS / "mpiexec"
    return str(own) if own.exists() else "mpiexec"


def command(*arguments: object, ranks: int = 1) -> list[str]:
    """The command line of ``eulerian`` on so many ranks."""
    alone = [sys.executable, "-m", "eulerian", *map(str, arguments)]
    return alone if ranks == 1 else [launcher(), "-n", str(ranks), *alone]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment's programs first, one thread per rank."""
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(extra or {})}


@contextlib.contextmanager
def turn(parallel: bool) -> Iterator[None]:
    """Parallel jobs take turns, whichever process starts them: ranks that share a core are slow."""
    if not parallel:
        yield
        return
    with open(Path(tempfile.gettempdir()) / f"eulerian-parallel-job.{os.getuid()}", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hearing_interrupts(arguments: list[str]) -> list[str]:
    """A program that hears Ctrl-C: a shell may have its background jobs, and all that they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return arguments
    source = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", source, *arguments]


@contextlib.contextmanager
def started(
    arguments: list[str], folder: Path, extra: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program at work, in a process group of its own; whatever is left of it afterwards is ended."""
    process = subprocess.Popen(
        hearing_interrupts(arguments),
        cwd=folder,
        env=environment(extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_group(process)


def ended(process: subprocess.Popen[str], limit: float) -> Ended:
    """Wait for a program's end; past the limit in seconds it is ended, and hung."""
    since = time.monotonic()
    try:
        out, err = process.communicate(timeout=limit)
        hung = False
    except subprocess.TimeoutExpired:
        hung = True
        end_group(process)
        out, err = process.communicate()
    return Ended(process.returncode, out, err, time.monotonic() - since, hung)


def run(
    arguments: list[str], folder: Path, limit: float, extra: Mapping[str, str] | None = None, *, parallel: bool = False
) -> Ended:
    """Run a program to its end; ``parallel`` ones take turns."""
    with turn(parallel), started(arguments, folder, extra) as process:
        return ended(process, limit)


def eulerian(
    folder: Path, *arguments: object, ranks: int = 1, limit: float = 60.0, extra: Mapping[str, str] | None = None
) -> Ended:
    """Run ``eulerian`` in a folder to its end."""
    return run(command(*arguments, ranks=ranks), folder, limit, extra, parallel=ranks > 1)


def end_group(process: subprocess.Popen[str]) -> None:
    """End a program with all its children; a launcher first gets the chance to end its ranks."""
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
