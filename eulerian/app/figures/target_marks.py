"""Targets on maps of densities: crosses, dashed contours of ρ*, lines between the regions of classes."""

from collections.abc import Sequence
from itertools import combinations
from typing import final

import numpy as np
from matplotlib.axes import Axes

from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.targets import Targets
from eulerian.base.arrays import Floats

COLOUR = "#D55E00"  # of Okabe and Ito's palette; densities are blue
_LEVELS = (0.1, 0.5, 0.9)  # contours of ρ*, relative to its maximum
_LOSSES = (0.01, 0.05, 0.2)  # contours of a loss, relative to its range
DASHES = (0, (4, 2))


@final
class TargetMarks:
    """Draws targets on panels of maps at time T.

    Args:
        targets: to draw.
        lattice: (n_x, n_y, 2) where contours are computed.
    """

    def __init__(self, targets: Targets, lattice: Floats) -> None:
        self._targets, self._lattice = targets, lattice
        self._density = self._losses = np.zeros((0, 0, 0))
        if len(targets.nodes):
            located = TriangleGrid.build(targets.nodes).locate(lattice)
            values = targets.density if len(targets.density) else targets.losses
            layers = [located.interpolate(values[:, :, k]) for k in range(values.shape[2])]
            if len(targets.density):
                self._density = np.stack(layers, axis=-1)
            else:
                self._losses = np.stack(layers, axis=-1)

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
        x, y = self._lattice[..., 0], self._lattice[..., 1]
        if len(self._density) and np.nanmax(self._density[..., label]) > 0.0:
            own = self._density[..., label]
            levels = np.array(_LEVELS) * np.nanmax(own)
            panel.contour(x, y, own, levels, colors=COLOUR, linewidths=0.8, linestyles=[DASHES], zorder=4)
        if len(self._losses) and not self._targets.classes:
            own = self._losses[..., label]
            low, high = np.nanmin(own), np.nanmax(own)
            levels = low + np.array(_LOSSES) * (high - low)
            if high > low:
                panel.contour(x, y, own, levels, colors=COLOUR, linewidths=0.8, linestyles=[DASHES], zorder=4)
        elif len(self._losses):
            for edge in between_regions(self._losses):
                panel.contour(x, y, edge, [0.0], colors=COLOUR, linewidths=0.9, linestyles=[DASHES], zorder=4)


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
