"""``eulerian sample``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options, progress_of


@final
class Sample(Command):
    """Draws from the density that a run ends with."""

    name = "sample"
    help = "draw points from the density that the flow of a run ends with, or new data"
    examples = (
        "eulerian sample runs/gaussian -n 1000",
        "eulerian sample runs/wine -n 4096 --method sobol --seed 1",
        "eulerian sample runs/moons -n 1000 --from target",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
        parser.add_argument("-n", metavar="N", type=int, required=True, help="the number of points")
        parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the points, from 0; default: 0")
        parser.add_argument("--method", choices=("random", "sobol"), default="random", help="default: random")
        help_ = "flow: the density at time T; target: that of kl or l2, carried back to time 0; default: flow"
        parser.add_argument("--from", dest="source", choices=("flow", "target"), default="flow", help=help_)
        help_ = "default: sampled.csv, or generated.csv of the target, in the run folder"
        parser.add_argument("--output", metavar="OUT.csv", type=Path, help=help_)
        parser.add_argument("--overwrite", action="store_true", help="replace OUT.csv")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from mpi4py import MPI

        from eulerian.app import tasks

        tasks.run_sample(
            options.folder,
            options.n,
            MPI.COMM_WORLD,
            seed=options.seed,
            method=options.method,
            source=options.source,
            python=options.python,
            output=options.output,
            overwrite=options.overwrite,
            progress=progress_of(options, MPI.COMM_WORLD),
        )
        return 0
