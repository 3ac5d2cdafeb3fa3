"""Mass at the boundary: how much over time, and where on it."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

from eulerian.app.figures.colours import label_colours
from eulerian.app.figures.labels import time_title
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.boundary_mass import LIMIT, BoundaryMass
from eulerian.app.runs.files import BOUNDARY, FIGURES
from eulerian.base.arrays import Floats

_DECADES = 3.0  # of masses that colours distinguish
_COLOURS = matplotlib.colormaps["YlOrRd"].resampled(256)  # the user may have set another number
_PERCENT = 100.0


_FILE = f"{FIGURES}/{BOUNDARY}"
BOUNDARY_FIGURE = RunFigure("boundary", (_FILE,), lambda folder: boundary_panels(BoundaryMass.load(folder / _FILE)))


def boundary_panels(mass: BoundaryMass) -> Figure:
    """Left each label's share along the boundary over time, right where that of the worst label lies at its peak."""
    figure = Figure(figsize=(7.0, 2.9), layout="constrained")
    left = figure.add_subplot(1, 2, 1)
    _over_time(left, mass)
    time, label = mass.worst
    masses = _PERCENT * mass.masses[:, label]
    dim = mass.facets.shape[2]
    if dim == 1:
        right = figure.add_subplot(1, 2, 2)
        _ends(right, mass.facets[:, 0, 0], masses)
    else:
        right = figure.add_subplot(1, 2, 2, projection=None if dim == 2 else "3d")
        norm = LogNorm(masses.max() * 10.0**-_DECADES, masses.max())
        draw = _outline if dim == 2 else _surface
        figure.colorbar(draw(right, mass.facets, masses, norm), ax=right, label="% of its mass, by facet", extend="min")
    whose = f"label {label}, " if mass.share.shape[1] > 1 else ""
    right.set_title(f"{whose}{time_title(mass.times[time])}")
    return figure


def _over_time(axes: Axes, mass: BoundaryMass) -> None:
    count = mass.share.shape[1]
    for label, colour in enumerate(label_colours(count)):
        share = np.maximum(_PERCENT * mass.share[:, label], 1e-3 * _PERCENT * LIMIT)
        axes.plot(mass.times, share, color=colour, lw=1.4, marker=".", label=f"label {label}" if count > 1 else "all")
    axes.axhline(_PERCENT * LIMIT, color="0.5", lw=0.8, ls="--", label=f"a warning above {_PERCENT * LIMIT:g} %")
    axes.set(xlabel="$t$", ylabel="% of the mass along the boundary", yscale="log")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)  # lines may be anywhere below it


def _ends(axes: Axes, x: Floats, masses: Floats) -> None:
    order = np.argsort(x)
    names = [f"$x = {place:.4g}$" for place in x[order]]
    axes.bar(names, masses[order], color=_COLOURS(0.7), width=0.5)
    axes.set(ylabel="% of its mass")


def _outline(axes: Axes, facets: Floats, masses: Floats, norm: LogNorm) -> LineCollection:
    shown = masses > masses.max() * 10.0**-_DECADES
    axes.add_collection(LineCollection(list(facets), colors="0.8", linewidths=0.8))
    lines = LineCollection(
        list(facets[shown]), array=masses[shown], norm=norm, cmap=_COLOURS, linewidths=4.0, capstyle="round"
    )
    axes.add_collection(lines)
    axes.set(aspect="equal", xlabel="$x$", ylabel="$y$")
    axes.margins(0.05)
    axes.autoscale_view()
    return lines


def _surface(axes: Any, facets: Floats, masses: Floats, norm: LogNorm) -> Any:
    low, high = facets.min(axis=(0, 1)), facets.max(axis=(0, 1))
    shown = masses > masses.max() * 10.0**-_DECADES
    sides = Poly3DCollection(facets[shown], array=masses[shown], norm=norm, cmap=_COLOURS, alpha=0.6)
    axes.add_collection3d(sides)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]), xlabel="$x$", ylabel="$y$")
    axes.set_box_aspect(high - low)
    return sides
