"""What a command of the command line is. Nothing heavy is imported here: ``--help`` needs neither MPI nor a mesh."""

import argparse
import sys
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.runs.progress import Progress

type Options = argparse.Namespace


class Command(ABC):
    """One command: its name, its help and its options, and what it does.

    Its module is loaded for every ``--help``: what ``run`` needs is imported there.

    Attributes:
        name: on the command line.
        help: what it does, in one line.
        examples: command lines for the help.
        serial: whether one process does it; else it is for all ranks together.
        runs_python: whether it may run code of the user's own, which ``--no-python`` refuses.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    serial: ClassVar[bool] = False
    runs_python: ClassVar[bool] = True

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add this command's arguments, besides those that all commands have."""

    @abstractmethod
    def run(self, options: Options) -> int:
        """Do it and return the exit code. **Collective** unless ``serial``."""


def progress_of(options: Options, comm: "MPI.Comm") -> "Progress":
    """Where messages go; with ``--verbose`` iterations keep lines of their own. Not collective."""
    from eulerian.app.runs.progress import Progress

    progress = Progress.of(comm, options.quiet)
    return replace(progress, terminal=False) if options.verbose else progress


def print_error(options: Options, text: str) -> None:
    """Print an error in one message, after all earlier output; it also goes into the log of a run that is at work."""
    from eulerian.base.log import RUN_LOGGER

    RUN_LOGGER.error("%s", text)
    sys.stdout.flush()
    sys.stderr.write(f"eulerian {options.name}: {text}\n")
    sys.stderr.flush()
