"""``eulerian schema``."""

import argparse
import json
import os
from pathlib import Path
from typing import final

from eulerian.app.commands.command import Command, Options
from eulerian.base.errors import InputError


@final
class Schema(Command):
    """What a configuration may be, for editors."""

    name = "schema"
    help = "the JSON schema of a configuration, by which editors complete, explain and check keys"
    examples = ("eulerian schema", "eulerian schema --output eulerian.schema.json")
    serial = True
    runs_python = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        help_ = "write it to a file, which a line `#:schema ./FILE` at the top of a configuration names"
        parser.add_argument("--output", metavar="FILE", type=Path, help=help_)
        parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from eulerian.app.config import Config
        from eulerian.app.runs.files import write_text

        file = options.output
        if file is not None and os.path.lexists(file) and not options.overwrite:
            raise InputError("the file exists", key=str(file), remedy="Choose another name, or use --overwrite.")
        text = json.dumps(Config.model_json_schema(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        if file is None:
            print(text, end="")
            return 0
        write_text(file, text)
        if not options.quiet:
            print(f"written to {file}")
            print(f"next:    put the line `#:schema ./{file.name}` at the top of a configuration beside it")
        return 0
