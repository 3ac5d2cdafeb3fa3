"""Particles at a few times: histograms and paths in one dimension, clouds with some of their paths in more."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eulerian.app.figures.colours import label_colours, time_colour
from eulerian.app.figures.labels import label_handles, time_title
from eulerian.app.figures.maps import MapPanels, draw_picture, draw_walls, frame_map
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.files import FIGURES, PARTICLES
from eulerian.app.runs.particles import ParticlePaths
from eulerian.app.runs.pixel_grid import Box
from eulerian.base.arrays import Floats

_TIMES = 5
_TRAILS = 40  # paths that are shown on a map
_LINES = 150  # paths of a label in one dimension
_BINS = 60
_MARGIN = 0.05  # around all particles, relative to the longer side
_AXES = "xyz"
_PIXELS = 300  # of the background, along the longer side of a map


def _draw(folder: Path) -> Figure:
    paths = ParticlePaths.load(folder / FIGURES / PARTICLES)
    return particle_curves(paths) if paths.positions.shape[2] == 1 else particle_maps(paths)


PARTICLES_FIGURE = RunFigure("particles", (f"{FIGURES}/{PARTICLES}",), _draw)


def particle_curves(paths: ParticlePaths) -> Figure:
    """1-D: one column per label with histograms at a few times, and below them paths over time."""
    labels, colours = np.unique(paths.labels), _colours(paths)
    shown = _shown(paths.times)
    x = paths.positions[:, :, 0]
    bins = np.histogram_bin_edges(x[shown], _BINS)
    figure = Figure(figsize=(1.2 + 3.6 * max(len(labels), 1.35), 4.6), layout="constrained")
    axes: Any = figure.subplots(2, len(labels), sharex=True, sharey="row", squeeze=False)
    for column, label in enumerate(labels):
        upper, lower = axes[:, column]
        own = paths.labels == label
        for i in shown:
            heights, _ = np.histogram(x[i, own], bins, weights=paths.weights[own])
            t = paths.times[i]
            colour = time_colour(t, paths.times[-1])
            upper.stairs(heights / np.diff(bins), bins, color=colour, lw=1.3, label=time_title(t))
        lines = np.flatnonzero(own)[:_LINES]
        lower.plot(x[:, lines], paths.times, color=colours[label], lw=0.5, alpha=0.5)
        upper.set_title(f"label {label}" if len(labels) > 1 else "")
        lower.set_xlabel("$x$")
        lower.margins(y=0.0)
    axes[0, 0].set_ylim(bottom=0.0)
    axes[0, 0].set_ylabel("particles per length")
    axes[1, 0].set_ylabel("time $t$")
    axes[0, -1].legend()
    return figure


def particle_maps(paths: ParticlePaths) -> Figure:
    """2-D and 3-D: one column per time, one row per pair of axes, labels by colour, paths so far as thin lines."""
    shown, dim = _shown(paths.times), paths.positions.shape[2]
    pairs = list(combinations(range(dim), 2))
    lower, upper = _window(paths)
    size = (upper - lower) / (upper - lower).max() * 2.1
    heights = [max(float(size[j]), 0.6) for _, j in pairs]
    panels = MapPanels.of(
        max(float(size[: dim - 1].max()), 0.6), heights, len(shown), share_x="row", share_y="row", bars="none"
    )
    for row, (x, y) in enumerate(pairs):
        for panel, i in zip(panels.axes[row], shown, strict=True):
            frame_map(panel)
            _draw_sample(panel, paths, i, (x, y))
            panel.set(xlim=(lower[x], upper[x]), ylim=(lower[y], upper[y]), aspect="equal", xlabel=f"${_AXES[x]}$")
    for panel, i in zip(panels.axes[0], shown, strict=True):
        panel.set_title(time_title(paths.times[i]))
    for panel, (_, y) in zip(panels.axes[:, 0], pairs, strict=True):
        panel.set_ylabel(f"${_AXES[y]}$")
    labels, colours = np.unique(paths.labels).tolist(), _colours(paths)
    if len(labels) > 1:
        handles = label_handles([str(k) for k in labels], [colours[k] for k in labels])
        panels.figure.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=len(labels))
    return panels.figure


def _draw_sample(panel: Axes, paths: ParticlePaths, i: int, pair: tuple[int, int]) -> None:
    """The particles at time i, with the paths of some until then."""
    colours = np.array(_colours(paths), dtype=object)[paths.labels]
    x = paths.positions[:, :, pair]
    if len(paths.outline) and pair == (0, 1):
        _draw_ground(panel, paths)
        draw_walls(panel, paths.outline)
    else:
        corners = paths.box[:, pair]
        square = corners[[0, 1, 1, 0, 0], 0], corners[[0, 0, 1, 1, 0], 1]
        panel.plot(*square, color="0.35", lw=0.7)
        panel.set_facecolor("white")
    size = float(np.clip(2.5e3 / x.shape[1], 0.8, 6.0))
    panel.scatter(x[i, :, 0], x[i, :, 1], s=size, c=colours.tolist(), alpha=0.45, linewidths=0.0, zorder=2)
    trails = np.random.default_rng(0).permutation(x.shape[1])[:_TRAILS]
    if i > 0:
        lines = [x[: i + 1, n] for n in trails]
        panel.add_collection(LineCollection(lines, colors="0.15", linewidths=0.35, alpha=0.7, zorder=3))


def _shown(times: Floats) -> list[int]:
    return [int(i) for i in np.unique(np.rint(np.linspace(0, len(times) - 1, _TIMES)))]


def _window(paths: ParticlePaths) -> tuple[Floats, Floats]:
    """The part of space that particles come to, with a margin."""
    lower, upper = paths.positions.min(axis=(0, 1)), paths.positions.max(axis=(0, 1))
    margin = _MARGIN * (float((upper - lower).max()) or 1.0)
    return lower - margin, upper + margin


def _colours(paths: ParticlePaths) -> list[str]:
    return label_colours(int(paths.labels.max(initial=0)) + 1)


def _draw_ground(panel: Axes, paths: ParticlePaths) -> None:
    """The domain white on the grey of what is not part of it, as far as the panel shows."""
    window = Box(*_window(paths))
    pixels = window.pixels(_PIXELS)
    inside = within(paths.outline, pixels)
    draw_picture(panel, window, np.ones((*inside.shape, 3)), inside, interpolation="nearest", zorder=0)


def within(outline: Floats, pixels: Floats) -> NDArray[np.bool_]:
    """Which points of a grid (n_x, n_y, 2) lie inside of closed lines, given by their edges (m, 2, 2).

    A ray to the left meets the lines an odd number of times; all points of a row have the same height.
    """
    x, heights = pixels[:, 0, 0], pixels[0, :, 1]
    (x0, y0), (x1, y1) = outline[:, 0].T, outline[:, 1].T
    inside = np.zeros(pixels.shape[:2], dtype=bool)
    for column, y in enumerate(heights):
        met = (y0 > y) != (y1 > y)
        crossings = np.sort(x0[met] + (y - y0[met]) / (y1[met] - y0[met]) * (x1[met] - x0[met]))
        inside[:, column] = np.searchsorted(crossings, x) % 2 == 1
    return inside
