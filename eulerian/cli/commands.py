"""What the commands do. Nothing heavy is imported before a command runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerian.cli.launch import Options, complain
from eulerian.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.config import Config


def compute(options: Options) -> int:
    """solve, train, ideal or verify. Collective."""
    from eulerian import experiment
    from eulerian.output.progress import Progress

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    config = _config(options, comm)
    on_particles = getattr(options, "method", None) == "particles"
    run = getattr(experiment, f"run_{options.name}{'_particles' if on_particles else ''}")
    progress = Progress.of(comm, options.quiet)
    given = {name: getattr(options, name, None) for name in ("resume", "restart", "at", "theta")}
    more = {name: value for name, value in given.items() if value is not None and value is not False}
    going_on = [name for name in more if name != "theta"]
    if on_particles and options.name == "solve" and going_on:
        raise InputError("particles keep nothing on their way to go on from", key=f"--{going_on[0]}")
    document: Mapping[str, Any] = run(config, comm, overwrite=options.overwrite, progress=progress, **more)
    return _told(options, document, comm.rank)


def compare(options: Options) -> int:
    """Collective."""
    from eulerian import experiment
    from eulerian.output.progress import Progress

    # isort: split
    from mpi4py import MPI

    if options.degrees and not options.study:
        raise InputError("belongs to a study", key="--degrees", remedy="Add --study, or set density.degree.")
    comm = MPI.COMM_WORLD
    config = _config(options, comm)
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


def _config(options: Options, comm: "MPI.Comm") -> "Config":
    """The configuration that the command line names, read on rank 0. Collective."""
    from eulerian.config import read_config
    from eulerian.parallel import on_root

    def read() -> "Config":
        return read_config(options.config, options.set, output=options.output, python=options.python)

    return on_root(comm, read)


def _told(options: Options, document: Mapping[str, Any], rank: int) -> int:
    """The exit code of a run; why it failed is told on rank 0. Not collective."""
    if document["status"] not in ("failed", "interrupted"):
        return 0
    if rank == 0:
        complain(options, document["reason"])
    return 2


def push(options: Options) -> int:
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
        python=options.python,
        progress=Progress.of(comm, options.quiet),
    )
    return 0


def _column(name: str) -> str | int:
    """A column by its name, or by its number from 0."""
    return int(name) if name.strip().isdecimal() else name.strip()


def sample(options: Options) -> int:
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
        python=options.python,
        output=options.output,
        overwrite=options.overwrite,
        progress=Progress.of(comm, options.quiet),
    )
    return 0


def mesh(options: Options) -> int:
    """What is in a mesh file; conversion."""
    from eulerian.space.mesh_report import convert, inspect

    report = inspect(options.file)  # also where nothing is said: a wrong file is a wrong file
    if not options.quiet:
        print(report)
    if options.convert is not None:
        convert(options.file, options.convert, overwrite=options.overwrite)
        if not options.quiet:
            print(f"written to {options.convert}")
    return 0


def plot(options: Options) -> int:
    """Collective with ``--animate``."""
    from eulerian.output.files import is_run

    given = {name: value for name in ("frames", "particles", "fps") if (value := getattr(options, name)) is not None}
    if options.serial and given:
        raise InputError("belongs to an animation", key=f"--{next(iter(given))}", remedy="Add --animate.")
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
    progress = Progress.of(comm, options.quiet)
    animation = experiment.run_animate(options.folder, comm, **given, python=options.python, progress=progress)
    figures = on_root(comm, lambda: _draw(options))
    return _tell_figures(options, [*figures, animation] if comm.rank == 0 else [])


def _draw(options: Options) -> list[Path]:
    from eulerian.output.plots import draw_run

    return draw_run(options.folder, options.format)


def _tell_figures(options: Options, figures: list[Path]) -> int:
    if options.serial and not figures:
        what, remedy = "holds nothing to draw: neither snapshots nor a history", "Let a run end that has figures."
        raise InputError(what, key=str(options.folder), remedy=remedy)
    if figures and not options.quiet:
        print("\n".join(str(figure) for figure in figures))
    return 0


def doctor(options: Options) -> int:
    """What works here, and whether a configuration does."""
    from eulerian.doctor import examine

    findings = examine()
    if options.config is not None and all(finding.good or finding.subject == "MPI launcher" for finding in findings):
        from eulerian.doctor_config import examine_config

        findings += examine_config(options.config)
    troubles = [finding for finding in findings if not finding.good]
    for finding in troubles if options.quiet else findings:
        print(finding)
    return 2 if troubles else 0


def init(options: Options) -> int:
    """A template's files."""
    from eulerian.templates import available, copy_template, suggested_command

    if options.list:
        print("\n".join(available()))
        return 0
    files = copy_template(options.template, options.directory, options.overwrite)
    if not options.quiet:
        print(f"written: {', '.join(str(file) for file in files)}")
        print(f"next:    eulerian {suggested_command(files[0])} {files[0]}")
    return 0
