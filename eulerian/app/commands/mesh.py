"""``eulerian mesh``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options
from eulerian.base.errors import collected_warnings


@final
class Mesh(Command):
    """What is in a mesh file; conversion."""

    name = "mesh"
    help = "what is in a mesh file; conversion to another format"
    examples = ("eulerian mesh disk.msh", "eulerian mesh disk.msh --convert disk.vtu")
    serial = True
    runs_python = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("file", metavar="FILE", type=Path, help="any file that meshio reads")
        parser.add_argument("--convert", metavar="TARGET", type=Path, help="write it to a file of another format")
        parser.add_argument("--overwrite", action="store_true", help="replace TARGET if it exists")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from eulerian.mesh.report import convert, inspect

        report = inspect(options.file)  # also where nothing is said: a wrong file is a wrong file
        if not options.quiet:
            print(report)
        if options.convert is not None:
            with collected_warnings(lambda text: print(f"Warning: {text}")):
                convert(options.file, options.convert, overwrite=options.overwrite)
            if not options.quiet:
                print(f"written to {options.convert}")
        return 0
