"""What labels and times are called in titles and legends."""

from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D


def label_title(name: str) -> str:
    """What a legend calls a label: a class by its name, else its number."""
    return f"label {name}" if name.isdecimal() else name.replace("$", r"\$")


def panel_titles(count: int) -> list[str]:
    """Of one panel for each label; a single label needs no name."""
    return [f"label {k}" for k in range(count)] if count > 1 else [""]


def time_title(t: float) -> str:
    """Of a panel, or a curve, of one time."""
    return f"$t = {t:.4g}$"


def label_handles(names: Sequence[str], colours: Sequence[str], marker: str = "o", size: float = 4.0) -> list[Line2D]:
    """A legend's marks, one for each label."""
    return [
        legend_mark(marker, size, color=colour, label=label_title(name))
        for name, colour in zip(names, colours, strict=True)
    ]


def legend_mark(marker: str, size: float, **style: Any) -> Line2D:
    """A mark for a legend, of what has no artist of its own."""
    return Line2D([], [], ls="", marker=marker, ms=size, **style)
