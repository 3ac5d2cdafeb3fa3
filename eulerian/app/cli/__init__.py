"""The command line. Nothing heavy is imported before the command is known: ``--help`` needs neither MPI nor a mesh."""

import atexit
import gc
import io
import os
import sys

from eulerian.app.cli.launch import alone, launched, together
from eulerian.app.cli.parser import build_parser

# Objects to be made before the garbage collector looks for cycles. Half a million of them, of libraries, are there for
# good: to go through them at Python's own rate takes a twentieth of a short run.
_OBJECTS = 50_000


def entry() -> None:
    """The console script: run the command in ``sys.argv`` and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no θ gets a question mark
            stream.reconfigure(errors="replace")
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how a command line may go on
        from eulerian.app.cli.completion import complete

        complete(parser)
    options = parser.parse_args()
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)  # to go through all of them once more, at the end, takes a tenth of a short run
    command = options.command
    if options.serial:
        sys.exit(alone(command, options))
    _limit_threads()
    from eulerian.base.parallel import guarded

    guarded(lambda: together(command, options))


def _limit_threads() -> None:
    """One thread per process, where the user has not said how many.

    The ranks are the parallelism, and a network's products are so small that the threads of a BLAS wait for one another
    longer than they work. A single process leaves its cores to PyTorch and JAX, which use them better.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if launched():
        os.environ["OMP_NUM_THREADS"] = "1"
