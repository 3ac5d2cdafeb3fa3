"""How a command is started, alone or together with other ranks, and how its errors are told."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from eulerian.errors import EulerianError, InputError

if TYPE_CHECKING:
    from mpi4py import MPI

type Options = argparse.Namespace
type Command = Callable[[Options], int]

# How launchers tell a process its rank (MPICH and Intel MPI, Open MPI, PMIx, Slurm) before MPI has started.
_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")

# Ranks that fail together meet within this time; a rank that waits longer is alone with its error.
SECONDS_TO_MEET = 10.0


def alone(command: Command, options: Options) -> int:
    """Run a command of one process; under a launcher the other ranks have nothing to do."""
    if launcher_rank() > 0:
        return 0
    try:
        code = command(options)
        sys.stdout.flush()
    except EulerianError as error:
        complain(options, str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        complain(options, str(InputError(error.strerror or str(error), key=error.filename)))
        return InputError.exit_code
    except KeyboardInterrupt:
        complain(options, "interrupted")
        return 2
    return code


def together(command: Command, options: Options) -> int:
    """Run a collective command. An expected error is told once and gives the same exit code everywhere. Collective."""
    from eulerian import parallel  # noqa: F401 - starts MPI and PETSc in the right order

    # isort: split
    from mpi4py import MPI

    from eulerian.interrupt import listening

    comm = MPI.COMM_WORLD
    meeting = comm.Dup()
    try:
        with listening(comm, lambda text: complain(options, text)):
            return command(options)
    except EulerianError as error:
        met = _all_here(meeting)
        if comm.rank == 0 or not met:
            complain(options, str(error))
        if not met:
            comm.Abort(error.exit_code)
        return error.exit_code


def _all_here(meeting: "MPI.Comm") -> bool:
    """Whether every rank calls this within a while; if not, the others wait for this one somewhere else."""
    import time

    request = meeting.Ibarrier()
    deadline = time.monotonic() + SECONDS_TO_MEET
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def complain(options: Options, text: str) -> None:
    """Tell an error in one message, after everything that was said before."""
    sys.stdout.flush()
    sys.stderr.write(f"eulerian {options.name}: {text}\n")
    sys.stderr.flush()


def launched() -> bool:
    """Whether a launcher such as mpirun has started this process."""
    return any(name in os.environ for name in _RANK_VARIABLES)


def launcher_rank() -> int:
    """This process's rank as its launcher tells it; 0 without one."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0
