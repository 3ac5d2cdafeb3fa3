"""The cheapest momenta that carry given densities: how a nearly feasible flow is made exactly feasible."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.ideal.last_step import LastStep
from eulerian.ideal.poisson import Factorised, GatheredMesh, factorised
from eulerian.ideal.space_time import SpaceTime

# Shares of the density that are smoothed, and that are spread over the whole domain, so that mass can be put right
# where there is none: much for densities that are far off, little for good ones, of which it raises the cost.
_SHARES = ((1e-2, 1e-5), (1e-3, 1e-7))
_SMOOTHINGS = 3


@dataclass(frozen=True)
class FeasibleFlow:
    """Densities with momenta that satisfy the discrete continuity equation exactly.

    Attributes:
        parts: costs by name; "kinetic" is λ/2 ∫∫|m|²/ρ with the cheapest momenta for these densities.
        density: (n_nodes, L) values of ρ > 0 at the vertices, on the slabs.
        final: (n_nodes,) values of ρ_T ≥ 0.
    """

    parts: dict[str, float]
    density: Floats
    final: Floats

    @property
    def cost(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())


class MomentumProblem:
    """For ρ given on the slabs the best momenta are m = ρ∇ψ, with one elliptic problem at every instant.

    min λ/2 Σ over slabs and their two ends of τ/2 ∫|m|²/ρ subject to the continuity equation for every potential
    falls apart into −div((ρ₋ + ρ₊) τ/2 ∇ψ) = change of ρ at each of the L + 1 instants, which are dealt to the ranks.

    Args:
        grid: the space-time.
        gathered: its mesh on every rank.
        kinetic: λ.
    """

    def __init__(self, grid: SpaceTime, gathered: GatheredMesh, kinetic: float) -> None:
        self._grid, self._kinetic, self._gathered = grid, kinetic, gathered
        bounds = np.linspace(0, grid.layers + 1, grid.comm.size + 1).astype(int).tolist()
        self._ranges = list(pairwise(bounds))
        self._instants = range(*self._ranges[grid.comm.rank])
        self._solver: Factorised | None = None

    def cheapest(
        self,
        density: Floats,
        source: Floats,
        final: Floats,
        mass: float,
        price: Callable[[Floats, Floats], dict[str, float]],
        last_step: LastStep | None,
    ) -> FeasibleFlow:
        """A feasible flow close to given densities, of infinite cost if none was found. Collective.

        Every slab is scaled to the mass; shares are mixed in that grow from nothing at both ends.

        Args:
            density: ρ ≥ 0 on the slabs, (n_nodes, L).
            source: ∫φ_i dρ(0), (n_nodes,).
            final: ρ(T) ≥ 0 of the label's mass, (n_nodes,).
            mass: of the label.
            price: the other costs of densities on the slabs and at T.
            last_step: finds a better ρ(T), if given.
        """
        grid = self._grid
        uniform = mass / grid.volume
        totals = parallel.sum_all(grid.comm, grid.own_masses @ density)
        # The splitting method keeps the mass only up to its residual, and no momenta would make up for that.
        scaled = np.where(totals > 0.0, density * (mass / np.where(totals > 0.0, totals, 1.0)), uniform)
        smooth = scaled
        for _ in range(_SMOOTHINGS):
            smooth = grid.smooth(smooth)
        middles = (np.arange(grid.layers) + 0.5) / grid.layers
        # Nothing is mixed in next to the ends, whose densities are given: it would have to be moved in a single slab.
        ramp = 4.0 * middles * (1.0 - middles)
        flows = []
        for near, far in _SHARES:
            mixed = scaled + ramp * (near * (smooth - scaled) + far * (uniform - scaled))
            found = None if last_step is None else last_step.final_density(mixed[:, -1], final)
            end = final if found is None else found
            kinetic = self._cost(mixed, grid.gather_vertices(np.stack([source, end * grid.masses], axis=1)))
            flows.append(FeasibleFlow({**price(mixed, end), "kinetic": kinetic}, mixed, end))
        return min(flows, key=lambda flow: flow.cost)

    def destroy(self) -> None:
        """Free PETSc's objects. Local."""
        if self._solver is not None:
            self._solver.destroy()
            self._solver = None

    def _cost(self, density: Floats, ends: Floats) -> float:
        """λ/2 ∫∫|m|²/ρ. Collective."""
        grid, gathered = self._grid, self._gathered
        owned = density[: grid.n_owned_nodes]
        # Ranks own vertices, but each solves for some of the instants, on all vertices.
        columns = np.concatenate(grid.comm.alltoall([owned[:, max(a - 1, 0) : b] for a, b in self._ranges]))
        local = 0.0
        with parallel.agreed(grid.comm):
            for instant in self._instants:
                # Two slabs meet at an instant, one at both ends of time.
                sides = [instant - 1 - max(self._instants.start - 1, 0), instant - max(self._instants.start - 1, 0)]
                before = columns[:, sides[0]] if instant > 0 else np.zeros(grid.n_global)
                after = columns[:, sides[1]] if instant < grid.layers else np.zeros(grid.n_global)
                change = gathered.blur @ (before - after)
                if instant == 0:
                    change += ends[:, 0]
                if instant == grid.layers:
                    change -= ends[:, 1]
                try:
                    local += self._energy(0.5 * grid.tau * (before + after), change)
                except ComputationError:  # weights of too many magnitudes
                    local = np.inf
        return 0.5 * self._kinetic * float(parallel.sum_all(grid.comm, np.array([local]))[0])

    def _energy(self, weight: Floats, change: Floats) -> float:
        """ψ·change for −div(weight ∇ψ) = change, weight at the vertices."""
        gathered = self._gathered
        matrix = gathered.pattern.assemble(weight[gathered.cells].mean(axis=1)[:, None, None] * gathered.stiffness)
        matrix.data[0] += matrix.data.max()  # entry (0, 0): ψ vanishes at one vertex
        change = change - change.sum() * gathered.masses / gathered.masses.sum()  # rounding, which no ψ would balance
        self._solver = factorised(matrix, self._solver)
        psi = np.zeros_like(change)
        self._solver.solve(change, psi)
        return max(float(psi @ change), 0.0)  # rounding may leave it below zero
