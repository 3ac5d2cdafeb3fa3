"""What an animation is drawn from: densities at many times, and particles that the same flow carries."""

from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.arrays import Floats, Ints
from eulerian.output.density_plots import occupied
from eulerian.output.sampling import EDGES
from eulerian.output.triangle_grid import Box, TriangleGrid
from eulerian.space.cell_finder import CellFinder

_DEPTH = 32  # points along a line of sight
_SIGHTS = 112  # lines of sight along the longer side of a map


@final
@dataclass(frozen=True)
class Film:
    """Densities and particles at the times of the frames.

    Attributes:
        times: (n,) ascending.
        points: (N, m, dim) nodes of all cells of the mesh, as in ``Snapshots``.
        density: (n, N, m, K), zero throughout where it is not known.
        positions: (n, P, dim) of the particles; P may be 0.
        labels: (P,) of the particles.
        names: of the labels, K of them.
    """

    times: Floats
    points: Floats
    density: Floats
    positions: Floats
    labels: Ints
    names: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.points.shape[2])

    @property
    def plane(self) -> Floats:
        """Particles in the plane of the map, (n, P, 2): in three dimensions without their z."""
        return self.positions[..., :2]

    def window(self) -> Box:
        """The part of the plane that has mass or particles at some time, with a margin."""
        corners = self.points[:, : self.dim + 1, :2]
        return occupied(self.density, corners, self.plane.reshape(-1, 2))

    def sampler(self, window: Box, pixels: int) -> "PlaneSampler | SightSampler":
        """What evaluates frames on a window: densities on a lattice of pixels, or in 3-D their integrals over z."""
        if self.dim == 2:
            return PlaneSampler(self, window.lattice(pixels))
        return SightSampler(self, window.lattice(min(pixels, _SIGHTS)))


@final
class PlaneSampler:
    """Densities of a film at points of its plane.

    Attributes:
        inside: (n_x, n_y) which of them are in the domain.
    """

    def __init__(self, film: Film, pixels: Floats) -> None:
        self._film, self._located = film, TriangleGrid.build(film.points).locate(pixels)
        self.inside = self._located.cells >= 0

    def frame(self, index: int) -> Floats:
        """Values (n_x, n_y, K), zero outside the domain."""
        density = self._film.density[index]
        layers = [self._located.interpolate(density[:, :, k]) for k in range(density.shape[2])]
        return np.nan_to_num(np.stack(layers, axis=-1))


@final
class SightSampler:
    """Integrals of a film's densities along z, by the midpoint rule.

    Attributes:
        inside: (n_x, n_y) which lines of sight meet the domain.
    """

    def __init__(self, film: Film, pixels: Floats) -> None:
        corners = film.points[:, :4]
        low, high = float(corners[..., 2].min()), float(corners[..., 2].max())
        self._step = (high - low) / _DEPTH
        z = low + (np.arange(_DEPTH) + 0.5) * self._step
        shape = (*pixels.shape[:2], _DEPTH)
        lines = np.concatenate(
            [np.broadcast_to(pixels[:, :, None], (*shape, 2)), np.broadcast_to(z[:, None], (*shape, 1))], axis=-1
        )
        cells, weights = CellFinder(corners).find(lines.reshape(-1, 3))
        self.inside = np.any(cells.reshape(shape) >= 0, axis=2)
        self._met = np.flatnonzero(cells >= 0)
        self._cells, self._weights = cells[self._met], _nodal(weights[self._met], film.points.shape[1])
        self._film, self._shape = film, shape

    def frame(self, index: int) -> Floats:
        """Integrals (n_x, n_y, K)."""
        density = self._film.density[index]
        values = np.zeros((self._shape[0] * self._shape[1] * _DEPTH, density.shape[2]))
        values[self._met] = np.einsum("pm,pmk->pk", self._weights, density[self._cells])
        return np.asarray(values.reshape(*self._shape, -1).sum(axis=2) * self._step)


def _nodal(weights: Floats, nodes: int) -> Floats:
    """Values of the nodes' shape functions, from barycentric coordinates (p, 4)."""
    if nodes == 4:
        return weights
    middles = [4.0 * weights[:, i] * weights[:, j] for i, j in EDGES[3]]
    return np.concatenate([weights * (2.0 * weights - 1.0), np.stack(middles, axis=1)], axis=1)
