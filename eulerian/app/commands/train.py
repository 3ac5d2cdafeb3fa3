"""``eulerian train``."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from eulerian.app.commands.command import Options, progress_of
from eulerian.app.commands.computation import Computation, add_method

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config


@final
class Train(Computation):
    """Minimise J over θ."""

    name = "train"
    help = "minimise J over θ"
    examples = (
        "eulerian train gaussian.toml --set objective.kinetic=0.1 --overwrite",
        "mpirun -n 2 eulerian train gaussian.toml --set objective.kinetic=0.1 --overwrite",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        super().add_arguments(parser)
        help_ = "go on with the run that is in the folder, from its last checkpoint, on any number of ranks"
        parser.add_argument("--resume", action="store_true", help=help_)
        add_method(parser)

    def compute(self, options: Options, config: "Config", comm: "MPI.Comm") -> Mapping[str, Any]:
        """See ``Computation``."""
        from eulerian.app import tasks

        run = tasks.run_train if options.method == "densities" else tasks.run_train_particles
        progress = progress_of(options, comm)
        return run(config, comm, overwrite=options.overwrite, resume=options.resume, progress=progress)
