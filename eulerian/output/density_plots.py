"""Densities and velocity at a few times: curves in one dimension, maps with arrows in two."""

from dataclasses import dataclass
from typing import Any, Self, final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from eulerian.arrays import Floats
from eulerian.output.map_panels import MapPanels
from eulerian.output.snapshots import Snapshots
from eulerian.output.triangle_grid import Box, TriangleGrid

_EMPTY = 1e-2  # where ρ is below this fraction of its maximum the velocity is faint or absent: nothing there feels it
FAINT = 1e-3  # where ρ stays below this fraction of its maximum nothing can be seen: maps leave it out
MARGIN = 0.06  # around what maps show, relative to its longer side
_WHOLE = 0.75  # maps that would show more than this of an axis show all of it
_WIDE = 1.5  # times as wide as high
_ARROWS = 15  # along the side of a square map; maps of other shapes have as many
_SIDE = 2.0  # inches, the longer side of a map
_PIXELS, _PIXELS_ON_PAGE = 400, 500  # along it

DENSITY_COLOURS = LinearSegmentedColormap.from_list(
    "density", ["#ffffff", "#c3dcf2", "#82b4de", "#4583c4", "#2b4f9e", "#1d1f57"]
)
_TIME_COLOURS = matplotlib.colormaps["viridis"]


def density_curves(snapshots: Snapshots) -> Figure:
    """1-D: one column per label with its density, and the velocity below it, at every time."""
    x, order = sorted_line(snapshots.points)
    n_labels, n_fields = snapshots.density.shape[3], snapshots.velocity.shape[3]
    density = on_line(snapshots.density, order)
    velocity = on_line(snapshots.velocity[..., 0], order)
    inside = density > _EMPTY * density.max()
    figure = Figure(figsize=(1.2 + 3.6 * max(n_labels, 1.35), 4.4), layout="constrained")
    axes: Any = figure.subplots(2, n_labels, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
    norm = Normalize(snapshots.times[0], snapshots.times[-1])
    for k in range(n_labels):
        upper, lower = axes[0, k], axes[1, k]
        for i, t in enumerate(snapshots.times):
            colour = _TIME_COLOURS(0.93 * norm(t))
            field = velocity[i, :, min(k, n_fields - 1)]
            upper.plot(x, density[i, :, k], color=colour, lw=1.3, label=f"$t = {t:.4g}$")
            lower.plot(x, field, color=colour, lw=0.6, alpha=0.5)
            lower.plot(x, np.where(inside[i, :, k], field, np.nan), color=colour, lw=1.6)
        upper.set_title(f"label {k}" if n_labels > 1 else "")
        lower.set_xlabel("$x$")
        lower.axhline(0.0, color="0.8", lw=0.6, zorder=0)
        upper.set_xlim(x[0], x[-1])
    felt = np.broadcast_to(velocity, inside.shape)[inside]
    low, high = felt.min(initial=np.inf), felt.max(initial=-np.inf)
    if low <= high:
        margin = 0.15 * (high - low) or 1.0
        axes[1, 0].set_ylim(low - margin, high + margin)
    axes[0, 0].set_ylim(bottom=0.0)
    axes[0, 0].set_ylabel(r"density $\rho$")
    axes[1, 0].set_ylabel("velocity $v$")
    axes[0, -1].legend()
    return figure


def density_maps(snapshots: Snapshots, page: float | None = None) -> Figure:
    """2-D: one row per label, one column per time; one scale of colours and one of arrows throughout.

    On a ``page``, whose width is given in inches, wide maps stand below each other: one row per time.
    """
    n_times, n_labels = len(snapshots.times), snapshots.density.shape[3]
    grid = TriangleGrid.build(snapshots.points)
    window = visible_window(snapshots, grid)
    extent = np.array([high - low for low, high in (padded(window, axis) for axis in range(2))])
    upright = page is not None and extent[0] > _WIDE * extent[1]
    rows, columns = (n_times, n_labels) if upright else (n_labels, n_times)
    width, height = extent / extent.max() * _SIDE
    if page is not None:
        width, height = extent / extent[0] * min(MapPanels.width_on(page, columns), 3.0)
    panels = MapPanels.of(rows, columns, (float(width), float(height)))
    pixels = grid.locate(window.lattice(_PIXELS if page is None else _PIXELS_ON_PAGE))
    arrows, outline = _Arrows.build(snapshots, grid, window), list(grid.outline())
    # A density that gathers grows by orders of magnitude: the square root keeps its beginning visible on one scale.
    norm = PowerNorm(0.5, 0.0, float(snapshots.density.max()))
    for k, i in np.ndindex(n_labels, n_times):
        panel = (panels.axes.T if upright else panels.axes)[k, i]
        image = panel.imshow(
            pixels.interpolate(snapshots.density[i, :, :, k]).T,
            extent=(window.lower[0], window.upper[0], window.lower[1], window.upper[1]),
            origin="lower",
            cmap=DENSITY_COLOURS,
            norm=norm,
        )
        panel.add_collection(LineCollection(outline, colors="0.35", linewidths=0.7, capstyle="round"))
        arrows.draw(panel, i, k)
        _frame_panel(panel)
        panel.set(xlim=padded(window, 0), ylim=padded(window, 1))
    times = [f"$t = {t:.4g}$" for t in snapshots.times]
    labels = [f"label {k}" if n_labels > 1 else "" for k in range(n_labels)]
    _label_panels(panels.axes, *((times, labels) if upright else (labels, times)))
    panels.tell_colours(image, r"density $\rho$")
    if arrows.fastest > 0.0:
        panels.note(f"longest arrow: $|v| = {arrows.fastest:.4g}$")
    return panels.figure


def _frame_panel(panel: Axes) -> None:
    panel.spines[:].set(visible=True, linewidth=0.5, color="0.8", in_layout=False)  # the axes have their size
    panel.tick_params(length=2, labelsize="small")
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _label_panels(axes: Any, rows: list[str], columns: list[str]) -> None:
    """Names where they are not a repetition: of columns above, of rows on the left, coordinates left and below."""
    for panel, name in zip(axes[0], columns, strict=True):
        panel.set_title(name)
    for panel, name in zip(axes[:, 0], rows, strict=True):
        panel.set_ylabel(f"{name}\n$y$" if name else "$y$")
    for panel in axes[-1]:
        panel.set_xlabel("$x$")


def visible_window(snapshots: Snapshots, grid: TriangleGrid) -> Box:
    """The part of the domain that has mass at some time, with a margin."""
    return occupied(snapshots.density, grid.corners)


def occupied(density: Floats, corners: Floats, points: Floats | None = None) -> Box:
    """The part of the domain that has mass at some time, or holds one of the points, with a margin.

    Args:
        density: (n, N, m, K) at the nodes of all cells, at n times.
        corners: (N, c, 2) of the cells.
        points: (p, 2).
    """
    peak = density.max(axis=(1, 2), keepdims=True)
    shown = corners[np.any(density > FAINT * peak, axis=(0, 2, 3))].reshape(-1, 2)
    if points is not None:
        shown = np.concatenate([shown, points[np.isfinite(points).all(axis=1)]])
    box = Box(corners.min(axis=(0, 1)), corners.max(axis=(0, 1)))
    if not len(shown):
        return box
    mass = Box(np.maximum(shown.min(axis=0), box.lower), np.minimum(shown.max(axis=0), box.upper))
    near = mass.grown(MARGIN * float(mass.size.max()), limits=box)
    whole = near.size > _WHOLE * box.size
    return Box(np.where(whole, box.lower, near.lower), np.where(whole, box.upper, near.upper))


def padded(window: Box, axis: int) -> tuple[float, float]:
    """Limits of an axis with room for the line around the domain."""
    room = 0.015 * float(window.size.max())
    return float(window.lower[axis]) - room, float(window.upper[axis]) + room


@final
@dataclass(frozen=True)
class _Arrows:
    """Velocity on a lattice, where there is mass.

    Attributes:
        position: (a, 2).
        vectors: (n, a, K, 2), NaN where there is no mass.
        fastest: largest length of a vector.
        length: of its arrow, in the units of the domain.
    """

    position: Floats
    vectors: Floats
    fastest: float
    length: float

    @classmethod
    def build(cls, snapshots: Snapshots, grid: TriangleGrid, window: Box) -> Self:
        spacing = float(np.sqrt(window.size.prod())) / _ARROWS
        lattice = window.lattice(round(float(window.size.max()) / spacing))
        located = grid.locate(lattice)
        n_times, n_labels = len(snapshots.times), snapshots.density.shape[3]
        vectors = np.full((n_times, lattice.shape[0] * lattice.shape[1], n_labels, 2), np.nan)
        for i, k in np.ndindex(n_times, n_labels):
            density = located.interpolate(snapshots.density[i, :, :, k])
            field = min(k, snapshots.velocity.shape[3] - 1)
            velocity = [located.interpolate(snapshots.velocity[i, :, :, field, j]) for j in range(2)]
            mass = density > _EMPTY * snapshots.density[i].max()  # False outside the domain, where both are NaN
            vectors[i, :, k] = np.where(mass[..., None], np.stack(velocity, axis=-1), np.nan).reshape(-1, 2)
        lengths = np.linalg.norm(vectors, axis=-1)
        fastest = float(np.max(lengths, initial=0.0, where=np.isfinite(lengths)))
        return cls(lattice.reshape(-1, 2), vectors, fastest, 1.5 * spacing)

    def draw(self, panel: Axes, time: int, label: int) -> None:
        vectors = self.vectors[time, :, label]
        shown = np.isfinite(vectors[:, 0])
        if self.fastest > 0.0 and shown.any():
            panel.quiver(
                *self.position[shown].T,
                *vectors[shown].T,
                angles="xy",
                scale_units="xy",
                scale=self.fastest / self.length,
                width=0.0045,
                headwidth=4.5,
                color="#d1352b",
                zorder=3,
            )


def sorted_line(points: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """1-D: the nodes from left to right, cell by cell, and the order (N * m,) that makes them so."""
    x = points[:, :, 0]
    cells = np.argsort(x.mean(axis=1))
    inside = np.argsort(x[cells], axis=1)
    order = (cells[:, None] * x.shape[1] + inside).ravel()
    return x.ravel()[order], order


def on_line(values: Floats, order: NDArray[np.int64]) -> Floats:
    """Values (n, N, m, ...) at the sorted nodes, (n, N * m, ...)."""
    return values.reshape(values.shape[0], -1, *values.shape[3:])[:, order]
