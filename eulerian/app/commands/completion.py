"""``eulerian completion``."""

import argparse
from typing import final

from eulerian.app.commands.command import Command, Options


@final
class Completion(Command):
    """What a shell is to be told so that it completes command lines."""

    name = "completion"
    help = "what makes a shell complete commands, files, run folders and keys, to be put into its start file"
    examples = ("eulerian completion bash", "eulerian completion zsh", "eulerian completion fish")
    serial = True
    runs_python = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")

    def run(self, options: Options) -> int:
        """See ``Command``."""
        from argcomplete.shell_integration import shellcode

        print(shellcode(["eulerian"], shell=options.shell), end="")
        return 0
