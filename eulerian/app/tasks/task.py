"""What all computations have in common: a folder that is claimed, a problem, and a result whatever happens."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import final

from mpi4py import MPI

from eulerian.app.build.network import SampledProblem
from eulerian.app.config import Config
from eulerian.app.runs.columns import Row
from eulerian.app.runs.files import HISTORY, LOG, plain
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import files_line
from eulerian.app.runs.result import Document, Outcome, describe
from eulerian.app.runs.run_log import logged_run
from eulerian.app.tasks.drawing import draw_figures, drawn_beside, figures_drawn
from eulerian.base import signals
from eulerian.base.errors import ComputationError, EulerianError, collected_warnings, explained
from eulerian.base.log import RUN_LOGGER
from eulerian.base.parallel import all_here, on_root, warn_of_crowding, warn_of_small_parts
from eulerian.control.control import ControlProblem
from eulerian.ideal.problem import IdealProblem

SILENT = Progress()


@final
@dataclass(frozen=True)
class RunContext[P: (ControlProblem, IdealProblem, SampledProblem)]:
    """What a computation works with.

    Attributes:
        config: the configuration.
        folder: of the run, started.
        problem: built.
        progress: where messages go.
    """

    config: Config
    folder: RunFolder
    problem: P
    progress: Progress


@final
@dataclass(frozen=True)
class Task[P: (ControlProblem, IdealProblem, SampledProblem)]:
    """What one computation is made of; all of it is collective.

    Attributes:
        name: of its command.
        build: the problem.
        headline: its sizes in one line.
        work: what it is there for.
        afterwards: keys to add to a document that is already written, or nothing; it may fail without harm to the run.
        check: raises where a run cannot be continued; called with the problem before anything in the folder changes.
    """

    name: str
    build: Callable[[Config, MPI.Comm], P]
    headline: Callable[[Config, P], str]
    work: Callable[[RunContext[P]], Outcome]
    afterwards: Callable[[RunContext[P], Document], Document] = lambda *_: {}
    check: Callable[[Config, P], object] = lambda *_: None

    def run(
        self,
        config: Config,
        comm: MPI.Comm | None,
        *,
        overwrite: bool,
        progress: Progress,
        resume: bool = False,
        keep: Sequence[str] = (),
        history: Sequence[Row] = (),
    ) -> Document:
        """Claim the folder, build, work, and leave a ``result.json`` once the input has proved right. Collective.

        Args:
            config: the configuration.
            comm: who shares the work, everybody by default.
            overwrite: the folder may hold a run, which is replaced.
            progress: where messages go.
            resume: the run in the folder is continued.
            keep: patterns of the files that stay in the folder.
            history: of the run that is continued.
        """
        comm = MPI.COMM_WORLD if comm is None else comm
        figures = config.output.figures
        run = RunFolder.claim(comm, config.output.directory, overwrite or resume, figures=figures)

        def warned(text: str) -> None:
            run.warnings.append(text)
            progress.warn(text)

        with (
            logged_run(comm, self.name, warned) as log,
            collected_warnings(warned, RUN_LOGGER.warning),
            drawn_beside(run),
        ):

            def start() -> None:
                run.start(config.to_toml(), (*keep, LOG) if resume else keep, history)
                log.start(run.path)

            warn_of_crowding(comm)
            return self._run(config, run, progress, start, resume=resume)

    def _run(
        self,
        config: Config,
        run: RunFolder,
        progress: Progress,
        start: Callable[[], None],
        *,
        resume: bool,
    ) -> Document:
        """``run`` in a folder that may be written, once ``start`` has emptied it. Collective.

        What is refused before that leaves a run that was to be continued as it was.
        """
        meeting = run.comm.Dup()  # its own: a rank that failed alone must not meet others in another collective call
        started = time.perf_counter()
        try:
            problem = self.build(config, run.comm)
            self.check(config, problem)
        except ComputationError as error:
            if _met(error, meeting) and not resume:
                with suppress(EulerianError):  # nothing was computed: the error says it all
                    start()
                    run.write_result(describe(Outcome(self.name, "failed", str(error)), None, run.comm.size))
            raise
        seconds_setup = time.perf_counter() - started
        if run.comm.size > 1 and (mesh := problem.describe().get("mesh")) is not None:  # particles have none
            warn_of_small_parts(run.comm, mesh["dimension"], mesh["cells"])
        start()
        progress.say(self.headline(config, problem))
        context = RunContext(config, run, problem, progress)
        with (
            _recording_failure(run, self.name, problem, meeting),
            signals.last_words(lambda name: interrupted_early(run, self.name, name)),
        ):
            outcome = replace(self.work(context), seconds_setup=seconds_setup)
        if outcome.problem is not None:
            context = replace(context, problem=outcome.problem)
        document = self._finish(context, outcome)
        meeting.Free()
        return document

    def _finish(self, context: RunContext[P], outcome: Outcome) -> Document:
        """Write the result, and what is found out after that. Collective."""
        run, progress = context.folder, context.progress
        document = _agreed(run, describe(outcome, context.problem, run.comm.size))
        _write_result(run, document)
        level = logging.ERROR if outcome.status in ("failed", "interrupted") else logging.INFO
        progress.say(f"{outcome.status}: {outcome.reason}\n{files_line(run)}", level=level)
        if outcome.status == "interrupted":
            return document
        with signals.last_words(lambda name: f"interrupted by {name}; the run itself is complete"):
            more: Document = run.comm.bcast(plain(self.afterwards(context, document)), 0)
            if more:
                document = _agreed(run, document | more)
                try:
                    run.write_result(document)
                except ComputationError as error:  # the result without it is there and stays
                    progress.say(f"{error}: {', '.join(more)} is not in it")
            return _with_figures(run, document)


def _agreed(run: RunFolder, document: Document) -> Document:
    """A document with the run's warnings, the same on all ranks: rank 0's, for clocks differ. Collective."""
    agreed: Document = run.comm.bcast(plain(run.with_warnings(document)), 0)
    return agreed


def _with_figures(run: RunFolder, document: Document) -> Document:
    """Draw the history of a minimisation, last: it also shows the bounds of J found after it. Collective.

    With what is to be told of figures that were drawn beside the run.
    """
    if on_root(run.comm, (run.path / HISTORY).exists):
        draw_figures(run, only=("history",))
    unwritten = figures_drawn(run)
    told = _agreed(run, document)
    if unwritten:
        told = told | {"status": "failed", "reason": f"{document['reason']}; then the output failed: {unwritten}"}
    if told != document:
        run.write_result(told)
    return told


def interrupted_early(run: RunFolder, command: str, name: str) -> str:
    """Leave a ``result.json`` that names the signal, which is returned as a sentence. Not collective."""
    reason = f"interrupted by {name}"
    run.write_result_here(describe(Outcome(command, "interrupted", reason), None, run.comm.size))
    return reason


@contextmanager
def _recording_failure(
    run: RunFolder, command: str, problem: ControlProblem | IdealProblem | SampledProblem, meeting: MPI.Comm
) -> Iterator[None]:
    """Leave a ``result.json`` that names the error when the work breaks off."""
    try:
        yield
    except EulerianError as error:
        if _met(error, meeting):
            _write_result(run, describe(Outcome(command, "failed", str(error)), problem, run.comm.size), error)
        else:
            _write_failure_here(run, command, str(error))
        raise
    except (Exception, KeyboardInterrupt) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else explained(error)
        _write_failure_here(run, command, reason)
        raise


def _met(error: EulerianError, meeting: MPI.Comm) -> bool:
    """Whether all ranks have come here with an error; else it knows that it is alone. Collective."""
    error.alone = not all_here(meeting)
    return not error.alone


def _write_result(run: RunFolder, document: Document, cause: EulerianError | None = None) -> None:
    """Write the result; where it cannot be written, the error holds its numbers. Collective.

    Raises:
        ComputationError: the result could not be written; begins with the ``cause`` that there was before, if any.
    """
    try:
        run.write_result(document)
    except EulerianError as error:
        before = "" if cause is None or str(cause) == str(error) else f"{cause}\n"
        numbers = json.dumps(plain(document), allow_nan=False)
        raise ComputationError(f"{before}{error}\nThe result, which is nowhere else:\n{numbers}") from error


def _write_failure_here(run: RunFolder, command: str, reason: str) -> None:
    """Leave a result without numbers from a rank whose fellows may wait in any collective call. Not collective."""
    with suppress(EulerianError):
        run.write_result_here(describe(Outcome(command, "failed", reason), None, run.comm.size))
