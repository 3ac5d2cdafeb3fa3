"""What every command has in common: a folder that is claimed, a problem that is built, a result whatever happens."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

from mpi4py import MPI

from eulerian import interrupt
from eulerian.builder import Swarm
from eulerian.config import Config
from eulerian.control import ControlProblem
from eulerian.errors import ComputationError, EulerianError
from eulerian.ideal.problem import IdealProblem
from eulerian.output.progress import Progress
from eulerian.output.report import files_line
from eulerian.output.result import Document, Outcome, describe, plain
from eulerian.output.run_folder import RunFolder

SILENT = Progress()


@final
@dataclass(frozen=True)
class Session[P: (ControlProblem, IdealProblem, Swarm)]:
    """What every command works with.

    Attributes:
        config: the configuration.
        run: the folder, started.
        problem: built.
        progress: where messages go.
    """

    config: Config
    run: RunFolder
    problem: P
    progress: Progress


@final
@dataclass(frozen=True)
class Command[P: (ControlProblem, IdealProblem, Swarm)]:
    """What one command is made of; all of it is collective.

    Attributes:
        name: as on the command line.
        build: the problem.
        headline: its sizes in one line.
        work: what the command is there for.
        afterwards: keys to add to a document that is already written, or nothing; it may fail without harm to the run.
    """

    name: str
    build: Callable[[Config, MPI.Comm], P]
    headline: Callable[[Config, P], str]
    work: Callable[[Session[P]], Outcome]
    afterwards: Callable[[Session[P], Document], Document] = lambda *_: {}

    def run(
        self,
        config: Config,
        comm: MPI.Comm | None,
        *,
        overwrite: bool,
        progress: Progress,
        begin: Callable[[RunFolder], None] | None = None,
    ) -> Document:
        """Claim the folder, build, work, and leave a ``result.json`` once the input has proved right. Collective.

        Args:
            config: the configuration.
            comm: who shares the work, everybody by default.
            overwrite: the folder may hold a run.
            progress: where messages go.
            begin: prepares the folder for the run; it is emptied by default.
        """
        comm = MPI.COMM_WORLD if comm is None else comm
        run = RunFolder.claim(comm, config.output.directory, overwrite)
        begin = (lambda folder: folder.start(config.to_toml())) if begin is None else begin
        started = time.perf_counter()
        try:
            problem = self.build(config, comm)
        except ComputationError as error:
            begin(run)
            run.write_result(describe(Outcome(self.name, "failed", str(error)), None, comm.size))
            raise
        seconds_setup = time.perf_counter() - started
        begin(run)
        progress.say(self.headline(config, problem))
        session = Session(config, run, problem, progress)
        with (
            _failure_told(run, self.name, problem),
            interrupt.last_words(lambda name: interrupted_early(run, self.name, name)),
        ):
            outcome = replace(self.work(session), seconds_setup=seconds_setup)
        # Clocks differ between ranks: rank 0's document is everybody's.
        document: Document = comm.bcast(plain(describe(outcome, problem, comm.size)), 0)
        run.write_result(document)
        progress.say(f"{outcome.status}: {outcome.reason}\n{files_line(run)}")
        if outcome.status == "interrupted":
            return document
        with interrupt.last_words(lambda name: f"interrupted by {name}; the run itself is complete"):
            more: Document = comm.bcast(plain(self.afterwards(session, document)), 0)
        if more:
            document |= more
            run.write_result(document)
        return document


def interrupted_early(run: RunFolder, command: str, name: str) -> str:
    """Leave a ``result.json`` that names the signal, which is returned as a sentence. Not collective."""
    reason = f"interrupted by {name}"
    run.write_result_here(describe(Outcome(command, "interrupted", reason), None, run.comm.size))
    return reason


@contextmanager
def _failure_told(run: RunFolder, command: str, problem: ControlProblem | IdealProblem | Swarm) -> Iterator[None]:
    """Leave a ``result.json`` that names the error when the work breaks off."""
    try:
        yield
    except EulerianError as error:
        run.write_result(describe(Outcome(command, "failed", str(error)), problem, run.comm.size))
        raise
    except (Exception, KeyboardInterrupt) as error:
        if run.comm.size == 1:  # else the other ranks may be elsewhere, and the job is aborted
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            run.write_result(describe(Outcome(command, "failed", reason), None, 1))
        raise
