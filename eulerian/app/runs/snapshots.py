"""What the figures are drawn from: densities and velocity at a few times.

They are saved in the run folder, so that figures can be drawn again in a second, on any machine, without the mesh file,
the user's own field or another forward solve.
"""

from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from eulerian.app.runs.files import ArrayRecord
from eulerian.app.runs.pixel_grid import Box, pixel_centres
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


_NEGLIGIBLE = 0.02  # of a mass: cannot be told from what is lost between the pixels


@final
@dataclass(frozen=True)
class ExactDensities(ArrayRecord):
    """ρ(t, x) = ρ₀(x₀) exp(−∫div v dt) at points x that the network's flow has carried from x₀.

    Attributes:
        times: (n,) those of the snapshots that figures show.
        lower: (dim,) of the part of the domain that is shown.
        upper: (dim,).
        density: (n, n_x, K), or (n, n_x, n_y, K) in two dimensions, at the centres of equal pixels; NaN where it is not
            known, because the way back leaves the domain.
    """

    CONTENTS = "exact densities"

    times: Floats
    lower: Floats
    upper: Floats
    density: Floats

    @property
    def window(self) -> Box:
        """What is shown, in two dimensions."""
        return Box(self.lower, self.upper)

    @property
    def pixels(self) -> Floats:
        """Their centres (n_x, 1), or (n_x, n_y, 2)."""
        return pixel_centres(self.lower, self.upper, self.density.shape[1:-1])

    @property
    def missing(self) -> Floats:
        """Share of each label's mass that is not where the density is known, (n, K).

        What comes from outside the domain by a path of the flow is met by no mass that has never touched a wall. So
        where nothing is missing, the density is 0 there.
        """
        known = np.nansum(self.density, axis=tuple(range(1, self.density.ndim - 1)), dtype=float)
        return np.asarray(np.maximum(1.0 - known / np.where(known[0] > 0.0, known[0], 1.0), 0.0))

    @property
    def shown(self) -> Floats:
        """The densities (n, ..., K) with 0 where it is not known, of times and labels of which nothing is missing."""
        spread = (slice(None), *(None,) * (self.density.ndim - 2), slice(None))
        whole = (self.missing < _NEGLIGIBLE)[spread]
        return np.where(whole & np.isnan(self.density), 0.0, self.density)

    @property
    def remark(self) -> str:
        """Where the densities come from, and what is grey."""
        worst = float(self.missing.max(initial=0.0))
        if worst < _NEGLIGIBLE:
            return "by characteristics"
        return (
            "by characteristics (dark grey: not known, the way back leaves the domain; "
            f"up to {100 * worst:.0f} % of a mass touch walls)"
        )
