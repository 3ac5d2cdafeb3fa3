"""The alternating direction method for one label: its state, a step, its residuals and what it certifies."""

from dataclasses import dataclass
from pathlib import Path

from eulerian import parallel
from eulerian.arrays import Floats

# isort: split
from mpi4py import MPI

import numpy as np

from eulerian.compiled import Library
from eulerian.ideal.functionals import AnyFunctional, Fixed
from eulerian.ideal.poisson import SpaceTimePoisson
from eulerian.ideal.space_time import SpaceTime

# Over-relaxation (Eckstein & Bertsekas 1992, doi:10.1007/BF01581204). Iterations to a relative gap of 1e-3 between two
# Gaussians (33 × 33 vertices, 31 slabs): 1.0: 450, 1.5: 320, 1.8: 265, 1.95: 255 with residuals that oscillate.
RELAXATION = 1.8
_BALANCED = 1.5  # residuals within this factor of each other leave the penalty alone
_LARGEST_CHANGE = 3.0

LIBRARY = Library(
    Path(__file__).with_name("sweep.c"),
    "slabs_t",
    """
int64_t n_workspace(int64_t layers);
void sweep(const slabs_t *, const double *phi, double relaxation, double *z, double *mu, double *rhs, double *totals);
void rescale(const slabs_t *, double factor, double *z, double *mu, double *rhs);
void violation(const slabs_t *, const double *phi, double *worst);
""",
)


class Slabs:
    """The compiled sweeps over this rank's cells.

    Args:
        grid: the space-time.
        kinetic: λ.
        omega: ω, a velocity: the weight of gradients against time derivatives in the metric of the splitting.
    """

    def __init__(self, grid: SpaceTime, kinetic: float, omega: float) -> None:
        """Collective."""
        self.grid, self.kinetic, self.omega = grid, kinetic, omega
        self.parts = 1 + 2 * grid.dim
        self._functions = LIBRARY.load(grid.comm, DIM=grid.dim)
        self._work = np.zeros(self._functions.n_workspace(grid.layers))
        self._gradients = np.ascontiguousarray(grid.gradients)
        self._volumes = np.ascontiguousarray(grid.volumes)
        self._struct = LIBRARY.ffi.new(
            "slabs_t *",
            {
                "n_cells": len(grid.nodes),
                "layers": grid.layers,
                "nodes": LIBRARY.pointer(grid.nodes),
                "gradients": LIBRARY.pointer(self._gradients),
                "volumes": LIBRARY.pointer(self._volumes),
                "tau": grid.tau,
                "omega": omega,
                "lambda": kinetic,
                "work": LIBRARY.pointer(self._work),
            },
        )

    def sweep(self, phi: Floats, z: Floats, mu: Floats) -> tuple[Floats, Floats]:
        """One relaxed step of z and μ, in place; the new right-hand side (n_nodes, L + 1) and six sums. Local."""
        rhs, totals = np.zeros_like(phi), np.zeros(6)
        at = LIBRARY.pointer
        self._functions.sweep(self._struct, at(phi), RELAXATION, at(z), at(mu), at(rhs), at(totals))
        return rhs, totals

    def rescale(self, factor: float, z: Floats, mu: Floats) -> Floats:
        """Multiply the scaled multiplier by a factor, in place; the new right-hand side. Local."""
        rhs = np.zeros((self.grid.n_nodes, self.grid.layers + 1))
        at = LIBRARY.pointer
        self._functions.rescale(self._struct, factor, at(z), at(mu), at(rhs))
        return rhs

    def violation(self, phi: Floats) -> Floats:
        """Largest −∂_tφ + |∇φ|²/(2λ) (discrete) on every slab, (L,). Collective."""
        worst = np.full(self.grid.layers, -np.inf)
        self._functions.violation(self._struct, LIBRARY.pointer(phi), LIBRARY.pointer(worst))
        self.grid.comm.Allreduce(MPI.IN_PLACE, worst, MPI.MAX)
        return worst


@dataclass(frozen=True)
class Check:
    """What an iterate is worth.

    Attributes:
        primal: cost of the densities and momenta, whose continuity equation holds up to the residual: an estimate.
        dual: value of the potential made feasible: a lower bound of the discrete problem.
        dual_residual: ‖Λφ − q‖/‖q‖, by which potential and its copy differ.
        primal_residual: ‖q − q₋‖/‖u‖, the error of the continuity equation relative to the densities and momenta.
    """

    primal: float
    dual: float
    dual_residual: float
    primal_residual: float

    @property
    def residual(self) -> float:
        """The larger of both."""
        return max(self.dual_residual, self.primal_residual)


class Splitting:
    """ALG2 (Benamou & Brenier 2000, doi:10.1007/s002110050002) for the flow of one label.

    In the variables z = q + u (u the multiplier over the penalty r) a step is z ← z + α(Λφ − q), q = the projection of
    z on the constraint, φ from Λ*Λφ = load/r + Λ*(2q − z).

    Args:
        slabs: sweeps over the cells.
        poisson: the inverse of Λ*Λ.
        functional: F.
        label: y.
        source: this rank's part of ∫φ_i dρ_0, (n_nodes,).
        gamma: γ, the weight of φ_T in the metric; 0 where ρ_T is fixed.
        penalty: r to begin with.
    """

    def __init__(
        self,
        slabs: Slabs,
        poisson: SpaceTimePoisson,
        functional: AnyFunctional,
        label: int,
        source: Floats,
        gamma: float,
        penalty: float,
    ) -> None:
        """Collective."""
        grid = slabs.grid
        self.grid, self.functional, self.label, self.source, self.penalty = grid, functional, label, source, penalty
        self._slabs, self._poisson, self._gamma = slabs, poisson, gamma
        self.mass = grid.sum(source)
        self._target = grid.load(functional.target, label) if isinstance(functional, Fixed) else None
        self._z = np.zeros((len(grid.nodes), slabs.parts, grid.layers))
        self._mu = np.zeros((len(grid.nodes), grid.layers))
        self._rhs = np.zeros((grid.n_nodes, grid.layers + 1))
        self._totals = np.zeros(6)
        self._z_end = np.zeros(len(grid.nodes))
        self._q_end = self._end_projection()
        self._end_totals = np.zeros(4)
        self.phi = np.zeros((grid.n_nodes, grid.layers + 1))

    def step(self) -> None:
        """One iteration. Collective."""
        grid = self.grid
        f = self._rhs.copy()
        f[:, 0] += self.source / self.penalty
        if self._target is not None:
            f[:, -1] -= self._target / self.penalty
        else:
            f[:, -1] += grid.share(self._gamma * grid.volumes * (2.0 * self._q_end - self._z_end))
        self.phi = self._poisson.solve(f)
        self._rhs, self._totals = self._slabs.sweep(self.phi, self._z, self._mu)
        if self._target is None:
            self._step_end()

    def _step_end(self) -> None:
        """The same step for the cell means of φ_T."""
        gap = self.grid.mean(self.phi[:, -1]) - self._q_end
        old, self._z_end = self._q_end, self._z_end + RELAXATION * gap
        self._q_end = self._end_projection()
        weight = self._gamma * self.grid.volumes
        squares = gap**2, (self._q_end - old) ** 2, self._q_end**2, (self._z_end - self._q_end) ** 2
        self._end_totals = np.array([float(weight @ square) for square in squares])

    def _end_projection(self) -> Floats:
        if isinstance(self.functional, Fixed):
            return self._z_end
        return self.functional.proximal(self._z_end, self.penalty * self._gamma, self.label)

    @property
    def density(self) -> Floats:
        """ρ ≥ 0 on cells and slabs, (n_owned, L)."""
        return self.penalty * self._mu

    def final_density(self) -> Floats:
        """ρ(T) ≥ 0 on cells, (n_owned,), of the label's mass. Collective."""
        if isinstance(self.functional, Fixed):
            return self.grid.cell_means(self.functional.target)[:, self.label]
        rho = np.maximum(self._z_end - self._q_end, 0.0)
        total = self.grid.sum(self.grid.volumes * rho)
        return rho * (self.mass / total) if total > 0.0 else np.full_like(rho, self.mass / self.grid.volume)

    def terminal_cost(self) -> float:
        """F of the final density. Collective."""
        if isinstance(self.functional, Fixed):
            return 0.0
        return self.functional.value(self.final_density(), self.label)

    def sink(self) -> Floats:
        """This rank's part of ∫φ_i dρ(T), (n_nodes,). Collective."""
        if self._target is not None:
            return self._target
        return self.grid.share(self.grid.volumes * self.final_density())

    def feasible_potential(self) -> tuple[Floats, float]:
        """The potential (n_nodes, L + 1) lowered until it satisfies every constraint, and its dual value. Collective.

        From φ(t) is taken the integral from t to T of the largest violation per slab (which may be negative: then φ
        rises), and the best constant.
        """
        grid = self.grid
        excess = grid.tau * self._slabs.violation(self.phi)
        lowered = np.append(np.cumsum(excess[::-1])[::-1], 0.0)
        if not isinstance(self.functional, Fixed):
            end = grid.mean(self.phi[:, -1])
            lowered += self.functional.shift(end, self.mass, self.label)
            paid = self.functional.conjugate(end - lowered[-1], self.label)
        else:
            assert self._target is not None
            paid = grid.sum(self._target * self.phi[:, -1])
        value = grid.sum(self.source * self.phi[:, 0]) - self.mass * float(lowered[0]) - paid
        return self.phi - lowered, value

    def check(self) -> Check:
        """Values and residuals of the last step. Collective."""
        totals = parallel.sum_all(self.grid.comm, np.concatenate([self._totals, self._end_totals]))
        miss, move, size, multiplier = totals[:4] + totals[6:]
        primal = self.penalty * float(totals[4]) + self.terminal_cost()
        _, dual = self.feasible_potential()
        return Check(primal, dual, _ratio(miss, size), _ratio(move, multiplier))

    def balance(self, check: Check) -> None:
        """Change the penalty so that both residuals fall together (He, Yang & Wang 2000, doi:10.1023/A:1004603514434)."""
        if not 0.0 < check.primal_residual < np.inf or not 0.0 < check.dual_residual < np.inf:
            return
        ratio = check.dual_residual / check.primal_residual
        if 1.0 / _BALANCED < ratio < _BALANCED:
            return
        factor = float(np.clip(np.sqrt(ratio), 1.0 / _LARGEST_CHANGE, _LARGEST_CHANGE))
        self.penalty *= factor
        self._rhs = self._slabs.rescale(1.0 / factor, self._z, self._mu)
        self._z_end = self._q_end + (self._z_end - self._q_end) / factor


def _ratio(part: float, whole: float) -> float:
    """√(part/whole), 0 for 0/0."""
    return float(np.sqrt(part / whole)) if whole > 0.0 else float(np.inf if part > 0.0 else 0.0)
