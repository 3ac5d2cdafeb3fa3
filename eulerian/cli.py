"""The command line. Nothing heavy is imported before the command is known: ``--help`` needs neither MPI nor a mesh."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from eulerian.errors import EulerianError, InputError

if TYPE_CHECKING:
    from mpi4py import MPI

type Options = argparse.Namespace
type Command = Callable[[Options], int]

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

# How launchers tell a process its rank (MPICH and Intel MPI, Open MPI, PMIx, Slurm) before MPI has started.
_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")

# Ranks that fail together meet within this time; a rank that waits longer is alone with its error.
_SECONDS_TO_MEET = 10.0


def entry() -> None:
    """The console script: run the command in ``sys.argv`` and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no θ gets a question mark
            stream.reconfigure(errors="replace")
    options = _parser().parse_args()
    command: Command = options.command
    if options.serial:
        sys.exit(_alone(command, options))
    if _launched():  # the ranks are the parallelism: the threads of a BLAS would get in each other's way
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from eulerian.parallel import guarded

    guarded(lambda: _together(command, options))


# -- commands --------------------------------------------------------------------------------------------------------


def _compute(options: Options) -> int:
    """solve, train, ideal or verify. Collective."""
    from eulerian.parallel import on_root  # first: it starts MPI

    # isort: split
    from mpi4py import MPI

    from eulerian import experiment
    from eulerian.config import read_config
    from eulerian.output.progress import Progress

    comm = MPI.COMM_WORLD
    config = on_root(comm, lambda: read_config(options.config, options.set, output=options.output))
    on_particles = getattr(options, "method", None) == "particles"
    run = {
        "solve": experiment.run_solve_particles if on_particles else experiment.run_solve,
        "train": experiment.run_train_particles if on_particles else experiment.run_train,
        "ideal": experiment.run_ideal,
        "verify": experiment.run_verify,
    }[options.name]
    document = run(config, comm, overwrite=options.overwrite, progress=Progress.of(comm, options.quiet))
    return _told(options, document, comm.rank)


def _compare(options: Options) -> int:
    """Collective."""
    from eulerian.parallel import on_root  # first: it starts MPI

    # isort: split
    from mpi4py import MPI

    from eulerian import experiment
    from eulerian.config import read_config
    from eulerian.output.progress import Progress

    if options.degrees and not options.study:
        raise InputError("belongs to a study", key="--degrees", remedy="Add --study, or set density.degree.")
    comm = MPI.COMM_WORLD
    config = on_root(comm, lambda: read_config(options.config, options.set, output=options.output))
    plan = experiment.StudyPlan(degrees=tuple(options.degrees or (config.density.degree,))) if options.study else None
    document = experiment.run_compare(
        config,
        comm,
        theta=options.theta,
        study=plan,
        overwrite=options.overwrite,
        progress=Progress.of(comm, options.quiet),
    )
    return _told(options, document, comm.rank)


def _told(options: Options, document: Mapping[str, Any], rank: int) -> int:
    """The exit code of a run; why it failed is told on rank 0. Not collective."""
    if document["status"] != "failed":
        return 0
    if rank == 0:
        _complain(options, document["reason"])
    return 2


def _push(options: Options) -> int:
    """Collective."""
    from eulerian import experiment
    from eulerian.output.progress import Progress

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    columns = None if options.columns is None else tuple(_column(name) for name in options.columns.split(","))
    experiment.run_push(
        options.folder,
        options.samples,
        comm,
        columns=columns,
        label_column=None if options.label_column is None else _column(options.label_column),
        output=options.output,
        overwrite=options.overwrite,
        overrides=tuple(options.set),
        progress=Progress.of(comm, options.quiet),
    )
    return 0


def _column(name: str) -> str | int:
    """A column by its name, or by its number from 0."""
    return int(name) if name.strip().isdecimal() else name.strip()


def _sample(options: Options) -> int:
    """Collective."""
    from eulerian import experiment
    from eulerian.output.progress import Progress

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    experiment.run_sample(
        options.folder,
        options.n,
        comm,
        seed=options.seed,
        method=options.method,
        output=options.output,
        overwrite=options.overwrite,
        progress=Progress.of(comm, options.quiet),
    )
    return 0


def _mesh(options: Options) -> int:
    from eulerian.space.mesh_report import convert, inspect

    report = inspect(options.file)  # also where nothing is said: a wrong file is a wrong file
    if not options.quiet:
        print(report)
    if options.convert is not None:
        convert(options.file, options.convert, overwrite=options.overwrite)
        if not options.quiet:
            print(f"written to {options.convert}")
    return 0


def _plot(options: Options) -> int:
    """Collective with ``--animate``."""
    from eulerian.output.files import is_run

    given = {f"--{name}": getattr(options, name) for name in ("frames", "particles", "fps")}
    animated = {key: value for key, value in given.items() if value is not None}
    if options.serial and animated:
        raise InputError("belongs to an animation", key=next(iter(animated)), remedy="Add --animate.")
    if not is_run(options.folder):
        raise InputError("is no run folder", key=str(options.folder), remedy="It holds a result.json")
    if options.serial:
        return _tell_figures(options, _draw(options))
    from eulerian import experiment
    from eulerian.output.progress import Progress
    from eulerian.parallel import on_root

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    animation = experiment.run_animate(
        options.folder,
        comm,
        **{name: value for name in ("frames", "particles", "fps") if (value := getattr(options, name)) is not None},
        progress=Progress.of(comm, options.quiet),
    )
    figures = on_root(comm, lambda: _draw(options))
    return _tell_figures(options, [*figures, animation] if comm.rank == 0 else [])


def _draw(options: Options) -> list[Path]:
    from eulerian.output.plots import draw_run

    return draw_run(options.folder, options.format)


def _tell_figures(options: Options, figures: list[Path]) -> int:
    if options.serial and not figures:
        raise InputError("holds nothing to draw: neither snapshots nor a history", key=str(options.folder))
    if figures and not options.quiet:
        print("\n".join(str(figure) for figure in figures))
    return 0


def _doctor(options: Options) -> int:
    from eulerian.doctor import examine

    findings = examine()
    troubles = [finding for finding in findings if not finding.good]
    for finding in troubles if options.quiet else findings:
        print(finding)
    return 2 if troubles else 0


def _init(options: Options) -> int:
    from eulerian.templates import available, copy_template, suggested_command

    if options.list:
        print("\n".join(available()))
        return 0
    files = copy_template(options.template, options.directory, options.overwrite)
    if not options.quiet:
        print(f"written: {', '.join(str(file) for file in files)}")
        print(f"next:    eulerian {suggested_command(files[0])} {files[0]}")
    return 0


# -- errors ----------------------------------------------------------------------------------------------------------


def _alone(command: Command, options: Options) -> int:
    """Run a command of one process; under a launcher the other ranks have nothing to do."""
    if _launcher_rank() > 0:
        return 0
    try:
        code = command(options)
        sys.stdout.flush()
    except EulerianError as error:
        _complain(options, str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _complain(options, str(InputError(error.strerror or str(error), key=error.filename)))
        return InputError.exit_code
    except KeyboardInterrupt:
        _complain(options, "interrupted")
        return 2
    return code


def _together(command: Command, options: Options) -> int:
    """Run a collective command. An expected error is told once and gives the same exit code everywhere. Collective."""
    from eulerian import parallel  # noqa: F401 - starts MPI and PETSc in the right order

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    meeting = comm.Dup()
    try:
        return command(options)
    except EulerianError as error:
        together = _all_here(meeting)
        if comm.rank == 0 or not together:
            _complain(options, str(error))
        if not together:
            comm.Abort(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        if comm.rank == 0:
            _complain(options, "interrupted")
        if comm.size > 1:
            comm.Abort(2)
        return 2


def _all_here(meeting: "MPI.Comm") -> bool:
    """Whether every rank calls this within a while; if not, the others wait for this one somewhere else."""
    import time

    request = meeting.Ibarrier()
    deadline = time.monotonic() + _SECONDS_TO_MEET
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _complain(options: Options, text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"eulerian {options.name}: {text}\n")
    sys.stderr.flush()


def _launched() -> bool:
    return any(name in os.environ for name in _RANK_VARIABLES)


def _launcher_rank() -> int:
    """This process's rank as its launcher tells it; 0 without one."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0


# -- arguments -------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Wrong usage is wrong input: exit code 1. Under a launcher only rank 0 talks."""

    def error(self, message: str) -> Never:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if _launcher_rank() == 0:
            super()._print_message(message, file)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        version = import_module(__package__).__version__
        parser._print_message(f"eulerian {version}\n", sys.stdout)
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("eulerian", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=_Format)
    parser.allow_abbrev = False
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", dest="name", metavar="COMMAND", required=True)
    for name, text, example in (
        ("solve", "transport the density once, at the initial θ", "eulerian solve rotation.toml --output runs/turn"),
        ("train", "minimise J over θ", "eulerian train gaussian.toml --set objective.kinetic=0.1 --overwrite"),
        ("ideal", "minimise over all velocities: the best that any network could do", "eulerian ideal gaussian.toml"),
        ("verify", "check gradient, mass and positivity of the problem at the initial θ", "eulerian verify my.toml"),
    ):
        command = _add_run(commands, name, _compute, text, [example, f"mpirun -n 2 {example}"])
        if name in ("solve", "train"):
            help_ = "densities on the mesh, or particles drawn from them (see [particles]); default: densities"
            command.add_argument("--method", choices=("densities", "particles"), default="densities", help=help_)
    _add_compare(commands)
    _add_push(commands)
    _add_sample(commands)
    _add_mesh(commands)
    _add_plot(commands)
    _add(commands, "doctor", _doctor, "what works here, and what to do about the rest", ["eulerian doctor"])
    _add_init(commands)
    return parser


type _Commands = argparse._SubParsersAction[_Parser]


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


def _add_compare(commands: _Commands) -> None:
    examples = [
        "eulerian compare gaussian.toml --theta runs/gaussian/theta.npz --output runs/both",
        "eulerian compare gaussian.toml --set particles.sampling=sobol --output runs/both",
        "eulerian compare gaussian.toml --study --degrees 1 2 --output runs/study",
    ]
    command = _add_run(commands, "compare", _compare, "hold densities against particles at one θ", examples)
    help_ = "the parameters of a run, instead of the initial ones"
    command.add_argument("--theta", metavar="RUN/theta.npz", type=Path, help=help_)
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
    command = _add(commands, "push", _push, text, examples, serial=False)
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
    command = _add(commands, "sample", _sample, text, examples, serial=False)
    command.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    command.add_argument("-n", metavar="N", type=int, required=True, help="the number of points")
    command.add_argument("--seed", metavar="S", type=int, default=0, help="of the points, from 0; default: 0")
    command.add_argument("--method", choices=("random", "sobol"), default="random", help="default: random")
    help_ = "default: sampled.csv in the run folder"
    command.add_argument("--output", metavar="OUT.csv", type=Path, help=help_)
    command.add_argument("--overwrite", action="store_true", help="replace OUT.csv")


def _add_mesh(commands: _Commands) -> None:
    examples = ["eulerian mesh disk.msh", "eulerian mesh disk.msh --convert disk.vtu"]
    command = _add(commands, "mesh", _mesh, "what is in a mesh file; conversion to another format", examples)
    command.add_argument("file", metavar="FILE", type=Path, help="any file that meshio reads")
    command.add_argument("--convert", metavar="TARGET", type=Path, help="write it to a file of another format")
    command.add_argument("--overwrite", action="store_true", help="replace TARGET if it exists")


def _add_plot(commands: _Commands) -> None:
    examples = [
        "eulerian plot runs/gaussian",
        "eulerian plot runs/gaussian --format pdf",
        "eulerian plot runs/crowds --animate --frames 120 --fps 30",
        "mpirun -n 2 eulerian plot runs/crowds --animate",
    ]
    command = _add(commands, "plot", _plot, "draw the figures of a run again, or an animation of it", examples)
    command.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    help_ = "of the figures; pdf and svg are for papers; default: png"
    command.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help=help_)
    help_ = "also figures/animation.gif: densities, and particles that the same flow carries; solves forward again"
    # A forward solve is work for all ranks.
    command.add_argument("--animate", dest="serial", action="store_false", help=help_)
    command.add_argument("--frames", metavar="N", type=int, help="of the animation; default: 60")
    help_ = "in the animation; 0 for none; default: 300, on a line 60"
    command.add_argument("--particles", metavar="N", type=int, help=help_)
    command.add_argument("--fps", metavar="F", type=float, help="frames per second; default: 15")


def _add_init(commands: _Commands) -> None:
    examples = [
        "eulerian init --list",
        "eulerian init gaussian",
        "eulerian init transport",
        "eulerian init wine experiments/wine",
    ]
    command = _add(commands, "init", _init, "write a commented configuration to start from", examples)
    command.add_argument("template", metavar="TEMPLATE", nargs="?", default="gaussian", help="default: gaussian")
    command.add_argument("directory", metavar="DIRECTORY", nargs="?", type=Path, default=Path(), help="default: here")
    command.add_argument("--list", action="store_true", help="print the names of the templates and exit")
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
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


class _Format(argparse.RawDescriptionHelpFormatter):
    """Examples keep their lines; the help column is wide enough for the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)
