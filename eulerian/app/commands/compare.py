"""``eulerian compare``."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from eulerian.app.commands.command import Options, progress_of
from eulerian.app.commands.computation import Computation, add_theta
from eulerian.base.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config


@final
class Compare(Computation):
    """Densities and particles at one θ, side by side."""

    name = "compare"
    help = "hold densities against particles at one θ"
    examples = (
        "eulerian compare gaussian.toml --theta runs/gaussian --output runs/both",
        "eulerian compare gaussian.toml --theta runs/gaussian --set particles.sampling=sobol --output runs/sobol",
        "eulerian compare gaussian.toml --theta runs/gaussian --study --degrees 1 2 --output runs/study",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        super().add_arguments(parser)
        add_theta(parser)
        help_ = "also a ladder of meshes and of numbers of particles: errors against cost"
        parser.add_argument("--study", action="store_true", help=help_)
        help_ = "of the densities in the study; default: that of the configuration"
        parser.add_argument("--degrees", metavar="P", type=int, nargs="+", choices=(0, 1, 2), help=help_)

    def run(self, options: Options) -> int:
        """See ``Command``."""
        if options.degrees and not options.study:
            raise InputError("belongs to a study", key="--degrees", remedy="Add --study, or set density.degree.")
        return super().run(options)

    def compute(self, options: Options, config: "Config", comm: "MPI.Comm") -> Mapping[str, Any]:
        """See ``Computation``."""
        from eulerian.app import tasks

        degrees = tuple(options.degrees or (config.density.degree,))
        return tasks.run_compare(
            config,
            comm,
            theta=options.theta,
            study=tasks.StudyPlan(degrees=degrees) if options.study else None,
            overwrite=options.overwrite,
            progress=progress_of(options, comm),
        )
