"""The idealised problem over all velocities, convex in density and momentum, with a certified gap.

The discrete problem. Potentials φ are continuous, piecewise linear on the mesh and in time between L + 1 instants.
Densities ρ ≥ 0 live at the vertices, constant on each of L slabs; momenta m live at both ends of a slab on pairs (cell
K, vertex i of K), which stand for the volume |K|/(d+1). M_i is the sum of these volumes around a vertex.

    primal  min Σ_slabs τ (Σ_{K, i} |K|/(d+1) λ/2 (|m₋|² + |m₊|²)/(2ρ_i) + Σ_i M_i g_i(ρ_i)) + F(ρ_T)
            subject to, for every φ,
            Σ_slabs τ (Σ_i M_i ρ_i a_i + Σ_{K, i} |K|/(d+1) (m₋·b₋ + m₊·b₊)/2) = ∫φ_0 dμ_0 − ∫φ_T dρ_T
    dual    max ∫φ_0 dμ_0 − F*(φ_T) − Σ_slabs τ Σ_i M_i g_i*(s_i)
            with s_i = a_i + Σ_{K around i} |K|/(d+1) (|b₋|² + |b₊|²)/(4λ M_i),

a = −∂_tφ at the vertices, blurred over vertices (``mass_matrix``), b∓ = ∇φ on the cells at the slab's ends, g running
costs of the density; without them, and with a potential alone (g_i = V_i ρ_i), the last sum stands for constraints
s_i ≤ V_i. Without the blur it is the scheme of Lavenant, Claici, Chien and Solomon (2018,
doi:10.1145/3272127.3275064); on its convergence see Lavenant (2021, doi:10.1090/mcom/3567). The two problems are dual
to one another without a gap, and both values converge to that of the continuous problem when h and τ tend to 0, from
above or below. Densities on cells would be cheaper, but ∇φ of a linear interpolant belongs to another point than the
centroid, from cell to cell on another side (3.2 % instead of 0.5 % on a Gaussian with 48 × 48 squares).

What the blur is for: the mean of |∇φ|² over the cells around a vertex contains the variance of ∇φ there, h²/4 |D²φ|²
on a line, which makes the constraint too strict by h²/(8λ) |D²φ|². Along the flow ∂_t D²φ = (D²φ)²/λ, so that an
average of ∂_tφ with the second moment h²/4 takes it off again. It is also what lets mass travel without dispersion, as
the mass matrix of linear elements does. A Gaussian drawn to a fifth of its width: −0.1 % instead of −1.6 % with 48 × 40
squares (but +2.2 instead of −1.7 % with 24 × 20, where that width is less than half a cell). What is left is an error
of second order in time, for the mean of |∇φ|² over the ends of a slab contains the variance in time: −0.3 % there with
16 slabs, with 32 hardly any (96 × 80 squares: −0.28 and −0.03 %). The same kind of blur from slab to slab would cancel
it, but densities that pass a vertex within a slab then cannot stay positive, and thousands of iterations are taken. Two
ways of doing without the variance have been measured and given up: the square of the mean of ∇φ is wrong at the kinks
of φ, where mass parts, and the variance of an earlier φ, taken off the constraint, corrects errors of one sign only.

Parts of the domain that are not connected are problems of their own, with potentials that are free up to a constant
each; they are solved side by side, and the values added up.

Certified are both sides: ``dual`` is the dual value of a potential that satisfies every constraint, ``primal`` the cost
of densities and momenta that satisfy the continuity equation to the rounding of a direct solver.

On its own the method takes the more iterations the finer the mesh, and beginning on coarser meshes or with fewer slabs
saves none: what it is slow at are the places with little mass, on every mesh. Mixtures of earlier iterates
(``AndersonAcceleration``) and a dual value that violations in such places do not spoil (``LabelSolution.lower``) need
one another: 1200 iterations became 350 with 96 × 80 squares, 720 became 330 with 48 × 40.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.ideal.domain_parts import SAME_MASS, DomainPart, domain_parts, require_masses
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.functionals import KEY
from eulerian.ideal.part_flow import PartFlow, relative_gap
from eulerian.ideal.problem import LABEL_BY_LABEL, PARTS, GapRecord, IdealProblem
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.splitting import Parts

_CHECK_EVERY = 10  # iterations: to see what an iterate is worth takes more sweeps over its state
_ADAPT_AT = (50, 150)  # iterations after which the vertices are weighed by the densities found so far


@dataclass(frozen=True)
class ConvexSolution:
    """A nearly optimal flow and the potential that proves it.

    Attributes:
        status: "converged", "max_iterations", or "failed" if no feasible flow was found.
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
    history: tuple[GapRecord, ...] = field(repr=False)
    parts: Parts
    flow: ConvexFlow = field(repr=False)
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
    """Minimise over all flows until the certified gap and the residuals are small, or the gap very small. Collective.

    The gap is relative to the size of the value: max(|primal|, |dual|), or the sum of the parts' absolute values where
    that is larger (parts of opposite sign may cancel), or the cost of moving everything by one cell.

    Args:
        problem: what is to be minimised.
        gap_tolerance: relative.
        residual_tolerance: relative; it may be missed where the gap is below a tenth of what is allowed.
        max_iterations: at most this many.
        callback: called with every record, on every rank.

    Raises:
        InputError: λ is not positive; initial and final masses of a label differ, in the domain or in a part of it that
            is not connected to the others; the loss or the potential is not finite; no iteration is allowed.
        ComputationError: a linear system cannot be solved; the dual value grows without bound.
    """
    _require_solvable(problem, max_iterations)
    grid = SpaceTime(problem.space, problem.slabs, problem.horizon)
    parts = domain_parts(grid)
    require_masses(problem, parts)
    solver = _Solver(problem, grid, parts, gap_tolerance, residual_tolerance)
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
        raise InputError("must be at least 1", key="max_iterations", value=max_iterations)
    if not problem.kinetic > 0.0:
        raise InputError(
            "the idealised problem needs a price of moving",
            key="kinetic",
            value=problem.kinetic,
            remedy="Give a number > 0; without it the infimum is not attained",
        )
    target = problem.functional.target
    if target is not None and problem.functional.is_constraint:
        begin, end = (problem.space.mass(rho) for rho in (problem.rho0, target))
        require_equal_masses(begin, end, SAME_MASS * begin)


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
    """The parts of the domain side by side; those that have converged wait for the others."""

    def __init__(
        self,
        problem: IdealProblem,
        grid: SpaceTime,
        parts: list[DomainPart],
        gap_tolerance: float,
        residual_tolerance: float,
    ) -> None:
        self._problem, self._grid = problem, grid
        self._started = time.perf_counter()
        masses = problem.space.mass(problem.rho0)
        self._parts = [PartFlow(problem, part, masses, gap_tolerance, residual_tolerance) for part in parts]
        self._labels = [label for part in self._parts for label in part.labels]
        self._history: list[GapRecord] = []

    def destroy(self) -> None:
        for part in self._parts:
            part.destroy()

    def run(self, max_iterations: int, callback: Callable[[GapRecord], None] | None) -> ConvexSolution:
        iteration = 0
        # One iteration at least, so that the history has a record.
        while iteration < max_iterations and not (iteration and all(label.done for label in self._labels)):
            iteration += 1
            checked = iteration % _CHECK_EVERY == 0 or iteration == max_iterations
            for part in self._parts:
                part.step(iteration, checked=checked, last=iteration == max_iterations)
            if checked:
                self._record(iteration, callback)
            if iteration in _ADAPT_AT and iteration < max_iterations:
                for part in self._parts:
                    part.adapt()
        return self._solution(iteration)

    def _record(self, iteration: int, callback: Callable[[GapRecord], None] | None) -> None:
        parts, feasible = self._costs(), all(label.flow is not None for label in self._labels)
        primal = sum(parts.values())
        dual = sum(label.check.dual for label in self._labels)
        seconds = self._grid.comm.bcast(time.perf_counter() - self._started, 0)  # histories are the same on all ranks
        residual = max(label.check.residual for label in self._labels)
        gap, relative = math.nan, math.nan
        if feasible:  # an estimate of the primal value may lie below the dual one, and proves nothing
            gap, relative = primal - dual, relative_gap(parts, dual, sum(part.floor for part in self._parts))
        self._history.append(GapRecord(iteration, primal, dual, gap, relative, residual, seconds, feasible))
        if callback is not None:
            callback(self._history[-1])

    def _costs(self) -> Parts:
        """By name, of all labels and parts."""
        return {name: sum(label.parts.get(name, 0.0) for label in self._labels) for name in PARTS}

    def _flow(self) -> ConvexFlow:
        """Of the whole domain. Collective."""
        grid, labels = self._grid, self._problem.space.n_labels
        initial, final = np.zeros((2, grid.n_nodes, labels))
        density = np.zeros((grid.n_nodes, grid.layers, labels))
        potential = np.zeros((grid.n_nodes, grid.layers + 1, labels))
        for part in self._parts:
            nodes = part.part.nodes
            for y, label in enumerate(part.labels):
                assert label.flow is not None
                initial[nodes, y] = label.source / grid.masses[nodes]
                density[nodes, :, y], final[nodes, y] = label.flow.density, label.flow.final
                potential[nodes, :, y] = label.potential()
        return ConvexFlow(grid, self._problem.kinetic, initial, density, final, potential)

    def _solution(self, iteration: int) -> ConvexSolution:
        last, flow = self._history[-1], self._flow()
        done = all(label.done for label in self._labels)
        reason = f"relative gap {last.relative_gap:.2e}, residual {last.residual:.2e}"
        reason = reason if done else f"{reason} after {iteration} iterations"
        status = "converged" if done else "max_iterations"
        if not math.isfinite(last.primal):
            status = "failed"
            what = "no flow that satisfies the continuity equation was found"
            reason = f"{what} in {iteration} iterations; lower bound {last.dual:.8g}, residual {last.residual:.2e}"
        parts = self._costs()
        together = sum(parts.values())
        if self._problem.couples_labels:
            assert self._problem.running is not None
            # The flow that was found label by label is one for all together, and so bounds their cost.
            running = self._problem.running.at_vertices(self._grid)
            together = sum((parts | running.parts(flow.density.sum(axis=2))).values())
            reason += f"; {LABEL_BY_LABEL}, with which this flow costs {together:.8g}"
        return ConvexSolution(status, reason, iteration, tuple(self._history), parts, flow, together)
