"""What an animation shows: densities and the particles that the same flow carries, on a map or on a line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from eulerian.app.figures.colours import GAMMA, VERMILION, density_colours, label_colours
from eulerian.app.figures.densities_1d import on_line, sorted_line, visible_part
from eulerian.app.figures.labels import label_handles
from eulerian.app.figures.maps import draw_picture, draw_walls, frame_map, rgba, visible_window
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.projections import LineIntegrals
from eulerian.app.runs.triangles import Triangles
from eulerian.base.arrays import Floats, Ints

DPI = 100
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.6, 0.3, 0.5, 0.35  # inches: around what is drawn
_WIDTH, _CURVES, _PATHS, _GAP = 6.6, 2.6, 2.2, 0.15  # inches: of figures on a line, heights of panels, between them
_SIDE, _LONGEST = 4.6, 6.4  # inches: the square root of a map's area, and its longer side at most
_KEY, _TO_KEY, _BESIDE = 0.16, 0.15, 0.8  # inches: a label's column in the key of colours, and room left and right
_LINES = 112  # along z, along the longer side of a map of three dimensions: to find their cells is slow
_SAMPLED = 15  # frames that the scale of the densities is made from
_TAIL = 6  # frames that a particle's tail is long on a map

type _Show = Callable[[int], object]  # sets what moves to a frame


@final
@dataclass(frozen=True)
class AnimationData:
    """Densities and particles at the times of the frames.

    Attributes:
        times: (n,) ascending.
        points: (N, m, dim) nodes of all cells of the mesh, as in ``Snapshots``.
        density: (n, N, m, K), zero throughout where it is not known.
        positions: (n, P, dim) of the particles; P may be 0.
        labels: (P,) of the particles.
        names: of the labels, K of them.
    """

    times: Floats
    points: Floats
    density: Floats
    positions: Floats
    labels: Ints
    names: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.points.shape[2])


def animated_figure(data: AnimationData) -> tuple[Figure, _Show]:
    """The figure that fits the dimension, and what sets it to a frame."""
    figure = Figure(dpi=DPI)
    count = len(data.names)
    if data.dim == 1:
        colours = label_colours(count)
        shows = _line(figure, data, colours)
    else:
        colours = label_colours(count) if count > 1 else [VERMILION]  # of particles: one density is blue
        shows = _map(figure, data, colours)
    shows.append(_time(figure, data.times))
    if count > 1:  # in the line of the time
        handles = label_handles(data.names, colours, size=5.0)
        style = {"handletextpad": 0.1, "columnspacing": 1.0, "borderpad": 0.1, "borderaxespad": 0.1}
        figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.99, 1.0), ncols=min(count, 5), **style)

    def show(index: int) -> None:
        for each in shows:
            each(index)

    return figure, show


def _line(figure: Figure, data: AnimationData, colours: list[str]) -> list[_Show]:
    """1-D: the densities, and below them the particles' way through space and time."""
    x, order = sorted_line(data.points)
    density = on_line(data.density, order)
    with_paths = data.positions.shape[1] > 0
    with_curves = bool(density.max() > 0.0) or not with_paths
    heights = [_PATHS] * with_paths + [_CURVES] * with_curves
    figure.set_size_inches(_WIDTH, _BELOW + sum(heights) + _GAP * (len(heights) - 1) + _ABOVE)
    panels = []
    for row, height in enumerate(heights):
        panels.append(_place(figure, _LEFT, _BELOW + row * (_PATHS + _GAP), _WIDTH - _LEFT - _RIGHT, height))
        panels[-1].set_xlim(*visible_part(x, density, data.positions))
        panels[-1].tick_params(labelbottom=row == 0)
    panels[0].set_xlabel("$x$", labelpad=1)
    shows = [_curves(panels[-1], x, density, colours)] if with_curves else []
    if with_paths:
        panels[0].set(ylim=(float(data.times[0]), float(data.times[-1])), ylabel="time $t$")
        times = np.broadcast_to(data.times[:, None], data.positions.shape[:2])
        track = np.stack([data.positions[..., 0], times], axis=-1)
        shows.append(_particles(panels[0], track, data.labels, colours, len(times), 3.0))
    return shows


def _map(figure: Figure, data: AnimationData, colours: list[str]) -> list[_Show]:
    """2-D and 3-D: one map; labels have a colour each, and a mixture of these where they meet."""
    plane, track = data.points[..., :2], data.positions[..., :2]  # in three dimensions without z
    window = visible_window(data.density, plane[:, : data.dim + 1], track.reshape(-1, 2))
    size = window.size / float(np.sqrt(window.size.prod())) * _SIDE
    width, height = (size * min(1.0, _LONGEST / float(size.max()))).tolist()
    inside, density_at = _plane_density(data, window, round(max(width, height) * DPI))
    peak, clipped = _full_colour(data, density_at)
    key = _KEY * len(data.names)
    beside = _TO_KEY + key + _BESIDE if peak > 0.0 else _RIGHT
    figure.set_size_inches(_LEFT + width + beside, _BELOW + height + _ABOVE)
    panel = _place(figure, _LEFT, _BELOW, width, height)

    def picture(index: int) -> Floats:
        return density_colours(density_at(index) / (peak or 1.0))

    image = draw_picture(panel, window, picture(0), inside, interpolation="nearest", aspect="auto")
    frame_map(panel, window, Box.around(plane), ticks=6)
    panel.set_xlabel("$x$", labelpad=1)
    panel.set_ylabel("$y$", labelpad=1)
    if data.dim == 2:
        draw_walls(panel, Triangles.of_nodes(data.points).outline())
    else:
        panel.set_facecolor("white")
    if peak > 0.0:
        name = r"density $\rho$, mass per area" if data.dim == 2 else r"$\int\rho\,\mathrm{d}z$"
        _draw_key(_place(figure, _LEFT + width + _TO_KEY, _BELOW, key, height), len(data.names), peak, clipped, name)
    radius = float(np.clip(5.0 - np.log10(max(len(data.labels), 1)), 1.6, 4.0))
    return [
        lambda index: image.set_data(rgba(picture(index), inside)),
        _particles(panel, track, data.labels, colours, _TAIL + 1, radius),
    ]


def _plane_density(data: AnimationData, window: Box, pixels: int) -> tuple[NDArray[np.bool_], Callable[[int], Floats]]:
    """Which pixels of a window the domain holds, and what evaluates a frame's densities there, (n_x, n_y, K).

    In three dimensions the pixels are lines along z, and the values integrals along them.
    """
    if data.dim == 3:
        lines = LineIntegrals(data.points, window.pixels(min(pixels, _LINES)))
        return lines.inside, lambda index: lines.integrals(data.density[index])
    located = Triangles.of_nodes(data.points).locate(window.pixels(pixels))
    return located.inside, lambda index: np.nan_to_num(located.interpolate_labels(data.density[index]))


def _full_colour(data: AnimationData, density_at: Callable[[int], Floats]) -> tuple[float, bool]:
    """The density that gets the full colour, and whether there is more: 1 % of a frame's mass, as at sharp corners."""
    peak = highest = 0.0
    for i in np.unique(np.rint(np.linspace(0, len(data.times) - 1, _SAMPLED)).astype(int)):
        frame = density_at(i)
        values = np.sort(frame[::2, ::2], axis=None)  # a quarter of the pixels knows it well enough
        below = np.cumsum(values, dtype=np.float64)
        peak = max(peak, float(values[min(np.searchsorted(below, 0.99 * below[-1]), len(values) - 1)]))
        highest = max(highest, float(frame.max()))
    return peak, peak < highest


def _time(figure: Figure, times: Floats) -> _Show:
    """The time above what is drawn, with as many digits as frames need, so that they do not jump."""
    width, height = figure.get_size_inches()
    text = figure.text(_LEFT / width, 1.0 - 0.24 / height, "", family="monospace")
    digits = max(0, 2 - int(np.floor(np.log10(times[-1])))) if times[-1] > 0.0 else 2
    return lambda index: text.set_text(f"t = {times[index]:.{digits}f}")


def _curves(panel: Axes, x: Floats, density: Floats, colours: list[str]) -> _Show:
    """A filled curve for every label, of densities (n, m, K)."""
    panel.set(ylim=(0.0, 1.05 * float(density.max()) or 1.0), ylabel=r"density $\rho$")
    areas = [panel.fill(x, 0.0 * x, color=colour, alpha=0.25, lw=0.0)[0] for colour in colours]
    lines = [panel.plot(x, 0.0 * x, color=colour, lw=1.5)[0] for colour in colours]
    corners = np.array([[x[-1], 0.0], [x[0], 0.0]])

    def show(index: int) -> None:
        for k, (area, line) in enumerate(zip(areas, lines, strict=True)):
            line.set_ydata(density[index, :, k])
            area.set_xy(np.concatenate([line.get_xydata(), corners]))

    return show


def _particles(panel: Axes, track: Floats, labels: Ints, colours: list[str], tail: int, radius: float) -> _Show:
    """Particles with tails that show where they come from, so many frames long; ``track`` is (n, P, 2)."""
    tails = LineCollection([], linewidths=0.8, alpha=0.5, colors=[colours[label] for label in labels])
    panel.add_collection(tails, autolim=False)
    style: Any = {"ls": "", "marker": "o", "ms": radius, "mec": "white", "mew": 0.4}
    heads = [(panel.plot([], [], mfc=colour, **style)[0], labels == label) for label, colour in enumerate(colours)]

    def show(index: int) -> None:
        path = track[max(0, index + 1 - tail) : index + 1]
        tails.set_segments(list(path.swapaxes(0, 1)))
        for marks, own in heads:
            marks.set_data(*path[-1, own].T)

    return show


def _place(figure: Figure, left: float, below: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, below / up, width / across, height / up))


def _draw_key(column: Axes, count: int, peak: float, clipped: bool, name: str) -> None:
    """Which colour is which density: a column for each label."""
    levels = np.linspace(0.0, 1.0, 256) ** (1.0 / GAMMA)
    colours = density_colours(levels[:, None, None] * np.eye(count))
    column.imshow(colours, extent=(0.0, count, 0.0, 1.0), origin="lower", aspect="auto", interpolation="nearest")
    ticks = [tick for tick in MaxNLocator(5).tick_values(0.0, peak) if tick <= (0.9 * peak if clipped else peak)]
    texts = [f"{tick:.4g}" for tick in ticks]
    if clipped:
        ticks, texts = [*ticks, peak], [*texts, rf"$\geq${peak:.2g}"]
    column.yaxis.tick_right()
    column.yaxis.set_label_position("right")
    column.set_yticks([(tick / peak) ** GAMMA for tick in ticks], texts, fontsize=8)
    column.set(xticks=[], ylabel=name)
    column.tick_params(length=2)
    column.spines[:].set(visible=True, linewidth=0.4)
