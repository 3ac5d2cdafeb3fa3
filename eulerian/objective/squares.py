"""Costs of ∫ρ² by squares of densities that move beside them (``transport.power``).

Along an exact flow q = ρ² obeys ∂_t q + div(v q) = −q div v, which is linear in q, and ∫q is a linear functional of it:
numerical diffusion hardly enters. ∫ρ_h² of the mesh's density is lowered by diffusion, and an optimiser that is charged
for that presses the density into filaments and is paid for what the mesh smears.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace
from eulerian.objective.cost_at import LayerEnd
from eulerian.transport.power import Power
from eulerian.transport.simd_layout import NodalLayout


@final
@dataclass(frozen=True)
class SquareCosts:
    """γ/2 ∫∫ρ² dt of all labels together, and ½ Σ_y ∫ρ_y² at ends of layers, each where it counts.

    Where labels have velocities of their own the square of their sum moves with none: then γ is charged on Σ_y ρ_y²,
    and what is left, products of different labels, is the mesh's (``DensityCost.products``).

    Attributes:
        congestion: γ.
        ends: where ½ Σ_y ∫ρ_y² counts by itself.
        labels: (n_cells, nd, K) squares of the initial densities, with ghosts.
        together: (n_cells, nd, 1) square of their sum.
    """

    congestion: float
    ends: tuple[LayerEnd, ...]
    labels: Floats
    together: Floats

    @classmethod
    def of(cls, space: DensitySpace, exact: ExactDensity, congestion: float, ends: Sequence[LayerEnd] = ()) -> Self:
        """From the exact initial density. **Collective**."""

        def squares(rho: Floats) -> Floats:
            return np.concatenate([rho, rho.sum(axis=2, keepdims=True)], axis=2) ** 2

        return cls(congestion, tuple(ends), *_started(space, exact.projection(space, squares)))

    def of_projections(self, space: DensitySpace, projections: Floats) -> Self:
        """The same costs of other projected squares (n_owned, nd, K + 1), the last one of the sum. **Collective**."""
        labels, together = _started(space, projections)
        return replace(self, labels=labels, together=together)

    def columns(self, groups: Sequence[Sequence[int]]) -> list["SquareColumns"]:
        """What moves beside densities, given the labels that have one velocity."""
        # A sum over several velocities has no square that moves; that of one label serves both costs.
        if len(groups) > 1 or self.labels.shape[2] == 1:
            labels = [(g, np.ascontiguousarray(self.labels[..., list(group)])) for g, group in enumerate(groups)]
            return [SquareColumns(g, False, q, self.congestion, self.ends) for g, q in labels]
        found = []
        if self.congestion > 0.0:
            found.append(SquareColumns(0, True, self.together, self.congestion, ()))
        if self.ends:
            found.append(SquareColumns(0, False, self.labels, 0.0, self.ends))
        return found


@final
@dataclass(frozen=True)
class SquareColumns:
    """Squares that move with one velocity.

    Attributes:
        group: the densities that they are of.
        summed: whether it is one square, of the sum of all densities of the group, or one of each.
        initial: (n_cells, nd, columns).
        congestion: γ, of the cost γ/2 ∫∫q dt.
        ends: where ½ ∫q counts.
    """

    group: int
    summed: bool
    initial: Floats
    congestion: float
    ends: tuple[LayerEnd, ...]

    def power(self, density: NodalLayout) -> Power:
        """As the transport knows them, beside densities of a layout."""
        return Power.of_total(density) if self.summed else Power.of_each(density)

    def running(self, space: DensitySpace) -> Floats:
        """(n_owned, nd): the derivative of the cost per time by q, the same for all columns."""
        return 0.5 * self.congestion * integral(space)

    def at_end(self, space: DensitySpace, layer: int) -> Floats:
        """(n_owned, nd, columns): the derivative by q of what counts where a number of layers has passed."""
        weight = sum(end.weight for end in self.ends if end.layer == layer)
        return np.repeat(0.5 * weight * integral(space)[:, :, None], self.initial.shape[2], axis=2)


def _started(space: DensitySpace, projections: Floats) -> tuple[Floats, Floats]:
    """Squares (n_cells, nd, K) and (n_cells, nd, 1) as the transport takes them, with ghosts. Collective."""
    q = np.zeros((space.n_cells, *projections.shape[1:]))
    q[: space.n_owned] = projections
    # As densities are: what is not negative at the start stays so under the same scheme.
    space.limit(q)
    space.update_ghosts(q)
    return np.ascontiguousarray(q[..., :-1]), np.ascontiguousarray(q[..., -1:])


def integral(space: DensitySpace) -> Floats:
    """(n_owned, nd), whose product with coefficients is the integral."""
    vector = np.zeros((space.n_owned, space.nd))
    # All modes but the first have mean zero.
    vector[:, 0] = space.geometry.det[: space.n_owned] / space.phi0
    return vector
