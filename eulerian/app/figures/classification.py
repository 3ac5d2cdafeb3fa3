"""Classification: where points have to start to be taken for a class, and confusion matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eulerian.analysis.classification import Classification
from eulerian.app.figures.density_scale import DENSITY_COLOURS
from eulerian.app.figures.label_colours import label_colours, label_title
from eulerian.app.figures.map_window import MARGIN, WALL, shown, visible_window
from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.class_regions import ClassRegions, LabelledPoints
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats

_PALE = 0.3  # strength of the colours of regions
_SHOWN = 1500  # points of a kind that are drawn
_MANY = 7  # labels whose matrix still has numbers in its cells


def class_figure(classes: ClassRegions, snapshots: Snapshots | None, pushed: LabelledPoints | None) -> Figure:
    """A map of regions with points on it, in two dimensions, and matrices of masses and of points.

    Args:
        classes: what is drawn.
        snapshots: of the densities, for the domain and the part of it that is shown.
        pushed: points that were not trained on, or None.
    """
    count = len(classes.names)
    matrices = [(Classification(classes.mass, classes.mass.sum(axis=1)), r"mass of $\rho(T)$", True)]
    for points, name in ((classes.points, r"samples of $\rho_0$"), (pushed, "pushed points")):
        if points is not None and len(points.x):
            found = points.confusion(count)
            matrices.append((found, f"{name}: {100.0 * found.accuracy:.1f} % of {found.total.sum():.0f}", False))
    with_map = classes.regions.size > 0 and snapshots is not None
    widths = [1.3] * with_map + [1.0] * len(matrices)
    figure = Figure(figsize=(2.9 * sum(widths), 3.2), layout="constrained")
    panels: Any = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)
    if with_map and snapshots is not None:
        _draw_map(panels[0, 0], classes, snapshots, pushed)
    for panel, (found, title, is_mass) in zip(panels[0, int(with_map) :], matrices, strict=True):
        draw_matrix(panel, found, classes.names.tolist(), is_mass=is_mass)
        panel.set_title(title)
    return figure


def _draw_map(panel: Axes, classes: ClassRegions, snapshots: Snapshots, pushed: LabelledPoints | None) -> None:
    """Regions in pale colours, points in full ones; a black ring is around what is taken for another class."""
    grid, colours = TriangleGrid.build(snapshots.points), label_colours(len(classes.names))
    inside = grid.locate(_lattice(classes)).cells >= 0
    pale = np.array([1.0 - _PALE * (1.0 - np.array(to_rgb(colour))) for colour in colours])
    rgb = np.where(classes.regions[..., None] >= 0, pale[classes.regions], 1.0)
    picture = np.concatenate([rgb, inside[..., None]], axis=2).swapaxes(0, 1)
    frame = (classes.lower[0], classes.upper[0], classes.lower[1], classes.upper[1])
    panel.set_facecolor(WALL)
    panel.imshow(picture, extent=frame, origin="lower", interpolation="nearest")
    panel.add_collection(LineCollection(list(grid.outline()), colors="0.35", linewidths=0.7, capstyle="round"))
    handles = [
        Line2D([], [], ls="", marker="s", ms=6, color=colour, label=label_title(str(name)))
        for name, colour in zip(classes.names, colours, strict=True)
    ]
    if len(classes.x):
        _scatter(panel, classes.points, colours, "o", 10.0)
        handles.append(Line2D([], [], ls="", marker="o", ms=4, mfc="0.6", mec="white", label=r"samples of $\rho_0$"))
    if pushed is not None and len(pushed.x):
        _scatter(panel, pushed, colours, "^", 20.0)
        handles.append(Line2D([], [], ls="", marker="^", ms=5, mfc="0.6", mec="white", label="pushed points"))
    if len(classes.x) or pushed is not None:
        handles.append(Line2D([], [], ls="", marker="o", ms=5, mfc="white", mec="black", label="taken for another"))
    window = _window(classes, snapshots, grid, pushed)
    panel.set(xlim=shown(window, grid.box, 0), ylim=shown(window, grid.box, 1), aspect="equal")
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8")
    panel.set(xlabel="$x$", ylabel="$y$", title="taken for which class, by where it starts")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, handletextpad=0.1)


def _lattice(classes: ClassRegions) -> Floats:
    return Box(classes.lower, classes.upper).lattice(max(classes.regions.shape))


def _window(classes: ClassRegions, snapshots: Snapshots, grid: TriangleGrid, pushed: LabelledPoints | None) -> Box:
    """What is shown: the densities at t = 0 and all points."""
    start = Snapshots(snapshots.times[:1], snapshots.points, snapshots.density[:1], snapshots.velocity[:1])
    window = visible_window(start, grid)
    points = np.concatenate([classes.x, *([] if pushed is None else [pushed.x])])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return window
    held = Box(np.minimum(window.lower, points.min(axis=0)), np.maximum(window.upper, points.max(axis=0)))
    return held.grown(MARGIN * float(held.size.max()), limits=grid.box)


def _scatter(panel: Axes, points: LabelledPoints, colours: Sequence[str], marker: str, size: float) -> None:
    """At most so many of the points as can be seen, spread over all of them."""
    chosen = np.unique(np.linspace(0, len(points.x) - 1, _SHOWN).astype(int))
    x, labels, wrong = points.x[chosen], points.labels[chosen], (points.assigned != points.labels)[chosen]
    for mine, edge, width in ((~wrong, "white", 0.4), (wrong, "black", 1.0)):
        fill = [colours[label] for label in labels[mine]]
        panel.scatter(
            x[mine, 0], x[mine, 1], s=size, c=fill, marker=marker, edgecolors=edge, linewidths=width, zorder=3
        )


def draw_matrix(panel: Axes, found: Classification, names: Sequence[str], *, is_mass: bool) -> None:
    """Shares of each class (rows) by what they are taken for (columns), with masses or numbers of points."""
    total = np.where(found.total > 0.0, found.total, 1.0)
    share = found.confusion / total[:, None]
    panel.imshow(share, cmap=DENSITY_COLOURS, vmin=0.0, vmax=1.25, aspect="equal")
    count = len(names)
    for y, z in np.ndindex(count, count):
        if count <= _MANY:
            amount = f"{found.confusion[y, z]:.3f}" if is_mass else f"{found.confusion[y, z]:.0f}"
            text = f"{amount}\n{100.0 * share[y, z]:.1f} %"
            ink = "white" if share[y, z] > 0.5 else "0.2"
            panel.text(z, y, text, ha="center", va="center", fontsize="small", color=ink)
    titles = [label_title(name) for name in names]
    panel.set_xticks(range(count), titles, rotation=0 if count < 4 else 90)
    panel.set_yticks(range(count), titles, rotation=90, va="center")
    panel.set(xlabel="taken for", ylabel="is")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
