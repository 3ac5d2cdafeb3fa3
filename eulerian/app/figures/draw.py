"""Figures of a run, drawn from what its folder holds: densities over time, paths, how the minimisation went."""

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from eulerian.app.figures.boundary import contact_figure
from eulerian.app.figures.classification import class_figure
from eulerian.app.figures.comparison import pair_curves, pair_maps, part_errors
from eulerian.app.figures.densities_1d import density_curves
from eulerian.app.figures.densities_2d import density_maps
from eulerian.app.figures.densities_3d import sight_maps
from eulerian.app.figures.history import Yardsticks, history_curves
from eulerian.app.figures.ideal import gap_curves, load_paths, trajectory_lines, trajectory_map
from eulerian.app.figures.particles import particle_figure
from eulerian.app.figures.study import frontier
from eulerian.app.figures.style import Kind, drawing, why
from eulerian.app.runs.boundary_mass import BoundaryMass
from eulerian.app.runs.class_regions import ClassRegions, LabelledPoints
from eulerian.app.runs.columns import read_columns
from eulerian.app.runs.comparison import ComparisonData
from eulerian.app.runs.exact_densities import ExactDensities
from eulerian.app.runs.files import (
    BOUNDARY,
    CLASSES,
    EXACT,
    FIGURES,
    GAP,
    GAP_COLUMNS,
    HISTORY,
    HISTORY_COLUMNS,
    LATER_COLUMNS,
    METHOD_PAIR,
    PARTICLES,
    PUSHED_POINTS,
    RESULT,
    SIGHTS,
    SNAPSHOTS,
    STUDY,
    TARGETS,
    TRAJECTORIES,
    write_atomically,
)
from eulerian.app.runs.particles import ParticlePaths
from eulerian.app.runs.projections import Projections
from eulerian.app.runs.snapshots import FIGURE_TIMES, Snapshots
from eulerian.app.runs.study_table import read_study
from eulerian.app.runs.targets import Targets
from eulerian.base.errors import FigureError, InputError

_PAGE = 6.2  # inches, of figures for a paper


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
        for name, figure in _figures(folder, kind):
            if name in without or (only and name not in only):
                continue
            path = folder / FIGURES / f"{name}.{kind}"
            try:
                picture = _picture(figure, kind)
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


type _Draw = Callable[[], Figure | None]


def _figures(folder: Path, kind: Kind) -> Iterator[tuple[str, _Draw]]:
    """Names of figures that there are data of, and what draws them; None where there is nothing to see."""
    data = folder / FIGURES
    if (data / SNAPSHOTS).is_file():
        snapshots = cache(lambda: Snapshots.load(data / SNAPSHOTS))
        yield "densities", lambda: _densities(snapshots(), data, kind)
        if (data / EXACT).is_file():
            yield "densities_exact", lambda: _densities(snapshots(), data, kind, ExactDensities.load(data / EXACT))
        if (data / TRAJECTORIES).is_file():
            yield "trajectories", lambda: _trajectories(snapshots(), data / TRAJECTORIES)
    if (data / SIGHTS).is_file():
        yield "densities", lambda: sight_maps(Projections.load(data / SIGHTS), _targets(data))
    if (data / PARTICLES).is_file():
        yield "particles", lambda: particle_figure(ParticlePaths.load(data / PARTICLES))
    if (data / METHOD_PAIR).is_file():
        pair = cache(lambda: ComparisonData.load(data / METHOD_PAIR))
        yield "compare", lambda: _pair(pair())
        yield "parts", lambda: part_errors(pair())
    if (data / BOUNDARY).is_file():
        yield "boundary", lambda: contact_figure(BoundaryMass.load(data / BOUNDARY))
    if (data / CLASSES).is_file():
        yield "classification", lambda: _classification(data)
    if (folder / STUDY).is_file():
        yield "study", lambda: frontier(read_study(folder / STUDY))
    yield "history", lambda: _history(folder)
    yield "gap", lambda: _gap(folder / GAP)


def _densities(snapshots: Snapshots, data: Path, kind: Kind, exact: ExactDensities | None = None) -> Figure:
    few = snapshots.thinned(FIGURE_TIMES)
    targets = _targets(data)
    if _on_line(few):
        return density_curves(few, targets, exact)
    return density_maps(few, None if kind == "png" else _PAGE, targets, exact)


def _classification(data: Path) -> Figure:
    snapshots = Snapshots.load(data / SNAPSHOTS) if (data / SNAPSHOTS).is_file() else None
    pushed = LabelledPoints.load(data / PUSHED_POINTS) if (data / PUSHED_POINTS).is_file() else None
    return class_figure(ClassRegions.load(data / CLASSES), snapshots, pushed)


def _targets(data: Path) -> Targets | None:
    return Targets.load(data / TARGETS) if (data / TARGETS).is_file() else None


def _trajectories(snapshots: Snapshots, path: Path) -> Figure:
    draw = trajectory_lines if _on_line(snapshots) else trajectory_map
    return draw(snapshots, load_paths(path))


def _on_line(snapshots: Snapshots) -> bool:
    return bool(snapshots.points.shape[2] == 1)


def _pair(pair: ComparisonData) -> Figure | None:
    """There is no picture of densities in three dimensions."""
    draw = {1: pair_curves, 2: pair_maps}.get(pair.x.shape[1])
    return None if draw is None else draw(pair)


def _history(folder: Path) -> Figure | None:
    rows = read_columns(folder / HISTORY, HISTORY_COLUMNS, "history", absent=LATER_COLUMNS)
    return history_curves(rows, Yardsticks.of(_result(folder))) if len(rows["total"]) > 0 else None


def _result(folder: Path) -> Mapping[str, Any]:
    """The run's result; nothing where there is none yet, or none that can be read."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def _gap(path: Path) -> Figure | None:
    rows = read_columns(path, GAP_COLUMNS, "gap")
    return gap_curves(rows) if len(rows["primal"]) > 0 else None


def _picture(draw: _Draw, kind: Kind) -> bytes:
    """A figure as the bytes of its file; none where there is nothing to see."""
    figure = draw()
    if figure is None:
        return b""
    metadata: dict[str, str | None] = {}
    cut: Bbox | None = None  # for Matplotlib to find out
    if kind != "png":
        width, height = figure.get_size_inches()
        factor = min(1.0, _PAGE / width)
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
