"""``eulerian init``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options


@final
class Init(Command):
    """A template's files."""

    name = "init"
    help = "write a commented configuration to start from"
    examples = (
        "eulerian init --list",
        "eulerian init gaussian",
        "eulerian init transport",
        "eulerian init wine experiments/wine",
    )
    serial = True
    runs_python = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("template", metavar="TEMPLATE", nargs="?", default="gaussian", help="default: gaussian")
        parser.add_argument(
            "directory", metavar="DIRECTORY", nargs="?", type=Path, default=Path(), help="default: here"
        )
        parser.add_argument("--list", action="store_true", help="print the templates, a line for each, and exit")
        parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from eulerian.app.templates import available, copy_template, headline, suggested_command

        if options.list:
            width = max(map(len, available()))
            print("\n".join(f"{name:{width}}   {headline(name)}" for name in available()))
            return 0
        files = copy_template(options.template, options.directory, options.overwrite)
        if not options.quiet:
            print(f"written: {', '.join(str(file) for file in files)}")
            print(f"next:    eulerian {suggested_command(files[0])} {files[0]}")
        return 0
