"""Grids of an interval that are fine where losses bend, and around their kinks and jumps."""

from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.base.arrays import Floats, require_finite
from eulerian.ideal.functionals import KEY, Loss

NODES = 4500
"""As soon as a grid has so many nodes, it is refined no more; one round may double them."""

_FIRST = 1024  # intervals to begin with
_SHARE = 0.25  # of the worst one: what is as bad as that is halved with it
_ENOUGH = 1e-12  # of the losses' range: what is better than that is not halved
_NARROW = 1e-8  # of the domain: nothing is made finer than that
_BETWEEN = np.array([0.25, 0.5, 0.75])  # where losses are compared with their chords
# Of the greatest difference there: that of a parabola is seen in full, of that at one kink no less than 3/4, of that at
# one jump no less than 2/3.
_UNSEEN = 1.5


@final
@dataclass(frozen=True)
class LineGrid:
    """Losses on an interval of the domain.

    If they were linear between neighbours, increasing maps to the nodes alone would cost as little as others: round
    z(x) up where the part of its way to the next node exceeds a threshold, else down; that increases too, and the mean
    over all thresholds of what it costs is what z costs. So the grid hides no more than losses sag below their chords.

    Attributes:
        z: (M,) ascending, the ends of the interval included.
        losses: (M, K).
        sag: what the integrand may lie below its chord between neighbours, at most.
        variation: (K,) of the losses less their mean over the labels.
    """

    z: Floats
    losses: Floats
    sag: float
    variation: Floats

    @property
    def length(self) -> float:
        """Of the interval."""
        return float(self.z[-1] - self.z[0])


def line_grids(cells: Floats, loss: Loss, stiffness: float) -> list[LineGrid]:
    """A grid for each interval of the domain; its cells have the ends (n, 2)."""
    cells = cells[np.argsort(cells[:, 0])]
    apart = np.flatnonzero(cells[1:, 0] - cells[:-1, 1] > 1e-9 * (cells[-1, 1] - cells[0, 0])) + 1
    return [_grid(part[0, 0], part[-1, 1], loss, stiffness) for part in np.split(cells, apart)]


def _grid(low: float, high: float, loss: Loss, stiffness: float) -> LineGrid:
    """Fine where losses bend, and around their kinks and jumps."""
    z = np.linspace(low, high, _FIRST + 1)
    losses = _losses(loss, z)
    while True:
        width = np.diff(z)
        between = z[:-1, None] + width[:, None] * _BETWEEN
        inside = _losses(loss, between.ravel()).reshape(len(width), len(_BETWEEN), -1)
        bent = _UNSEEN * (inside - _chords(losses))
        # Upwards too: where a jump is near an end, what lies below the chord is overlooked.
        sag = np.abs(bent).max(axis=(1, 2)) + stiffness / 8.0 * width**2
        wide = width > _NARROW * (high - low)
        worst = sag.max(initial=0.0, where=wide)
        if len(z) >= NODES or worst <= _ENOUGH * np.ptp(losses):
            break
        halved = np.flatnonzero(wide & (sag >= _SHARE * worst))
        z = np.insert(z, halved + 1, between[halved, 1])
        losses = np.insert(losses, halved + 1, inside[halved, 1], axis=0)
    # What stands on either side of a jump moves to the neighbour on its side: that keeps the order too.
    ends = _UNSEEN * _below_both(losses, inside) + stiffness * (high - low) * width
    sag[~wide] = np.minimum(sag, ends)[~wide]
    own = losses - losses.mean(axis=1, keepdims=True)
    turns = np.abs(bent - bent.mean(axis=2, keepdims=True)).max(axis=1)
    return LineGrid(z, losses, float(sag.max()), (np.abs(np.diff(own, axis=0)) + 2.0 * turns).sum(axis=0))


def _chords(losses: Floats) -> Floats:
    """Of losses (M, K) between neighbours, (M − 1, 3, K)."""
    return np.asarray(losses[:-1, None] + _BETWEEN[:, None] * np.diff(losses, axis=0)[:, None])


def _below_both(losses: Floats, inside: Floats) -> Floats:
    """By how much losses (M − 1, 3, K) between neighbours lie below both of them, (M − 1,)."""
    return np.asarray((np.minimum(losses[:-1], losses[1:])[:, None] - inside).max(axis=(1, 2), initial=0.0))


def _losses(loss: Loss, z: Floats) -> Floats:
    """(n, K) at points (n,)."""
    with np.errstate(all="ignore"):
        values = np.asarray(loss(z[:, None]), dtype=float)
    require_finite(values, z[:, None], "the loss", KEY)
    return values
