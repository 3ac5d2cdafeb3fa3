"""Densities in the plane with particles on them, as an animated map."""

from dataclasses import dataclass
from typing import final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

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
    spread,
    time_text,
)
from eulerian.app.figures.density_scale import DENSITY_COLOURS
from eulerian.app.figures.label_colours import label_colours, mixed
from eulerian.app.figures.map_window import WALL, shown
from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.pixel_grid import Box
from eulerian.base.arrays import Floats

_ALONE = "#D55E00"  # particles on the map of a single density, which has DENSITY_COLOURS
_GAMMA = 0.5  # of densities' colours, as in the maps of a run: what is thin stays visible
_SAMPLED = 15  # frames that the scale of the densities is made from
_TAIL = 6  # frames that a particle's tail is long
_SIDE = 4.6  # inches: the square root of a map's area
_LONGEST = 6.4  # inches: a map's longer side at most
_KEY = 0.16  # inches: width of a label's column in the key of the colours


def map_scene(film: AnimationData) -> Scene:
    """One map; several labels have a colour each, and a mixture of these where they meet."""
    window, count = film.window(), len(film.names)
    size = window.size / float(np.sqrt(window.size.prod())) * _SIDE
    size *= min(1.0, _LONGEST / float(size.max()))
    sampler = film.sampler(window, round(float(size.max()) * DPI))
    inks = _Inks.for_frames([sampler.frame(i) for i in spread(len(film.times), _SAMPLED)])
    key = 0.95 + _KEY * count if inks.peak > 0.0 else RIGHT
    figure = Figure(figsize=(LEFT + size[0] + key, BELOW + size[1] + ABOVE), dpi=DPI)
    panel = placed(figure, (LEFT, BELOW, size[0], size[1]))
    _frame_map(panel, window, film)
    image = panel.imshow(
        inks.picture(sampler.frame(0), sampler.inside),
        extent=(window.lower[0], window.upper[0], window.lower[1], window.upper[1]),
        origin="lower",
        interpolation="nearest",
        aspect="auto",
    )
    if inks.peak > 0.0:
        name = r"density $\rho$, mass per area" if film.dim == 2 else r"$\int\rho\,\mathrm{d}z$"
        _draw_key(placed(figure, (LEFT + size[0] + 0.15, BELOW, _KEY * count, size[1])), inks, name)
    colours = label_colours(count) if count > 1 else [_ALONE]
    outline = list(TriangleGrid.build(film.points).outline()) if film.dim == 2 else []
    walls = LineCollection(outline, colors="0.35", linewidths=0.8, capstyle="round")
    panel.add_collection(walls)
    swarm, text = _Swarm(panel, film, colours), clock(figure)
    legend(figure, film, colours)

    def show(index: int) -> None:
        image.set_data(inks.picture(sampler.frame(index), sampler.inside))
        swarm.show(index)
        text.set_text(time_text(film, index))

    return Scene(figure, (image, *panel.spines.values(), walls, *swarm.artists, text), show)


@final
@dataclass(frozen=True)
class _Inks:
    """Colours of densities (..., K).

    Attributes:
        count: K.
        peak: the density with the full colour.
        clipped: whether there is more somewhere.
    """

    count: int
    peak: float
    clipped: bool

    @classmethod
    def for_frames(cls, frames: list[Floats]) -> "_Inks":
        """For densities (n_x, n_y, K) at several times, on one scale."""
        peak = max(_full(frame) for frame in frames)
        return cls(frames[0].shape[2], peak, peak < max(float(frame.max()) for frame in frames))

    def mix(self, density: Floats) -> Floats:
        """RGB (..., 3)."""
        share = density / (self.peak or 1.0)
        if self.count == 1:
            return np.asarray(DENSITY_COLOURS(np.clip(share[..., 0], 0.0, 1.0) ** _GAMMA)[..., :3])
        return mixed(share, label_colours(self.count), _GAMMA)

    def picture(self, density: Floats, inside: NDArray[np.bool_]) -> Floats:
        """RGBA in the order of ``imshow`` of a density (n_x, n_y, K); nothing outside the domain."""
        return np.concatenate([self.mix(density), inside[..., None]], axis=2).swapaxes(0, 1)


def _full(frame: Floats) -> float:
    """The density that gets the full colour: 1 % of a frame's mass lies where there is more, as at a sharp corner."""
    values = np.sort(frame[::2, ::2], axis=None)  # a quarter of the pixels knows it well enough
    below = np.cumsum(values, dtype=np.float64)
    return float(values[min(np.searchsorted(below, 0.99 * below[-1]), len(values) - 1)])


def _frame_map(panel: Axes, window: Box, film: AnimationData) -> None:
    """Axes around a window; the line around the domain needs room where the window reaches it."""
    panel.set_facecolor(WALL if film.dim == 2 else "white")
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8")
    panel.tick_params(length=2, labelsize=8)
    domain = Box(film.points[..., :2].min(axis=(0, 1)), film.points[..., :2].max(axis=(0, 1)))
    for axis, side in ((panel.xaxis, 0), (panel.yaxis, 1)):
        share = window.size[side] / window.size.max()
        axis.set_major_locator(MaxNLocator(max(2, round(6 * share)), steps=[1, 2, 5, 10]))
        (panel.set_ylim if side else panel.set_xlim)(*shown(window, domain, side))
    panel.set_autoscale_on(False)
    panel.set_xlabel("$x$", labelpad=1)
    panel.set_ylabel("$y$", labelpad=1)


def _draw_key(column: Axes, inks: _Inks, name: str) -> None:
    """Which colour is which density: a column for each label."""
    levels = (np.linspace(0.0, 1.0, 256) ** (1.0 / _GAMMA)) * inks.peak
    each = np.zeros((256, inks.count, inks.count))
    each[:, range(inks.count), range(inks.count)] = levels[:, None]
    shades: AxesImage = column.imshow(inks.mix(each), extent=(0.0, inks.count, 0.0, 1.0), origin="lower", aspect="auto")
    shades.set_interpolation("nearest")
    highest = 0.9 * inks.peak if inks.clipped else inks.peak
    ticks = [tick for tick in MaxNLocator(5).tick_values(0.0, inks.peak) if tick <= highest]
    texts = [f"{tick:.4g}" for tick in ticks]
    if inks.clipped:
        ticks, texts = [*ticks, inks.peak], [*texts, rf"$\geq${inks.peak:.2g}"]
    column.yaxis.tick_right()
    column.yaxis.set_label_position("right")
    column.set_yticks([(tick / inks.peak) ** _GAMMA for tick in ticks], texts, fontsize=8)
    column.set_xticks([])
    column.tick_params(length=2)
    column.set_ylabel(name)
    column.spines[:].set(visible=True, linewidth=0.4)


@final
class _Swarm:
    """Particles with tails that show where they come from."""

    def __init__(self, panel: Axes, film: AnimationData, colours: list[str]) -> None:
        self._film, count = film, film.positions.shape[1]
        size = float(np.clip(5.0 - np.log10(max(count, 1)), 1.6, 4.0))
        self._tails = LineCollection([], linewidths=0.9, alpha=0.45, colors=[colours[label] for label in film.labels])
        panel.add_collection(self._tails)
        self._heads = []
        for label, colour in enumerate(colours):
            heads = Line2D([], [], ls="", marker="o", ms=size, mfc=colour, mec="white", mew=0.4)
            panel.add_line(heads)
            self._heads.append((heads, film.labels == label))

    @property
    def artists(self) -> tuple[Artist, ...]:
        """From the back to the front."""
        return (self._tails, *(heads for heads, _ in self._heads))

    def show(self, index: int) -> None:
        """Move to a frame."""
        path = self._film.plane[max(0, index - _TAIL) : index + 1]
        self._tails.set_segments(list(path.swapaxes(0, 1)))
        for heads, own in self._heads:
            heads.set_data(*path[-1, own].T)
