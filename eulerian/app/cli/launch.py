"""How a command is started, alone or together with other ranks, and how its errors are reported."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

from eulerian.app.commands.command import Options, complain
from eulerian.base.errors import EulerianError, InputError, explained
from eulerian.base.memory_limits import launcher_variables

type Run = Callable[[Options], int]

# How launchers tell a process its rank (MPICH and Intel MPI, Open MPI, PMIx, Slurm) before MPI has started.
_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "FLUX_TASK_RANK", "SLURM_PROCID")

# How launchers tell a process the number of ranks. Slurm's of a job is also there where nothing was launched.
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def alone(command: Run, options: Options) -> int:
    """Run a command of one process; under a launcher the other ranks have nothing to do, and are gone at once.

    What the command imports may start MPI, which would wait for them: so it is not told of the launcher.
    """
    if launcher_rank() > 0:
        return 0
    for name in launcher_variables(os.environ):
        del os.environ[name]
    try:
        code = command(options)
        sys.stdout.flush()
    except EulerianError as error:
        complain(options, _account(options, str(error)))
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
    except Exception:  # noqa: BLE001 - the last line of defence
        complain(options, f"an unexpected error\n{traceback.format_exc().rstrip()}")
        return 2
    return code


def together(command: Run, options: Options) -> int:
    """Run a collective command. An error is reported once and gives the same exit code everywhere. Collective.

    What nobody expects is reported with Python's traceback, but once too.
    """
    from mpi4py import MPI

    from eulerian.base import parallel
    from eulerian.base.signals import listening

    comm = MPI.COMM_WORLD
    if comm.size == 1 and _launched_for_more():
        return _refuse_launcher(options)
    meeting = comm.Dup()
    try:
        with listening(comm, lambda text: complain(options, text)):
            return command(options)
    except EulerianError as error:
        alone, text, code = error.alone, _account(options, str(error)), error.exit_code
    except KeyboardInterrupt:
        alone, text, code = False, "interrupted", 2
    except (OSError, MemoryError) as error:
        alone, text, code = False, explained(error), 2
    except Exception:  # noqa: BLE001 - the last line of defence
        alone, text, code = False, f"an unexpected error on rank {comm.rank}\n{traceback.format_exc().rstrip()}", 2
    met = not alone and parallel.all_here(meeting)
    if comm.rank == 0 or not met:
        complain(options, text)
    if not met and comm.size > 1:
        parallel.end_job(code)
    return code


def _refuse_launcher(options: Options) -> int:
    """Tell, on one rank, that the launcher belongs to another MPI: its ranks would do the same work, each alone."""
    own = Path(sysconfig.get_path("scripts")) / "mpirun"
    remedy = f"Start it with {own}" if own.exists() else "Start it with the mpirun of the MPI library that mpi4py uses"
    size = _told_size()
    if launcher_rank() == 0 or not size:
        what = f"was started on {size or 'several'} ranks that do not meet: this launcher is of another MPI"
        complain(options, f"{what}. {remedy} (`eulerian doctor` tells more)")
    return InputError.exit_code


def _launched_for_more() -> bool:
    """Whether a launcher has told this process of other ranks."""
    return launcher_rank() > 0 or _told_size() > 1


def _told_size() -> int:
    """Number of ranks as a launcher tells it; 0 without one."""
    return max((int(text) for name in _SIZE_VARIABLES if (text := os.environ.get(name, "")).isdecimal()), default=0)


def _account(options: Options, text: str) -> str:
    """An error as it is reported; with ``--verbose`` also where it comes from."""
    return f"{text}\n{traceback.format_exc().rstrip()}" if options.verbose else text


def launched() -> bool:
    """Whether a launcher such as mpirun has started this process."""
    return any(name in os.environ for name in _RANK_VARIABLES)


def launcher_rank() -> int:
    """This process's rank as its launcher tells it; 0 without one."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0
