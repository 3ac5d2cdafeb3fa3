"""How the convex solver closes the gap between its upper and its lower bound."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eulerian.app.figures.colours import BLUE, GREEN, VERMILION
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.columns import read_columns
from eulerian.app.runs.files import GAP, GAP_COLUMNS
from eulerian.base.arrays import Floats


def _draw(folder: Path) -> Figure | None:
    rows = read_columns(folder / GAP, GAP_COLUMNS, "gap")
    return gap_curves(rows) if len(rows["primal"]) > 0 else None


GAP_FIGURE = RunFigure("gap", (GAP,), _draw)


def gap_curves(rows: Mapping[str, Floats]) -> Figure:
    """Primal and dual value coming together, and the residual, over the iterations.

    A gap has only what is the cost of a flow; until then the primal value is an estimate, which may lie on either side.
    """
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    left: Axes
    right: Axes
    left, right = figure.subplots(1, 2)
    iteration, primal, dual, gap = (rows[name] for name in ("iteration", "primal", "dual", "relative_gap"))
    flows = np.isfinite(gap)
    if not flows.all():
        left.plot(iteration, primal, ":", color=VERMILION, lw=1.2, label="estimate: not yet a flow")
    left.plot(iteration[flows], primal[flows], "o-", color=VERMILION, ms=4, lw=1.4, label="primal: cost of a flow")
    left.plot(iteration, dual, color=BLUE, lw=1.4, label="dual: lower bound")
    left.set(xlabel="iteration", ylabel="$J$", ylim=_limits_without_start(primal, dual))
    left.legend()
    right.plot(iteration, rows["residual"], color=GREEN, lw=1.2, label="residual")
    right.plot(iteration[flows], np.abs(gap[flows]), "o-", color="black", ms=4, lw=1.2, label="relative gap, certified")
    right.set(xlabel="iteration", yscale="log")
    right.grid(which="major", color="0.9")
    right.legend()
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.02)
    return figure


def _limits_without_start(primal: Floats, dual: Floats) -> tuple[float, float]:
    """Limits of J that leave out the first records, far off as they are."""
    later = np.concatenate([primal[len(primal) // 6 :], dual[len(dual) // 6 :]])
    later = later[np.isfinite(later)] if np.isfinite(later).any() else np.zeros(1)
    low, high = float(later.min()), float(later.max())
    room = 0.1 * (high - low) or 1e-3 * abs(high) or 1.0
    return low - room, high + room
