"""What the commands have in common that make a run of a configuration."""

import argparse
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerian.app.commands.command import Command, Options, print_error

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config


class Computation(Command):
    """A command that makes a run of a configuration. It is for all ranks together."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The configuration, and where the run is written."""
        parser.add_argument("config", metavar="CONFIG.toml", type=Path, help="the configuration")
        help_ = "override a key, as in --set objective.kinetic=0.1; may be repeated"
        parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=help_)
        parser.add_argument("--output", metavar="DIR", type=Path, help="the run folder, instead of output.directory")
        parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")

    def run(self, options: Options) -> int:
        """Read the configuration, compute, and report a failure on rank 0. **Collective**."""
        from mpi4py import MPI

        from eulerian.app.config import read_config
        from eulerian.app.tasks.drawing import drawing_beside
        from eulerian.base.parallel import on_root

        comm = MPI.COMM_WORLD

        def read() -> "Config":
            return read_config(options.config, options.set, output=options.output, python=options.python)

        with drawing_beside():
            document = self.compute(options, on_root(comm, read), comm)
        return _exit_code(options, document, comm.rank)

    @abstractmethod
    def compute(self, options: Options, config: "Config", comm: "MPI.Comm") -> Mapping[str, Any]:
        """Make the run; the contents of its ``result.json``. **Collective**."""


def add_theta(parser: argparse.ArgumentParser) -> None:
    """``--theta RUN``."""
    help_ = "a run folder (or a theta.npz) whose θ is taken; default: the initial θ of the configuration"
    parser.add_argument("--theta", metavar="RUN", type=Path, help=help_)


def add_method(parser: argparse.ArgumentParser) -> None:
    """``--method``: what is moved."""
    help_ = "densities on the mesh, or particles drawn from them (see [particles]); default: densities"
    parser.add_argument("--method", choices=("densities", "particles"), default="densities", help=help_)


def _exit_code(options: Options, document: Mapping[str, Any], rank: int) -> int:
    if options.verbose and rank == 0:
        print(_details(document))
    if document["status"] not in ("failed", "interrupted"):
        return 0
    if rank == 0:
        print_error(options, document["reason"])
    return 2


def _details(document: Mapping[str, Any]) -> str:
    """What a run took, for ``--verbose``."""
    seconds = ", ".join(f"{name} {time:.3g} s" for name, time in document["seconds"].items() if time is not None)
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"time: {seconds}",
        f"evaluations of J: {document['evaluations']}, rejected: {document['rejected_evaluations']}",
    ]
    if sys.platform == "linux":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        lines.append(f"memory of rank 0 at its peak: {peak:.0f} MiB")
    return "\n".join([*lines, f"versions: {versions}"])
