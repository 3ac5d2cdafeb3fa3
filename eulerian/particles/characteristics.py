"""The density of a network's flow at any time and point, along its characteristics: no mesh, but for the domain.

By the change of variables ρ_y(t, x) = ρ_{0,y}(x₀) exp(−∫₀ᵗ div v ds) along the path from x₀ to x.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.fields.piecewise import PiecewiseField
from eulerian.particles.flow import Scheme, segments_back_from
from eulerian.particles.right_hand_side import RightHandSide

_BLOCK = 2**15  # points that go back together: their cells and matrices stay in the cache


type Cells = NDArray[np.int64]


class Region(Protocol):
    """A part of space."""

    def contains(self, x: Floats, guess: Cells | None) -> tuple[NDArray[np.bool_], Cells | None]:
        """Which of the points x (n, dim) are in it, (n,), and what makes the answer quick for points nearby."""
        ...


@final
@dataclass(frozen=True)
class CharacteristicDensity:
    """ρ(t, x) of the network's own flow, up to the error of RK4 in time.

    Walls: a path that leaves the domain on its way back says nothing, for in the domain mass stops at the wall; there
    the density is not known.

    Attributes:
        initial: ρ₀, from points (n, dim) to (n, K).
        field: v, with a Jacobian.
        theta: (L, p).
        horizon: T.
        steps_per_layer: of RK4.
        region: the domain.
    """

    initial: Callable[[Floats], Floats]
    field: PiecewiseField
    theta: Floats
    horizon: float
    steps_per_layer: int
    region: Region

    def values(self, t: float, x: Floats, comm: MPI.Comm | None = None) -> Floats:
        """ρ_y(t, x) per unit of volume, (n, K), at this rank's points x (n, dim); NaN where it is not known.

        Collective, if there is a communicator: what the field raises reaches every rank.
        """
        # All ranks go through as many blocks, some of them empty: each is collective.
        count = -(-len(x) // _BLOCK) if comm is None else comm.allreduce(-(-len(x) // _BLOCK), MPI.MAX)
        blocks = [self._block(t, x[i * _BLOCK : (i + 1) * _BLOCK], comm) for i in range(max(count, 1))]
        return np.concatenate(blocks)

    def _block(self, t: float, x: Floats, comm: MPI.Comm | None) -> Floats:
        if not self.field.label_dependent:
            return self._pulled(t, x, None, comm)
        n_labels = self.initial(x[:0]).shape[1]
        return np.stack([self._pulled(t, x, label, comm)[:, label] for label in range(n_labels)], axis=1)

    def _pulled(self, t: float, x: Floats, label: int | None, comm: MPI.Comm | None) -> Floats:
        """Densities (n, K) of the flow of one label."""
        scheme, dim = Scheme(self.horizon, steps_per_layer=self.steps_per_layer), x.shape[1]
        end = np.concatenate([x, np.zeros((len(x), 1))], axis=1)
        inside, cells = self.region.contains(x, None)
        rates = RightHandSide(self.field, dim, log_density=True)
        for segment in segments_back_from(t, rates, self.theta, x, label, scheme, comm=comm):
            for places in (*segment.starts[1:], segment.end[:, :dim]):
                now, cells = self.region.contains(places, cells)
                inside &= now  # once outside, unknown for good
            end = segment.end
        change = -end[:, dim]
        known = inside & np.isfinite(end).all(axis=1)
        # Any finite place will do, for the result is masked: ρ₀ is the user's function, and is spared NaN.
        start = np.where(known[:, None], end[:, :dim], 0.0)
        density = self.initial(start) * np.exp(np.where(known, change, 0.0))[:, None]
        return np.where(known[:, None], density, np.nan)
