"""Densities on a line with particles below them, as animated curves."""

from collections.abc import Callable
from typing import final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from eulerian.app.figures.animation.data import AnimationData
from eulerian.app.figures.animation.renderer import (
    ABOVE,
    BELOW,
    DPI,
    LEFT,
    RIGHT,
    Scene,
    clock,
    legend,
    placed,
    time_text,
)
from eulerian.app.figures.densities_1d import on_line, sorted_line
from eulerian.app.figures.label_colours import label_colours
from eulerian.app.figures.map_window import FAINT, MARGIN
from eulerian.base.arrays import Floats

_WIDTH, _GAP = 6.6, 0.15  # inches
_HEIGHTS = {"curves": 2.6, "paths": 2.2}  # inches


def line_scene(film: AnimationData) -> Scene:
    """1-D: the densities, and below them the particles' way through space and time."""
    x, order = sorted_line(film.points)
    density = on_line(film.density, order)
    peak, has_paths = float(density.max()), film.positions.shape[1] > 0
    colours = label_colours(len(film.names))
    rows = [row for row, wanted in (("paths", has_paths), ("curves", peak > 0.0 or not has_paths)) if wanted]
    total = BELOW + sum(_HEIGHTS[row] for row in rows) + _GAP * (len(rows) - 1) + ABOVE
    figure = Figure(figsize=(_WIDTH, total), dpi=DPI)
    moving: list[Artist] = []
    shows: list[Callable[[int], None]] = []
    low = BELOW
    for row in rows:
        panel = placed(figure, (LEFT, low, _WIDTH - LEFT - RIGHT, _HEIGHTS[row]))
        panel.set_xlim(*_reach(film, x, density))
        panel.tick_params(labelbottom=low == BELOW)
        panel.set_xlabel("$x$" if low == BELOW else "", labelpad=1)
        low += _HEIGHTS[row] + _GAP
        part = _Curves(panel, x, density, colours) if row == "curves" else _Paths(panel, film, colours)
        moving += part.artists
        shows.append(part.show)
    text = clock(figure)
    legend(figure, film, colours)

    def show(index: int) -> None:
        for change in shows:
            change(index)
        text.set_text(time_text(film, index))

    return Scene(figure, (*moving, text), show)


@final
class _Curves:
    """A filled curve for every label."""

    def __init__(self, panel: Axes, x: Floats, density: Floats, colours: list[str]) -> None:
        self._x, self._density = x, density
        panel.set_ylim(0.0, 1.05 * float(density.max()) or 1.0)
        panel.set_ylabel(r"density $\rho$")
        self._areas, self._lines = [], []
        for colour in colours:
            area = Polygon(np.zeros((1, 2)), closed=True, fc=colour, alpha=0.25, lw=0.0)
            line = Line2D([], [], color=colour, lw=1.5)
            panel.add_patch(area)
            panel.add_line(line)
            self._areas.append(area)
            self._lines.append(line)

    @property
    def artists(self) -> tuple[Artist, ...]:
        """From the back to the front."""
        return (*self._areas, *self._lines)

    def show(self, index: int) -> None:
        """Move to a frame."""
        x = self._x
        for k, (area, line) in enumerate(zip(self._areas, self._lines, strict=True)):
            values = self._density[index, :, k]
            line.set_data(x, values)
            corners = np.array([[x[-1], 0.0], [x[0], 0.0]])
            area.set_xy(np.concatenate([np.column_stack([x, values]), corners]))


@final
class _Paths:
    """World lines up to now, time upwards."""

    def __init__(self, panel: Axes, film: AnimationData, colours: list[str]) -> None:
        self._film = film
        chosen = [colours[label] for label in film.labels]
        panel.set_ylim(float(film.times[0]), float(film.times[-1]))
        panel.set_ylabel("time $t$")
        self._lines = LineCollection([], linewidths=0.6, alpha=0.6, colors=chosen)
        panel.add_collection(self._lines, autolim=False)
        self._heads = []
        for label, colour in enumerate(colours):
            heads = Line2D([], [], ls="", marker="o", ms=3.0, mfc=colour, mec="white", mew=0.3, clip_on=False)
            panel.add_line(heads)
            self._heads.append((heads, film.labels == label))

    @property
    def artists(self) -> tuple[Artist, ...]:
        """From the back to the front."""
        return (self._lines, *(heads for heads, _ in self._heads))

    def show(self, index: int) -> None:
        """Move to a frame."""
        past = self._film.positions[: index + 1, :, 0].T
        times = self._film.times[: index + 1]
        self._lines.set_segments([np.column_stack([path, times]) for path in past])
        for heads, own in self._heads:
            x = past[own, -1]
            heads.set_data(x, np.full(len(x), times[-1]))


def _reach(film: AnimationData, x: Floats, density: Floats) -> tuple[float, float]:
    """The part of the line that has mass or particles at some time, with a margin."""
    filled = x[np.any(density > FAINT * density.max(axis=1, keepdims=True), axis=(0, 2))]
    places = np.concatenate([filled, film.positions[np.isfinite(film.positions)]])
    if not len(places):
        return float(x[0]), float(x[-1])
    margin = MARGIN * float(np.ptp(places))
    return max(float(x[0]), float(places.min()) - margin), min(float(x[-1]), float(places.max()) + margin)
