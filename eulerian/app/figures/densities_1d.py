"""1-D: densities and velocity at a few times, as curves."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eulerian.app.figures.colours import time_colour
from eulerian.app.figures.labels import panel_titles, time_title
from eulerian.app.figures.maps import FAINT, MARGIN
from eulerian.app.figures.target_marks import COLOUR, DASHES, between_regions
from eulerian.app.runs.snapshots import ExactDensities, Snapshots
from eulerian.app.runs.targets import Targets
from eulerian.base.arrays import Floats

_EMPTY = 1e-2  # where ρ is below this fraction of its maximum the velocity is faint: nothing there feels it


def density_curves(snapshots: Snapshots, targets: Targets | None = None, exact: ExactDensities | None = None) -> Figure:
    """1-D: one column per label with its density, and the velocity below it, at every time; and its target.

    ``exact`` densities take the place of the mesh's; they have the same times.
    """
    x, order = sorted_line(snapshots.points)
    n_labels, n_fields = snapshots.density.shape[3], snapshots.velocity.shape[3]
    density = on_line(snapshots.density, order)
    velocity = on_line(snapshots.velocity[..., 0], order)
    inside = density > _EMPTY * density.max()
    place, shown = (x, density) if exact is None else (exact.pixels[:, 0], exact.shown)
    figure = Figure(figsize=(1.2 + 3.6 * max(n_labels, 1.35), 4.4), layout="constrained")
    axes: Any = figure.subplots(2, n_labels, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
    for k, title in enumerate(panel_titles(n_labels)):
        upper, lower = axes[:, k]
        for i, t in enumerate(snapshots.times):
            colour = time_colour(t, snapshots.times[-1])
            field = velocity[i, :, min(k, n_fields - 1)]
            upper.plot(place, shown[i, :, k], color=colour, lw=1.3, label=time_title(t))
            lower.plot(x, field, color=colour, lw=0.6, alpha=0.5)
            lower.plot(x, np.where(inside[i, :, k], field, np.nan), color=colour, lw=1.6)
        upper.set_title(title)
        if targets is not None:
            _draw_target(upper, targets, k)
        lower.set_xlabel("$x$")
        lower.axhline(0.0, color="0.8", lw=0.6, zorder=0)
        upper.set_xlim(x[0], x[-1])
    _limit_velocity(axes[1, 0], np.broadcast_to(velocity, inside.shape)[inside])
    axes[0, 0].set_ylim(bottom=0.0)
    source = "" if exact is None else "\nby characteristics"
    axes[0, 0].set_ylabel(rf"density $\rho$, mass per length{source}")
    axes[1, 0].set_ylabel("velocity $v$")
    axes[0, -1].legend()
    return figure


def _limit_velocity(axes: Axes, felt: Floats) -> None:
    """Show the velocities that some mass feels; elsewhere they may be anything."""
    low, high = felt.min(initial=np.inf), felt.max(initial=-np.inf)
    if low <= high:
        margin = 0.15 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)


def _draw_target(panel: Axes, targets: Targets, label: int) -> None:
    """The target density as a dashed curve, points and the ends of regions as upright lines."""
    for x in targets.point(label)[:, 0]:
        panel.axvline(x, color=COLOUR, lw=1.0, ls=DASHES, label="target")
    if not len(targets.nodes):
        return
    x, order = sorted_line(targets.nodes)
    if len(targets.density):
        values = on_line(targets.density[None], order)[0, :, label]
        panel.plot(x, values, color=COLOUR, lw=1.2, ls=DASHES, label=r"target $\rho^*$")
        return
    if not targets.classes:
        return  # what a loss is has another unit
    for edge in between_regions(on_line(targets.losses[None], order)[0]):
        for i in np.flatnonzero(edge[:-1] * edge[1:] < 0.0):
            root = x[i] - edge[i] * (x[i + 1] - x[i]) / (edge[i + 1] - edge[i])
            panel.axvline(root, color=COLOUR, lw=1.0, ls=DASHES, label="between classes")


def sorted_line(points: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The nodes (N, m, 1) from left to right, cell by cell, and the order (N * m,) that makes them so."""
    x = points[:, :, 0]
    cells = np.argsort(x.mean(axis=1))
    inside = np.argsort(x[cells], axis=1)
    order = (cells[:, None] * x.shape[1] + inside).ravel()
    return x.ravel()[order], order


def on_line(values: Floats, order: NDArray[np.int64]) -> Floats:
    """Values (n, N, m, ...) at the sorted nodes, (n, N * m, ...)."""
    return values.reshape(values.shape[0], -1, *values.shape[3:])[:, order]


def visible_part(x: Floats, density: Floats, particles: Floats | None = None) -> tuple[float, float]:
    """The part of the line that has mass or particles at some time, with a margin.

    Args:
        x: (m,) from left to right.
        density: (n, m, K) there, at n times.
        particles: positions of any shape.
    """
    places = x[np.any(density > FAINT * density.max(axis=1, keepdims=True), axis=(0, 2))]
    if particles is not None:
        places = np.concatenate([places, particles[np.isfinite(particles)]])
    if not len(places):
        return float(x[0]), float(x[-1])
    margin = MARGIN * float(np.ptp(places))
    return max(float(x[0]), float(places.min()) - margin), min(float(x[-1]), float(places.max()) + margin)
