"""``run.log``: what a run has told, and when. It grows while the run works, so that one that is killed leaves it.

Rank 0 writes, whether or not the terminal hears anything. A message is written whole or not at all, and one that cannot
be written (a full disk, a folder that has gone) ends nothing.
"""

import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

from mpi4py import MPI

from eulerian.app.runs.files import LOG, append_text
from eulerian.app.runs.result import versions
from eulerian.base.errors import ComputationError, EulerianError
from eulerian.base.log import RUN_LOGGER


@final
class _Lines(logging.Formatter):
    """Time, level and text; further lines of a text stand below its first."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
        head = f"{stamp}  {record.levelname:7}  "
        text = super().format(record).encode("utf-8", "replace").decode("utf-8")  # bytes of a command line may be any
        return head + text.replace("\n", "\n" + " " * len(head)) + "\n"


@final
class RunLog(logging.Handler):
    """The log of one run. What is told before its folder may be written waits until ``start``.

    Args:
        comm: of the run.
        complain: called with a text, once, where messages cannot be written.
    """

    def __init__(self, comm: MPI.Comm, complain: Callable[[str], object]) -> None:
        super().__init__()
        self.setFormatter(_Lines())
        self._comm, self._complain = comm, complain
        self._path: Path | None = None
        self._waiting = ""
        self._lost = 0

    def start(self, folder: Path) -> None:
        """The folder may be written now. Not collective."""
        self.acquire()
        try:
            self._path, waiting, self._waiting = folder / LOG, self._waiting, ""
            if waiting:
                self._append(waiting)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        text = self.format(record)
        if self._path is None:
            self._waiting += text
        else:
            self._append(text)

    def failed(self, error: BaseException) -> None:
        """Write an error that ends the run; one that nobody expects with its traceback. Not collective.

        Where other ranks may wait elsewhere, whoever has it writes it: rank 0 may never hear of it.
        """
        expected = isinstance(error, EulerianError)
        trace = None if expected else (type(error), error, error.__traceback__)
        where = f"[rank {self._comm.rank}] " if self._comm.size > 1 and getattr(error, "alone", True) else ""
        text = where + (str(error) if expected else "an unexpected error")
        if self._comm.rank == 0:
            RUN_LOGGER.error(text, exc_info=trace)
        elif where and self._path is not None:
            record = RUN_LOGGER.makeRecord(RUN_LOGGER.name, logging.ERROR, __file__, 0, text, (), trace)
            with suppress(ComputationError):
                append_text(self._path, self.format(record))

    def _append(self, text: str) -> None:
        assert self._path is not None
        before = f"[{self._lost} messages are missing here: they could not be written]\n" if self._lost else ""
        try:
            append_text(self._path, before + text)
        except ComputationError as error:
            self._lost += 1
            if self._lost == 1:
                self._complain(f"{error}. The run goes on")
        else:
            self._lost = 0


@contextmanager
def logged_run(comm: MPI.Comm, command: str, complain: Callable[[str], object]) -> Iterator[RunLog]:
    """A log of what a run tells inside of the context, and of the error that it ends with. Not collective.

    Args:
        comm: of the run.
        command: its name.
        complain: as for ``RunLog``.
    """
    log = RunLog(comm, complain)
    if comm.rank == 0:
        RUN_LOGGER.addHandler(log)
    started = time.perf_counter()
    try:
        RUN_LOGGER.info(_header(command, comm.size))
        yield log
        RUN_LOGGER.info(f"end, after {time.perf_counter() - started:.3g} s")
    except BaseException as error:
        log.failed(error)
        raise
    finally:
        RUN_LOGGER.removeHandler(log)
        log.close()


def _header(command: str, ranks: int) -> str:
    """Who works on what, where, and with which versions."""
    from petsc4py import PETSc

    own = versions()
    petsc = ".".join(map(str, PETSc.Sys.getVersion()))
    library = MPI.Get_library_version().splitlines()[0].strip("\0 ")
    mpi = " ".join(library.replace(":", " ").split()) or f"MPI {'.'.join(map(str, MPI.Get_version()))}"
    known = {**own, "petsc": petsc}
    listed = ", ".join(f"{name} {version}" for name, version in known.items() if name != "eulerian")
    return "\n".join(
        [
            f"eulerian {own['eulerian']}: {command}, {ranks} rank{'' if ranks == 1 else 's'}",
            f"command line: {shlex.join(sys.argv)}",
            f"folder: {Path.cwd()}, on {platform.node()}, process {os.getpid()}",
            f"{listed}, {mpi}",
        ]
    )
