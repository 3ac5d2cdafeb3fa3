"""Global minimisation of a loss and a quadratic cost of the way there, on a convex domain: by grid and polish."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats, require_finite
from eulerian.bounds.convexity import ConvexDomain
from eulerian.bounds.grid_search import Candidates, GridMinimisers, LossTable, tabulation_grid
from eulerian.bounds.local_search import LocalSearch
from eulerian.ideal.functionals import KEY, Loss

_BLOCK = 2**15  # points at a time


class Found(NamedTuple):
    """Where points (n,) go.

    Attributes:
        z: (n, dim) destinations.
        losses: (n,) ℓ there.
        transport: (n,) α/2 d(x, z)².
        via: (n, 2) first and last bend on the way, -1 where it is straight.
    """

    z: Floats
    losses: Floats
    transport: Floats
    via: Floats


@final
@dataclass(frozen=True)
class StraightSearch:
    """Global minimisation of ℓ(z, y) + α/2 |x − z|² over a convex domain; without communication.

    Attributes:
        domain: where z may be.
        loss: ℓ.
        stiffness: α.
        tables: ℓ on a grid, by label.
        around: (2, dim) a box around the points that will be asked for, most of them.
        enough: what a smooth minimum may be missed by, absolute; 0 for rounding.
    """

    domain: ConvexDomain
    loss: Loss
    stiffness: float
    tables: tuple[LossTable, ...]
    around: Floats
    enough: float = 0.0

    @cached_property
    def polish(self) -> LocalSearch:
        """From grid points to minima."""
        # The size of ℓ, by which rounding is judged; outside the domain it is +∞.
        finite = [np.abs(table.values[np.isfinite(table.values)]).max() for table in self.tables]
        return LocalSearch(self.domain, float(self.tables[0].spacing.max()), max(*finite, 1e-300), self.enough)

    @property
    def accuracy(self) -> float:
        """Of minima that the grid sees: rounding, or what was said to be enough."""
        return 2e-12 * self.polish.scale + self.enough

    def spread(self, label: int) -> float:
        """By how much ℓ(·, label) varies over the grid."""
        values = self.tables[label].values
        return float(np.ptp(values[np.isfinite(values)]))

    def within(self, error: float) -> "StraightSearch":
        """The same search, content with smooth minima that are missed by so much."""
        again = replace(self, enough=error)
        again.__dict__["_usual"] = self._usual  # which takes its time
        return again

    def rough(self, label: int, x: Floats) -> Floats:
        """φ_0 at points (n, dim) for one label, by the grid alone: a little too large; (n,)."""
        z = self._grid_minimisers(label, x).nearest(x) if len(x) else x
        away = x - z
        return np.asarray(self.losses(label, z) + 0.5 * self.stiffness * np.einsum("nd,nd->n", away, away))

    def one_label(self, label: int, x: Floats) -> Found:
        """The best destinations of points (n, dim) for one label."""
        z, losses = x.copy(), np.empty(len(x))
        if len(x):
            minimisers = self._grid_minimisers(label, x)
            for start in range(0, len(x), _BLOCK):
                block = slice(start, start + _BLOCK)
                z[block], losses[block] = self._polished(label, x[block], minimisers.candidates(x[block]))
        away = x - z
        return Found(z, losses, 0.5 * self.stiffness * np.einsum("nd,nd->n", away, away), np.full((len(x), 2), -1.0))

    def route(self, x: Floats, found: Found) -> Floats:
        """The corners of the paths of points (n, dim): x and z, (n, 2, dim)."""
        return np.stack([x, found.z], axis=1)

    def _grid_minimisers(self, label: int, x: Floats) -> GridMinimisers:
        """Of grid points around points (n, dim)."""
        low, high = self.around
        if np.any(x < low) or np.any(x > high):
            return self.tables[label].minimise(x, self.stiffness)
        return self._usual[label]

    @cached_property
    def _usual(self) -> list[GridMinimisers]:
        return [table.minimise(self.around, self.stiffness) for table in self.tables]

    def losses(self, label: int, z: Floats) -> Floats:
        """ℓ(z, label) for z (n, dim), +∞ where it has no value; (n,)."""
        with np.errstate(all="ignore"):
            values = self.loss(z)[:, label]
        # A place at +∞ is forbidden, but −∞ would be everybody's destination.
        sunk = values == -np.inf
        require_finite(values[sunk], z[sunk], "the loss", KEY)
        return np.asarray(np.where(np.isnan(values), np.inf, values))

    def _polished(self, label: int, x: Floats, candidates: Candidates) -> tuple[Floats, Floats]:
        """The best of all polished candidates, and of x itself, which makes φ_0 ≤ ℓ true to the last bit."""
        half = 0.5 * self.stiffness
        stay = self.losses(label, x)
        # Staying is worth a closer look only where it beats the grid.
        worth = stay < candidates.values[:, 0]
        values = np.column_stack([candidates.values, np.where(worth, stay, np.inf)])
        z = np.concatenate([candidates.z, x[:, None]], axis=1)
        point, which = np.nonzero(np.isfinite(values))
        origin = x[point]

        def function(who: NDArray[np.intp], target: Floats) -> Floats:
            away = origin[who] - target
            return np.asarray(self.losses(label, target) + half * np.einsum("ij,ij->i", away, away))

        z[point, which], values[point, which] = self.polish.minimise(function, z[point, which], point)
        rows, best = np.arange(len(x)), values.argmin(axis=1)
        chosen = z[rows, best]
        return chosen, self.losses(label, chosen)


def tabulate(
    domain: ConvexDomain,
    loss: Loss,
    n_labels: int,
    within: Callable[[Floats], NDArray[np.bool_]] | None = None,
) -> tuple[LossTable, ...]:
    """ℓ on the grid of the domain, a table per label.

    Args:
        domain: of the grid.
        loss: ℓ.
        n_labels: K.
        within: whether points (n, dim) of the grid belong to the domain; +∞ elsewhere.

    Raises:
        InputError: ℓ is not finite somewhere in the domain.
    """
    axes, points, inside = tabulation_grid(domain)
    if within is not None:
        inside &= within(points)
    values = np.full((n_labels, len(points)), np.inf)
    with np.errstate(all="ignore"):
        values[:, inside] = loss(points[inside]).T
    require_finite(values[:, inside].T, points[inside], "the loss", KEY)
    sizes = tuple(len(axis) for axis in axes)
    return tuple(LossTable(axes, table.reshape(sizes)) for table in values)
