"""``eulerian runs``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options


@final
class Runs(Command):
    """A table of runs."""

    name = "runs"
    help = "a table of all runs below a folder"
    examples = (
        "eulerian runs runs",
        "eulerian runs runs --sort verified",
        "eulerian runs runs --csv runs.csv",
        "eulerian runs runs --json -",
    )
    serial = True
    runs_python = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to look, also in the folders in it")
        help_ = "in the order of a column: name, status, objective, verified, density_l1, gap, seconds, …"
        parser.add_argument("--sort", metavar="COLUMN", help=help_)
        parser.add_argument("--reverse", action="store_true", help="the last ones first")
        help_ = "write all columns to a CSV file; - for the terminal, instead of the table"
        parser.add_argument("--csv", metavar="FILE", type=Path, help=help_)
        parser.add_argument("--json", metavar="FILE", type=Path, help="the same as a JSON list of objects")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from eulerian.app.runs.run_table import runs

        table = runs(options.folder)
        if options.sort or options.reverse:
            table = table.sorted(options.sort or "name", reverse=options.reverse)
        printed = [_write(file, text) for file, text in ((options.csv, table.csv()), (options.json, table.json()))]
        if not any(printed) and not options.quiet:
            print(table.for_terminal() if len(table) else f"no runs in {options.folder}")
        return 0


def _write(file: Path | None, text: str) -> bool:
    """Write a file, or the text of it to the terminal, and say whether it is the latter."""
    from eulerian.app.runs.files import write_text

    if file is not None and str(file) != "-":
        write_text(file, text)
    printed = str(file) == "-"
    if printed:
        print(text, end="")
    return printed
