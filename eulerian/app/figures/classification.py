"""Classification: where points have to start to be taken for a class, and confusion matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eulerian.app.figures.colours import DENSITY, label_colours
from eulerian.app.figures.labels import label_handles, label_title, legend_mark
from eulerian.app.figures.maps import draw_picture, draw_walls, frame_map, visible_window
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.class_regions import ClassifiedPoints, ClassRegions
from eulerian.app.runs.files import CLASSES, FIGURES, PUSHED_POINTS, SNAPSHOTS
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import Snapshots
from eulerian.app.runs.triangles import Triangles
from eulerian.objective.confusion import Classification

_PALE = 0.3  # strength of the colours of regions
_SHOWN = 1500  # points of a kind that are drawn
_MANY = 7  # labels whose matrix still has numbers in its cells
_PUSHED = "pushed points"


def _draw(folder: Path) -> Figure:
    data = folder / FIGURES
    snapshots = Snapshots.load_if_there(data / SNAPSHOTS)
    return class_figure(
        ClassRegions.load(data / CLASSES), snapshots, ClassifiedPoints.load_if_there(data / PUSHED_POINTS)
    )


CLASSIFICATION_FIGURE = RunFigure("classification", (f"{FIGURES}/{CLASSES}",), _draw)


def class_figure(classes: ClassRegions, snapshots: Snapshots | None, pushed: ClassifiedPoints | None) -> Figure:
    """A map of regions with points on it, in two dimensions, and matrices of masses and of points.

    Args:
        classes: what is drawn.
        snapshots: of the densities, for the domain and the part of it that is shown.
        pushed: points that were not trained on, or None.
    """
    count = len(classes.names)
    matrices = [(Classification(classes.mass, classes.mass.sum(axis=1)), r"mass of $\rho(T)$", True)]
    for points, name in ((classes.points, r"samples of $\rho_0$"), (pushed, _PUSHED)):
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


def _draw_map(panel: Axes, classes: ClassRegions, snapshots: Snapshots, pushed: ClassifiedPoints | None) -> None:
    """Regions in pale colours, points in full ones; a black ring is around what is taken for another class."""
    triangles, colours = Triangles.of_nodes(snapshots.points), label_colours(len(classes.names))
    box = Box(classes.lower, classes.upper)
    inside = triangles.locate(box.pixels(max(classes.regions.shape))).inside
    pale = np.array([1.0 - _PALE * (1.0 - np.array(to_rgb(colour))) for colour in colours])
    rgb = np.where(classes.regions[..., None] >= 0, pale[classes.regions], 1.0)
    held_out = ClassifiedPoints(classes.x[:0], classes.labels[:0], classes.assigned[:0]) if pushed is None else pushed
    # What is shown: the densities at t = 0 and all points.
    places = np.concatenate([classes.x, held_out.x])
    frame_map(panel, visible_window(snapshots.density[:1], triangles.corners, places), triangles.box, ticks=5)
    draw_picture(panel, box, rgb, inside, interpolation="nearest")
    draw_walls(panel, triangles.outline())
    _draw_points(panel, classes.points, colours, "o", 10.0)
    _draw_points(panel, held_out, colours, "^", 20.0)
    panel.set(xlabel="$x$", ylabel="$y$", title="taken for which class, by where it starts", aspect="equal")
    handles = _legend(classes, colours, len(classes.x) > 0, len(held_out.x) > 0)
    panel.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, handletextpad=0.1)


def _legend(classes: ClassRegions, colours: Sequence[str], samples: bool, pushed: bool) -> list[Line2D]:
    handles = label_handles(classes.names.tolist(), colours, "s", 6.0)
    if samples:
        handles.append(legend_mark("o", 4.0, mfc="0.6", mec="white", label=r"samples of $\rho_0$"))
    if pushed:
        handles.append(legend_mark("^", 5.0, mfc="0.6", mec="white", label=_PUSHED))
    if samples or pushed:
        handles.append(legend_mark("o", 5.0, mfc="white", mec="black", label="taken for another"))
    return handles


def _draw_points(panel: Axes, points: ClassifiedPoints, colours: Sequence[str], marker: str, size: float) -> None:
    """At most so many of the points as can be seen, spread over all of them."""
    if not len(points.x):
        return
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
    panel.imshow(share, cmap=DENSITY, vmin=0.0, vmax=1.25, aspect="equal")
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
