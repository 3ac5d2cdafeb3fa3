"""Paths of the idealised problem over the densities that they carry."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from eulerian.app.figures.colours import BLUE, DENSITY, VERMILION, mixed
from eulerian.app.figures.densities_1d import on_line, sorted_line, visible_part
from eulerian.app.figures.labels import panel_titles
from eulerian.app.figures.maps import MapPanels, draw_picture, draw_walls, frame_map, visible_window
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.files import FIGURES, SNAPSHOTS, TRAJECTORIES
from eulerian.app.runs.snapshots import Snapshots
from eulerian.app.runs.triangles import Triangles
from eulerian.base.arrays import Floats
from eulerian.base.npz import read_arrays

if TYPE_CHECKING:
    from eulerian.ideal.problem import PathBundle

_FIRST, _LAST = BLUE, VERMILION
_PASSING = LinearSegmentedColormap.from_list("passing", [_FIRST, "#3a3a3a", _LAST])
_PIXELS = 600  # along the longer side of a map, and along a line
_GAMMA = 0.6  # of densities' colours: tails stay visible


def _draw(folder: Path) -> Figure:
    snapshots = Snapshots.load(folder / FIGURES / SNAPSHOTS)
    draw = trajectory_lines if snapshots.dim == 1 else trajectory_map
    return draw(snapshots, load_paths(folder / FIGURES / TRAJECTORIES))


TRAJECTORIES_FIGURE = RunFigure("trajectories", (f"{FIGURES}/{SNAPSHOTS}", f"{FIGURES}/{TRAJECTORIES}"), _draw)


def load_paths(file: Path) -> "PathBundle":
    """Read ``trajectories.npz``, which has the arrays of a ``PathBundle``.

    Raises:
        InputError: it is missing or not such a file.
    """
    from eulerian.ideal.problem import PathBundle  # starts MPI, which other figures need not wait for

    return PathBundle(**read_arrays(file, PathBundle._fields, "trajectories"))


def trajectory_lines(snapshots: Snapshots, paths: "PathBundle") -> Figure:
    """1-D: the density over space and time with the paths on it, between the initial and the final density."""
    x, order = sorted_line(snapshots.points)
    density = on_line(snapshots.density, order)
    n_labels, horizon = density.shape[2], float(snapshots.times[-1])
    limits = visible_part(x, density)
    pixels = np.linspace(*limits, _PIXELS)
    norm = PowerNorm(_GAMMA, 0.0, float(density.max()))
    figure = Figure(
        figsize=(1.4 + 3.6 * max(n_labels, 1.35), 4.8), layout=ConstrainedLayoutEngine(h_pad=0.0, hspace=0.0)
    )
    axes: Any = figure.subplots(3, n_labels, sharex=True, sharey="row", squeeze=False, height_ratios=(1, 4, 1))
    for k, title in enumerate(panel_titles(n_labels)):
        above, middle, below = axes[:, k]
        _draw_end(above, x, density[-1], k, _LAST, "T")
        _draw_end(below, x, density[0], k, _FIRST, "0")
        shades = np.stack([np.interp(pixels, x, row) for row in density[:, :, k]])
        image = middle.pcolormesh(
            pixels, snapshots.times, shades, cmap=DENSITY, norm=norm, shading="gouraud", rasterized=True
        )
        for path in paths.paths[paths.labels == k]:
            middle.plot(path[:, 0], paths.times, color=_LAST, lw=0.7)
        middle.set(xlim=limits, ylim=(0.0, horizon))
        middle.tick_params(bottom=False)
        above.tick_params(bottom=False)
        above.set_title(title)
        below.set_xlabel("$x$")
    axes[1, 0].set_ylabel("time $t$")
    bar = figure.colorbar(image, ax=axes[1, -1], fraction=0.05, aspect=24, pad=0.02)
    bar.set_label(r"density $\rho$, mass per length")
    bar.outline.set_linewidth(0.4)
    return figure


def _draw_end(panel: Axes, x: Floats, density: Floats, label: int, colour: str, time: str) -> None:
    """The density (m, K) at the first or the last time, of one label; all labels have one scale."""
    panel.fill_between(x, density[:, label], color=colour, alpha=0.25, lw=0.0)
    panel.plot(x, density[:, label], color=colour, lw=1.2)
    panel.set(yticks=[], ylim=(0.0, 1.1 * density.max() or 1.0))
    panel.spines["left"].set_visible(False)
    if label == 0:
        panel.set_ylabel(rf"$\rho({time})$", rotation=0, ha="right", va="center", color=colour)


def trajectory_map(snapshots: Snapshots, paths: "PathBundle") -> Figure:
    """2-D: per label one map of the initial density, the final density and the paths between them."""
    n_labels = snapshots.density.shape[3]
    window = visible_window(snapshots.density, snapshots.points[:, :3])
    width, height = window.size / window.size.max() * (6.0 if n_labels == 1 else 4.2)
    panels = MapPanels.of(float(width), [float(height)], n_labels, bars="none")
    for k, panel in enumerate(panels.axes[0]):
        draw_transport(panel, snapshots, paths, k)
    panels.name_axes(["$y$"], panel_titles(n_labels))
    handles = [
        Patch(color=colour, alpha=0.7, lw=0, label=_scale_title(snapshots, row))
        for colour, row in ((_FIRST, 0), (_LAST, -1))
    ]
    panels.figure.legend(
        handles=handles,
        loc="upper center" if n_labels == 1 else "lower center",  # above the names of the labels
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        handlelength=1.0,
        handleheight=1.0,
    )
    return panels.figure


def _scale_title(snapshots: Snapshots, row: int) -> str:
    """Which density a colour is, and how high it is where the colour is full, label by label."""
    peaks = ", ".join(f"{peak:.3g}" for peak in snapshots.density[row].max(axis=(0, 1)))
    return rf"$\rho(t = {snapshots.times[row]:.4g})$, full colour: {peaks} per area"


def draw_transport(
    axes: Axes, snapshots: Snapshots, paths: "PathBundle", label: int = 0, *, whole: bool = False
) -> None:
    """One map: the initial density blue, the final one orange, each on a scale of its own, and paths between them.

    What is not part of the domain is grey. The map shows where there is mass, or the ``whole`` domain.
    """
    triangles = Triangles.of_nodes(snapshots.points)
    window = triangles.box if whole else visible_window(snapshots.density, triangles.corners)
    located = triangles.locate(window.pixels(_PIXELS))
    ends = [snapshots.density[row, :, :, label] for row in (0, -1)]
    shares = [np.nan_to_num(located.interpolate(values)) / (values.max() or 1.0) for values in ends]
    frame_map(axes, window, ticks=6)
    draw_picture(axes, window, mixed(np.stack(shares, axis=-1), (_FIRST, _LAST), _GAMMA), located.inside)
    draw_walls(axes, triangles.outline())
    chosen = paths.paths[paths.labels == label]
    pieces = np.stack([chosen[:, :-1], chosen[:, 1:]], axis=2)
    lines = LineCollection(
        list(pieces.reshape(-1, 2, 2)), cmap=_PASSING, linewidths=0.7, alpha=0.9, zorder=3, capstyle="round"
    )
    lines.set_array(np.tile(0.5 * (paths.times[:-1] + paths.times[1:]), len(chosen)))
    axes.add_collection(lines)
    axes.scatter(chosen[:, 0, 0], chosen[:, 0, 1], s=4, color=_FIRST, lw=0, zorder=4)
    axes.scatter(chosen[:, -1, 0], chosen[:, -1, 1], s=7, color=_LAST, ec="white", lw=0.3, zorder=4)
    axes.set_aspect("equal")
