"""3-D: densities at a few times, integrated along z and along y; labels in one picture, each with its colour."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eulerian.app.figures.colours import DENSITY, DensityScale, density_colours, label_colours
from eulerian.app.figures.labels import time_title
from eulerian.app.figures.maps import MARGIN, MapPanels, draw_picture, frame_map, write_in_corner
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.figures.style import page_width
from eulerian.app.runs.files import FIGURES, PROJECTIONS, TARGETS
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.projections import Projections
from eulerian.app.runs.targets import Targets
from eulerian.base.arrays import Floats

_SIDE = 2.0  # inches, the longer side of a panel
_FAINT = 3e-3  # where integrals stay below this fraction of their maximum pictures end


def _draw(folder: Path) -> Figure:
    targets = Targets.load_if_there(folder / FIGURES / TARGETS)
    return projection_maps(Projections.load(folder / FIGURES / PROJECTIONS), targets)


PROJECTIONS_FIGURE = RunFigure("densities", (f"{FIGURES}/{PROJECTIONS}",), _draw)


def projection_maps(found: Projections, targets: Targets | None = None) -> Figure:
    """One column per time, with targets at the last; above the integrals along z, below those along y."""
    n_labels, n_times = found.above.shape[3], len(found.times)
    lower, upper = _visible_box(found)
    sizes = (upper - lower) / (upper - lower).max() * _SIDE
    panels = MapPanels.of(float(sizes[0]), [float(max(sizes[1], sizes[2]))] * 2, n_times, share_y="row")
    highest = [density.sum(axis=3).max(axis=(1, 2)) for density in (found.above, found.side)]
    scale = DensityScale.of(np.stack(highest, axis=1)[:, None])
    rows = ((found.above, found.above_inside, [0, 1]), (found.side, found.side_inside, [0, 2]))
    for row, (density, inside, axes) in enumerate(rows):
        domain = Box(found.lower[axes], found.upper[axes])
        for i, panel in enumerate(panels.axes[row]):
            colours = density_colours(density[i] / scale.peaks[i, row])
            draw_picture(panel, domain, colours, inside, interpolation="bilinear")
            frame_map(panel, ticks=4 if page_width() is None else 2)  # five columns on a page leave room for few
            panel.set(xlim=(lower[axes[0]], upper[axes[0]]), ylim=(lower[axes[1]], upper[axes[1]]))
            write_in_corner(panel, scale.remark(i, row).replace(r"\max\rho", r"\max"))
        if targets is not None:
            _mark_targets(panels.axes[row, -1], targets.points[:, axes], n_labels)
    panels.name_axes(["along $z$\n$y$", "along $y$\n$z$"], [time_title(t) for t in found.times])
    grey = LinearSegmentedColormap.from_list("total", ["white", "0.35"])
    title = r"$\int\rho$ along a line, mass per area" if scale.common else "share of each panel's maximum"
    panels.add_colour_bar(ScalarMappable(scale.bar_norm, DENSITY if n_labels == 1 else grey), title)
    if n_labels > 1:
        handles = [Patch(color=colour, lw=0, label=f"label {k}") for k, colour in enumerate(label_colours(n_labels))]
        panels.figure.legend(handles=handles, loc="lower left", ncols=min(n_labels, 6), handlelength=1.0)
    return panels.figure


def _mark_targets(panel: Axes, points: Floats, n_labels: int) -> None:
    """Crosses in the colours of their labels, or black where all labels have one target."""
    colours = ["black"] if len(points) == 1 else label_colours(n_labels)[: len(points)]
    panel.scatter(points[:, 0], points[:, 1], marker="x", s=28, c=colours, linewidths=1.3, zorder=4)


def _visible_box(found: Projections) -> tuple[Floats, Floats]:
    """The part of the box that has mass at some time, with a margin."""
    lower, upper = found.lower.copy(), found.upper.copy()
    for axis, density, along in ((0, found.above, 1), (1, found.above, 2), (2, found.side, 2)):
        total = density.sum(axis=3)
        relative = total / np.maximum(total.max(axis=(1, 2), keepdims=True), 1e-300)
        filled = np.flatnonzero((relative > _FAINT).any(axis=(0, 3 - along)))
        if len(filled):
            size = (found.upper[axis] - found.lower[axis]) / total.shape[along]
            margin = MARGIN * float((found.upper - found.lower).max())
            lower[axis] = max(found.lower[axis], found.lower[axis] + filled[0] * size - margin)
            upper[axis] = min(found.upper[axis], found.lower[axis] + (filled[-1] + 1) * size + margin)
    return lower, upper
