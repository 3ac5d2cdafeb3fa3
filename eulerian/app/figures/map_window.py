"""The part of a domain that a map shows: where there is mass at some time, with a margin."""

import numpy as np

from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats

FAINT = 1e-3  # where ρ stays below this fraction of its maximum nothing can be seen: maps leave it out
MARGIN = 0.06  # around what maps show, relative to its longer side
_WHOLE = 0.75  # maps that would show more than this of an axis show all of it
WALL = "#e6e6e6"  # what is not part of the domain: holes and the outside
UNKNOWN = "#c4c4c4"  # where a density is not known


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


def shown(window: Box, domain: Box, axis: int) -> tuple[float, float]:
    """Limits of an axis: with room for the line around the domain, but only where the window reaches it."""
    near, far = padded(window, axis)
    low, high = float(window.lower[axis]), float(window.upper[axis])
    return near if low <= domain.lower[axis] else low, far if high >= domain.upper[axis] else high


def padded(window: Box, axis: int) -> tuple[float, float]:
    """Limits of an axis with room for the line around the domain."""
    room = 0.015 * float(window.size.max())
    return float(window.lower[axis]) - room, float(window.upper[axis]) + room
