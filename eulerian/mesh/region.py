"""Whether points lie in a domain: a box, or the cells of a mesh."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.mesh.point_location import CellFinder, Cells

_ROUNDING = 1e-10  # relative to the size of a box


@final
class BoxRegion:
    """A box with corners (dim,), its boundary included."""

    def __init__(self, lower: Floats, upper: Floats) -> None:
        room = _ROUNDING * (upper - lower)
        self._lower, self._upper = lower - room, upper + room

    def contains(self, x: Floats, guess: Cells | None = None) -> tuple[NDArray[np.bool_], Cells | None]:
        """Which of the points x (n, dim) are in it, (n,); there is nothing to guess."""
        return np.asarray(np.all((x >= self._lower) & (x <= self._upper), axis=1)), guess


@final
class MeshRegion:
    """The cells of a mesh, all of which this rank has."""

    def __init__(self, finder: CellFinder) -> None:
        self._finder = finder

    def contains(self, x: Floats, guess: Cells | None = None) -> tuple[NDArray[np.bool_], Cells | None]:
        """Which of the points x (n, dim) are in it, (n,), and their cells, which are tried first for points nearby."""
        cells, _ = self._finder.find(x, guess)
        return np.asarray(cells >= 0), cells
