"""The cheapest momenta that carry given densities: how a nearly feasible flow is made exactly feasible."""

from dataclasses import dataclass

from eulerian import parallel
from eulerian.arrays import Floats

# isort: split
import numpy as np

from eulerian.ideal.poisson import Factorised, Pattern
from eulerian.ideal.space_time import SpaceTime

# A little of a uniform density is mixed in, so that mass can be put right everywhere: shares that are tried.
_SHARES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


@dataclass(frozen=True)
class FeasibleFlow:
    """Densities with momenta that satisfy the discrete continuity equation exactly.

    Attributes:
        kinetic: λ/2 ∫∫|m|²/ρ, with the smallest momenta for these densities.
        density: (n_owned, L) cell values of ρ > 0 on the slabs.
    """

    kinetic: float
    density: Floats


class MomentumProblem:
    """For ρ given on the slabs the best momenta are m = ρ∇ψ at every instant, with one elliptic problem for each.

    min λ/2 Σ over slabs and their two ends of τ/2 ∫|m|²/ρ, subject to the continuity equation tested with every
    potential, falls apart into −div((ρ₋ + ρ₊) τ/2 ∇ψ) = change of ρ at each of the L + 1 instants. The instants are
    dealt to the ranks.

    Args:
        grid: the space-time.
        kinetic: λ.
    """

    def __init__(self, grid: SpaceTime, kinetic: float) -> None:
        """Collective."""
        self._grid, self._kinetic = grid, kinetic
        comm = grid.comm
        bounds = np.linspace(0, grid.layers + 1, comm.size + 1).astype(int)
        self._instants = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        cells = np.concatenate(comm.allgather(grid.cell_numbers[: grid.space.n_owned]))
        volumes = np.concatenate(comm.allgather(grid.volumes))
        gradients = np.concatenate(comm.allgather(grid.gradients))
        self._cells, self._volumes = cells, volumes
        self._pattern = Pattern(cells, grid.n_global)
        self._elements = np.einsum("c,cid,cjd->cij", volumes, gradients, gradients, optimize=True)
        self._hats = np.bincount(cells.ravel(), np.repeat(volumes, grid.dim + 1)) / (grid.dim + 1)
        self._solver: Factorised | None = None

    def cheapest(self, density: Floats, source: Floats, sink: Floats, mass: float) -> FeasibleFlow:
        """A feasible flow close to given densities (n_owned, L) ≥ 0. Collective.

        Every slab is scaled to the mass, and shares of a uniform density are tried that grow from nothing at both ends.

        Args:
            density: ρ on the slabs.
            source: this rank's part of ∫φ_i dρ(0), (n_nodes,).
            sink: the same of ρ(T).
            mass: of the label.
        """
        grid = self._grid
        totals = parallel.sum_all(grid.comm, grid.volumes @ density)
        uniform = mass / grid.volume
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = np.where(totals > 0.0, density * (mass / totals), uniform)
        columns, loads = self._deal(scaled), self._deal_loads(source, sink)
        middles = (np.arange(grid.layers) + 0.5) / grid.layers
        profile = 4.0 * middles * (1.0 - middles)
        best: FeasibleFlow | None = None
        for share in _SHARES:
            shares = share * profile
            cost = self._cost(columns, loads, shares, uniform)
            if best is not None and cost >= best.kinetic:
                break
            best = FeasibleFlow(cost, (1.0 - shares) * scaled + shares * uniform)
        assert best is not None
        return best

    def destroy(self) -> None:
        """Free PETSc's objects. Local."""
        if self._solver is not None:
            self._solver.destroy()
            self._solver = None

    def _deal(self, density: Floats) -> Floats:
        """(cells of the mesh, slabs before, between and after this rank's instants). Collective."""
        slices = [density[:, max(first - 1, 0) : last] for first, last in self._instants]
        return np.concatenate(self._grid.comm.alltoall(slices))

    def _deal_loads(self, source: Floats, sink: Floats) -> tuple[Floats, Floats]:
        """Masses of the vertices (N,) at both ends. Collective."""
        local = np.zeros((2, self._grid.n_global))
        local[0, self._grid.numbers], local[1, self._grid.numbers] = source, sink
        both = parallel.sum_all(self._grid.comm, local)
        return both[0], both[1]

    def _cost(self, columns: Floats, loads: tuple[Floats, Floats], shares: Floats, uniform: float) -> float:
        """λ/2 ∫∫|m|²/ρ for one mixture. Collective."""
        grid = self._grid
        first, last = self._instants[grid.comm.rank]
        local = 0.0
        with parallel.agreed(grid.comm):
            for instant in range(first, last):
                weight = np.zeros(len(self._cells))
                change = np.zeros(grid.n_global)
                for slab, sign in ((instant - 1, 1.0), (instant, -1.0)):
                    if 0 <= slab < grid.layers:
                        rho = (1.0 - shares[slab]) * columns[:, slab - max(first - 1, 0)] + shares[slab] * uniform
                        weight += rho
                        change += sign * self._pattern.spread(self._volumes * rho)
                if instant == 0:
                    change += loads[0]
                if instant == grid.layers:
                    change -= loads[1]
                local += self._energy(0.5 * grid.tau * weight, change)
        return 0.5 * self._kinetic * float(parallel.sum_all(grid.comm, np.array([local]))[0])

    def _energy(self, weight: Floats, change: Floats) -> float:
        """ψ·change for −div(weight ∇ψ) = change."""
        matrix = self._pattern.assemble(weight[:, None, None] * self._elements)
        matrix.data[0] += matrix.data.max()  # entry (0, 0): ψ vanishes at one vertex
        change = change - change.sum() * self._hats / self._hats.sum()  # rounding
        if self._solver is None:
            self._solver = Factorised(matrix)
        else:
            self._solver.change(matrix)
        psi = np.zeros_like(change)
        self._solver.solve(change, psi)
        return float(psi @ change)
