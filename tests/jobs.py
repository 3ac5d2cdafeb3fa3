"""Running programs from tests."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SCRIPTS = sysconfig.get_path("scripts")

# What the fixture `here` gives.
Here = Callable[..., subprocess.CompletedProcess[str]]

# Runs one rank of a job. ``python -m mpi4py`` is not enough: on the way out the failed rank would wait for the others
# in PETSc's finalisation, before mpi4py comes to abort.
RANK = """
import runpy, sys, traceback
from mpi4py import MPI
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(1)
"""


def environment() -> dict[str, str]:
    """The environment of a subprocess: this environment's programs first, one thread per rank."""
    path = os.pathsep.join([SCRIPTS, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def turn(command: Sequence[str]) -> Iterator[None]:
    """Parallel jobs wait for each other, whichever process starts them: ranks that share a core are slow."""
    if not re.search(r"\bmpi(exec|run)\b", " ".join(command)):
        yield
        return
    with open(Path(tempfile.gettempdir()) / f"eulerian-parallel-job.{os.getuid()}", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_group(
    command: Sequence[str], timeout: float, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Like ``subprocess.run`` with captured text, but at the time limit all its processes end, ranks included.

    Raises:
        TimeoutExpired: with what was printed until then.
    """
    with turn(command):
        return _run_group(command, timeout, cwd, env or environment())


def _run_group(
    command: Sequence[str], timeout: float, cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # The launcher passes SIGTERM on to its ranks; killed outright it would leave them spinning.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        raise subprocess.TimeoutExpired(command, timeout, out, err) from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)
