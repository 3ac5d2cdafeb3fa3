"""The frame of the command line: one parser with a command for each of ``commands.ALL``."""

import argparse
import sys
from importlib import import_module
from typing import Any, Never

from eulerian.app import commands
from eulerian.app.cli.launch import launcher_rank
from eulerian.app.commands.command import Command

_DESCRIPTION = """\
Train ODE-Nets on densities: an Eulerian solver for the controlled continuity equation. A run is described by a TOML
file and leaves one folder: result.json, history.csv, theta.npz, densities for ParaView and figures.
"""

_EXAMPLES = """\
examples:
  eulerian init gaussian                      write a commented gaussian.toml to start from
  eulerian train gaussian.toml                train it; the results are in runs/gaussian
  eulerian ideal gaussian.toml --output best  how good any velocity field could be
  mpirun -n 4 eulerian train gaussian.toml    the same on four processes
  eulerian runs runs                          a table of all runs
  eulerian doctor                             what works on this machine, and what to do about the rest

exit codes: 0 done, 1 the input is wrong, 2 the computation failed (what was computed is kept)
"""


class _Parser(argparse.ArgumentParser):
    """Wrong usage is wrong input: exit code 1. Under a launcher only rank 0 talks."""

    def error(self, message: str) -> Never:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if launcher_rank() == 0:
            super()._print_message(message, file)


class _CommandParser(_Parser):
    """Of one command: what is wrong there is reported with its own usage, not with that of the whole program."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in the base class, but that everything has to be known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        version = import_module("eulerian").__version__
        parser._print_message(f"eulerian {version}\n", sys.stdout)
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has the ``command`` to run and whether it is ``serial``."""
    parser = _Parser("eulerian", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=_Format)
    parser.allow_abbrev = False
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(
        title="commands", dest="name", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    for command in commands.ALL:
        _add(subparsers, command)
    return parser


def command_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, by its name, of what ``build_parser`` returns."""
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def _add(subparsers: "argparse._SubParsersAction[_CommandParser]", command: Command) -> None:
    """A command with the options that all have, and its own."""
    parser = subparsers.add_parser(
        command.name,
        help=command.help,
        description=f"{command.help[0].upper()}{command.help[1:]}.",
        epilog="\n  ".join(["examples:", *command.examples]),
        formatter_class=_Format,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command.run, serial=command.serial)
    words = parser.add_mutually_exclusive_group()
    words.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    help_ = "say more: a line per iteration, times, versions, and where in the program an error comes from"
    words.add_argument("-v", "--verbose", action="store_true", help=help_)
    if command.runs_python:
        help_ = 'refuse a configuration that names Python code (kind = "python")'
        parser.add_argument("--no-python", dest="python", action="store_false", help=help_)
    command.add_arguments(parser)


class _Format(argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines; the help column is wide enough for the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)
