"""``eulerian solve``."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from eulerian.app.commands.command import Options, progress_of
from eulerian.app.commands.computation import Computation, add_method, add_theta
from eulerian.base.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config


@final
class Solve(Computation):
    """One forward solve."""

    name = "solve"
    help = "transport the density once"
    examples = (
        "eulerian solve gaussian.toml --theta runs/gaussian --output runs/once",
        "mpirun -n 2 eulerian solve gaussian.toml --theta runs/gaussian --output runs/once",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        super().add_arguments(parser)
        add_theta(parser)
        add_method(parser)
        help_ = "go on with the solve in the run folder, which was interrupted; on any number of ranks"
        parser.add_argument("--resume", action="store_true", help=help_)
        help_ = "start from densities that another solve of this configuration has kept"
        parser.add_argument("--restart", metavar="RUN", type=Path, help=help_)
        help_ = "with --restart: from the last ones not after time T; default: the last ones"
        parser.add_argument("--at", metavar="T", type=float, help=help_)

    def compute(self, options: Options, config: "Config", comm: "MPI.Comm") -> Mapping[str, Any]:
        """See ``Computation``."""
        from eulerian.app import tasks

        start = {"resume": options.resume, "restart": options.restart, "at": options.at}
        given = {name: value for name, value in start.items() if value not in (None, False)}
        common = {"theta": options.theta, "overwrite": options.overwrite, "progress": progress_of(options, comm)}
        if options.method == "densities":
            return tasks.run_solve(config, comm, **common, **given)
        if given:
            raise InputError("particles keep nothing on their way to go on from", key=f"--{next(iter(given))}")
        return tasks.run_solve_particles(config, comm, **common)
