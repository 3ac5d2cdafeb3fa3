"""What the figures are drawn from: densities and velocity at a few times.

They are kept in the run folder, so that figures can be drawn again in a second, on any machine, without the mesh file,
the user's own field or another forward solve.
"""

from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from eulerian.app.runs.array_record import ArrayRecord
from eulerian.app.runs.files import SNAPSHOTS
from eulerian.base.arrays import Floats

FIGURE_TIMES = 5  # that figures show


@final
@dataclass(frozen=True)
class Snapshots(ArrayRecord):
    """Densities and velocities over time on every cell's own nodes (see ``CellNodes``), in single precision.

    Attributes:
        times: (n,).
        points: (N, m, dim) nodes of all cells of the mesh.
        density: (n, N, m, K).
        velocity: (n, N, m, V, dim); V = K if the field depends on the label, else 1.
    """

    CONTENTS = "snapshots"
    FILE = SNAPSHOTS

    times: Floats
    points: Floats
    density: Floats
    velocity: Floats

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.points.shape[2])

    def thinned(self, count: int) -> Self:
        """At most ``count`` of the times, equally spread, the first and the last among them."""
        rows = np.unique(np.rint(np.linspace(0, len(self.times) - 1, count)).astype(int))
        return replace(self, times=self.times[rows], density=self.density[rows], velocity=self.velocity[rows])
