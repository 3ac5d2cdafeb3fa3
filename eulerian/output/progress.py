"""What a run says while it works: on rank 0 only, with a moving line on a terminal and plain lines elsewhere."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from mpi4py import MPI

from eulerian.optimise import Record

type Watch = Callable[[Record], None]


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
        """Rank 0 speaks unless told to be quiet."""
        speaks = comm.rank == 0 and not quiet
        return cls(speaks, speaks and sys.stdout.isatty())

    def say(self, *texts: str) -> None:
        """Messages, at once, each on lines of its own; empty ones are left out."""
        if self.speaks:
            _print("\n".join(text for text in texts if text))

    @contextmanager
    def iterations(self, maximum: int) -> Iterator[Watch]:
        """A function to be told each iteration of an optimiser that makes at most ``maximum``."""
        if self.terminal:
            with _moving_line(maximum) as watch:
                yield watch
        elif self.speaks:
            yield lambda record: _print(iteration_line(record))
        else:
            yield lambda _record: None


def _print(text: str) -> None:
    """Print at once; a reader that has left, as `head` does, is no reason to stop computing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def iteration_line(record: Record) -> str:
    """One iteration in words and numbers."""
    return (
        f"iteration {record.iteration:4d}   J = {record.total:<14.8g} |∇J| = {record.gradient_norm:.3e}"
        f"   {record.evaluations} evaluations   {record.seconds:.1f} s"
    )


@contextmanager
def _moving_line(maximum: int) -> Iterator[Watch]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("J = {task.fields[value]:.8g}   |∇J| = {task.fields[norm]:.3e}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=maximum, value=0.0, norm=0.0)

        def watch(record: Record) -> None:
            bar.update(task, completed=record.iteration, value=record.total, norm=record.gradient_norm)

        yield watch
