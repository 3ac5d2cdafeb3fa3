"""``eulerian sweep``."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options, print_error, progress_of
from eulerian.app.commands.computation import add_method, add_theta


@final
class Sweep(Command):
    """Runs for all combinations of some keys' values."""

    name = "sweep"
    help = "a run for every combination of some keys' values"
    examples = (
        "eulerian sweep gaussian.toml --set objective.kinetic=0.1,0.5",
        "eulerian sweep gaussian.toml --set field.hidden=[8],[8,8] --set field.layers=2,4 --output runs/sizes",
        "mpirun -n 2 eulerian sweep gaussian.toml --set density.degree=1,2 --command solve --output runs/degrees",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("config", metavar="CONFIG.toml", type=Path, help="the configuration")
        help_ = "values of a key, with commas between them; may be repeated: all combinations are run"
        parser.add_argument("--set", metavar="KEY=VALUE,…", action="append", default=[], help=help_)
        help_ = "of every run: train (default), solve, ideal, verify or compare"
        choices = ("train", "solve", "ideal", "verify", "compare")
        parser.add_argument("--command", dest="each", metavar="COMMAND", choices=choices, default="train", help=help_)
        help_ = "the folder that has a run folder for each; default: output.directory with _sweep behind it"
        parser.add_argument("--output", metavar="DIR", type=Path, help=help_)
        help_ = "do all runs again; without it those that are finished are kept, and the others go on"
        parser.add_argument("--overwrite", action="store_true", help=help_)
        add_theta(parser)
        add_method(parser)

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from mpi4py import MPI

        from eulerian.app import tasks

        comm = MPI.COMM_WORLD
        names = ("method", "theta", "output", "overwrite", "python")
        plan = tasks.SweepPlan(options.each, **{name: getattr(options, name) for name in names})
        progress = progress_of(options, comm)
        runs = progress if options.verbose else replace(progress, speaks=False)  # a line that moves is enough
        record = tasks.run_sweep(options.config, options.set, comm, plan=plan, progress=progress, run_progress=runs)
        if not record.undone:
            return 0
        if comm.rank == 0:
            print_error(
                options, f"{len(record.undone)} of {len(record.rows)} runs failed or have not come to their end"
            )
        return 2
