"""The compiled loops and the linear solver of the splitting method, in one metric."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.jit import Library
from eulerian.ideal.poisson import SpaceTimePoisson
from eulerian.ideal.space_time import SpaceTime

LIBRARY = Library(Path(__file__).with_name("sweep.c"), "slabs_t")
at = LIBRARY.pointer


class Metric:
    """Norms of (−∂_tφ, ∇φ, φ_T) with weights 1, ω², γ, times W at the vertices: the loops and Λ*Λ that belong to them.

    Args:
        grid: the space-time.
        kinetic: λ.
        omega: ω, a velocity.
        gamma: γ, one over a time; 0 where ρ_T is fixed.
        weights: W > 0 at the vertices, (n_nodes,).
    """

    def __init__(self, grid: SpaceTime, kinetic: float, omega: float, gamma: float, weights: Floats) -> None:
        """Collective."""
        self.grid, self.kinetic, self.omega, self.gamma, self.weights = grid, kinetic, omega, gamma, weights
        self.blurred_weights: Floats = grid.blurred(weights[:, None])
        self.poisson = SpaceTimePoisson(grid, omega, gamma, weights, self.blurred_weights[:, 0])
        # The Poisson problem has one weight for ∂_tφ and φ_T.
        self.end_weights: Floats = gamma * self.blurred_weights[:, 0]
        self.functions = LIBRARY.load(grid.comm, DIM=grid.dim)
        # The struct holds pointers only: these arrays must live as long as it does.
        self._kept: dict[str, NDArray[Any]] = {
            "nodes": grid.nodes,
            "gradients": grid.gradients,
            "volumes": grid.volumes,
            "masses": grid.own_masses,
            "weights": weights,
            "work": np.zeros(grid.dim * (grid.layers + 1) + 2 * grid.layers),
        }
        self.struct = LIBRARY.ffi.new(
            "slabs_t *",
            {name: at(array) for name, array in self._kept.items()}
            | {"n_cells": len(grid.nodes), "n_nodes": grid.n_nodes, "layers": grid.layers}
            | {"tau": grid.tau, "omega": omega, "lambda": kinetic},
        )

    def excess(self, phi: Floats) -> Floats:
        """−∂_tφ + |∇φ|²/(2λ) (discrete) at the vertices and on the slabs, (n_nodes, L). Collective."""
        grid = self.grid
        squares = np.zeros((grid.n_nodes, grid.layers))
        self.functions.gradient_squares(self.struct, at(phi), at(squares))
        grid.accumulate(squares)
        return np.asarray(squares / (2.0 * self.kinetic * grid.masses[:, None]) + grid.falls(phi)[1])

    def destroy(self) -> None:
        """Free PETSc's objects. Local."""
        self.poisson.destroy()
