"""MPI-safe errors, work on rank 0, and reductions that give every rank the same bits.

Importing this module starts MPI and then PETSc, in the only order that works (mpi4py loads libmpi; PETSc must see its
options before dolfinx initialises it). Every module that imports dolfinx or petsc4py imports this one first.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from mpi4py import MPI

import numpy as np
import petsc4py
from numpy.typing import NDArray

from eulerian.errors import ComputationError, EulerianError

# Sums over several vectors are left to a BLAS where these happen to lie in memory at equal distances, and are rounded
# otherwise there: two runs of one program would differ in the last bits.
_REPRODUCIBLE = ["-vec_mdot_use_gemv", "0", "-vec_maxpy_use_gemv", "0"]

petsc4py.init(["eulerian", "-no_signal_handler", *_REPRODUCIBLE])


def _end_all_ranks(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an uncaught exception and end the job.

    At exit PETSc waits for all ranks, before mpi4py's own protection (``python -m mpi4py``) comes to act: a script that
    fails on one rank would never end.
    """
    _report(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(1)


if MPI.COMM_WORLD.size > 1:
    _report, sys.excepthook = sys.excepthook, _end_all_ranks


def on_root[T](comm: MPI.Comm, work: Callable[[], T]) -> T:
    """Run ``work`` on rank 0 and give its result, or its error, to every rank. Collective.

    Raises:
        EulerianError: what ``work`` raised, on all ranks; other exceptions arrive as ComputationError.
    """
    outcome: tuple[T | None, Exception | None] = (None, None)
    if comm.rank == 0:
        try:
            outcome = (work(), None)
        except EulerianError as error:
            outcome = (None, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any failure must reach the other ranks
            outcome = (None, ComputationError(f"{type(error).__name__}: {error}"))
    result, failure = comm.bcast(outcome, 0)
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


@contextmanager
def agreed(comm: MPI.Comm) -> Iterator[None]:
    """Guard local work: if it fails on any rank, the first failure is raised on every rank. Collective.

    The guarded block itself must not communicate.
    """
    failure: Exception | None = None
    try:
        yield
    except EulerianError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - any failure must reach the other ranks
        place = traceback.extract_tb(error.__traceback__)[-1]
        failure = ComputationError(
            f"{type(error).__name__} on rank {comm.rank}: {error} ({place.name}, {place.filename}:{place.lineno})"
        )
    if comm.allreduce(failure is not None, MPI.LOR):
        raise next(error for error in comm.allgather(failure) if error is not None)


def sum_all(comm: MPI.Comm, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over ranks, bit for bit the same on every rank (reduced on rank 0, then broadcast). Collective."""
    local = np.ascontiguousarray(values, dtype=np.float64)
    total = np.empty_like(local)
    comm.Reduce(local, total, MPI.SUM, 0)
    comm.Bcast(total, 0)
    return total


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
        sys.stderr.flush()
        if comm.size > 1:
            comm.Abort(2)
        code = 2
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
