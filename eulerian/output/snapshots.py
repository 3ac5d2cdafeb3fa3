"""What the figures are drawn from: densities and velocity at a few times.

They are kept in the run folder, so that figures can be drawn again in a second, on any machine, without the mesh file,
the user's own field or another forward solve.
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self, final

import numpy as np

from eulerian.array_file import read_arrays
from eulerian.arrays import Floats
from eulerian.output.files import write_arrays

FIGURE_TIMES = 5  # that figures show


@final
@dataclass(frozen=True)
class Snapshots:
    """Densities and velocities over time on every cell's own nodes (see ``CellNodes``), in single precision.

    Attributes:
        times: (n,).
        points: (N, m, dim) nodes of all cells of the mesh.
        density: (n, N, m, K).
        velocity: (n, N, m, V, dim); V = K if the field depends on the label, else 1.
    """

    times: Floats
    points: Floats
    density: Floats
    velocity: Floats

    def thinned(self, count: int) -> Self:
        """At most ``count`` of the times, equally spread, the first and the last among them."""
        rows = np.unique(np.rint(np.linspace(0, len(self.times) - 1, count)).astype(int))
        return replace(self, times=self.times[rows], density=self.density[rows], velocity=self.velocity[rows])

    def save(self, path: Path) -> None:
        """Write all arrays to an ``.npz`` file."""
        write_arrays(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it is missing or not such a file.
        """
        return cls(**read_arrays(path, [field.name for field in fields(cls)], "snapshots"))
