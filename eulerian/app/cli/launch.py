"""How a command is started, alone or together with other ranks, and how its errors are reported."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

from eulerian.app.commands.command import Options, print_error
from eulerian.base.errors import EulerianError, InputError, explained
from eulerian.base.memory_limits import launcher_variables

type Run = Callable[[Options], int]

# Where launchers put the rank of a process (MPICH and Intel MPI, Open MPI, PMIx, Slurm) before MPI has started.
_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "FLUX_TASK_RANK", "SLURM_PROCID")

# Where they put the number of ranks. Slurm's of a job is also there where nothing was launched.
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
        print_error(options, _with_traceback(options, str(error)))
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print_error(options, str(InputError(error.strerror or str(error), key=error.filename)))
        return InputError.exit_code
    except KeyboardInterrupt:
        print_error(options, "interrupted")
        return 2
    except Exception:  # noqa: BLE001 - the last line of defence
        print_error(options, f"an unexpected error\n{traceback.format_exc().rstrip()}")
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
        with listening(comm, lambda text: print_error(options, text)):
            return command(options)
    except EulerianError as error:
        alone, text, code = error.alone, _with_traceback(options, str(error)), error.exit_code
    except KeyboardInterrupt:
        alone, text, code = False, "interrupted", 2
    except (OSError, MemoryError) as error:
        alone, text, code = False, explained(error), 2
    except Exception as error:  # noqa: BLE001 - the last line of defence
        alone, code = getattr(error, "alone", False), 2
        text = f"an unexpected error on rank {comm.rank}\n{traceback.format_exc().rstrip()}"
    met = not alone and parallel.all_here(meeting)
    if comm.rank == 0 or not met:
        print_error(options, text)
    if not met and comm.size > 1:
        parallel.end_job(code)
    return code


def _refuse_launcher(options: Options) -> int:
    """Report, on one rank, that the launcher belongs to another MPI: its ranks would do the same work, each alone."""
    own = Path(sysconfig.get_path("scripts")) / "mpirun"
    remedy = f"Start it with {own}" if own.exists() else "Start it with the mpirun of the MPI library that mpi4py uses"
    size = _launched_size()
    if launcher_rank() == 0 or not size:
        what = f"was started on {size or 'several'} ranks that do not meet: this launcher is of another MPI"
        print_error(options, f"{what}. {remedy} (`eulerian doctor` tells more)")
    return InputError.exit_code


def _launched_for_more() -> bool:
    """Whether the environment names a launcher's other ranks."""
    return launcher_rank() > 0 or _launched_size() > 1


def _launched_size() -> int:
    """Number of ranks by the launcher's environment; 0 without one."""
    return max((int(text) for name in _SIZE_VARIABLES if (text := os.environ.get(name, "")).isdecimal()), default=0)


def _with_traceback(options: Options, text: str) -> str:
    """An error as it is reported; with ``--verbose`` also where it comes from."""
    return f"{text}\n{traceback.format_exc().rstrip()}" if options.verbose else text


def launched() -> bool:
    """Whether a launcher such as mpirun has started this process."""
    return any(name in os.environ for name in _RANK_VARIABLES)


def launcher_rank() -> int:
    """This process's rank by the launcher's environment; 0 without one."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0
