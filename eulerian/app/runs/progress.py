"""What a run says while it works: on rank 0 only, with a moving line on a terminal and plain lines elsewhere.

All of it goes to the ``run.log`` of a run too, also where the terminal is to hear nothing.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import final

from mpi4py import MPI

from eulerian.app.runs.pace import IterationsToGo, Pace, in_words
from eulerian.base.log import RUN_LOGGER
from eulerian.ideal.problem import GapRecord
from eulerian.optimise import Record

_STEPS = "time steps"
_WIDE = 100  # letters of a terminal that has room for the time to go beside the time that has gone
_SHORT = 1.0  # seconds before a line of time steps is shown
_BETWEEN_STEPS = 10.0  # seconds between two that stay


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

    def iterations(self, maximum: int, levels: int | None = 1) -> AbstractContextManager[Callable[[Record], None]]:
        """A function to be called with each iteration of an optimiser that makes at most ``maximum``.

        Args:
            maximum: on all levels together.
            levels: how many meshes there are, from coarse to fine; None where nobody knows.
        """
        to_go = IterationsToGo(maximum, levels)
        return self._follow(_TRAINING, maximum, lambda record: to_go(record.iteration, record.level))

    def gaps(self, maximum: int) -> AbstractContextManager[Callable[[GapRecord], None]]:
        """The same for the convex solver."""
        to_go = IterationsToGo(maximum)
        return self._follow(_CONVEX, maximum, lambda record: to_go(record.iteration))

    @contextmanager
    def steps(self) -> Iterator[Callable[[int, int], None]]:
        """A function to be called with the time steps that are done, and how many there are: 0 first.

        What takes no time is not told.
        """
        pace = Pace()
        told = started = time.monotonic()
        with _bar(_STEPS, transient=True) if self.terminal else nullcontext() as move:

            def advance(done: int, total: int) -> None:
                nonlocal told
                pace.mark(done)
                seconds, now = pace.seconds(total), time.monotonic()
                to_go = f"about {in_words(seconds)} to go" if seconds else ""
                if move is not None:
                    move(done, total, "", to_go, now - started > _SHORT)
                if done < total and now - told > _BETWEEN_STEPS:
                    told, line = now, f"time step {done} of {total}   {now - started:.1f} s"
                    self._tell_line(f"{line}   {to_go}".rstrip(), aloud=move is None)

            yield advance

    @contextmanager
    def _follow[R: (Record, GapRecord)](
        self, form: "_LineFormat[R]", maximum: int, to_go: Callable[[R], str]
    ) -> Iterator[Callable[[R], None]]:
        with _bar(form.title) if self.terminal else nullcontext() as move:

            def observer(record: R) -> None:
                left = to_go(record)
                if move is not None:
                    move(record.iteration, maximum, form.moving(record), left, True)
                if form.shows(record.iteration):
                    line = f"iteration {record.iteration:4d}   {form.line(record)}   {left}"
                    self._tell_line(line.rstrip(), aloud=move is None)

            yield observer

    def _tell_line(self, line: str, *, aloud: bool) -> None:
        """A line for the log, and for whoever sees no bar."""
        RUN_LOGGER.info("%s", line)
        if aloud and self.speaks:
            _print(line)


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
    "convex",
    _gap_numbers,
    _gap_line,
    _round,
)


@contextmanager
def _bar(title: str, *, transient: bool = False) -> Iterator[Callable[[int, int, str, str, bool], None]]:
    """A line that moves; called with what is done, of how much, numbers, the time to go, and whether it is to be seen.

    A ``transient`` one is gone in the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    console, whole = Console(), Column(no_wrap=True)
    wide = console.width >= _WIDE

    class Time(TimeElapsedColumn):
        def render(self, task: Task) -> Text:
            to_go = task.fields["to_go"].replace("up to", "≤").removesuffix(" to go")
            return Text(to_go) if to_go and not wide else super().render(task)

    columns = [
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(table_column=whole.copy()),
        TextColumn("{task.fields[numbers]}", markup=False, table_column=whole.copy()),
        Time(table_column=whole.copy()),
    ]
    if wide:
        columns.append(TextColumn("{task.fields[to_go]}", markup=False, table_column=whole.copy()))
    with Progress(*columns, console=console, transient=transient) as bar:
        task = bar.add_task(title, numbers="", to_go="", visible=False)

        def move(done: int, total: int, numbers: str, to_go: str, visible: bool) -> None:
            bar.update(task, completed=done, total=total, numbers=numbers, to_go=to_go, visible=visible)

        yield move
