"""A box cut into simplices, as NumPy arrays."""

from itertools import permutations

import numpy as np

from eulerian.app.config import Box
from eulerian.mesh.simplices import Simplices


def box_simplices(box: Box) -> Simplices:
    """A box in the triangulation of Freudenthal (1942, doi:10.2307/1968813), whose longest edges are the diagonals.

    Every little box is cut into d! simplices along the diagonal from its lowest to its highest corner: those that go
    from the one to the other along one axis after another.
    """
    dim, counts = box.dim, np.array(box.cells)
    axes = [np.linspace(low, high, n + 1) for low, high, n in zip(box.lower, box.upper, box.cells, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    strides = np.array([np.prod(counts[axis + 1 :] + 1) for axis in range(dim)], dtype=np.int64)
    corners = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, dim) @ strides
    ways = np.array([np.concatenate([[0], np.cumsum(strides[list(order)])]) for order in permutations(range(dim))])
    cells = (corners[:, None, None] + ways).reshape(-1, dim + 1)
    facets = np.empty((0, dim), dtype=np.int64)
    return Simplices(points, cells, None, facets, np.empty(0, dtype=np.int32))
