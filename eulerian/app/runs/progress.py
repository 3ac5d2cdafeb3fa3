"""What a run says while it works: on rank 0 only, with a moving line on a terminal and plain lines elsewhere.

All of it goes to the ``run.log`` of a run too, also where the terminal is to hear nothing.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import final

from mpi4py import MPI

from eulerian.base.log import RUN_LOGGER
from eulerian.ideal.problem import GapRecord
from eulerian.optimise import Record


@final
@dataclass(frozen=True)
class Progress:
    """Where messages go.

    Attributes:
        speaks: whether this rank says anything.
        terminal: whether somebody watches, so that lines may be redrawn.
    """

    speaks: bool = False
    terminal: bool = False

    @classmethod
    def of(cls, comm: MPI.Comm, quiet: bool = False) -> "Progress":
        """Rank 0 speaks, unless it is to be quiet."""
        speaks = comm.rank == 0 and not quiet
        return cls(speaks, speaks and sys.stdout.isatty())

    def say(self, *texts: str, level: int = logging.INFO) -> None:
        """Messages, at once, each on lines of its own; empty ones are left out."""
        said = "\n".join(text for text in texts if text)
        if said:
            RUN_LOGGER.log(level, "%s", said)
        if said and self.speaks:
            _print(said)

    def warn(self, text: str) -> None:
        """A warning, at once."""
        self.say(f"Warning: {text}", level=logging.WARNING)

    def iterations(self, maximum: int) -> AbstractContextManager[Callable[[Record], None]]:
        """A function to be called with each iteration of an optimiser that makes at most ``maximum``."""
        return self._follow(_TRAINING, maximum)

    def gaps(self, maximum: int) -> AbstractContextManager[Callable[[GapRecord], None]]:
        """The same for the convex solver."""
        return self._follow(_CONVEX, maximum)

    @contextmanager
    def _follow[R: (Record, GapRecord)](self, form: "_LineFormat[R]", maximum: int) -> Iterator[Callable[[R], None]]:
        with _moving_line(form, maximum) if self.terminal else nullcontext() as move:

            def observer(record: R) -> None:
                line = f"iteration {record.iteration:4d}   {form.line(record)}"
                if form.shows(record.iteration):
                    RUN_LOGGER.info("%s", line)
                if move is not None:
                    move(record)
                elif self.speaks and form.shows(record.iteration):
                    _print(line)

            yield observer


def _print(text: str) -> None:
    """Print at once; a reader that has left, as `head` does, or a full disk is no reason to stop computing."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@final
@dataclass(frozen=True)
class _LineFormat[R: (Record, GapRecord)]:
    """How an iteration is printed.

    Attributes:
        title: of the moving line.
        moving: its numbers.
        line: the numbers of a plain line, which stays.
        shows: whether an iteration gets a plain line.
    """

    title: str
    moving: Callable[[R], str]
    line: Callable[[R], str]
    shows: Callable[[int], bool] = lambda _iteration: True


def _round(iteration: int) -> bool:
    """One of 1, 2, 5, 10, 20, 50, …, or a multiple of 1000."""
    return iteration % 1000 == 0 or str(iteration).rstrip("0") in ("1", "2", "5")


def _training_line(record: Record) -> str:
    own = "" if record.verified is None else f"   true J = {record.verified:.8g}"
    return (
        f"J = {record.total:<14.8g} |∇J| = {record.gradient_norm:.3e}"
        f"   {record.evaluations} evaluations   {record.seconds:.1f} s{own}"
    )


def _gap_line(record: GapRecord) -> str:
    gap = f" gap = {100 * record.relative_gap:.3g} %" if record.feasible else ""
    value = f"{record.primal:<12.7g} dual = {record.dual:<12.7g}"
    return f"{_value(record)} = {value}{gap}   residual = {record.residual:.2e}   {record.seconds:.1f} s"


def _gap_numbers(record: GapRecord) -> str:
    gap = f"   gap = {100 * record.relative_gap:.3g} %" if record.feasible else ""
    return f"{_value(record)} = {record.primal:.6g}   dual = {record.dual:.6g}{gap}"


def _value(record: GapRecord) -> str:
    """What the primal value is to be called: that of no flow is no bound, and has no gap."""
    return "primal" if record.feasible else "estimate"


_TRAINING = _LineFormat[Record](
    "training", lambda record: f"J = {record.total:.8g}   |∇J| = {record.gradient_norm:.3e}", _training_line
)
_CONVEX = _LineFormat[GapRecord](
    "convex problem",
    _gap_numbers,
    _gap_line,
    _round,
)


@contextmanager
def _moving_line[R: (Record, GapRecord)](form: _LineFormat[R], maximum: int) -> Iterator[Callable[[R], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(form.title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(form.title, total=maximum, numbers="", visible=False)

        def observer(record: R) -> None:
            bar.update(task, completed=record.iteration, numbers=form.moving(record), visible=True)

        yield observer
