"""MPI-safe errors, work on rank 0, and reductions that give every rank the same bits.

Importing this module starts MPI and then PETSc, in the only order that works (mpi4py loads libmpi; PETSc must see its
options before dolfinx initialises it). Every module that imports dolfinx or petsc4py imports this one first.
"""

import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Never

from mpi4py import MPI

import numpy as np
import petsc4py
from numpy.typing import NDArray

from eulerian.base.errors import ComputationError, EulerianError, EulerianWarning, explained
from eulerian.base.memory_limits import core_limit, own_cores, sensible_ranks

petsc4py.init(["eulerian", "-no_signal_handler"])

from petsc4py import PETSc  # noqa: E402 - it is PETSc that this initialises

# Sums over several vectors are left to a BLAS where these happen to lie in memory at equal distances, and are rounded
# otherwise there: two runs of one program would differ in the last bits.
for _name in ("vec_mdot_use_gemv", "vec_maxpy_use_gemv"):
    PETSc.Options().setValue(_name, False)
    PETSc.Options().getBool(_name)  # or PETSc complains, where no vector is made, that nobody has looked at it

# Ranks that fail together meet within this time; a rank that waits longer is alone with its error.
SECONDS_TO_MEET = 10.0

# The launcher ends with the first rank that aborts, and what it has not read by then is lost: busy cores make it slow.
_SECONDS_TO_BE_READ = 0.5

# With fewer cells than this each, two ranks take as long as one, by dimension (scripts/bench/ranks.py).
SMALL_PART = {1: 200, 2: 200, 3: 80}


def _end_all_ranks(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an uncaught exception and end the job.

    At exit PETSc waits for all ranks, before mpi4py's own protection (``python -m mpi4py``) comes to act: a script that
    fails on one rank would never end.
    """
    _report(kind, error, trace)
    end_job(1)


if MPI.COMM_WORLD.size > 1:
    _report, sys.excepthook = sys.excepthook, _end_all_ranks


def end_job(code: int) -> Never:
    """End all ranks with this exit code, now; from any thread."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if MPI.COMM_WORLD.size > 1:
        time.sleep(_SECONDS_TO_BE_READ)
        MPI.COMM_WORLD.Abort(code)
    os._exit(code)  # MPICH may come back from there before the launcher has ended this rank


def lasting(comm: MPI.Comm) -> MPI.Comm:
    """A communicator of the same ranks that outlives every mesh, where there is one; else ``comm``. Not collective.

    A mesh's own communicator is freed with the mesh. Where an exception is on its way just then, as when a series of
    problems is given up half-way, mpi4py 4.1 keeps a lock for ever if objects have been sent with the communicator,
    and the program hangs where the next one is freed.
    """
    for known in (MPI.COMM_WORLD, MPI.COMM_SELF):
        if MPI.Comm.Compare(comm, known) in (MPI.IDENT, MPI.CONGRUENT):
            return known
    return comm


def on_root[T](comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Run ``work`` on rank 0 and give its result, or its error, to every rank. Collective.

    Raises:
        EulerianError: what ``work`` raised, on all ranks; other exceptions arrive as ComputationError.
    """
    outcome: tuple[T | None, BaseException | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = (work(), None)
        except BaseException as error:  # noqa: BLE001 - any failure must reach the other ranks
            outcome = (None, _for_everybody(error))
    result, failure = comm.bcast(outcome, 0)
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def warn(comm: MPI.Comm, text: str) -> None:
    """Issue an ``EulerianWarning`` on rank 0. Not collective: nothing is sent.

    Args:
        comm: of those who do the work that the warning is about.
        text: what is the matter, with its figures, and what to do about it.
    """
    if comm.rank == 0:
        warnings.warn(text, EulerianWarning, stacklevel=3)


def ranks_and_cores(comm: MPI.Comm) -> tuple[int, int]:
    """How many ranks share how many cores, on the node where that is worst. Collective."""
    if comm.size == 1:
        return 1, sensible_ranks(own_cores(), core_limit())
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    cores = frozenset().union(*node.allgather(own_cores()))
    here = node.size, sensible_ranks(cores, node.allreduce(core_limit(), MPI.MAX))
    node.Free()
    everywhere: list[tuple[int, int]] = comm.allgather(here)
    return max(everywhere, key=lambda pair: pair[0] / pair[1])


def warn_of_crowding(comm: MPI.Comm) -> None:
    """Warn where more ranks than cores share a node: they wait for one another while none of them works. Collective."""
    if comm.size == 1:
        return
    ranks, most = ranks_and_cores(comm)
    if ranks > most:
        shared = f"{ranks} ranks share {most} core{'s' if most > 1 else ''} of a node"
        warn(comm, f"{shared}, where they wait for one another: the run is faster on {most}, or on more nodes")


def warn_of_small_parts(comm: MPI.Comm, dim: int, cells: int) -> None:
    """Warn where several ranks have so few of all cells of a mesh that fewer ranks would be as fast."""
    if cells < SMALL_PART[dim] * comm.size:
        each = f"{cells} cells are {cells // comm.size} for each of {comm.size} ranks"
        most = max(1, cells // SMALL_PART[dim])
        enough = f"{most} ranks are" if most > 1 else "one rank is"
        warn(comm, f"{each}, which wait for one another longer than they compute: {enough} as fast")


@contextmanager
def agreed(comm: MPI.Comm, actor: str = "") -> Iterator[None]:
    """Guard local work: if it fails on any rank, the first failure is raised on every rank. Collective.

    The guarded block itself must not communicate. It may be code of a user's: whatever that raises is a failure, even
    ``sys.exit``.

    Args:
        comm: who works.
        actor: whose code it is, for the message.

    Raises:
        EulerianError: the failure; other exceptions arrive as ComputationError.
        KeyboardInterrupt: one of the ranks was interrupted.
    """
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - any failure must reach the other ranks
        failure = _for_everybody(error, actor, f"on rank {comm.rank}" if comm.size > 1 else "")
    if comm.allreduce(failure is not None, MPI.LOR):
        raise next(error for error in comm.allgather(failure) if error is not None)


def _for_everybody(error: BaseException, actor: str = "", where: str = "") -> BaseException:
    """The error that is raised on all ranks for one of any kind."""
    if isinstance(error, EulerianError):
        return error
    if isinstance(error, KeyboardInterrupt):  # somebody at the terminal
        return KeyboardInterrupt()
    return ComputationError(f"{actor} raised {explained(error, where)}" if actor else explained(error, where))


def all_here(meeting: MPI.Comm) -> bool:
    """Whether every rank calls this within a while; if not, the others wait for this one somewhere else. Collective.

    Args:
        meeting: a communicator that nothing else is done on. Of several ranks that wait in vain the first one gives up
            first.
    """
    request = meeting.Ibarrier()
    deadline = time.monotonic() + SECONDS_TO_MEET * (1.0 + 0.05 * min(meeting.rank, 10))
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def sum_all(comm: MPI.Comm, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over ranks, bit for bit the same on every rank (reduced on rank 0, then broadcast). Collective."""
    local = np.ascontiguousarray(values, dtype=np.float64)
    total = np.empty_like(local)
    comm.Reduce(local, total, MPI.SUM, 0)
    comm.Bcast(total, 0)
    return total


def all_true(comm: MPI.Comm, condition: bool) -> bool:
    """Whether a condition holds on all ranks. Collective."""
    return bool(comm.allreduce(bool(condition), MPI.LAND))


def gather_rows(comm: MPI.Comm, rows: NDArray[Any]) -> NDArray[Any] | None:
    """Stack the rows of all ranks on rank 0, in rank order; None elsewhere. Collective."""
    parts = comm.gather(np.ascontiguousarray(rows), 0)
    return None if parts is None else np.concatenate(parts)


def guarded(main: Callable[[], int]) -> None:
    """Run a program's ``main`` and end the process; a failure on one rank ends all ranks. Never returns.

    An exception leaves the other ranks waiting in a collective call, so the whole job is aborted.
    """
    comm = MPI.COMM_WORLD
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - the last line of defence
        sys.stderr.write(f"[rank {comm.rank}] " + traceback.format_exc())
        if comm.size > 1:
            end_job(2)
        code = 2
    with suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
