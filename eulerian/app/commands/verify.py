"""``eulerian verify``."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from eulerian.app.commands.command import Options, progress_of
from eulerian.app.commands.computation import Computation, add_theta
from eulerian.base.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config


@final
class Verify(Computation):
    """Gradient, mass and positivity of a problem; or J and ρ(T) of a run, by characteristics."""

    name = "verify"
    help = "check gradient, mass and positivity of the problem"
    examples = (
        "eulerian verify gaussian.toml --theta runs/gaussian --output runs/laws",
        "mpirun -n 2 eulerian verify gaussian.toml --theta runs/gaussian --output runs/laws",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        super().add_arguments(parser)
        next(action for action in parser._actions if action.dest == "config").nargs = "?"  # --run does without
        add_theta(parser)
        help_ = (
            "instead of CONFIG.toml: verify J and ρ(T) of this run by characteristics, and write them into its result"
        )
        parser.add_argument("--run", metavar="RUN", type=Path, help=help_)

    def run(self, options: Options) -> int:
        """See ``Command``."""
        if (options.run is None) == (options.config is None):
            raise InputError("needs either a configuration or --run RUN", key="verify", remedy="Give one of the two.")
        return super().run(options) if options.run is None else self._verify_run(options)

    def compute(self, options: Options, config: "Config", comm: "MPI.Comm") -> Mapping[str, Any]:
        """See ``Computation``."""
        from eulerian.app import tasks

        progress = progress_of(options, comm)
        return tasks.run_verify(config, comm, theta=options.theta, overwrite=options.overwrite, progress=progress)

    def _verify_run(self, options: Options) -> int:
        """Collective."""
        from mpi4py import MPI

        from eulerian.app import tasks

        for name in ("theta", "output", "set", "overwrite"):
            if getattr(options, name):
                remedy = "The run's own flow is verified, in its own folder."
                raise InputError("does not go with --run", key=f"--{name}", remedy=remedy)
        comm = MPI.COMM_WORLD
        tasks.run_verify_run(options.run, comm, python=options.python, progress=progress_of(options, comm))
        return 0
