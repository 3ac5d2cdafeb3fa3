"""``eulerian plot``."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

from eulerian.app.commands.command import Command, Options, print_error, progress_of
from eulerian.base.errors import FigureError, InputError


class _Together(argparse.Action):
    """An option that makes a command work for all ranks."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **more)

    def __call__(self, _: object, namespace: argparse.Namespace, *__: object) -> None:
        setattr(namespace, self.dest, True)
        namespace.serial = False


@final
class Plot(Command):
    """The figures of a run again, and an animation of it."""

    name = "plot"
    help = "draw the figures of a run again, or an animation of it"
    examples = (
        "eulerian plot runs/gaussian",
        "eulerian plot runs/gaussian --format pdf",
        "eulerian plot runs/crowds --animate --frames 120 --fps 30",
        "eulerian plot runs/gaussian --exact",
        "mpirun -n 2 eulerian plot runs/crowds --animate",
    )
    serial = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See ``Command``."""
        parser.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
        help_ = "of the figures; pdf and svg are for papers; default: png"
        parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help=help_)
        help_ = "also figures/animation.gif: densities, and particles that the same flow carries; solves forward again"
        parser.add_argument("--animate", action=_Together, help=help_)
        help_ = "also figures/densities_exact: densities along the flow's characteristics, which no mesh has smeared"
        parser.add_argument("--exact", action=_Together, help=help_)
        parser.add_argument("--frames", metavar="N", type=int, help="of the animation; default: 60")
        help_ = "in the animation; 0 for none; default: 300, on a line 60"
        parser.add_argument("--particles", metavar="N", type=int, help=help_)
        parser.add_argument("--fps", metavar="F", type=float, help="frames per second; default: 15")

    def run(self, options: Options) -> int:
        """See ``Command``; collective with ``--animate`` or ``--exact``."""
        from eulerian.app.runs.files import SWEEP, is_run

        names = ("frames", "particles", "fps")
        film = {name: value for name in names if (value := getattr(options, name)) is not None}
        if not options.animate and film:
            raise InputError("belongs to an animation", key=f"--{next(iter(film))}", remedy="Add --animate.")
        sweep = options.serial and (options.folder / SWEEP).is_file()
        if not sweep and not is_run(options.folder):
            raise InputError("is no run folder", key=str(options.folder), remedy="It holds a result.json")
        return _draw_alone(options) if options.serial else self._draw_together(options, film)

    def _draw_together(self, options: Options, film: dict[str, Any]) -> int:
        """Collective."""
        from mpi4py import MPI

        from eulerian.app import tasks
        from eulerian.base.parallel import on_root

        comm, folder, python = MPI.COMM_WORLD, options.folder, options.python
        if options.exact:
            tasks.save_exact_densities(folder, comm, python=python)
        failures: list[FigureError] = []
        animation: list[Path] = []
        if options.animate:
            more = {**film, "python": python, "progress": progress_of(options, comm)}
            animation = _drawn(lambda: [tasks.run_animate(folder, comm, **more)], failures)
        figures = _drawn(lambda: on_root(comm, lambda: tasks.draw_run(folder, options.format)), failures)
        return _report(options, [*figures, *animation], failures) if comm.rank == 0 else _exit_code(failures)


def _draw_alone(options: Options) -> int:
    from eulerian.app import tasks

    failures: list[FigureError] = []
    figures = _drawn(lambda: tasks.draw_run(options.folder, options.format), failures)
    if not figures and not failures:
        what, remedy = "holds nothing to draw: neither snapshots nor a history", "Let a run end that has figures."
        raise InputError(what, key=str(options.folder), remedy=remedy)
    return _report(options, figures, failures)


def _drawn(draw: Callable[[], list[Path]], failures: list[FigureError]) -> list[Path]:
    """The files that were drawn; a figure that fails does not hide the others."""
    try:
        return draw()
    except FigureError as error:
        failures.append(error)
        return error.drawn


def _report(options: Options, figures: list[Path], failures: list[FigureError]) -> int:
    """Print the figures that were drawn, and errors for the others; the exit code."""
    if figures and not options.quiet:
        print("\n".join(str(figure) for figure in figures))
    for text in (text for failure in failures for text in failure.failures):
        print_error(options, text)
    return _exit_code(failures)


def _exit_code(failures: list[FigureError]) -> int:
    return max((failure.exit_code for failure in failures), default=0)
