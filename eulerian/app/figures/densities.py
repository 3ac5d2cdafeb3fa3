"""Densities of a run at a few times, of its mesh and along characteristics, in one and two dimensions."""

from pathlib import Path

from matplotlib.figure import Figure

from eulerian.app.figures.densities_1d import density_curves
from eulerian.app.figures.densities_2d import density_maps
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.figures.style import page_width
from eulerian.app.runs.files import EXACT, FIGURES, SNAPSHOTS, TARGETS
from eulerian.app.runs.snapshots import FIGURE_TIMES, ExactDensities, Snapshots
from eulerian.app.runs.targets import Targets

_FILE, _EXACT_FILE = f"{FIGURES}/{SNAPSHOTS}", f"{FIGURES}/{EXACT}"


def _draw(folder: Path, exact: ExactDensities | None = None) -> Figure:
    snapshots = Snapshots.load(folder / _FILE).thinned(FIGURE_TIMES)
    targets = Targets.load_if_there(folder / FIGURES / TARGETS)
    if snapshots.dim == 1:
        return density_curves(snapshots, targets, exact)
    return density_maps(snapshots, page_width(), targets, exact)


DENSITIES_FIGURE = RunFigure("densities", (_FILE,), _draw)
EXACT_DENSITIES_FIGURE = RunFigure(
    "densities_exact", (_FILE, _EXACT_FILE), lambda folder: _draw(folder, ExactDensities.load(folder / _EXACT_FILE))
)
