"""``eulerian init``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options
from eulerian.base.errors import InputError


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
        "eulerian init gaussian --slurm --ranks 8 --time 24:00:00",
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
        parser.add_argument("--slurm", action="store_true", help="also write a job script, TEMPLATE.slurm")
        parser.add_argument("--ranks", metavar="N", type=int, help="of the job; default: 4")
        parser.add_argument("--time", metavar="HH:MM:SS", help="limit of the job; default: 04:00:00")
        parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from eulerian.app.templates import Job, available, copy_template, headline, suggested_command

        if options.list:
            width = max(map(len, available()))
            print("\n".join(f"{name:{width}}   {headline(name)}" for name in available()))
            return 0
        wanted = {name: value for name in ("ranks", "time") if (value := getattr(options, name)) is not None}
        if wanted and not options.slurm:
            raise InputError("belongs to a job", key=f"--{next(iter(wanted))}", remedy="Add --slurm.")
        job = Job(**wanted) if options.slurm else None
        files = copy_template(options.template, options.directory, options.overwrite, job)
        if not options.quiet:
            print(f"written: {', '.join(str(file) for file in files)}")
            command = f"sbatch {files[-1].name}" if job else f"eulerian {suggested_command(files[0])} {files[0]}"
            print(f"next:    {command}")
        return 0
