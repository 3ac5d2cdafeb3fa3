"""A box cut into simplices, as NumPy arrays."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from eulerian.mesh.simplices import Simplices


def box_simplices(lower: Sequence[float], upper: Sequence[float], cells: Sequence[int]) -> Simplices:
    """A box in the triangulation of Freudenthal (1942, doi:10.2307/1968813), whose longest edges are the diagonals.

    Every little box is cut into d! simplices along the diagonal from its lowest to its highest corner: those that go
    from the one to the other along one axis after another.

    Args:
        lower: (dim,) one corner.
        upper: (dim,) the opposite one.
        cells: (dim,) number of little boxes along each axis.
    """
    dim, counts = len(cells), np.array(cells)
    axes = [np.linspace(low, high, n + 1) for low, high, n in zip(lower, upper, cells, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    strides = np.array([np.prod(counts[axis + 1 :] + 1) for axis in range(dim)], dtype=np.int64)
    corners = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, dim) @ strides
    ways = np.array([np.concatenate([[0], np.cumsum(strides[list(order)])]) for order in permutations(range(dim))])
    corners_of_cells = (corners[:, None, None] + ways).reshape(-1, dim + 1)
    facets = np.empty((0, dim), dtype=np.int64)
    return Simplices(points, corners_of_cells, None, facets, np.empty(0, dtype=np.int32))
