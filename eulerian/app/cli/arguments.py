"""The arguments of every command, and their help."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Never

from eulerian.app.cli.commands import compare, compute, doctor, init, mesh, plot, push, sample
from eulerian.app.cli.launch import Command, launcher_rank

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
    """Of one command: what is wrong there is told with its own usage, not with that of the whole program."""

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


class _Together(argparse.Action):
    """An option that makes a command work for all ranks."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **more)

    def __call__(self, _: object, namespace: argparse.Namespace, *__: object) -> None:
        setattr(namespace, self.dest, True)
        namespace.serial = False


def build_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has the command to run and whether it is ``serial``."""
    parser = _Parser("eulerian", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=_Format)
    parser.allow_abbrev = False
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(
        title="commands", dest="name", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    for name, text, example in (
        (
            "solve",
            "transport the density once",
            "eulerian solve gaussian.toml --theta runs/gaussian --output runs/once",
        ),
        ("train", "minimise J over θ", "eulerian train gaussian.toml --set objective.kinetic=0.1 --overwrite"),
        (
            "ideal",
            "minimise over all velocities: the best that any network could do",
            "eulerian ideal gaussian.toml --output runs/best",
        ),
        (
            "verify",
            "check gradient, mass and positivity of the problem",
            "eulerian verify gaussian.toml --theta runs/gaussian --output runs/laws",
        ),
    ):
        command = _add_run(commands, name, compute, text, [example, f"mpirun -n 2 {example}"])
        if name == "train":
            help_ = "go on with the run that is in the folder, from its last checkpoint, on any number of ranks"
            command.add_argument("--resume", action="store_true", help=help_)
        if name in ("solve", "verify"):
            _add_theta(command)
        if name == "verify":
            _add_verified_run(command)
        if name in ("solve", "train"):
            help_ = "densities on the mesh, or particles drawn from them (see [particles]); default: densities"
            command.add_argument("--method", choices=("densities", "particles"), default="densities", help=help_)
        if name == "solve":
            help_ = "go on with the solve in the run folder, which was interrupted; on any number of ranks"
            command.add_argument("--resume", action="store_true", help=help_)
            help_ = "start from densities that another solve of this configuration has kept"
            command.add_argument("--restart", metavar="RUN", type=Path, help=help_)
            help_ = "with --restart: from the last ones not after time T; default: the last ones"
            command.add_argument("--at", metavar="T", type=float, help=help_)
    _add_compare(commands)
    _add_push(commands)
    _add_sample(commands)
    _add_mesh(commands)
    _add_plot(commands)
    _add_doctor(commands)
    _add_init(commands)
    return parser


type _Commands = argparse._SubParsersAction[_CommandParser]


def _add_run(
    commands: _Commands, name: str, function: Command, text: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """A command that makes a run of a configuration."""
    command = _add(commands, name, function, text, examples, serial=False)
    command.add_argument("config", metavar="CONFIG.toml", type=Path, help="the configuration")
    command.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a key, as in --set objective.kinetic=0.1; may be repeated",
    )
    command.add_argument("--output", metavar="DIR", type=Path, help="the run folder, instead of output.directory")
    command.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    return command


def _add_theta(command: argparse.ArgumentParser) -> None:
    help_ = "a run folder (or a theta.npz) whose θ is taken; default: the initial θ of the configuration"
    command.add_argument("--theta", metavar="RUN", type=Path, help=help_)


def _add_compare(commands: _Commands) -> None:
    examples = [
        "eulerian compare gaussian.toml --theta runs/gaussian --output runs/both",
        "eulerian compare gaussian.toml --theta runs/gaussian --set particles.sampling=sobol --output runs/sobol",
        "eulerian compare gaussian.toml --theta runs/gaussian --study --degrees 1 2 --output runs/study",
    ]
    command = _add_run(commands, "compare", compare, "hold densities against particles at one θ", examples)
    _add_theta(command)
    help_ = "also a ladder of meshes and of numbers of particles: errors against cost"
    command.add_argument("--study", action="store_true", help=help_)
    help_ = "of the densities in the study; default: that of the configuration"
    command.add_argument("--degrees", metavar="P", type=int, nargs="+", choices=(0, 1, 2), help=help_)


def _add_push(commands: _Commands) -> None:
    examples = [
        "eulerian push runs/wine --samples new.csv",
        "eulerian push runs/wine --samples new.csv --columns pc1,pc2 --label-column class --output moved.csv",
        "eulerian push runs/wine --samples new.csv --set particles.steps_per_layer=16 --overwrite",
    ]
    text = "move points through the flow of a run: where they end, log-density, class"
    command = _add(commands, "push", push, text, examples, serial=False)
    command.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    command.add_argument("--samples", metavar="FILE", type=Path, required=True, help="a CSV file of points")
    help_ = "the coordinates, by name or number from 0; default: those of the run's samples, else x,y,z"
    command.add_argument("--columns", metavar="A,B", help=help_)
    help_ = "the classes, by name or number; default: that of the run's samples, else label, if it is there"
    command.add_argument("--label-column", metavar="C", help=help_)
    help_ = "default: pushed_FILE.csv in the run folder; a summary of the same name ends in .json"
    command.add_argument("--output", metavar="OUT.csv", type=Path, help=help_)
    command.add_argument("--overwrite", action="store_true", help="replace OUT.csv and its summary")
    help_ = "override a key of [particles], which says how points move in time"
    command.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=help_)


def _add_sample(commands: _Commands) -> None:
    examples = ["eulerian sample runs/gaussian -n 1000", "eulerian sample runs/wine -n 4096 --method sobol --seed 1"]
    text = "draw points from the density that the flow of a run ends with"
    command = _add(commands, "sample", sample, text, examples, serial=False)
    command.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    command.add_argument("-n", metavar="N", type=int, required=True, help="the number of points")
    command.add_argument("--seed", metavar="S", type=int, default=0, help="of the points, from 0; default: 0")
    command.add_argument("--method", choices=("random", "sobol"), default="random", help="default: random")
    help_ = "default: sampled.csv in the run folder"
    command.add_argument("--output", metavar="OUT.csv", type=Path, help=help_)
    command.add_argument("--overwrite", action="store_true", help="replace OUT.csv")


def _add_verified_run(command: argparse.ArgumentParser) -> None:
    """``--run RUN`` instead of a configuration."""
    help_ = "instead of CONFIG.toml: verify J and ρ(T) of this run by characteristics, and write them into its result"
    command.add_argument("--run", metavar="RUN", type=Path, help=help_)
    next(action for action in command._actions if action.dest == "config").nargs = "?"


def _add_mesh(commands: _Commands) -> None:
    examples = ["eulerian mesh disk.msh", "eulerian mesh disk.msh --convert disk.vtu"]
    command = _add(commands, "mesh", mesh, "what is in a mesh file; conversion to another format", examples)
    command.add_argument("file", metavar="FILE", type=Path, help="any file that meshio reads")
    command.add_argument("--convert", metavar="TARGET", type=Path, help="write it to a file of another format")
    command.add_argument("--overwrite", action="store_true", help="replace TARGET if it exists")


def _add_plot(commands: _Commands) -> None:
    examples = [
        "eulerian plot runs/gaussian",
        "eulerian plot runs/gaussian --format pdf",
        "eulerian plot runs/crowds --animate --frames 120 --fps 30",
        "eulerian plot runs/gaussian --exact",
        "mpirun -n 2 eulerian plot runs/crowds --animate",
    ]
    command = _add(commands, "plot", plot, "draw the figures of a run again, or an animation of it", examples)
    command.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    help_ = "of the figures; pdf and svg are for papers; default: png"
    command.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help=help_)
    help_ = "also figures/animation.gif: densities, and particles that the same flow carries; solves forward again"
    command.add_argument("--animate", action=_Together, help=help_)
    help_ = "also figures/densities_exact: densities along the flow's characteristics, which no mesh has smeared"
    command.add_argument("--exact", action=_Together, help=help_)
    command.add_argument("--frames", metavar="N", type=int, help="of the animation; default: 60")
    help_ = "in the animation; 0 for none; default: 300, on a line 60"
    command.add_argument("--particles", metavar="N", type=int, help=help_)
    command.add_argument("--fps", metavar="F", type=float, help="frames per second; default: 15")


def _add_doctor(commands: _Commands) -> None:
    examples = ["eulerian doctor", "eulerian doctor gaussian.toml"]
    command = _add(commands, "doctor", doctor, "what works here, and what to do about the rest", examples)
    help_ = "also whether this one works here: files, field, run folder, memory"
    command.add_argument("config", metavar="CONFIG.toml", nargs="?", type=Path, help=help_)


def _add_init(commands: _Commands) -> None:
    examples = [
        "eulerian init --list",
        "eulerian init gaussian",
        "eulerian init transport",
        "eulerian init wine experiments/wine",
    ]
    command = _add(commands, "init", init, "write a commented configuration to start from", examples)
    command.add_argument("template", metavar="TEMPLATE", nargs="?", default="gaussian", help="default: gaussian")
    command.add_argument("directory", metavar="DIRECTORY", nargs="?", type=Path, default=Path(), help="default: here")
    command.add_argument("--list", action="store_true", help="print the templates, a line for each, and exit")
    command.add_argument("--overwrite", action="store_true", help="replace files that are there already")


def _add(
    commands: _Commands, name: str, command: Command, text: str, examples: Sequence[str], *, serial: bool = True
) -> argparse.ArgumentParser:
    """A command with its help and the option ``--quiet``."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=_Format,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command, serial=serial)
    words = parser.add_mutually_exclusive_group()
    words.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    help_ = "say more: a line per iteration, times, versions, and where in the program an error comes from"
    words.add_argument("-v", "--verbose", action="store_true", help=help_)
    if not serial or command is plot:
        help_ = 'refuse a configuration whose field is Python code (field.kind = "python")'
        parser.add_argument("--no-python", dest="python", action="store_false", help=help_)
    return parser


class _Format(argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines; the help column is wide enough for the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)
