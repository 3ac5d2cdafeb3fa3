"""Figures of densities against particles at one θ: both at the final time, and the parts of J."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from eulerian.app.figures.colours import BLUE, DENSITY, VERMILION
from eulerian.app.figures.densities_1d import sorted_line, visible_part
from eulerian.app.figures.labels import panel_titles
from eulerian.app.figures.maps import MapPanels, draw_walls, frame_map, visible_window
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.comparison import ComparisonData
from eulerian.app.runs.files import FIGURES, METHOD_PAIR
from eulerian.app.runs.triangles import Triangles
from eulerian.base.arrays import Floats

MESH, PARTICLES = BLUE, VERMILION
_PIXELS = 500  # along the longer side of a map
_DOTS = 500  # particles of a label that are shown
_BINS = 50


_FILE = f"{FIGURES}/{METHOD_PAIR}"


def _draw(folder: Path) -> Figure | None:
    """There is no picture of densities in three dimensions."""
    found = ComparisonData.load(folder / _FILE)
    draw = {1: comparison_curves, 2: comparison_maps}.get(found.x.shape[1])
    return None if draw is None else draw(found)


COMPARISON_FIGURE = RunFigure("compare", (_FILE,), _draw)
PARTS_FIGURE = RunFigure("parts", (_FILE,), lambda folder: part_errors(ComparisonData.load(folder / _FILE)))


def comparison_maps(found: ComparisonData) -> Figure:
    """2-D: one row per label, ρ(T) on the mesh with particles on it, and how it differs from the flow's density."""
    triangles, n_labels = Triangles.of_nodes(found.points), found.n_labels
    # Both densities are seen in the window.
    window = visible_window(np.stack([found.density, found.pushed]), triangles.corners)
    located, outline = triangles.locate(window.pixels(_PIXELS)), triangles.outline()
    width, height = window.size / window.size.max() * 3.2
    panels = MapPanels.of(float(width), [float(height)] * n_labels, 2, bars="columns")
    difference = found.density - found.pushed
    largest = float(np.abs(difference).max(initial=0.0)) or 1.0
    columns: Any = (
        (found.density, DENSITY, PowerNorm(0.5, 0.0, float(found.density.max(initial=0.0)) or 1.0)),
        (difference, "RdBu_r", Normalize(-largest, largest)),
    )
    for k, i in np.ndindex(n_labels, 2):
        values, colours, norm = columns[i]
        panel = panels.axes[k, i]
        shades = located.interpolate(values[:, :, k]).T
        image = panel.imshow(shades, extent=window.extent, origin="lower", cmap=colours, norm=norm)
        draw_walls(panel, outline)
        frame_map(panel, window, triangles.box)
        if k == 0:
            panels.add_colour_bar(image, (r"density $\rho(T)$, mass per area", "difference, mass per area")[i], i)
    for k in range(n_labels):
        dots = _some(found.x[found.labels == k])
        panels.axes[k, 0].scatter(*dots.T, s=2.0, color=PARTICLES, alpha=0.5, linewidths=0.0, zorder=3)
    rows = [f"{title}\n$y$" if title else "$y$" for title in panel_titles(n_labels)]
    panels.name_axes(rows, ["mesh, with particles", "mesh minus density along characteristics"])
    return panels.figure


def comparison_curves(found: ComparisonData) -> Figure:
    """1-D: one column per label, ρ(T) by both ways with a histogram and a rug of particles; below, the difference."""
    x, order = sorted_line(found.points)
    mesh, pushed = (values.reshape(-1, found.n_labels)[order] for values in (found.density, found.pushed))
    left, right = visible_part(x, mesh[None])
    n_labels = found.n_labels
    figure = Figure(figsize=(1.2 + 3.8 * max(n_labels, 1.35), 4.2), layout="constrained")
    axes: Any = figure.subplots(2, n_labels, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1.2))
    bins = np.linspace(left, right, _BINS + 1)
    for k, title in enumerate(panel_titles(n_labels)):
        upper, lower = axes[:, k]
        own = found.labels == k
        heights, _ = np.histogram(found.x[own, 0], bins, weights=found.weights[own])
        upper.stairs(heights / np.diff(bins), bins, fill=True, color=PARTICLES, alpha=0.3, label="particles")
        upper.plot(x, mesh[:, k], color=MESH, lw=1.6, label=r"$\rho(T)$ on the mesh")
        upper.plot(x, pushed[:, k], color="black", lw=0.9, ls="--", label="along characteristics")
        rug, along_x = _some(found.x[own])[:300, 0], upper.get_xaxis_transform()
        upper.plot(rug, np.full(len(rug), 0.015), "|", color=PARTICLES, ms=5, mew=0.4, transform=along_x)
        lower.plot(x, mesh[:, k] - pushed[:, k], color=MESH, lw=0.9)
        lower.axhline(0.0, color="0.8", lw=0.6, zorder=0)
        lower.set_xlabel("$x$")
        upper.set_title(title)
        upper.set(xlim=(left, right), ylim=(0.0, None))
    axes[0, 0].set_ylabel(r"density $\rho(T)$, mass per length")
    axes[1, 0].set_ylabel("mesh minus\ncharacteristics")
    axes[0, -1].legend()
    return figure


def part_errors(found: ComparisonData) -> Figure:
    """What particles find minus what the mesh finds, J and its parts, with the particles' confidence intervals."""
    names = ["$J$" if name == "total" else str(name) for name in found.names]
    rows = np.arange(len(names))[::-1]
    total = abs(float(found.mesh[0])) or 1.0
    figure = Figure(figsize=(6.2, 0.9 + 0.42 * len(names)), layout="constrained")
    axes: Axes = figure.subplots()
    axes.axvline(0.0, color=MESH, lw=1.4, zorder=1)
    axes.errorbar(
        100.0 * (found.particles - found.mesh) / total,
        rows,
        xerr=100.0 * np.nan_to_num(found.interval) / total,
        fmt="o",
        color=PARTICLES,
        capsize=3.0,
        ms=4.0,
        lw=1.2,
        zorder=2,
    )
    known = np.isfinite(found.interval) & (found.interval > 0.0)
    values = [
        f"{m:.6g} / {p:.6g}" + (f" ± {i:.2g}" if ok else "")
        for m, p, i, ok in zip(found.mesh, found.particles, found.interval, known, strict=True)
    ]
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    right = axes.secondary_yaxis("right")
    right.set_yticks(rows, values)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.set_xlabel("particles minus mesh, % of $J$ (bars: 95 %)")
    axes.annotate("mesh / particles", (1.0, 1.0), (4, 4), "axes fraction", "offset points", color="0.3")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.margins(x=0.1)
    return figure


def _some(x: Floats) -> Floats:
    """At most ``_DOTS`` of the points, spread over all of them."""
    return x[np.unique(np.linspace(0, len(x) - 1, _DOTS).astype(int))] if len(x) > _DOTS else x
