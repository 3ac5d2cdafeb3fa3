"""The metric of the splitting method: its compiled loops, its linear solver, and the velocity scale that it needs."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.jit import Library
from eulerian.base.parallel import sum_all
from eulerian.density.space import DensitySpace
from eulerian.ideal.domain_parts import DomainPart
from eulerian.ideal.functionals import Functional, Loss
from eulerian.ideal.poisson import SpaceTimePoisson
from eulerian.ideal.running_cost import RunningAtVertices
from eulerian.ideal.space_time import SpaceTime

_BOXES = 700  # of the lattice between whose boxes moves are tried
_SLOWEST = 0.02  # of the domain's diameter per horizon

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


def typical_speed(
    space: DensitySpace,
    rho: Floats,
    functional: Functional,
    kinetic: float,
    horizon: float,
    part: DomainPart,
) -> float:
    """Root mean square speed of a good flow from ρ_0 in a part of the domain, to within a small factor. Collective.

    With a linear loss everything moves to the best box of a lattice; with a target the Gaussians of the same moments
    are transported (Gelbrich 1990, doi:10.1002/mana.19901470121).
    """
    squared = 0.0
    if functional.loss is not None:
        squared = _best_moves(space, rho, functional.loss, kinetic, horizon, part)
    if functional.target is not None:
        squared = _gaussian_distance(space, part.only(rho), part.only(functional.target))
    # A density that stays where it is still has to find that out: with ω = 0 there would be no metric.
    slowest = _SLOWEST * float(np.linalg.norm(part.high - part.low))
    return max(float(np.sqrt(squared)), slowest) / horizon


def driven_speed(running: RunningAtVertices, loads: Floats, kinetic: float) -> float:
    """Root mean square speed at which running costs drive the density, to within a small factor. Collective.

    Its kinetic energy is what staying where it is would cost per time, above the least that it could cost, but no more
    than that of a move across the domain.

    Args:
        running: the costs.
        loads: ∫φ_i dρ_0 of every label, (n_nodes, K).
        kinetic: λ.
    """
    grid = running.grid
    above = running.potential + grid.max(-running.potential)
    price = above[:, None] + 0.5 * running.congestion * loads / grid.masses[:, None]
    mass = sum(grid.total(load) for load in loads.T)
    energy = sum(grid.total(load) for load in (loads * price).T) / mass + running.entropy
    spans = [grid.max(x) + grid.max(-x) for x in grid.x.T]
    return min(float(np.sqrt(energy / kinetic)), float(np.linalg.norm(spans)) / grid.horizon)


def _best_moves(
    space: DensitySpace, rho: Floats, loss: Loss, kinetic: float, horizon: float, part: DomainPart
) -> float:
    """Mean squared distance of the moves x → argmin ℓ(z) + λ|x − z|²/2T between the boxes of a lattice. Collective."""
    points, masses = _boxes(space, rho, part)
    squares = np.sum((points[:, None] - points) ** 2, axis=2)
    losses = loss(points)
    moved = 0.0
    for label in range(space.n_labels):
        best = np.argmin(losses[:, label] + 0.5 * kinetic / horizon * squares, axis=1)
        moved += float(masses[:, label] @ squares[np.arange(len(points)), best])
    return moved / max(float(masses.sum()), np.finfo(float).tiny)


def _boxes(space: DensitySpace, rho: Floats, part: DomainPart) -> tuple[Floats, Floats]:
    """Centres (n, dim) of the cells in every box of a lattice, and their masses (n, K). Collective."""
    per_axis, low, high, own = int(_BOXES ** (1.0 / space.dim)), part.low, part.high, part.grid.cells
    centres, volumes = space.vertices[own].mean(axis=1), space.geometry.det[own, None]
    places = np.minimum(((centres - low) / (high - low) * per_axis).astype(int), per_axis - 1)
    boxes = np.ravel_multi_index(tuple(places.T), (per_axis,) * space.dim)
    columns = np.concatenate([volumes, volumes * centres, space.cell_mass(rho)[own]], axis=1)
    sums = np.zeros((per_axis**space.dim, columns.shape[1]))
    np.add.at(sums, boxes, columns)
    sums = sum_all(space.comm, sums)
    sums = sums[sums[:, 0] > 0.0]
    return sums[:, 1 : 1 + space.dim] / sums[:, :1], sums[:, 1 + space.dim :]


def _gaussian_distance(space: DensitySpace, rho: Floats, target: Floats) -> float:
    """W₂² between the Gaussians with the moments of ρ and ρ*, averaged over the labels' masses. Collective."""
    weights = space.mass(rho) * (space.mass(target) > 0.0)
    if not np.any(weights > 0.0):
        return 0.0
    means, covariances = space.mean_and_covariance(rho)
    ends, end_covariances = space.mean_and_covariance(target)
    result = 0.0
    for label, weight in enumerate(weights):
        if not weight > 0.0:
            continue
        root = np.real(scipy.linalg.sqrtm(covariances[label]))  # rounding may make it complex
        middle = np.real(scipy.linalg.sqrtm(root @ end_covariances[label] @ root))
        spread = np.trace(covariances[label] + end_covariances[label] - 2.0 * middle)
        result += float(weight) * (float(np.sum((means[label] - ends[label]) ** 2)) + max(float(spread), 0.0))
    return result / float(weights.sum())
