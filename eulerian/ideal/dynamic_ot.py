"""The idealised problem over all velocities, convex in density and momentum, with a certified gap.

The discrete problem. Potentials φ are continuous, piecewise linear on the mesh and in time between L + 1 instants.
Densities ρ ≥ 0 live at the vertices, constant on each of L slabs; momenta m live at both ends of a slab on pairs (cell
K, vertex i of K), which stand for the volume |K|/(d+1). M_i is the sum of these volumes around a vertex.

    primal  min Σ_slabs τ (Σ_{K, i} |K|/(d+1) λ/2 (|m₋|² + |m₊|²)/(2ρ_i) + Σ_i M_i g_i(ρ_i)) + F(ρ_T)
            subject to, for every φ,
            Σ_slabs τ (Σ_i M_i ρ_i a_i + Σ_{K, i} |K|/(d+1) (m₋·b₋ + m₊·b₊)/2) = ∫φ_0 dμ_0 − ∫φ_T dρ_T
    dual    max ∫φ_0 dμ_0 − F*(φ_T) − Σ_slabs τ Σ_i M_i g_i*(s_i)
            with s_i = a_i + Σ_{K around i} |K|/(d+1) (|b₋|² + |b₊|²)/(4λ M_i),

a = −∂_tφ at the vertices, b∓ = ∇φ on the cells at the slab's ends, g running costs of the density; without them, and
with a potential alone (g_i = V_i ρ_i), the last sum stands for constraints s_i ≤ V_i. The scheme is after Lavenant,
Claici, Chien and Solomon (2018, doi:10.1145/3272127.3275064); on its convergence see Lavenant (2021,
doi:10.1090/mcom/3567). The two problems are dual to one another without a gap, and both values converge to that of the
continuous problem when h and τ tend to 0. Densities on cells would be cheaper, but ∇φ of a linear
interpolant belongs to another point than the centroid, from cell to cell on another side: an error of first order
(3.2 % instead of 0.5 % on the Gaussian of the README with 48 × 48 squares).

Certified are both sides: ``dual`` is the dual value of a potential that satisfies every constraint, ``primal`` the cost
of densities and momenta that satisfy the continuity equation to the rounding of a direct solver.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from eulerian.arrays import Floats
from eulerian.errors import InputError

# isort: split
import numpy as np

from eulerian.ideal.advection import Advection
from eulerian.ideal.continuity import MomentumProblem
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.functionals import KEY, Fixed, LinearAtVertices
from eulerian.ideal.label_flow import LabelFlow
from eulerian.ideal.last_step import LastStep
from eulerian.ideal.metric import Metric
from eulerian.ideal.poisson import WholeMesh
from eulerian.ideal.problem import LABEL_BY_LABEL, PARTS, GapRecord, IdealProblem
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.speed import driven_speed, typical_speed
from eulerian.ideal.splitting import Parts, Splitting

_CHECK_EVERY = 10
_BALANCE_OFTEN = 100  # until this iteration the penalty may change at every check, later at every fifth
_PENALTY = 3.0  # in units of mass/(volume λ ω²): where the residuals of a transport over many cells are balanced
_ADAPT_AT = (50, 150)  # iterations after which the vertices are weighed by the densities found so far
_LEAST_WEIGHT = 1e-2  # relative to the typical density
_SAME_MASS = 1e-6  # relative error up to which a target is scaled to the initial mass
_PATIENCE = 1.2  # growth of the iterations before a gap that proved too wide is certified again


@dataclass(frozen=True)
class ConvexSolution:
    """A nearly optimal flow and the potential that proves it.

    Attributes:
        status: "converged" or "max_iterations".
        reason: in words.
        iterations: of the splitting method.
        history: one record per check; the last one is certified.
        parts: the primal value by ``PARTS``: F(ρ_T), λ/2 ∫∫|m|²/ρ, ∫∫Vρ, γ/2 ∫∫ρ², σ ∫∫ρ log ρ (see ``RunningCost``).
        flow: densities, velocities and potentials.
        together: cost of the flow with congestion and entropy of the density of all labels; the primal value where the
            labels are not coupled, else an upper bound of the coupled problem.
    """

    status: str
    reason: str
    iterations: int
    history: tuple[GapRecord, ...]
    parts: Parts
    flow: ConvexFlow
    together: float

    @property
    def terminal(self) -> float:
        """F(ρ_T)."""
        return self.parts["terminal"]

    @property
    def kinetic(self) -> float:
        """λ/2 ∫∫|m|²/ρ."""
        return self.parts["kinetic"]

    @property
    def primal(self) -> float:
        """Cost of the flow: an upper bound of the discrete problem's value."""
        return self.history[-1].primal

    @property
    def dual(self) -> float:
        """Value of the potential: a lower bound of the discrete problem's value."""
        return self.history[-1].dual

    @property
    def gap(self) -> float:
        """Primal − dual ≥ 0."""
        return self.history[-1].gap

    @property
    def relative_gap(self) -> float:
        """Gap relative to the value."""
        return self.history[-1].relative_gap

    @property
    def residual(self) -> float:
        """Larger one of the relative primal and dual residuals."""
        return self.history[-1].residual


def solve_convex(
    problem: IdealProblem,
    *,
    gap_tolerance: float = 1e-3,
    residual_tolerance: float = 1e-4,
    max_iterations: int = 5000,
    callback: Callable[[GapRecord], None] | None = None,
) -> ConvexSolution:
    """Minimise over all flows until the certified gap and the residuals are small. Collective.

    The gap is relative to the size of the value: max(|primal|, |dual|), or the sum of the parts' absolute values where
    that is larger (parts of opposite sign may cancel), or the cost of moving everything by one cell.

    Args:
        problem: what is to be minimised.
        gap_tolerance: relative.
        residual_tolerance: relative.
        max_iterations: at most this many.
        callback: called with every record, on every rank.

    Raises:
        InputError: λ is not positive; initial and final masses of a label differ; the loss or the potential is not
            finite; no iteration is allowed.
        ComputationError: a linear system cannot be solved.
    """
    _require_solvable(problem, max_iterations)
    solver = _Solver(problem, gap_tolerance, residual_tolerance)
    try:
        return solver.run(max_iterations, callback)
    finally:
        solver.destroy()


def _require_solvable(problem: IdealProblem, max_iterations: int) -> None:
    """Refuse what has no minimiser. Collective.

    Raises:
        InputError: see ``solve_convex``.
    """
    if max_iterations < 1:
        raise InputError("must be at least 1", key="ideal.max_iterations", value=max_iterations)
    if not problem.kinetic > 0.0:
        raise InputError(
            "the idealised problem needs a price of moving",
            key="objective.kinetic",
            value=problem.kinetic,
            remedy="Give a number > 0; without it the infimum is not attained",
        )
    if isinstance(problem.functional, Fixed):
        begin, end = (problem.space.mass(rho) for rho in (problem.rho, problem.functional.target))
        require_equal_masses(begin, end, _SAME_MASS * begin)


def require_equal_masses(initial: Floats, target: Floats, tolerance: float | Floats) -> None:
    """A flow keeps the mass of every label, so a fixed target must have the same.

    Args:
        initial: masses (K,) of ρ_0.
        target: masses (K,) of ρ*.
        tolerance: by how much they may differ.

    Raises:
        InputError: they differ by more.
    """
    if np.any(np.abs(initial - target) > tolerance):
        given, wanted = (", ".join(f"{mass:.8g}" for mass in masses) for masses in (target, initial))
        raise InputError(
            f"every label must have the same mass as in density.initial, {wanted}",
            key=f"{KEY}.target",
            value=given,
            remedy="Change the weights: no flow turns one label into another.",
        )


class _Solver:
    """All labels side by side; those that have converged wait for the others."""

    def __init__(self, problem: IdealProblem, gap_tolerance: float, residual_tolerance: float) -> None:
        self._problem, self._gap_tolerance, self._residual_tolerance = problem, gap_tolerance, residual_tolerance
        self._started = time.perf_counter()
        self._grid = grid = SpaceTime(problem.space, problem.layers, problem.horizon)
        self._running = None if problem.running is None else problem.running.at_vertices(grid)
        sources = [grid.load(problem.rho, y) for y in range(problem.space.n_labels)]
        omega = typical_speed(problem.space, problem.rho, problem.functional, problem.kinetic, problem.horizon)
        if self._running is not None:
            omega = math.hypot(omega, driven_speed(self._running, np.stack(sources, axis=1), problem.kinetic))
        gamma = 0.0 if isinstance(problem.functional, Fixed) else 1.0 / problem.horizon
        self._metric = Metric(grid, problem.kinetic, omega, gamma, np.ones(grid.n_nodes))
        whole = WholeMesh(grid)
        self._momenta = MomentumProblem(grid, whole, problem.kinetic)
        self._advection = Advection(grid, whole, problem.kinetic)
        penalty = _PENALTY / (grid.volume * problem.kinetic * omega**2)
        self._labels = [self._label(y, source, penalty, whole) for y, source in enumerate(sources)]
        self._cell_cost = 0.5 * problem.kinetic * grid.cell_size**2 / problem.horizon
        self._history: list[GapRecord] = []

    def _label(self, label: int, source: Floats, penalty: float, whole: WholeMesh) -> LabelFlow:
        """Collective."""
        grid, problem = self._grid, self._problem
        penalty *= grid.total(source)
        splitting = Splitting(self._metric, problem.functional, source, label, penalty, self._running)
        last_step = None
        if isinstance(splitting.functional, LinearAtVertices):
            last_step = LastStep(grid, whole, problem.kinetic, splitting.functional.loss)
        return LabelFlow(splitting, last_step)

    def destroy(self) -> None:
        self._metric.destroy()
        self._momenta.destroy()

    def run(self, max_iterations: int, callback: Callable[[GapRecord], None] | None) -> ConvexSolution:
        iteration = 0
        while iteration < max_iterations and not all(label.done for label in self._labels):
            iteration += 1
            checked = iteration % _CHECK_EVERY == 0 or iteration == max_iterations
            for label in self._labels:
                if not label.done and not checked:
                    label.splitting.step()
                elif not label.done:
                    self._check(label, iteration, iteration == max_iterations)
            if checked:
                self._tell(iteration, callback)
            if iteration in _ADAPT_AT and iteration < max_iterations:
                self._adapt()
        return self._solution(iteration)

    def _check(self, label: LabelFlow, iteration: int, last: bool) -> None:
        """One step of a label; certify it if it seems to have converged, else balance its penalty."""
        label.check, label.flow = label.splitting.checked_step(), None
        small = label.check.residual <= self._residual_tolerance and self._narrow(label)
        if last or (small and iteration >= label.certify_from):
            label.certify(self._momenta, self._advection, lambda: self._narrow(label))
            label.done = small and self._narrow(label)
            label.certify_from = int(_PATIENCE * iteration)
        if not label.done and (iteration <= _BALANCE_OFTEN or iteration % (5 * _CHECK_EVERY) == 0):
            label.splitting.balance(label.check)

    def _adapt(self) -> None:
        """Weigh the vertices by the densities that pass them: where there is little, the penalty must be small."""
        old, grid = self._metric, self._grid
        peaks = [label.splitting.peak_density() / label.splitting.mass for label in self._labels]
        peak: Floats = np.max(peaks, axis=0)
        typical = grid.integrate(peak**2) / grid.integrate(peak)
        weights = np.clip(peak / typical, _LEAST_WEIGHT, None)
        self._metric = Metric(grid, old.kinetic, old.omega, old.gamma, weights)
        for label in self._labels:
            label.splitting.change_metric(self._metric)
        old.destroy()

    def _narrow(self, label: LabelFlow) -> bool:
        """Whether the gap of a label is small."""
        return self._relative(label.parts, label.check.dual, label.splitting.mass) <= self._gap_tolerance

    def _relative(self, parts: Parts, dual: float, mass: float) -> float:
        size = sum(abs(part) for part in parts.values())
        return abs(sum(parts.values()) - dual) / max(size, abs(dual), mass * self._cell_cost)

    def _tell(self, iteration: int, callback: Callable[[GapRecord], None] | None) -> None:
        parts = self._parts()
        primal = sum(parts.values())
        dual = sum(label.check.dual for label in self._labels)
        mass = sum(label.splitting.mass for label in self._labels)
        seconds = self._grid.comm.bcast(time.perf_counter() - self._started, 0)
        residual = max(label.check.residual for label in self._labels)
        gap = self._relative(parts, dual, mass)
        self._history.append(GapRecord(iteration, primal, dual, primal - dual, gap, residual, seconds))
        if callback is not None:
            callback(self._history[-1])

    def _parts(self) -> Parts:
        """Costs by name, of all labels."""
        return {name: sum(label.parts.get(name, 0.0) for label in self._labels) for name in PARTS}

    def _solution(self, iteration: int) -> ConvexSolution:
        grid, last = self._grid, self._history[-1]
        flows = [label.flow for label in self._labels if label.flow is not None]
        splittings = [label.splitting for label in self._labels]
        flow = ConvexFlow(
            grid,
            self._problem.kinetic,
            np.stack([splitting.source / grid.masses for splitting in splittings], axis=1),
            np.stack([flow.density for flow in flows], axis=2),
            np.stack([flow.final for flow in flows], axis=1),
            np.stack([splitting.feasible_potential()[0] for splitting in splittings], axis=2),
        )
        done = all(label.done for label in self._labels)
        reason = f"relative gap {last.relative_gap:.2e}, residual {last.residual:.2e}"
        reason = reason if done else f"{reason} after {iteration} iterations"
        parts = self._parts()
        together = sum(parts.values())
        if self._problem.couples_labels:
            assert self._running is not None
            together = sum((parts | self._running.parts(flow.density.sum(axis=2))).values())
            reason += f"; {LABEL_BY_LABEL}, with which this flow costs {together:.8g}"
        status = "converged" if done else "max_iterations"
        return ConvexSolution(status, reason, iteration, tuple(self._history), parts, flow, together)
