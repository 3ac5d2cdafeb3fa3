"""What the commands do. Nothing heavy is imported before a command runs."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from eulerian.cli.launch import Options, complain
from eulerian.errors import InputError


def compute(options: Options) -> int:
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
    run = getattr(experiment, f"run_{options.name}{'_particles' if on_particles else ''}")
    progress = Progress.of(comm, options.quiet)
    if getattr(options, "resume", False):
        if options.overwrite:
            raise InputError("goes on with the run that --overwrite would replace", key="--resume", remedy="Drop one.")
        run = partial(run, resume=True)
    document: Mapping[str, Any] = run(config, comm, overwrite=options.overwrite, progress=progress)
    return _told(options, document, comm.rank)


def compare(options: Options) -> int:
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
    animation = experiment.run_animate(options.folder, comm, **given, progress=Progress.of(comm, options.quiet))
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


def doctor(options: Options) -> int:
    """What works here."""
    from eulerian.doctor import examine

    findings = examine()
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
