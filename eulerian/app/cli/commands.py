"""What the commands do. Nothing heavy is imported before a command runs."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerian.app.cli.launch import Options, complain
from eulerian.base.errors import FigureError, InputError, collected_warnings, explained

if TYPE_CHECKING:
    from mpi4py import MPI

    from eulerian.app.config import Config
    from eulerian.app.runs.progress import Progress


def compute(options: Options) -> int:
    """solve, train, ideal or verify. Collective."""
    if options.name == "verify" and (options.run is None) == (options.config is None):
        raise InputError("needs either a configuration or --run RUN", key="verify", remedy="Give one of the two.")
    if options.name == "verify" and options.run is not None:
        return _verify_run(options)

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    config = _config(options, comm)
    on_particles = getattr(options, "method", None) == "particles"
    from eulerian.app import tasks

    run = getattr(tasks, f"run_{options.name}{'_particles' if on_particles else ''}")
    progress = _progress(options, comm)
    given = {name: getattr(options, name, None) for name in ("resume", "restart", "at", "theta")}
    more = {name: value for name, value in given.items() if value is not None and value is not False}
    going_on = [name for name in more if name != "theta"]
    if on_particles and options.name == "solve" and going_on:
        raise InputError("particles keep nothing on their way to go on from", key=f"--{going_on[0]}")
    document: Mapping[str, Any] = run(config, comm, overwrite=options.overwrite, progress=progress, **more)
    return _told(options, document, comm.rank)


def _verify_run(options: Options) -> int:
    """Collective."""
    from eulerian.app import tasks

    # isort: split
    from mpi4py import MPI

    for name in ("theta", "output", "set", "overwrite"):
        if getattr(options, name):
            remedy = "The run's own flow is verified, in its own folder."
            raise InputError("does not go with --run", key=f"--{name}", remedy=remedy)
    comm = MPI.COMM_WORLD
    tasks.run_verify_run(options.run, comm, python=options.python, progress=_progress(options, comm))
    return 0


def compare(options: Options) -> int:
    """Collective."""
    from eulerian.app import tasks

    # isort: split
    from mpi4py import MPI

    if options.degrees and not options.study:
        raise InputError("belongs to a study", key="--degrees", remedy="Add --study, or set density.degree.")
    comm = MPI.COMM_WORLD
    config = _config(options, comm)
    plan = tasks.StudyPlan(degrees=tuple(options.degrees or (config.density.degree,))) if options.study else None
    document = tasks.run_compare(
        config,
        comm,
        theta=options.theta,
        study=plan,
        overwrite=options.overwrite,
        progress=_progress(options, comm),
    )
    return _told(options, document, comm.rank)


def _config(options: Options, comm: "MPI.Comm") -> "Config":
    """The configuration that the command line names, read on rank 0. Collective."""
    from eulerian.app.config import read_config
    from eulerian.base.parallel import on_root

    def read() -> "Config":
        return read_config(options.config, options.set, output=options.output, python=options.python)

    return on_root(comm, read)


def _progress(options: Options, comm: "MPI.Comm") -> "Progress":
    """Where messages go; told much, iterations keep lines of their own. Not collective."""
    from eulerian.app.runs.progress import Progress

    progress = Progress.of(comm, options.quiet)
    return replace(progress, terminal=False) if options.verbose else progress


def _told(options: Options, document: Mapping[str, Any], rank: int) -> int:
    """The exit code of a run; why it failed is told on rank 0. Not collective."""
    if options.verbose and rank == 0:
        print(_details(document))
    if document["status"] not in ("failed", "interrupted"):
        return 0
    if rank == 0:
        complain(options, document["reason"])
    return 2


def _details(document: Mapping[str, Any]) -> str:
    """What a run took, of whom asks for more words."""
    seconds = ", ".join(f"{name} {time:.3g} s" for name, time in document["seconds"].items() if time is not None)
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"time: {seconds}",
        f"evaluations of J: {document['evaluations']}, rejected: {document['rejected_evaluations']}",
    ]
    if sys.platform == "linux":
        import resource

        lines.append(
            f"memory of rank 0 at its peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
        )
    return "\n".join([*lines, f"versions: {versions}"])


def push(options: Options) -> int:
    """Collective."""
    from eulerian.app import tasks

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    columns = None if options.columns is None else tuple(_column(name) for name in options.columns.split(","))
    tasks.run_push(
        options.folder,
        options.samples,
        comm,
        columns=columns,
        label_column=None if options.label_column is None else _column(options.label_column),
        output=options.output,
        overwrite=options.overwrite,
        overrides=tuple(options.set),
        python=options.python,
        progress=_progress(options, comm),
    )
    return 0


def _column(name: str) -> str | int:
    """A column by its name, or by its number from 0."""
    return int(name) if name.strip().isdecimal() else name.strip()


def sample(options: Options) -> int:
    """Collective."""
    from eulerian.app import tasks

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    tasks.run_sample(
        options.folder,
        options.n,
        comm,
        seed=options.seed,
        method=options.method,
        python=options.python,
        output=options.output,
        overwrite=options.overwrite,
        progress=_progress(options, comm),
    )
    return 0


def mesh(options: Options) -> int:
    """What is in a mesh file; conversion."""
    from eulerian.mesh.report import convert, inspect

    report = inspect(options.file)  # also where nothing is said: a wrong file is a wrong file
    if not options.quiet:
        print(report)
    if options.convert is not None:
        with collected_warnings(lambda text: print(f"Warning: {text}")):
            convert(options.file, options.convert, overwrite=options.overwrite)
        if not options.quiet:
            print(f"written to {options.convert}")
    return 0


def plot(options: Options) -> int:
    """Collective with ``--animate`` or ``--exact``."""
    from eulerian.app.runs.files import is_run

    given = {name: value for name in ("frames", "particles", "fps") if (value := getattr(options, name)) is not None}
    if not options.animate and given:
        raise InputError("belongs to an animation", key=f"--{next(iter(given))}", remedy="Add --animate.")
    if not is_run(options.folder):
        raise InputError("is no run folder", key=str(options.folder), remedy="It holds a result.json")
    failures: list[FigureError] = []
    if options.serial:
        return _tell_figures(options, _drawn(lambda: _draw(options), failures), failures)
    from eulerian.app import tasks
    from eulerian.base.parallel import on_root

    # isort: split
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    more = {**given, "python": options.python, "progress": _progress(options, comm)}
    if options.exact:
        tasks.keep_exact_densities(options.folder, comm, python=options.python)
    animation: list[Path] = []
    if options.animate:
        animation = _drawn(lambda: [tasks.run_animate(options.folder, comm, **more)], failures)
    figures = _drawn(lambda: on_root(comm, lambda: _draw(options)), failures)
    return _tell_figures(options, [*figures, *animation], failures, comm.rank)


def _drawn(draw: Callable[[], list[Path]], failures: list[FigureError]) -> list[Path]:
    """The files that were drawn; a figure that fails does not hide the others."""
    try:
        return draw()
    except FigureError as error:
        failures.append(error)
        return error.drawn


def _draw(options: Options) -> list[Path]:
    try:
        from eulerian.app.figures.draw import draw_run
    except Exception as error:
        raise FigureError([], [f"no figure could be drawn: {explained(error)}"]) from error
    return draw_run(options.folder, options.format)


def _tell_figures(options: Options, figures: list[Path], failures: list[FigureError], rank: int = 0) -> int:
    """The exit code; which figures there are, and which there are not, is told on rank 0. Not collective."""
    if options.serial and not figures and not failures:
        what, remedy = "holds nothing to draw: neither snapshots nor a history", "Let a run end that has figures."
        raise InputError(what, key=str(options.folder), remedy=remedy)
    if rank == 0:
        if figures and not options.quiet:
            print("\n".join(str(figure) for figure in figures))
        for text in (text for failure in failures for text in failure.failures):
            complain(options, text)
    return max((failure.exit_code for failure in failures), default=0)


def doctor(options: Options) -> int:
    """What works here, and whether a configuration does."""
    from eulerian.app.doctor.machine import examine

    findings = examine()
    if options.config is not None and all(finding.good or finding.subject == "MPI launcher" for finding in findings):
        from eulerian.app.doctor.configuration import examine_config

        findings += examine_config(options.config)
    troubles = [finding for finding in findings if not finding.good]
    for finding in troubles if options.quiet else findings:
        print(finding)
    return 2 if troubles else 0


def init(options: Options) -> int:
    """A template's files."""
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
