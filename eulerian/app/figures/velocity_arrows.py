"""Arrows of a velocity on maps of densities: few and thin, for the densities are to be seen through them."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from matplotlib.axes import Axes

from eulerian.app.figures.triangle_grid import TriangleGrid
from eulerian.app.runs.pixel_grid import Box
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats

_EMPTY = 1e-2  # where ρ is below this fraction of its maximum there is no arrow: nothing there feels it
_ARROWS = 10  # along the side of a square map; maps of other shapes have as many


@final
@dataclass(frozen=True)
class VelocityArrows:
    """Velocity on a lattice, where there is mass.

    Attributes:
        position: (a, 2).
        vectors: (n, a, K, 2), NaN where there is no mass.
        fastest: largest length of a vector.
        length: of its arrow, in the units of the domain.
    """

    position: Floats
    vectors: Floats
    fastest: float
    length: float

    @classmethod
    def build(cls, snapshots: Snapshots, grid: TriangleGrid, window: Box) -> Self:
        """Those of the snapshots in a window of their mesh."""
        spacing = float(np.sqrt(window.size.prod())) / _ARROWS
        lattice = window.lattice(round(float(window.size.max()) / spacing))
        located = grid.locate(lattice)
        n_times, n_labels = len(snapshots.times), snapshots.density.shape[3]
        vectors = np.full((n_times, lattice.shape[0] * lattice.shape[1], n_labels, 2), np.nan)
        for i, k in np.ndindex(n_times, n_labels):
            density = located.interpolate(snapshots.density[i, :, :, k])
            field = min(k, snapshots.velocity.shape[3] - 1)
            velocity = [located.interpolate(snapshots.velocity[i, :, :, field, j]) for j in range(2)]
            mass = density > _EMPTY * snapshots.density[i].max()  # False outside the domain, where both are NaN
            vectors[i, :, k] = np.where(mass[..., None], np.stack(velocity, axis=-1), np.nan).reshape(-1, 2)
        lengths = np.linalg.norm(vectors, axis=-1)
        fastest = float(np.max(lengths, initial=0.0, where=np.isfinite(lengths)))
        return cls(lattice.reshape(-1, 2), vectors, fastest, 1.2 * spacing)

    def draw(self, panel: Axes, time: int, label: int) -> None:
        """Draw those of a panel."""
        vectors = self.vectors[time, :, label]
        shown = np.isfinite(vectors[:, 0])
        if self.fastest > 0.0 and shown.any():
            panel.quiver(
                *self.position[shown].T,
                *vectors[shown].T,
                angles="xy",
                scale_units="xy",
                scale=self.fastest / self.length,
                width=0.0032,
                headwidth=4.0,
                color="0.1",
                alpha=0.55,
                zorder=3,
            )
