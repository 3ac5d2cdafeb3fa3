"""Data and flow at several times: one column per time, with the density that was asked for and the flow's."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from eulerian.app.figures.colours import BLUE, DENSITY, DensityScale
from eulerian.app.figures.densities_1d import on_line, sorted_line, visible_part
from eulerian.app.figures.labels import panel_titles
from eulerian.app.figures.maps import MapPanels, axis_limits, draw_walls, frame_map, visible_window, write_in_corner
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.figures.style import page_width
from eulerian.app.figures.target_marks import COLOUR, DASHES
from eulerian.app.runs.files import FIGURES, TIMES
from eulerian.app.runs.times import TimeTargets
from eulerian.app.runs.triangles import Triangles

_FILE = f"{FIGURES}/{TIMES}"
_SIDE, _PIXELS = 2.0, 400  # inches of the longer side of a map, and pixels along it


def _draw(folder: Path) -> Figure:
    found = TimeTargets.load(folder / _FILE)
    return time_curves(found) if found.dim == 1 else time_maps(found)


def time_curves(found: TimeTargets) -> Figure:
    """1-D: one row per label, one column per time, with both densities as curves."""
    x, order = sorted_line(found.nodes)
    density, target = on_line(found.density, order), on_line(found.target, order)
    n_times, n_labels = len(found.times), density.shape[2]
    window = visible_part(x, np.concatenate([density, np.nan_to_num(target)]))
    figure = Figure(figsize=(1.0 + 2.1 * n_times, 0.6 + 2.0 * n_labels), layout="constrained")
    axes: Any = figure.subplots(n_labels, n_times, sharex=True, sharey=True, squeeze=False)
    for k, i in np.ndindex(n_labels, n_times):
        panel = axes[k, i]
        panel.plot(x, density[i, :, k], color=BLUE, lw=1.3, label=r"flow $\rho$")
        panel.plot(x, target[i, :, k], color=COLOUR, lw=1.2, ls=DASHES, label=r"data $\rho^*$")
        if np.isfinite(found.points[i, k]).all():
            panel.axvline(found.points[i, k, 0], color=COLOUR, lw=1.2, ls=":", label="target point")
    for panel, title in zip(axes[0], found.titles, strict=True):
        panel.set_title(title)
    for panel, name in zip(axes[:, 0], panel_titles(n_labels), strict=True):
        panel.set_ylabel("\n".join(filter(None, (name, "mass per length"))))
    for panel in axes[-1]:
        panel.set_xlabel("$x$")
    axes[0, 0].set_xlim(*window)
    axes[0, 0].set_ylim(bottom=0.0)
    # Of all that is drawn anywhere, once.
    handles = {name: line for panel in axes.flat for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if not np.isfinite(target).any():
        handles.pop(r"data $\rho^*$")
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    return figure


def time_maps(found: TimeTargets) -> Figure:
    """2-D: for every label a row with the data, and below it one with the flow; one column per time."""
    n_times, n_labels = len(found.times), found.density.shape[3]
    triangles, known = Triangles.of_nodes(found.nodes), np.isfinite(found.target).all(axis=(1, 2))  # (n, K)
    both = np.concatenate([np.nan_to_num(found.target), found.density], axis=3)
    goals = found.points.reshape(-1, 2)
    window = visible_window(both, triangles.corners, goals)
    size = np.array([np.ptp(axis_limits(window, triangles.box, axis)) for axis in range(2)])
    width, height = size / size.max() * _SIDE
    page = page_width()
    if page is not None:
        width, height = size / size[0] * min(MapPanels.width_on(page, n_times), 3.0)
    panels = MapPanels.of(float(width), [float(height)] * (2 * n_labels), n_times)
    located, outline = triangles.locate(window.pixels(_PIXELS)), triangles.outline()
    scale = DensityScale.of(both)
    for k, i, flow in np.ndindex(n_labels, n_times, 2):
        panel, values = panels.axes[2 * k + flow, i], (found.density if flow else found.target)[i, :, :, k]
        if flow or known[i, k]:
            column = k + n_labels * flow
            picture = located.interpolate(values).T
            norm = scale.norm(i, column)
            panel.imshow(picture, extent=window.extent, origin="lower", cmap=DENSITY, norm=norm)
            write_in_corner(panel, scale.remark(i, column))
        elif not np.isfinite(found.points[i, k]).all():
            write_in_corner(panel, "no density: a loss")
        panel.scatter(*found.points[i, k], marker="x", s=28, color=COLOUR, linewidths=1.3, zorder=4)
        draw_walls(panel, outline)
        frame_map(panel, window, triangles.box)
    names = [f"{name}, {kind}" if name else kind for name in panel_titles(n_labels) for kind in ("data", "flow")]
    panels.name_axes([f"{name}\n$y$" for name in names], found.titles)
    title = r"density $\rho$, mass per area" if scale.common else r"$\rho\,/\max\rho$ of each panel"
    panels.add_colour_bar(ScalarMappable(scale.bar_norm, DENSITY), title)
    panels.note("cross: target of the loss" if np.isfinite(goals).any() else "")
    return panels.figure


TIMES_FIGURE = RunFigure("times", (_FILE,), _draw)
