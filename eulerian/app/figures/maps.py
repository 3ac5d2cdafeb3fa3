"""What maps share: the part of the domain that they show, walls around it, and panels of one size.

Panels are placed by hand. Matplotlib's constrained layout would find the places too. It measures every tick of every
panel several times for that, which takes longer than the drawing; but the sizes of panels are given, and around them a
margin is cropped anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from eulerian.app.figures.colours import WALL
from eulerian.app.figures.style import page_width
from eulerian.app.runs.pixel_grid import Box
from eulerian.base.arrays import Floats

FAINT = 1e-3  # where ρ stays below this fraction of its maximum nothing can be seen: maps leave it out
MARGIN = 0.06  # around what maps show, relative to its longer side
_WHOLE = 0.75  # maps that would show more than this of an axis show all of it

# Inches.
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.62, 0.52, 0.64, 0.3  # room for names and numbers
_GAP, _NAMED_GAP = 0.13, 0.48  # between panels; between rows that name their own x axis
_BAR, _TO_BAR = 0.12, 0.09
_BESIDE = _TO_BAR + _BAR + _RIGHT  # right of panels
_SMALLEST = 0.2  # panel
_END = 0.05  # of an axis: what stands so near to one of its ends stands at it


# -- the part of the domain that is shown ----------------------------------------------------------------------------


def visible_window(density: Floats, corners: Floats, points: Floats | None = None) -> Box:
    """The part of the domain that has mass at some time, or holds one of the points, with a margin.

    Args:
        density: (n, N, m, K) at the nodes of all cells, at n times.
        corners: (N, c, 2) of the cells.
        points: (p, 2).
    """
    peak = density.max(axis=(1, 2), keepdims=True)
    occupied = corners[np.any(density > FAINT * peak, axis=(0, 2, 3))].reshape(-1, 2)
    if points is not None:
        occupied = np.concatenate([occupied, points[np.isfinite(points).all(axis=1)]])
    box = Box.around(corners)
    if not len(occupied):
        return box
    mass = Box(np.maximum(occupied.min(axis=0), box.lower), np.minimum(occupied.max(axis=0), box.upper))
    near = mass.grown(MARGIN * float(mass.size.max()), limits=box)
    whole = near.size > _WHOLE * box.size
    return Box(np.where(whole, box.lower, near.lower), np.where(whole, box.upper, near.upper))


def axis_limits(window: Box, domain: Box, axis: int) -> tuple[float, float]:
    """Limits of an axis: with room for the line around the domain, but only where the window reaches it."""
    room = 0.015 * float(window.size.max())
    low, high = float(window.lower[axis]), float(window.upper[axis])
    return low - room * (low <= domain.lower[axis]), high + room * (high >= domain.upper[axis])


# -- what is in a panel ----------------------------------------------------------------------------------------------


def frame_map(panel: Axes, window: Box | None = None, domain: Box | None = None, ticks: int = 4) -> None:
    """A thin frame, few ticks, grey for what is not part of the domain, and limits where a window is given."""
    panel.set_facecolor(WALL)
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8", in_layout=False)
    panel.tick_params(length=2, labelsize="small")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
    if window is not None:
        around = window if domain is None else domain
        panel.set(xlim=axis_limits(window, around, 0), ylim=axis_limits(window, around, 1))


def draw_walls(panel: Axes, outline: Floats) -> LineCollection:
    """The boundary of the domain, from its edges (n, 2, 2)."""
    walls = LineCollection(list(outline), colors="0.35", linewidths=0.7, capstyle="round")
    panel.add_collection(walls)
    return walls


def draw_picture(panel: Axes, window: Box, rgb: Floats, opaque: NDArray[np.bool_], **style: Any) -> AxesImage:
    """Colours (n_x, n_y, 3) over a window, seen where they are ``opaque`` (n_x, n_y)."""
    return panel.imshow(rgba(rgb, opaque), extent=window.extent, origin="lower", **style)


def rgba(rgb: Floats, opaque: NDArray[np.bool_]) -> Floats:
    """In the order of ``imshow``: rows first, (n_y, n_x, 4)."""
    return np.concatenate([rgb, opaque[..., None]], axis=2).swapaxes(0, 1)


def write_in_corner(panel: Axes, text: str) -> None:
    """A small remark in a panel, legible on whatever lies below it."""
    if text:
        paper = {"facecolor": "white", "alpha": 0.8, "linewidth": 0.0, "pad": 1.0}
        panel.text(0.03, 0.03, text, transform=panel.transAxes, fontsize="x-small", color="0.25", bbox=paper, zorder=5)


# -- panels ----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class MapPanels:
    """A figure with rows and columns of panels.

    Attributes:
        figure: of them.
        axes: (rows, columns) panels.
        bars: where the colour bars are: right of all panels, or right of every column.
    """

    figure: Figure
    axes: Any
    bars: list[Axes]

    @classmethod
    def of(
        cls,
        width: float,
        heights: Sequence[float],
        columns: int,
        *,
        share_x: Literal["all", "row"] = "all",
        share_y: Literal["all", "row"] = "all",
        bars: Literal["one", "columns", "none"] = "one",
    ) -> Self:
        """Panels of this width and, row by row, of these heights in inches; less where a page has no room for them."""
        gap = _BESIDE if bars == "columns" else _GAP
        row_gap = _GAP if share_x == "all" else _NAMED_GAP
        right = _RIGHT if bars == "none" else _BESIDE
        page = page_width()
        if page is not None:
            room = max((page - _LEFT - right - (columns - 1) * gap) / columns, _SMALLEST)
            heights = [height * min(1.0, room / width) for height in heights]
            width = min(width, room)
        wide = columns * width + (columns - 1) * gap
        high = sum(heights) + (len(heights) - 1) * row_gap
        whole = np.array([_LEFT + wide + right, _BOTTOM + high + _TOP])
        figure = Figure(figsize=(float(whole[0]), float(whole[1])))
        axes = figure.subplots(
            len(heights),
            columns,
            sharex=share_x,
            sharey=share_y,
            squeeze=False,
            height_ratios=list(heights),
            gridspec_kw={
                "left": _LEFT / whole[0],
                "right": (_LEFT + wide) / whole[0],
                "bottom": _BOTTOM / whole[1],
                "top": (_BOTTOM + high) / whole[1],
                "wspace": gap / width,
                "hspace": row_gap / (sum(heights) / len(heights)),  # Matplotlib measures it in mean heights
            },
        )
        ends = {"one": [wide], "columns": [(i + 1) * width + i * gap for i in range(columns)], "none": []}[bars]
        corners = [((_LEFT + end + _TO_BAR) / whole[0], _BOTTOM / whole[1]) for end in ends]
        return cls(figure, axes, [figure.add_axes((*c, _BAR / whole[0], high / whole[1])) for c in corners])

    @staticmethod
    def width_on(page: float, columns: int) -> float:
        """The width of panels that fill a page, both in inches; very many of them are wider than the page."""
        return max((page - _LEFT - _BESIDE - (columns - 1) * _GAP) / columns, _SMALLEST)

    def add_colour_bar(self, image: ScalarMappable, name: str, bar: int = 0) -> Colorbar:
        """Draw the colour bar of an image, with its name."""
        scale = self.figure.colorbar(image, cax=self.bars[bar])
        scale.set_label(name)
        scale.outline.set_linewidth(0.4)
        return scale

    def note(self, text: str) -> None:
        """A small remark in the lower right corner."""
        right = 1.0 - _BESIDE / float(self.figure.get_figwidth())
        self.figure.text(right, 0.0, text, fontsize=8, color="0.3", ha="right", va="bottom")

    def name_axes(self, rows: Sequence[str], columns: Sequence[str]) -> None:
        """Names where they are not a repetition: of columns above, of rows on the left, coordinates left and below."""
        for panel, name in zip(self.axes[0], columns, strict=True):
            panel.set_title(name)
        for panel, name in zip(self.axes[:, 0], rows, strict=True):
            panel.set_ylabel(name)
        for panel in self.axes[-1]:
            panel.set_xlabel("$x$")
            _keep_numbers_inside(panel)


def _keep_numbers_inside(panel: Axes) -> None:
    """Numbers at the ends of the x axis end there, so that they do not run into those of the next panel."""
    low, high = panel.get_xlim()
    places = panel.xaxis.get_majorticklocs()
    for place, tick in zip(places, panel.xaxis.get_major_ticks(len(places)), strict=True):
        share = (place - low) / (high - low)
        tick.label1.set_horizontalalignment("left" if share < _END else "right" if share > 1.0 - _END else "center")
