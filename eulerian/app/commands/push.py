"""``eulerian push``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options, progress_of


@final
class Push(Command):
    """Points through the flow of a run."""

    name = "push"
    help = "move points through the flow of a run: where they end, log-density, class"
    examples = (
        "eulerian push runs/wine --samples new.csv",
        "eulerian push runs/wine --samples new.csv --columns pc1,pc2 --label-column class --output moved.csv",
        "eulerian push runs/wine --samples new.csv --set particles.steps_per_layer=16 --overwrite",
        "eulerian push runs/wine --samples runs/wine/pushed_new.csv --back",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
        parser.add_argument("--samples", metavar="FILE", type=Path, required=True, help="a CSV file of points")
        help_ = "the coordinates, by name or number from 0; default: those of the run's samples, else x,y,z"
        parser.add_argument("--columns", metavar="A,B", help=help_)
        help_ = "the classes, by name or number; default: that of the run's samples, else label, if it is there"
        parser.add_argument("--label-column", metavar="C", help=help_)
        help_ = "default: pushed_FILE.csv in the run folder; a summary of the same name ends in .json"
        parser.add_argument("--output", metavar="OUT.csv", type=Path, help=help_)
        parser.add_argument("--overwrite", action="store_true", help="replace OUT.csv and its summary")
        help_ = "from T to 0: where such points come from; the default OUT.csv is pulled_FILE.csv"
        parser.add_argument("--back", action="store_true", help=help_)
        help_ = "override a key of [particles], which says how points move in time"
        parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=help_)

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from mpi4py import MPI

        from eulerian.app import tasks

        columns = None if options.columns is None else tuple(map(_column, options.columns.split(",")))
        tasks.run_push(
            options.folder,
            options.samples,
            MPI.COMM_WORLD,
            columns=columns,
            label_column=None if options.label_column is None else _column(options.label_column),
            output=options.output,
            overwrite=options.overwrite,
            overrides=tuple(options.set),
            back=options.back,
            python=options.python,
            progress=progress_of(options, MPI.COMM_WORLD),
        )
        return 0


def _column(name: str) -> str | int:
    """A column by its name, or by its number from 0."""
    return int(name) if name.strip().isdecimal() else name.strip()
