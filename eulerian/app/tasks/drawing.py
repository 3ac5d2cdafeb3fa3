"""Figures of a run folder, where Matplotlib may not load and some figures may fail.

Nobody waits for figures while there is something to compute: a run of the command line that has a core to spare asks a
process beside it (``figure_server``), and hears at its end how that went.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from eulerian.base.errors import ComputationError, EulerianError, FigureError, explained
from eulerian.base.memory_limits import environment_of_helpers

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.figures.style import Kind
    from eulerian.app.runs.folder import RunFolder

_PATIENCE = 300.0  # seconds that a single figure may take
_ENDING = 1.0  # seconds that its own end may take
_CHUNK = 1 << 16
_PROGRAM = ("-m", "eulerian.app.tasks.figure_server")


@contextmanager
def drawing(failure: str) -> Iterator[None]:
    """Whatever goes wrong while Matplotlib is loaded, or draws, is a ``FigureError`` that begins with ``failure``."""
    try:
        yield
    except EulerianError:
        raise
    except Exception as error:
        raise FigureError([], [f"{failure}: {' '.join(explained(error).split())}"]) from error


def draw_run(
    folder: Path, kind: "Kind" = "png", only: Collection[str] = (), without: Collection[str] = ()
) -> list[Path]:
    """Draw the figures that a run folder holds the data of; the files written. Not collective: for one rank.

    Args:
        folder: of the run.
        kind: format of the files.
        only: names of figures; all by default.
        without: names of figures that are left out.

    Raises:
        FigureError: some could not be drawn; all others are there.
        ComputationError: a file could not be written.
    """
    with drawing("no figure could be drawn"):
        from eulerian.app.figures.draw import draw_run as draw  # Matplotlib is slow to load
    return draw(folder, kind, only, without)


def draw_figures(run: "RunFolder", only: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Draw the figures of a run, if they are wanted; one that fails is a warning. **Collective**.

    Inside of ``drawn_beside`` they are only asked for: ``figures_drawn`` waits for them.

    Arguments and errors as for ``draw_run``.
    """
    from eulerian.base.parallel import on_root

    if not run.figures:
        return
    servers = _beside
    if servers is not None:
        on_root(run.comm, lambda: servers[0].ask(run.path, only, without))
        return
    _warn(run, on_root(run.comm, lambda: _failures_of_drawing(run.path, only, without)))


def _warn(run: "RunFolder", failures: list[str]) -> None:
    from eulerian.base.parallel import warn

    for text in failures:
        warn(run.comm, f"{text}. The run itself is complete; `eulerian plot {run.path}` draws it again")


def _failures_of_drawing(folder: Path, only: Collection[str], without: Collection[str]) -> list[str]:
    """Draw figures. Returns what could not be drawn, and why."""
    try:
        draw_run(folder, only=only, without=without)
    except FigureError as error:
        return error.failures
    return []


# -- beside a run ----------------------------------------------------------------------------------------------------


@final
class FigureServer:
    """A process that draws, on rank 0: started while the run computes, so that Matplotlib is loaded by then.

    It is no rank of an MPI job, ends when this process does, and hears no signal of the terminal.
    """

    def __init__(self) -> None:
        """Raise OSError where no process can be started."""
        command = [sys.executable, "-P", *_PROGRAM]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=environment_of_helpers(), stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True
        )
        self._asked, self._said = 0, bytearray()

    def ask(self, folder: Path, only: Collection[str], without: Collection[str]) -> None:
        """Have figures drawn, as by ``draw_run``; does not wait."""
        self._asked += 1
        request = {"folder": str(folder.absolute()), "only": list(only), "without": list(without)}
        assert self._process.stdin is not None
        with suppress(OSError):  # where it is gone, the answer is missing
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def wait(self) -> tuple[list[str], str]:
        """Once all is drawn: what could not be, and why; and why a file could not be written, or nothing."""
        failures, errors = list[str](), list[str]()
        undrawn = 0
        try:
            while self._asked or undrawn:  # figures of one request come between those of another
                answer = self._answer()
                if "figures" in answer:
                    self._asked, undrawn = self._asked - 1, undrawn + answer["figures"]
                    continue
                undrawn -= 1
                failures += answer["failures"]
                errors += [answer["error"]] if "error" in answer else []
        except ComputationError as error:
            failures.append(f"not all figures could be drawn: {error}")
        self._asked = 0
        return failures, "; ".join(dict.fromkeys(errors))

    def close(self) -> None:
        """End it, whatever it is drawing."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        with suppress(subprocess.TimeoutExpired):  # without its input it ends by itself, and what it has started
            self._process.wait(_ENDING)
        self._end()

    def _end(self) -> int:
        """Kill it, with whatever it has started; the exit code, which may be an earlier one."""
        code = self._process.poll()
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait() if code is None else code

    def _answer(self) -> dict[str, Any]:
        """The next line that it says.

        Raises:
            ComputationError: it has ended, or says nothing.
        """
        assert self._process.stdout is not None
        end = time.monotonic() + _PATIENCE
        while b"\n" not in self._said:
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise ComputationError(f"the process that draws them has said nothing for {_PATIENCE:g} s")
            chunk = os.read(self._process.stdout.fileno(), _CHUNK)
            if not chunk:
                raise ComputationError(f"the process that draws them {ending(self._end())}")
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def ending(code: int) -> str:
    """How a process has ended, in words, by its exit code as ``subprocess`` has it."""
    if code >= 0:
        return f"has ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


_allowed = False
_beside: list[FigureServer] | None = None  # of the run that draws beside itself; on the other ranks it has none


@contextmanager
def drawing_beside() -> Iterator[None]:
    """Let runs inside of the context start a process that draws: for programs that make one run and end."""
    global _allowed
    _allowed = True
    try:
        yield
    finally:
        _allowed = False


@contextmanager
def drawn_beside(run: "RunFolder") -> Iterator[None]:
    """Have the figures of a run drawn beside it, where that is allowed and a core has nothing to do. **Collective**."""
    from eulerian.base.parallel import on_root

    global _beside
    servers: list[FigureServer] = []

    def start() -> bool:
        with suppress(OSError):
            servers.append(FigureServer())
        return bool(servers)

    if not (_allowed and run.figures and core_to_spare(run.comm) and on_root(run.comm, start)):
        yield
        return
    _beside = servers
    try:
        yield
    finally:
        _beside = None
        for server in servers:
            server.close()


def core_to_spare(comm: "MPI.Comm") -> bool:
    """Whether no node is full of ranks. **Collective**."""
    from eulerian.base.parallel import ranks_and_cores

    ranks, cores = ranks_and_cores(comm)
    return ranks < cores


def figures_drawn(run: "RunFolder") -> str:
    """Wait for what is drawn beside a run, and warn of what could not be. **Collective**.

    Returns:
        Why a file could not be written, or nothing.
    """
    from eulerian.base.parallel import on_root

    servers = _beside
    if servers is None:
        return ""
    failures, error = on_root(run.comm, lambda: servers[0].wait())
    _warn(run, failures)
    return error
