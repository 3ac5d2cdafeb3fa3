"""Draws the figures of a run folder: which of them there are, their files, and what becomes of one that fails."""

import io
from collections.abc import Collection
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from eulerian.app.figures import ALL
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.figures.style import Kind, drawing, page_width, why
from eulerian.app.runs.files import FIGURES, write_atomically
from eulerian.base.errors import FigureError, InputError


def draw_run(folder: Path, kind: Kind = "png", only: Collection[str] = (), without: Collection[str] = ()) -> list[Path]:
    """Draw every figure that a run folder holds the data of; the files written. Not collective: for one rank.

    A ``pdf`` or ``svg`` is for a paper: at most as wide as a page of text, 8 pt letters, fonts embedded, and densities
    as pictures inside of axes that are lines and letters. ``only`` figures of these names are drawn, if there are any,
    and none of those ``without``.

    Raises:
        FigureError: some could not be drawn, perhaps because their data are damaged; all others are there.
        ComputationError: a file could not be written.
    """
    drawn: list[Path] = []
    failures: list[str] = []
    code = InputError.exit_code
    with drawing(kind):
        for figure in (figure for figure in ALL if figure.can_draw(folder)):
            if figure.name in without or (only and figure.name not in only):
                continue
            path = folder / FIGURES / f"{figure.name}.{kind}"
            try:
                picture = _picture(figure, folder, kind)
            except Exception as error:  # noqa: BLE001 - it may come from any library, and is no reason to lose others
                failures.append(f"{path} could not be drawn: {why(error)}")
                code = code if isinstance(error, InputError) else FigureError.exit_code
                continue
            if picture:
                _write(path, picture)
                drawn.append(path)
    if failures:
        raise FigureError(drawn, failures, code)
    return drawn


def _picture(wanted: RunFigure, folder: Path, kind: Kind) -> bytes:
    """A figure as the bytes of its file; none where there is nothing to see."""
    figure = wanted.draw(folder)
    if figure is None:
        return b""
    metadata: dict[str, str | None] = {}
    cut: Bbox | None = None  # for Matplotlib to find out
    page = page_width()
    if page is not None:
        width, height = figure.get_size_inches()
        factor = min(1.0, page / width)
        figure.set_size_inches(width * factor, height * factor**0.5)  # letters do not shrink
        metadata = {"CreationDate" if kind == "pdf" else "Date": None}
    if figure.get_layout_engine() is None:
        cut = _cropped(figure)
    # Not into the file at once: what fails here fails to be drawn, what fails there is the disk.
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, metadata=metadata, bbox_inches=cut)
    return picture.getvalue()


def _write(path: Path, picture: bytes) -> None:
    write_atomically(path, lambda file: file.write(picture))


def _cropped(figure: Figure) -> Bbox:
    """What a figure without a layout engine shows, in inches; Matplotlib itself would draw it once more to see that."""
    figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
    shown = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]
    return shown.padded(matplotlib.rcParams["savefig.pad_inches"])
