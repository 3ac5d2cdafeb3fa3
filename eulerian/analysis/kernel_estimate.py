"""The density of a cloud of points by a Gaussian kernel, fast enough for a million of them."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from eulerian.base.arrays import Floats

_REACH = 5.0  # standard deviations of the kernel beyond the outermost points
_CELLS_PER_BANDWIDTH = {1: 16.0, 2: 8.0, 3: 4.0}  # of the grid, by dimension
_MOST_CELLS = 2.0e7


@final
@dataclass(frozen=True, eq=False)
class KernelEstimate:
    """A sum of Gaussians about weighted points, tabulated on a grid in coordinates in which their covariance is one.

    Scott's bandwidth (Scott 1992): the points' own covariance times m^(−2/(d+4)), m the effective number of points
    (Kish 1965). That is close to the best for densities that are close to normal.

    Attributes:
        centre: (dim,).
        whitening: (dim, dim) matrix W of y = W (x − centre).
        origin: (dim,) first grid point in y.
        spacing: of the grid, the same along every axis.
        table: values of the density with respect to x.
    """

    centre: Floats
    whitening: Floats
    origin: Floats
    spacing: float
    table: Floats

    @classmethod
    def of(cls, x: Floats, weights: Floats) -> Self:
        """The estimate from points x (n, dim) that span the space, and weights (n,) whose sum is its mass."""
        dim, mass = x.shape[1], float(weights.sum())
        share = weights / mass
        centre = share @ x
        rest = x - centre
        covariance = np.einsum("n,ni,nj->ij", share, rest, rest)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        bandwidth = float(np.sum(share**2)) ** (1.0 / (dim + 4))
        y = rest @ whitening.T
        low, high = y.min(axis=0) - _REACH * bandwidth, y.max(axis=0) + _REACH * bandwidth
        spacing = max(bandwidth / _CELLS_PER_BANDWIDTH[dim], float(np.prod(high - low) / _MOST_CELLS) ** (1.0 / dim))
        table = _binned((y - low) / spacing, weights, np.ceil((high - low) / spacing).astype(int) + 2)
        # Sharing points out between neighbours widens them by a sixth of a squared cell; interpolation by as much.
        width = np.sqrt(max((bandwidth / spacing) ** 2 - 1.0 / 3.0, 0.25))
        for axis in range(dim):
            table = gaussian_filter1d(table, width, axis=axis, mode="constant", truncate=_REACH)
        return cls(centre, whitening, low, spacing, table * (np.linalg.det(whitening) / spacing**dim))

    def values(self, x: Floats) -> Floats:
        """The estimate (n,) at points x (n, dim)."""
        y = (x - self.centre) @ self.whitening.T
        return np.asarray(map_coordinates(self.table, ((y - self.origin) / self.spacing).T, order=1))


def _binned(places: Floats, weights: Floats, shape: np.ndarray) -> Floats:
    """Weights (n,) of points at places (n, dim), in cells, shared out linearly between the corners of their cells."""
    dim = places.shape[1]
    cells = np.floor(places).astype(int)
    rest = places - cells
    strides = np.concatenate([np.cumprod(shape[:0:-1])[::-1], [1]])
    table = np.zeros(int(np.prod(shape)))
    for corner in np.ndindex(*(2,) * dim):
        part = weights * np.prod(np.where(corner, rest, 1.0 - rest), axis=1)
        table += np.bincount((cells + corner) @ strides, part, minlength=len(table))
    return table.reshape(shape)
