"""The best final density for a linear loss, once the densities before it are known."""

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.ideal.poisson import Factorised, GatheredMesh, factorised
from eulerian.ideal.space_time import SpaceTime

_MAX_ROUNDS = 30


class LastStep:
    """min ΣM_i ℓ_i ρ_T,i + λ/2 ψᵀKψ over ρ_T ≥ 0 with Mρ_T = Mρ − Kψ, K the stiffness matrix of ρτ/2.

    ρ is the density on the last slab. ψ = φ/λ solves an obstacle problem: φ ≤ ℓ, and Mρ − Kφ/λ = Mρ_T ≥ 0 vanishes
    where φ < ℓ. The primal–dual active set method takes a few linear systems (Hintermüller, Ito & Kunisch 2002,
    doi:10.1137/S1052623401383558).

    Args:
        grid: the space-time.
        gathered: its mesh on every rank.
        kinetic: λ.
        loss: ℓ at the vertices, (n_nodes,).
    """

    def __init__(self, grid: SpaceTime, gathered: GatheredMesh, kinetic: float, loss: Floats) -> None:
        """Collective."""
        self._grid, self._gathered, self._kinetic = grid, gathered, kinetic
        self._loss = grid.gather_vertices(loss)

    def final_density(self, before: Floats, guess: Floats) -> Floats | None:
        """ρ_T at the vertices, (n_nodes,); None if it was not found. Collective.

        Args:
            before: ρ > 0 on the last slab, (n_nodes,).
            guess: an approximation of ρ_T; where it is positive is where the search starts.
        """
        grid, gathered = self._grid, self._gathered
        moving, active = grid.gather_vertices(before), grid.gather_vertices(guess) > 0.0
        loads = gathered.blur @ moving
        elements = (0.5 * grid.tau * moving[gathered.cells].mean(axis=1))[:, None, None] * gathered.stiffness
        stiffness = gathered.pattern.assemble(elements)
        solver: Factorised | None = None
        try:
            for _ in range(_MAX_ROUNDS):
                if not active.any():
                    return None
                free = ~active
                inner = elements * (free[gathered.cells][:, :, None] & free[gathered.cells][:, None, :])
                matrix = gathered.pattern.assemble(inner)
                # Rows of active vertices say φ = ℓ, in the scale of the others.
                matrix.setdiag(np.where(free, matrix.diagonal(), stiffness.diagonal()))
                right = self._kinetic * loads - stiffness @ np.where(active, self._loss, 0.0)
                solver = factorised(matrix, solver)
                phi = np.zeros_like(loads)
                solver.solve(np.where(active, stiffness.diagonal() * self._loss, right), phi)
                density = (loads - stiffness @ phi / self._kinetic) / gathered.masses
                # Where there is mass it must stay ≥ 0, elsewhere φ may not exceed ℓ: a vertex that fails changes sides.
                positive = np.where(active, density > 0.0, phi > self._loss)
                if np.array_equal(positive, active):
                    return np.where(active, density, 0.0)[grid.numbers]
                active = positive
        except ComputationError:  # weights of too many magnitudes
            return None
        finally:
            if solver is not None:
                solver.destroy()
        return None
