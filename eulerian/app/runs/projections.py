"""What the picture of densities in three dimensions is drawn from: their integrals along two axes, at a few times."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.files import PROJECTIONS, ArrayRecord
from eulerian.app.runs.pixel_grid import pixel_centres, pixel_counts
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.app.runs.cell_nodes import CellNodes

_POINTS = 32  # along a line


@final
class LineIntegrals:
    """Integrals along one axis, by the midpoint rule.

    Args:
        points: (N, m, 3) nodes of all cells (see ``CellNodes``).
        pixels: (n_x, n_y, 2) where the lines are, in the other two axes in their order.
        axis: along which they go.

    Attributes:
        inside: (n_x, n_y) which of them meet the domain.
    """

    def __init__(self, points: Floats, pixels: Floats, axis: int = 2) -> None:
        from eulerian.mesh.point_location import CellFinder  # needs SciPy, which is slow to load

        corners = points[:, :4]
        low, high = float(corners[..., axis].min()), float(corners[..., axis].max())
        self._step = (high - low) / _POINTS
        self._shape = (*pixels.shape[:2], _POINTS)
        on_lines = np.empty((*self._shape, 3))
        on_lines[..., [i for i in range(3) if i != axis]] = pixels[:, :, None]
        on_lines[..., axis] = low + (np.arange(_POINTS) + 0.5) * self._step
        cells, weights = CellFinder(corners).find(on_lines.reshape(-1, 3))
        self.inside: NDArray[np.bool_] = np.any(cells.reshape(self._shape) >= 0, axis=2)
        self._held = np.flatnonzero(cells >= 0)
        self._cells, self._weights = cells[self._held], _nodal_weights(weights[self._held], points.shape[1])

    def integrals(self, density: Floats) -> Floats:
        """Integrals (n_x, n_y, K) of densities (N, m, K) at the nodes of all cells; mass per area."""
        values = np.zeros((int(np.prod(self._shape)), density.shape[2]))
        values[self._held] = np.einsum("pm,pmk->pk", self._weights, density[self._cells])
        return np.asarray(values.reshape(*self._shape, -1).sum(axis=2) * self._step)


def _nodal_weights(barycentric: Floats, nodes: int) -> Floats:
    """Values of the nodes' shape functions, from barycentric coordinates (p, 4)."""
    from eulerian.density.basis import VTK_EDGES  # starts MPI, which no figure needs

    if nodes == 4:
        return barycentric
    middles = [4.0 * barycentric[:, i] * barycentric[:, j] for i, j in VTK_EDGES[3]]
    return np.concatenate([barycentric * (2.0 * barycentric - 1.0), np.stack(middles, axis=1)], axis=1)


_PIXELS = 64  # along the longest side of the box: to find the cells of all points takes its time


@final
@dataclass(frozen=True)
class Projections(ArrayRecord):
    """Densities projected along z and along y, over the bounding box of the domain.

    Attributes:
        times: (n,).
        lower: (3,) of the bounding box.
        upper: (3,).
        above: (n, n_x, n_y, K), ∫ρ dz.
        side: (n, n_x, n_z, K), ∫ρ dy.
        above_inside: (n_x, n_y) whether a line along z meets the domain.
        side_inside: (n_x, n_z) whether a line along y does.
    """

    CONTENTS = "projections"

    times: Floats
    lower: Floats
    upper: Floats
    above: Floats
    side: Floats
    above_inside: NDArray[np.bool_]
    side_inside: NDArray[np.bool_]


@final
class ProjectionGathering:
    """Samples of all ranks, integrated on rank 0 as they come: it never has more than one density. **Collective**.

    Args:
        nodes: of the cells, in three dimensions.
    """

    FILE: ClassVar = PROJECTIONS

    def __init__(self, nodes: "CellNodes") -> None:
        self.nodes = nodes
        self._lines: tuple[LineIntegrals, LineIntegrals] | None = None
        self._box: tuple[Floats, Floats] | None = None
        self._rows: list[tuple[float, Floats, Floats]] = []

    def add(self, t: float, rho: Floats, v: Floats) -> None:  # noqa: ARG002 - the face of ``Gathering``
        """One more sample, of a later time."""
        from eulerian.base.parallel import gather_rows  # starts MPI, which no figure needs

        comm = self.nodes.density_space.comm
        if not self._rows:
            points = gather_rows(comm, self.nodes.points())
            if points is not None:
                self._place_lines(points)
        density = gather_rows(comm, self.nodes.density(rho).astype(np.float32))
        if density is None or self._lines is None:
            self._rows.append((t, np.zeros(0), np.zeros(0)))
            return
        above, side = (lines.integrals(density) for lines in self._lines)
        self._rows.append((t, above, side))

    def gathered(self) -> Projections | None:
        """All samples; None on the other ranks."""
        if self._lines is None or self._box is None:
            return None
        times, above, side = zip(*self._rows, strict=True)
        inside = (lines.inside for lines in self._lines)
        return Projections(np.array(times), *self._box, np.stack(above), np.stack(side), *inside)

    def _place_lines(self, points: Floats) -> None:
        """Along z and along y; the same number of pixels per length on all axes."""
        lower, upper = points.min(axis=(0, 1)), points.max(axis=(0, 1))
        counts = pixel_counts(lower, upper, _PIXELS)
        pixels = [pixel_centres(lower[[0, j]], upper[[0, j]], (counts[0], counts[j])) for j in (1, 2)]
        self._box = lower, upper
        self._lines = LineIntegrals(points, pixels[0], 2), LineIntegrals(points, pixels[1], 1)
