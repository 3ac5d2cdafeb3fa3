"""Figures of a run folder, where Matplotlib may not load and some figures may fail."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eulerian.app.runs.folder import RunFolder
from eulerian.base.errors import EulerianError, FigureError, explained
from eulerian.base.parallel import on_root, warn

if TYPE_CHECKING:
    from eulerian.app.figures.style import Kind


@contextmanager
def drawing(failure: str) -> Iterator[None]:
    """Whatever goes wrong while Matplotlib is loaded, or draws, is a ``FigureError`` that begins with ``failure``."""
    try:
        yield
    except EulerianError:
        raise
    except Exception as error:
        raise FigureError([], [f"{failure}: {' '.join(explained(error).split())}"]) from error


def draw_run(
    folder: Path, kind: "Kind" = "png", only: Collection[str] = (), without: Collection[str] = ()
) -> list[Path]:
    """Draw the figures that a run folder holds the data of; the files written. Not collective: for one rank.

    Args:
        folder: of the run.
        kind: format of the files.
        only: names of figures; all by default.
        without: names of figures that are left out.

    Raises:
        FigureError: some could not be drawn; all others are there.
        ComputationError: a file could not be written.
    """
    with drawing("no figure could be drawn"):
        from eulerian.app.figures.draw import draw_run as draw  # Matplotlib is slow to load
    return draw(folder, kind, only, without)


def draw_figures(run: RunFolder, only: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Draw the figures of a run, if they are wanted; one that fails is a warning. **Collective**.

    Arguments and errors as for ``draw_run``.
    """
    if not run.figures:
        return

    for text in on_root(run.comm, lambda: _failures_of_drawing(run.path, only, without)):
        warn(run.comm, f"{text}. The run itself is complete; `eulerian plot {run.path}` draws it again")


def _failures_of_drawing(folder: Path, only: Collection[str], without: Collection[str]) -> list[str]:
    """Draw figures. Returns what could not be drawn, and why."""
    try:
        draw_run(folder, only=only, without=without)
    except FigureError as error:
        return error.failures
    return []
