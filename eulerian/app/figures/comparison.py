"""Figures of densities against particles at one θ: both at the final time, and the parts of J."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eulerian.app.figures.densities_1d import sorted_line
from eulerian.app.figures.density_scale import DENSITY_COLOURS
from eulerian.app.figures.map_window import WALL, shown, visible_window
from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.comparison import ComparisonData
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats

# Of Okabe and Ito's palette.
MESH, PARTICLES = "#0072B2", "#D55E00"
_PIXELS = 500  # along the longer side of a map
_DOTS = 500  # particles of a label that are shown
_BINS = 50


def pair_maps(pair: ComparisonData) -> Figure:
    """2-D: one row per label, ρ(T) on the mesh with particles on it, and how it differs from the flow's density."""
    grid, n_labels = TriangleGrid.build(pair.points), pair.n_labels
    window = visible_window(_as_snapshots(pair), grid)
    pixels = grid.locate(window.lattice(_PIXELS))
    outline = list(grid.outline())
    width, height = window.size / window.size.max() * 3.2
    figure = Figure(figsize=(2.0 * width + 2.0, (height + 0.1) * n_labels + 0.7), layout="compressed")
    axes: Any = figure.subplots(n_labels, 2, sharex=True, sharey=True, squeeze=False)
    difference = pair.density - pair.pushed
    largest = float(np.abs(difference).max(initial=0.0)) or 1.0
    styles = (
        (pair.density, DENSITY_COLOURS, PowerNorm(0.5, 0.0, float(pair.density.max(initial=0.0)) or 1.0)),
        (difference, "RdBu_r", Normalize(-largest, largest)),
    )
    images = []
    for k, i in np.ndindex(n_labels, 2):
        values, colours, norm = styles[i]
        shades = pixels.interpolate(values[:, :, k]).T
        images.append(axes[k, i].imshow(shades, extent=_extent(window), origin="lower", cmap=colours, norm=norm))
        axes[k, i].set_facecolor(WALL)
        axes[k, i].add_collection(LineCollection(outline, colors="0.35", linewidths=0.7))
        axes[k, i].set(xlim=shown(window, grid.box, 0), ylim=shown(window, grid.box, 1))
        _name_panel(axes[k, i], k, i, n_labels)
    for k in range(n_labels):
        dots = _some(pair.x[pair.labels == k])
        axes[k, 0].scatter(*dots.T, s=2.0, color=PARTICLES, alpha=0.5, linewidths=0.0, zorder=3)
    for i, name in enumerate((r"density $\rho(T)$, mass per area", "difference, mass per area")):
        bar = figure.colorbar(images[i], ax=axes[:, i], fraction=0.05, aspect=20 * n_labels, pad=0.02)
        bar.set_label(name)
        bar.outline.set_linewidth(0.4)
    return figure


def pair_curves(pair: ComparisonData) -> Figure:
    """1-D: one column per label, ρ(T) by both ways with a histogram and a rug of particles; below, the difference."""
    x, order = sorted_line(pair.points)
    mesh, pushed = (values.reshape(-1, pair.n_labels)[order] for values in (pair.density, pair.pushed))
    left, right = _reach(x, mesh)
    n_labels = pair.n_labels
    figure = Figure(figsize=(1.2 + 3.8 * max(n_labels, 1.35), 4.2), layout="constrained")
    axes: Any = figure.subplots(2, n_labels, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1.2))
    bins = np.linspace(left, right, _BINS + 1)
    for k in range(n_labels):
        upper, lower = axes[:, k]
        own = pair.labels == k
        heights, _ = np.histogram(pair.x[own, 0], bins, weights=pair.weights[own])
        upper.stairs(heights / np.diff(bins), bins, fill=True, color=PARTICLES, alpha=0.3, label="particles")
        upper.plot(x, mesh[:, k], color=MESH, lw=1.6, label=r"$\rho(T)$ on the mesh")
        upper.plot(x, pushed[:, k], color="black", lw=0.9, ls="--", label="along characteristics")
        rug = _some(pair.x[own])[:300, 0]
        upper.plot(rug, np.full(len(rug), 0.015), "|", color=PARTICLES, ms=5, mew=0.4, transform=_rug(upper))
        lower.plot(x, mesh[:, k] - pushed[:, k], color=MESH, lw=0.9)
        lower.axhline(0.0, color="0.8", lw=0.6, zorder=0)
        lower.set_xlabel("$x$")
        upper.set_title(f"label {k}" if n_labels > 1 else "")
        upper.set(xlim=(left, right), ylim=(0.0, None))
    axes[0, 0].set_ylabel(r"density $\rho(T)$, mass per length")
    axes[1, 0].set_ylabel("mesh minus\ncharacteristics")
    axes[0, -1].legend()
    return figure


def part_errors(pair: ComparisonData) -> Figure:
    """What particles find minus what the mesh finds, J and its parts, with the particles' confidence intervals."""
    names = ["$J$" if name == "total" else str(name) for name in pair.names]
    rows = np.arange(len(names))[::-1]
    total = abs(float(pair.mesh[0])) or 1.0
    figure = Figure(figsize=(6.2, 0.9 + 0.42 * len(names)), layout="constrained")
    axes: Axes = figure.subplots()
    axes.axvline(0.0, color=MESH, lw=1.4, zorder=1)
    axes.errorbar(
        100.0 * (pair.particles - pair.mesh) / total,
        rows,
        xerr=100.0 * np.nan_to_num(pair.interval) / total,
        fmt="o",
        color=PARTICLES,
        capsize=3.0,
        ms=4.0,
        lw=1.2,
        zorder=2,
    )
    known = np.isfinite(pair.interval) & (pair.interval > 0.0)
    values = [
        f"{m:.6g} / {p:.6g}" + (f" ± {i:.2g}" if ok else "")
        for m, p, i, ok in zip(pair.mesh, pair.particles, pair.interval, known, strict=True)
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


def _as_snapshots(pair: ComparisonData) -> Snapshots:
    """Both densities, so that the window of the map holds both."""
    density = np.stack([pair.density, pair.pushed])
    return Snapshots(np.array([0.0, 1.0]), pair.points, density, np.zeros((*density.shape, 2)))


def _extent(window: Box) -> tuple[float, float, float, float]:
    return window.lower[0], window.upper[0], window.lower[1], window.upper[1]


def _name_panel(panel: Axes, k: int, i: int, n_labels: int) -> None:
    """Names where they are not a repetition."""
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8")
    panel.tick_params(length=2, labelsize=8)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if k == 0:
        panel.set_title(("mesh, with particles", "mesh minus density along characteristics")[i])
    if k == n_labels - 1:
        panel.set_xlabel("$x$")
    if i == 0:
        panel.set_ylabel(f"label {k}\n$y$" if n_labels > 1 else "$y$")


def _some(x: Floats) -> Floats:
    """At most ``_DOTS`` of the points, spread over all of them."""
    return x[np.unique(np.linspace(0, len(x) - 1, _DOTS).astype(int))] if len(x) > _DOTS else x


def _rug(axes: Axes) -> Any:
    """Coordinates of the axes along y, of the data along x."""
    return axes.get_xaxis_transform()


def _reach(x: Floats, density: Floats) -> tuple[float, float]:
    """The part of the line that has mass, with a margin."""
    filled = x[np.any(density > 1e-3 * density.max(axis=0), axis=1)]
    if not len(filled):
        return float(x[0]), float(x[-1])
    margin = 0.06 * float(filled[-1] - filled[0])
    return max(float(x[0]), float(filled[0]) - margin), min(float(x[-1]), float(filled[-1]) + margin)
