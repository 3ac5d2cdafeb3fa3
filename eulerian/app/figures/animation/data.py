"""What an animation is drawn from: densities at many times, and particles that the same flow carries."""

from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.app.figures.map_window import occupied
from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.line_integrals import SIGHTS, LineIntegrals
from eulerian.app.runs.pixel_grid import Box
from eulerian.base.arrays import Floats, Ints


@final
@dataclass(frozen=True)
class AnimationData:
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

    def sampler(self, window: Box, pixels: int) -> "PlaneSampler | ProjectionFrames":
        """What evaluates frames on a window: densities on a lattice of pixels, or in 3-D their integrals over z."""
        if self.dim == 2:
            return PlaneSampler(self, window.lattice(pixels))
        return ProjectionFrames(self, window.lattice(min(pixels, SIGHTS)))


@final
class PlaneSampler:
    """Densities of a film at points of its plane.

    Attributes:
        inside: (n_x, n_y) which of them are in the domain.
    """

    def __init__(self, film: AnimationData, pixels: Floats) -> None:
        self._film, self._located = film, TriangleGrid.build(film.points).locate(pixels)
        self.inside = self._located.cells >= 0

    def frame(self, index: int) -> Floats:
        """Values (n_x, n_y, K), zero outside the domain."""
        density = self._film.density[index]
        layers = [self._located.interpolate(density[:, :, k]) for k in range(density.shape[2])]
        return np.nan_to_num(np.stack(layers, axis=-1))


@final
class ProjectionFrames:
    """Integrals of a film's densities along z.

    Attributes:
        inside: (n_x, n_y) which lines of sight meet the domain.
    """

    def __init__(self, film: AnimationData, pixels: Floats) -> None:
        self._film, self._sights = film, LineIntegrals(film.points, pixels)
        self.inside = self._sights.inside

    def frame(self, index: int) -> Floats:
        """Integrals (n_x, n_y, K)."""
        return self._sights.integrals(self._film.density[index])
