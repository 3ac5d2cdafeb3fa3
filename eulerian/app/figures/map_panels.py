"""Maps of one size beside each other, with one bar of colours, all placed by hand.

Matplotlib's constrained layout would find the places too. It measures every tick of every panel several times for that,
which takes longer than the drawing; but the sizes of panels are given, and around them a margin is cropped anyway.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self, final

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

# Inches.
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.62, 0.52, 0.64, 0.3  # room for names and numbers
_GAP = 0.13  # between panels
_BAR, _TO_BAR = 0.12, 0.09
_SMALLEST = 0.2  # panel


@final
@dataclass(frozen=True)
class MapPanels:
    """A figure with rows and columns of panels.

    Attributes:
        figure: of them.
        axes: (rows, columns) panels.
        bar: where the colours are told.
    """

    figure: Figure
    axes: Any
    bar: Axes

    @classmethod
    def of(cls, rows: int, columns: int, size: tuple[float, float], share: Literal["all", "row"] = "all") -> Self:
        """Panels of this width and height in inches; ``share`` tells which of them have the same y axis."""
        wide = columns * size[0] + (columns - 1) * _GAP
        high = rows * size[1] + (rows - 1) * _GAP
        width, height = _LEFT + wide + _margin_right(), _BOTTOM + high + _TOP
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(
            rows,
            columns,
            sharex=True,
            sharey=share,
            squeeze=False,
            gridspec_kw={
                "left": _LEFT / width,
                "right": (_LEFT + wide) / width,
                "bottom": _BOTTOM / height,
                "top": (_BOTTOM + high) / height,
                "wspace": _GAP / size[0],
                "hspace": _GAP / size[1],
            },
        )
        corner = ((_LEFT + wide + _TO_BAR) / width, _BOTTOM / height)
        return cls(figure, axes, figure.add_axes((*corner, _BAR / width, high / height)))

    @staticmethod
    def width_on(page: float, columns: int) -> float:
        """The width of panels that fill a page, both in inches; very many of them are wider than the page."""
        return max((page - _LEFT - _margin_right() - (columns - 1) * _GAP) / columns, _SMALLEST)

    def tell_colours(self, image: ScalarMappable, name: str) -> Colorbar:
        """Fill the bar."""
        bar = self.figure.colorbar(image, cax=self.bar)
        bar.set_label(name)
        bar.outline.set_linewidth(0.4)
        return bar

    def note(self, text: str) -> None:
        """A small remark in the lower right corner."""
        right = 1.0 - _margin_right() / float(self.figure.get_figwidth())
        self.figure.text(right, 0.0, text, fontsize=8, color="0.3", ha="right", va="bottom")


def write_in_corner(panel: Axes, text: str) -> None:
    """A small remark in a panel, legible on whatever lies below it."""
    if text:
        paper = {"facecolor": "white", "alpha": 0.8, "linewidth": 0.0, "pad": 1.0}
        panel.text(0.03, 0.03, text, transform=panel.transAxes, fontsize="x-small", color="0.25", bbox=paper, zorder=5)


def _margin_right() -> float:
    return _TO_BAR + _BAR + _RIGHT
