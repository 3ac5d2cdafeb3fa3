"""Targets on maps of densities: crosses, dashed contours of ρ*, lines between the regions of classes."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, final

import numpy as np
from matplotlib.axes import Axes

from eulerian.app.figures.colours import VERMILION
from eulerian.app.runs.targets import Targets
from eulerian.app.runs.triangles import Triangles
from eulerian.base.arrays import Floats

COLOUR = VERMILION  # densities are blue
_LEVELS = (0.1, 0.5, 0.9)  # contours of ρ*, relative to its maximum
_LOSSES = (0.01, 0.05, 0.2)  # contours of a loss, relative to its range
DASHES = (0, (4, 2))


@final
class TargetMarks:
    """Draws targets on panels of maps at time T.

    Args:
        targets: to draw.
        pixels: (n_x, n_y, 2) where contours are computed.
    """

    def __init__(self, targets: Targets, pixels: Floats) -> None:
        self._targets, self._pixels = targets, pixels
        self._density = self._losses = np.zeros((0, 0, 0))
        if len(targets.nodes):
            located = Triangles.of_nodes(targets.nodes).locate(pixels)
            if len(targets.density):
                self._density = located.interpolate_labels(targets.density)
            else:
                self._losses = located.interpolate_labels(targets.losses)

    @property
    def remark(self) -> str:
        """What the marks are."""
        if len(self._density):
            return rf"dashed: target $\rho^*$ at {_percent(_LEVELS)} of its peak"
        if len(self._losses) and self._targets.classes:
            return "dashed: between the regions of classes"
        if len(self._losses):
            return f"dashed: the loss at {_percent(_LOSSES)} of its range"
        return "cross: target" if len(self._targets.points) else ""

    def draw(self, panel: Axes, label: int) -> None:
        """Draw what is there of a label's target."""
        point = self._targets.point(label)
        panel.scatter(point[:, 0], point[:, 1], marker="x", s=28, color=COLOUR, linewidths=1.3, zorder=4)
        if len(self._density):
            self._contours(panel, self._density[..., label], _LEVELS, above=0.0)
        elif len(self._losses) and self._targets.classes:
            for edge in between_regions(self._losses):
                self._contour(panel, edge, [0.0], 0.9)
        elif len(self._losses):
            own = self._losses[..., label]
            self._contours(panel, own, _LOSSES, above=float(np.nanmin(own)))

    def _contours(self, panel: Axes, values: Floats, levels: Sequence[float], above: float) -> None:
        """At fractions of the way from a value to the largest one."""
        high = float(np.nanmax(values))
        if high > above:
            self._contour(panel, values, above + np.array(levels) * (high - above), 0.8)

    def _contour(self, panel: Axes, values: Floats, levels: Any, width: float) -> None:
        x, y = self._pixels[..., 0], self._pixels[..., 1]
        panel.contour(x, y, values, levels, colors=COLOUR, linewidths=width, linestyles=[DASHES], zorder=4)


def _percent(levels: Sequence[float]) -> str:
    return ", ".join(f"{100 * level:.0f}" for level in levels) + " %"


def between_regions(losses: Floats) -> list[Floats]:
    """Functions (...) for pairs of labels that are 0 on the border of their regions, where no loss (..., K) is smaller.

    NaN where a third label has a smaller loss than both, and where losses are not known: no line is drawn there.
    """
    found = []
    for one, other in combinations(range(losses.shape[-1]), 2):
        pair = losses[..., [one, other]]
        theirs = pair.min(axis=-1) <= losses.min(axis=-1)
        edge = np.where(theirs, pair[..., 0] - pair[..., 1], np.nan)
        if np.nanmin(edge, initial=np.inf) < 0.0 < np.nanmax(edge, initial=-np.inf):
            found.append(edge)
    return found
