"""What curves on a line share: nodes from left to right, and the part of the line that is shown."""

import numpy as np
from numpy.typing import NDArray

from eulerian.app.figures.maps import FAINT, MARGIN
from eulerian.base.arrays import Floats


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
