"""Cells chosen by their masses such that points that are near in the unit cube come to cells that are near in space."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats

type Cells = NDArray[np.int64]

_BELOW_ONE = float(np.nextafter(1.0, 0.0))


@final
class CellTree:
    """A kd-tree of the cells' centroids; its cuts stretch the unit cube as the masses on both sides demand.

    At every cut the coordinate u_a along its axis decides: below the left side's share p of the mass the point goes
    left and u_a becomes u_a/p, else right and (u_a − p)/(1 − p). So uniform points stay uniform, equidistributed points
    keep their stratification, and cells get points in proportion to their masses (the warping of Clarberg,
    Jarosz, Akenine-Möller & Jensen 2005, doi:10.1145/1073204.1073328, along a tree of cells).

    Args:
        centroids: (C, dim).
        masses: (C,) ≥ 0, not all zero.
    """

    def __init__(self, centroids: Floats, masses: Floats) -> None:
        # On a lattice, ties are ties in spite of rounding, also of coordinates far from the origin: the tree must not
        # depend on the last bits.
        low, extent = centroids.min(axis=0), float(np.ptp(centroids, axis=0).max()) or 1.0
        lattice = np.rint((centroids - low) / extent * 2**20).astype(np.int64)
        self.depth = max(len(centroids) - 1, 0).bit_length()
        self._axes: list[NDArray[np.int64]] = []
        order, bounds = np.arange(len(centroids)), np.array([0, len(centroids)])
        for _ in range(self.depth):
            axes = _longest_axes(lattice[order], bounds)
            part = np.repeat(np.arange(len(axes)), np.diff(bounds))
            order = order[np.lexsort((order, lattice[order, axes[part]], part))]
            middle = (bounds[:-1] + bounds[1:] + 1) // 2
            bounds = np.insert(bounds, np.arange(1, len(bounds)), middle)
            self._axes.append(axes)
        self._cells = np.append(order, 0)[bounds[:-1]]  # an empty leaf at the end begins behind the last cell
        leaves = np.where(np.diff(bounds) > 0, masses[self._cells], 0.0)
        # Sums, and no differences of sums: a side without mass has mass zero, and no point ever goes there.
        self._masses = [leaves]
        for _ in range(self.depth):
            self._masses.insert(0, self._masses[0][0::2] + self._masses[0][1::2])

    def choose(self, u: Floats) -> tuple[Cells, Floats]:
        """Cells for points of the unit cube.

        Args:
            u: (n, dim) in [0, 1).

        Returns:
            The cells (n,), and where in the cell the points lie, (n, dim) in [0, 1).
        """
        u, node, row = u.copy(), np.zeros(len(u), dtype=np.int64), np.arange(len(u))
        for level in range(self.depth):
            axis = self._axes[level][node]
            left, both = self._masses[level + 1][2 * node], self._masses[level][node]
            share, along = left / both, u[row, axis]
            right = along >= share
            with np.errstate(divide="ignore", invalid="ignore"):  # of the two only the one that is taken counts
                stretched = np.where(right, (along - share) / (1.0 - share), along / share)
            u[row, axis] = np.clip(stretched, 0.0, _BELOW_ONE)  # rounding may reach 1, to the right of all cells
            node = 2 * node + right
        return self._cells[node], u


def _longest_axes(points: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The axis along which each part of the points is longest, (parts,); parts may be empty."""
    axes = np.zeros(len(bounds) - 1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(bounds) > 0)
    starts = bounds[:-1][filled]
    extents = np.maximum.reduceat(points, starts) - np.minimum.reduceat(points, starts)
    axes[filled] = extents.argmax(axis=1)
    return axes
