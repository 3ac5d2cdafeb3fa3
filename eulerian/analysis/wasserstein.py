"""Wasserstein distances between weighted point sets, by the library POT where it is installed."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats

MISSING: Final = "Wasserstein distances need the library POT: pip install 'eulerian[compare]'."

# Points a side of an exact transport plan: its cost grows faster than their number squared.
PLAN_POINTS = 2000
DIRECTIONS = 200
_PLAN_ITERATIONS = 2_000_000

# POT imports every array library that it finds, seconds of each; only NumPy is asked for here.
_UNUSED = ("PYTORCH", "JAX", "CUPY", "TENSORFLOW")


def available() -> bool:
    """Whether POT is installed."""
    return importlib.util.find_spec("ot") is not None


def wasserstein2(x: Floats, y: Floats, x_weights: Floats, y_weights: Floats) -> float:
    """W₂ between two discrete measures, each scaled to mass 1, exact up to rounding.

    On the line by sorting, else by the network simplex (Flamary et al. 2021, jmlr.org/papers/v22/20-451.html): that is
    for at most some ``PLAN_POINTS`` points a side.

    Args:
        x: (n, dim).
        y: (m, dim).
        x_weights: (n,) ≥ 0.
        y_weights: (m,) ≥ 0.
    """
    ot = _pot()
    a, b = x_weights / x_weights.sum(), y_weights / y_weights.sum()
    x, y = _near_the_origin(x, y)
    if x.shape[1] == 1:
        cost = ot.wasserstein_1d(x[:, 0], y[:, 0], a, b, p=2)
    else:
        cost = ot.emd2(a, b, ot.dist(x, y), numItermax=_PLAN_ITERATIONS)
    return float(np.sqrt(max(float(cost), 0.0)))


def sliced_wasserstein2(
    x: Floats, y: Floats, x_weights: Floats, y_weights: Floats, *, directions: int = DIRECTIONS, seed: int = 0
) -> float:
    """The root of the mean of W₂² over projections on random lines (Bonneel et al. 2015), for any number of points.

    Arguments as for ``wasserstein2``; the lines depend on ``seed`` and the dimension only. On the line it is W₂ itself.
    """
    ot = _pot()
    if x.shape[1] == 1:
        return wasserstein2(x, y, x_weights, y_weights)
    rng = np.random.default_rng(seed)
    lines = rng.standard_normal((x.shape[1], directions))
    lines /= np.linalg.norm(lines, axis=0)
    a, b = x_weights / x_weights.sum(), y_weights / y_weights.sum()
    x, y = _near_the_origin(x, y)
    return float(ot.sliced_wasserstein_distance(x, y, a, b, projections=lines))


@final
@dataclass(frozen=True, eq=False)
class LabelledPoints:
    """A discrete measure on features × labels.

    Attributes:
        x: (n, dim).
        labels: (n,) from 0 to K−1.
        weights: (n,) ≥ 0.
    """

    x: Floats
    labels: NDArray[np.integer]
    weights: Floats

    def thinned(self, limit: int, seed: int) -> "LabelledPoints":
        """At most ``limit`` of the points, chosen at random without repetition."""
        if len(self.x) <= limit:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.x), limit, replace=False))
        return LabelledPoints(self.x[rows], self.labels[rows], self.weights[rows])


@final
@dataclass(frozen=True)
class LabelledDistance:
    """A distance between measures on features × labels in which labels do not change.

    Attributes:
        by_label: W_y between the normalised parts of each label, (K,); NaN where one has no mass.
        total: √(Σ m_y W_y²) with the masses m_y of the first measure, over the labels that have a W_y.
    """

    by_label: Floats
    total: float


def distance_by_label(
    one: LabelledPoints,
    other: LabelledPoints,
    n_labels: int,
    distance: Callable[[Floats, Floats, Floats, Floats], float],
) -> LabelledDistance:
    """Apply ``wasserstein2`` or ``sliced_wasserstein2`` to each label."""
    found, masses = np.full(n_labels, np.nan), np.zeros(n_labels)
    for label in range(n_labels):
        a, b = one.labels == label, other.labels == label
        masses[label] = one.weights[a].sum()
        if masses[label] > 0.0 and other.weights[b].sum() > 0.0:
            found[label] = distance(one.x[a], other.x[b], one.weights[a], other.weights[b])
    there = np.isfinite(found)
    shares = masses[there] / masses[there].sum() if there.any() else np.full(1, np.nan)
    return LabelledDistance(found, float(np.sqrt(np.sum(shares * found[there] ** 2))) if there.any() else np.nan)


def _near_the_origin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Both point sets, moved together: POT's squared distances |x|² + |y|² − 2x·y lose all digits far from there."""
    middle = 0.5 * (x.mean(axis=0) + y.mean(axis=0))
    return x - middle, y - middle


def _pot() -> Any:
    for name in _UNUSED:
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{name}", "1")
    import ot

    return ot
