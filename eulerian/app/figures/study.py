"""The frontier of a study: error against cost for J, ∇J and the density."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from eulerian.app.figures.colours import BLUE, GREEN, ORANGE, SKY, VERMILION
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.files import STUDY
from eulerian.app.runs.study_table import read_study

# Meshes are cold, particles warm.
_STYLES = {
    "mesh, degree 0": (GREEN, "^"),
    "mesh, degree 1": (SKY, "s"),
    "mesh, degree 2": (BLUE, "o"),
    "random particles": (ORANGE, "D"),
    "sobol particles": (VERMILION, "v"),
}
_NAMES = {"sobol particles": "Sobol particles"}
# The rung at which the rate of a ladder is written, and how far from it in points: where other lines leave room.
_PLACES = {"sobol particles": (-1, (4, -9)), "random particles": (0, (-16, 5))}
_PANELS = (
    ("objective_error", "cpu_objective", "relative error of $J$", "CPU seconds of $J$"),
    ("gradient_error", "cpu_gradient", r"relative error of $\nabla J$", r"CPU seconds of $J$ and $\nabla J$"),
    ("density_error", "cpu_density", r"$L^1$ error of $\rho(T)$", r"CPU seconds of $\rho(T)$"),
)


STUDY_FIGURE = RunFigure("study", (STUDY,), lambda folder: frontier(read_study(folder / STUDY)))


def frontier(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """One line per ladder in three panels, with the observed power of h or N."""
    figure = Figure(figsize=(8.8, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, 3)
    draw_frontier(list(panels), rows)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def draw_frontier(panels: Sequence[Axes], rows: Sequence[Mapping[str, Any]]) -> None:
    """Fill three panels: J, ∇J and the density."""
    for axes, (error, cost, title, time) in zip(panels, _PANELS, strict=True):
        for name in dict.fromkeys(row["ladder"] for row in rows):
            _line(axes, [row for row in rows if row["ladder"] == name], name, error, cost)
        axes.set(xscale="log", yscale="log", xlabel=time, title=title)
        axes.grid(which="major", color="0.92")
        axes.set_axisbelow(True)
        axes.margins(x=0.16, y=0.08)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(numticks=12))
            axis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, error: str, cost: str) -> None:
    colour, marker = _STYLES.get(name, ("0.4", "x"))
    x, y = (np.array([row[key] for row in rows], dtype=float) for key in (cost, error))
    label = _NAMES.get(name, name)
    axes.plot(x, y, color=colour, marker=marker, ms=4.5, lw=1.3, label=label)
    known = np.isfinite(y) & (y > 0.0)
    on_mesh = np.isfinite([row["h"] for row in rows]).all()
    sizes = np.array([1.0 / row["h"] if on_mesh else row["particles"] for row in rows], dtype=float)
    if known.sum() > 1:
        rate = float(-np.polyfit(np.log(sizes[known]), np.log(y[known]), 1)[0])
        text = rf"$h^{{{rate:.1f}}}$" if on_mesh else rf"$N^{{-{rate:.2f}}}$"
        rung, offset = _PLACES.get(name, (-1, (4, 3)))
        place = (x[known][rung], y[known][rung])
        note = axes.annotate(text, place, offset, textcoords="offset points", color=colour, zorder=5)
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # legible on lines
