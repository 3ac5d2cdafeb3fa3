"""``eulerian doctor``."""

import argparse
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options


@final
class Doctor(Command):
    """What works on this machine, and whether a configuration does."""

    name = "doctor"
    help = "what works here, and what to do about the rest"
    examples = ("eulerian doctor", "eulerian doctor gaussian.toml")
    serial = True
    runs_python = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        help_ = "also whether this one works here: files, field, run folder, memory"
        parser.add_argument("config", metavar="CONFIG.toml", nargs="?", type=Path, help=help_)

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from eulerian.app.doctor.machine import examine

        findings = examine()
        if options.config is not None and all(
            finding.good or finding.subject == "MPI launcher" for finding in findings
        ):
            from eulerian.app.doctor.configuration import examine_config

            findings += examine_config(options.config)
        troubles = [finding for finding in findings if not finding.good]
        for finding in troubles if options.quiet else findings:
            print(finding)
        return 2 if troubles else 0
