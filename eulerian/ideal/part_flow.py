"""The convex problem on one part of the domain: all labels side by side."""

import math

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.ideal.advection import Advection
from eulerian.ideal.continuity import MomentumProblem
from eulerian.ideal.domain_parts import DomainPart
from eulerian.ideal.inner_product import Metric, driven_speed, typical_speed
from eulerian.ideal.label_solution import IdleLabel, LabelSolution
from eulerian.ideal.last_step import LastStep
from eulerian.ideal.poisson import GatheredMesh
from eulerian.ideal.problem import IdealProblem
from eulerian.ideal.splitting import Parts, Splitting

_BALANCE_OFTEN = 100  # until this iteration the penalty may change at every check, later at every fifth
_BALANCE_EVERY = 50
_PENALTY = 3.0  # in units of mass/(volume λ ω²): where the residuals of a transport over many cells are balanced
_LEAST_WEIGHT = 1e-2  # relative to the typical density
_PATIENCE = 1.2  # growth of the iterations before a gap that proved too wide is certified again: that is costly
_PROVED = 0.1  # of the gap that is allowed: below that residuals need not be small
_NOTHING = 1e-12  # of a label's mass: with less of it a part stays as it is
_BEYOND = 1e-6  # relative: a dual value that is so far above what a flow costs bounds nothing


class PartFlow:
    """All labels on one part; those that have converged wait for the others.

    Args:
        problem: on all parts together.
        part: of it.
        masses: of the labels on all parts together, (K,).
        gap_tolerance: relative.
        residual_tolerance: relative.

    Attributes:
        part: as given.
        labels: one flow each.
    """

    def __init__(
        self,
        problem: IdealProblem,
        part: DomainPart,
        masses: Floats,
        gap_tolerance: float,
        residual_tolerance: float,
    ) -> None:
        """Collective."""
        self._problem, self.part, self._grid = problem, part, part.grid
        self._gap_tolerance, self._residual_tolerance = gap_tolerance, residual_tolerance
        self._running = None if problem.running is None else problem.running.at_vertices(part.grid)
        self._metric: Metric | None = None
        self._momenta: MomentumProblem | None = None
        self._cell_cost = 0.5 * problem.kinetic * part.grid.cell_size**2 / problem.horizon
        sources = [part.grid.load(problem.rho0, y) for y in range(problem.space.n_labels)]
        moving = [part.grid.total(source) > _NOTHING * mass for source, mass in zip(sources, masses, strict=True)]
        if any(moving):
            self._start(sources)
        self.labels: list[LabelSolution | IdleLabel] = []
        self._moving: list[LabelSolution] = []
        for y, (source, moves) in enumerate(zip(sources, moving, strict=True)):
            if moves:
                self._moving.append(self._label(y, source))
            self.labels.append(self._moving[-1] if moves else IdleLabel(part.grid, problem.functional, source, y))

    def _start(self, sources: list[Floats]) -> None:
        """What the labels share. Collective."""
        grid, problem = self._grid, self._problem
        omega = typical_speed(
            problem.space, problem.rho0, problem.functional, problem.kinetic, problem.horizon, self.part
        )
        if self._running is not None:
            omega = math.hypot(omega, driven_speed(self._running, np.stack(sources, axis=1), problem.kinetic))
        # Where ρ_T is prescribed φ(T) has no functional of its own, so nothing is split there.
        gamma = 0.0 if problem.functional.is_constraint else 1.0 / problem.horizon
        # Weights of one until densities are known: see ``adapt``.
        self._metric = Metric(grid, problem.kinetic, omega, gamma, np.ones(grid.n_nodes))
        self._gathered = GatheredMesh(grid)
        self._momenta = MomentumProblem(grid, self._gathered, problem.kinetic)
        self._advection = Advection(grid, self._gathered, problem.kinetic)

    def _label(self, label: int, source: Floats) -> LabelSolution:
        """Collective."""
        grid, problem, metric = self._grid, self._problem, self._metric
        assert metric is not None
        penalty = _PENALTY / (grid.volume * problem.kinetic * metric.omega**2) * grid.total(source)
        functional = problem.functional.at_vertices(grid, label, source)
        splitting = Splitting(metric, functional, source, penalty, self._running)
        last_step = None
        if functional.loss is not None:
            last_step = LastStep(grid, self._gathered, problem.kinetic, functional.loss)
        return LabelSolution(splitting, last_step)

    def destroy(self) -> None:
        """Free PETSc's objects. Local."""
        for each in (self._metric, self._momenta):
            if each is not None:
                each.destroy()

    def step(self, iteration: int, *, checked: bool, last: bool) -> None:
        """One iteration of the labels that have not converged. Collective.

        Raises:
            ComputationError: the dual value grows beyond what a flow costs.
        """
        for label in self._moving:
            if checked and not label.done:
                self._check(label, iteration, last)
            elif not label.done:
                label.splitting.step()

    def _check(self, label: LabelSolution, iteration: int, last: bool) -> None:
        """One step of a label; certify it if it seems to have converged, else balance its penalty and accelerate it."""
        assert self._momenta is not None
        label.check, label.flow = label.splitting.checked_step(), None
        self._require_bound(label)
        small = label.check.residual <= self._residual_tolerance
        # Where nothing moves, q and its residual are made of rounding.
        allowed = self._gap_tolerance * (1.0 if small else _PROVED)
        if last or ((small or self._narrow(label, allowed)) and iteration >= label.certify_from):
            label.lower(self._advection)
            if last or self._narrow(label, allowed):
                label.certify(self._momenta, self._advection, lambda: self._narrow(label, allowed))
                label.done = self._narrow(label, allowed)
            label.certify_from = int(_PATIENCE * iteration)
        if label.done or last:
            return
        if iteration <= _BALANCE_OFTEN or iteration % _BALANCE_EVERY == 0:
            label.splitting.balance(label.check)
        label.splitting.accelerate(label.check.residual)

    def _require_bound(self, label: LabelSolution) -> None:
        """Refuse a dual value above the cost of some flow: it grows without bound, or is no number."""
        dual, most = label.check.dual, self._dearest(label)
        if not dual <= most:
            raise ComputationError(
                f"the dual value grows beyond what any flow can cost: {dual:.4g} instead of at most {most:.4g}; "
                "either no flow reaches the target, or the numbers of the problem are too far apart"
            )

    def _dearest(self, label: LabelSolution) -> float:
        """More than the problem's value: what it costs to stay or, with a fixed target, to move along all vertices."""
        if label.splitting.functional.fixed is None:
            costs = label.stay.values()
            return sum(costs) + _BEYOND * (sum(map(abs, costs)) + label.splitting.mass * self._cell_cost)
        if self._running is not None:
            return math.inf
        path = self._grid.n_global * float(np.linalg.norm(self.part.high - self.part.low))
        return float(label.splitting.mass * 0.5 * self._problem.kinetic * path**2 / self._problem.horizon)

    def adapt(self) -> None:
        """Weigh the vertices by the densities that pass them: where there is little, the penalty must be small."""
        old, grid = self._metric, self._grid
        flows = self._moving
        if old is None or all(label.done for label in flows):
            return
        peaks = [label.splitting.peak_density() / label.splitting.mass for label in flows]
        peak: Floats = np.max(peaks, axis=0)
        typical = grid.integrate(peak**2) / grid.integrate(peak)
        weights = np.clip(peak / typical, _LEAST_WEIGHT, None)
        self._metric = Metric(grid, old.kinetic, old.omega, old.gamma, weights)
        for label in flows:
            label.splitting.change_metric(self._metric)
        old.destroy()  # not before all labels have left it

    def _narrow(self, label: LabelSolution, allowed: float) -> bool:
        """Whether the relative gap of a label is what is allowed; certified, or an estimate."""
        return relative_gap(label.parts, label.check.dual, label.splitting.mass * self._cell_cost) <= allowed

    @property
    def floor(self) -> float:
        """Of the size of the value: the cost of moving everything by one cell."""
        return self._cell_cost * sum(label.mass for label in self.labels)


def relative_gap(parts: Parts, dual: float, floor: float) -> float:
    """|primal − dual| over the size of the value, see ``solve_convex``."""
    size = sum(abs(part) for part in parts.values())
    return abs(sum(parts.values()) - dual) / max(size, abs(dual), floor)
