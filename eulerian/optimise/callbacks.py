"""What looks at each iteration of a minimisation from Python: the caller's callback, a progress bar, and Ctrl-C."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.base.signals import CtrlC
from eulerian.optimise.result import OptimiseResult, Record

type Callback = Callable[[Record], object]


@final
@dataclass
class Follower:
    """Is called once per iteration on all ranks; true ends the minimisation, on all of them.

    Attributes:
        comm: whose ranks agree.
        callback: of the caller.
        show: moves the progress bar.
        ctrl_c: whether it was pressed on this rank.
        interrupted: whether it was pressed on any.
    """

    comm: MPI.Comm
    callback: Callback | None
    show: Callable[[Record], None]
    ctrl_c: CtrlC
    interrupted: bool = False

    def __call__(self, record: Record) -> bool:
        """**Collective**."""
        self.show(record)
        stop = self.callback is not None and bool(self.callback(record))
        # A signal, and what a callback finds, may reach some ranks only: they would wait for the others for ever.
        wishes = np.array([stop, self.ctrl_c.pressed], dtype=np.intc)
        self.comm.Allreduce(MPI.IN_PLACE, wishes, MPI.MAX)
        self.interrupted = bool(wishes[1])
        return bool(wishes.any())

    def outcome(self, result: OptimiseResult) -> OptimiseResult:
        """The result, which is "interrupted" if that is why it has ended."""
        if not self.interrupted:
            return result
        return replace(result, status="interrupted", reason="interrupted by Ctrl-C; the best iterate is kept")


@contextmanager
def following(comm: MPI.Comm, callback: Callback | None, shown: int | None) -> Iterator[Follower]:
    """Listen to Ctrl-C, and show a bar on rank 0 if wanted. Not collective.

    Args:
        comm: who minimises.
        callback: of the caller.
        shown: the length of the bar in iterations; None for no bar.
    """
    with CtrlC() as ctrl_c, _bar(shown if comm.rank == 0 else None) as show:
        yield Follower(comm, callback, show, ctrl_c)


@contextmanager
def _bar(length: int | None) -> Iterator[Callable[[Record], None]]:
    """A function that moves a bar of tqdm, or rewrites a line where that is not installed."""
    if length is None:
        yield lambda _record: None
        return
    try:
        bar = import_module("tqdm.auto").tqdm(total=length)
    except ImportError:  # an optional package
        yield lambda record: _write(f"\r{record.iteration:4d}/{length}   {_numbers(record)}   ")
        _write("\n")
        return
    with bar:

        def move(record: Record) -> None:
            bar.set_postfix_str(_numbers(record), refresh=False)
            bar.update(record.iteration - bar.n)

        yield move


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _numbers(record: Record) -> str:
    return f"J = {record.total:.8g}, |∇J| = {record.gradient_norm:.3e}"
