"""The alternating direction method for one label: its state, a step, its residuals and what it certifies."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.ideal.anderson import AndersonAcceleration
from eulerian.ideal.inner_product import Metric, at
from eulerian.ideal.running_cost import RunningAtVertices
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.vertex_functionals import VertexFunctional

RELAXATION = 1.9  # Eckstein & Bertsekas (1992), doi:10.1007/BF01581204
_BALANCED = 1.5  # residuals within this factor of each other leave the penalty alone
_LARGEST_CHANGE = 3.0

type Parts = dict[str, float]


@dataclass
class State:
    """Everything that the method remembers; see ``sweep.c``. ``end`` and ``end_q`` are z and q of φ_T, (n_nodes,)."""

    za: Floats
    zb: Floats
    mu: Floats
    shrink: Floats
    end: Floats
    end_q: Floats

    @classmethod
    def zero(cls, grid: SpaceTime) -> "State":
        """Where the method starts."""
        slabs = (grid.n_nodes, grid.layers)
        zb = np.zeros((len(grid.nodes), grid.dim + 1, 2 * grid.dim, grid.layers))
        return cls(np.zeros(slabs), zb, np.zeros(slabs), np.ones(slabs), np.zeros(grid.n_nodes), np.zeros(grid.n_nodes))

    def copy(self) -> "State":
        """A deep copy."""
        return State(*(array.copy() for array in vars(self).values()))

    @property
    def arrays(self) -> list[Any]:
        """C pointers to za, zb, mu, shrink."""
        return [at(array) for array in (self.za, self.zb, self.mu, self.shrink)]


@dataclass(frozen=True)
class Check:
    """What an iterate is worth.

    Attributes:
        parts: costs of the densities and momenta, whose continuity equation holds up to the residual: an estimate.
        dual: value of the potential made feasible: a lower bound of the discrete problem.
        dual_residual: ‖Λφ − q‖/‖q‖, by which the potential and its copy differ.
        primal_residual: ‖q − q₋‖/‖u‖, the error of the continuity equation relative to the densities and momenta.
    """

    parts: Parts
    dual: float
    dual_residual: float
    primal_residual: float

    @property
    def primal(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    @property
    def residual(self) -> float:
        """The larger of both."""
        return max(self.dual_residual, self.primal_residual)


class Splitting:
    """ALG2 (Benamou & Brenier 2000, doi:10.1007/s002110050002) for the flow of one label, over-relaxed.

    In the variables z = q + u (u the multiplier over the penalty r) a step is z ← z + α(Λφ − q), q = the projection of
    z on the constraints. Instead of Λ*Λφ = load/r + Λ*(2q − z), whose blur over vertices would fill the matrix, it
    solves Pφ = load/r + Λ*(2q − z) + (P − Λ*Λ)c without it, P ≥ Λ*Λ, and c ← c + α(φ − c): that is the same method
    for constraints that contain √(P − Λ*Λ) φ besides, of which nothing is asked.

    Args:
        metric: of the splitting; may be changed between steps.
        functional: F of the label.
        source: ∫φ_i dρ_0, (n_nodes,).
        penalty: r to begin with.
        running: g, if there are running costs of the density.
    """

    def __init__(
        self,
        metric: Metric,
        functional: VertexFunctional,
        source: Floats,
        penalty: float,
        running: RunningAtVertices | None = None,
    ) -> None:
        """Collective."""
        grid = metric.grid
        self.grid, self.source, self.penalty, self.running = grid, source, penalty, running
        self.functional, self._metric = functional, metric
        self.mass = grid.total(source)
        self._state = State.zero(grid)
        self._project_end()
        self.phi = np.zeros((grid.n_nodes, grid.layers + 1))
        self._centre = grid.falls(self.phi)  # of c
        self._fall: Floats | None = None  # what the potential was last lowered by, per time
        self._totals = np.zeros(3)  # ‖Λφ − q‖² twice (gradients, the rest) and the kinetic energy over r
        self._acceleration = AndersonAcceleration(grid.comm)
        self._start: Floats | None = None  # where the iterations since the last call of ``accelerate`` began

    # -- iterating ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One iteration. Collective."""
        grid, state, functions, struct = self.grid, self._state, self._metric.functions, self._metric.struct
        self.phi = self._metric.poisson.solve(self._right_side())
        squares = np.zeros_like(state.za)
        missed = functions.spread(struct, at(self.phi), at(state.shrink), RELAXATION, at(state.zb), at(squares))
        grid.accumulate(squares)
        squares /= grid.masses[:, None]
        falls = grid.falls(self.phi)
        for centre, fall in zip(self._centre, falls, strict=True):
            centre += RELAXATION * (fall - centre)
        totals = self._project(falls[1], squares, RELAXATION)
        if self.functional.fixed is None:
            gap = self.phi[:, -1] - state.end_q
            totals[0] += float((grid.own_masses * self._metric.end_weights) @ gap**2)
            state.end += RELAXATION * gap
            self._project_end()
        self._totals = np.array([missed, *totals])

    def _right_side(self) -> Floats:
        """load/r + Λ*(2q − z) + (P − Λ*Λ)c, this rank's part, (n_nodes, L + 1). Collective."""
        grid, state, metric = self.grid, self._state, self._metric
        plain, blurred = self._centre
        rest = grid.blurred(metric.weights[:, None] * (state.za - 2.0 * state.mu - blurred))
        rest = grid.own_masses[:, None] * (rest + metric.blurred_weights * plain)
        f = np.diff(rest, prepend=0.0, append=0.0)
        metric.functions.collect(metric.struct, at(state.zb), at(state.shrink), at(f))
        # Loads are complete on every rank that sees a vertex: only its owner adds them.
        owned = slice(0, grid.n_owned_nodes)
        f[owned, 0] += self.source[owned] / self.penalty
        fixed = self.functional.fixed
        if fixed is not None:
            f[owned, -1] -= fixed[owned] / self.penalty
        else:
            f[:, -1] += grid.own_masses * metric.end_weights * (2.0 * state.end_q - state.end)
        return f

    def _project(self, falls: Floats, squares: Floats, relaxation: float) -> Floats:
        """The vertices' part of a step, from a and the |z_b|² around (n_nodes, L); its part of the totals. Local."""
        state, functions, struct = self._state, self._metric.functions, self._metric.struct
        running, totals = self.running, np.zeros(2)
        sweep = at(falls), at(squares), relaxation, at(state.za), at(state.mu), at(state.shrink), at(totals)
        if running is None:
            functions.project(struct, *sweep)
        else:
            weights = running.congestion, running.entropy, running.floor
            functions.charge(struct, at(running.potential), *weights, self.penalty, *sweep)
        return totals

    def _project_end(self) -> None:
        if self.functional.fixed is None:
            self._state.end_q = self.functional.proximal(self._state.end, self.penalty * self._metric.end_weights)

    def checked_step(self) -> Check:
        """One iteration, and what its result is worth. Collective."""
        # The primal residual is measured by the change of q in the step.
        old = self._state.copy()
        self.step()
        state, totals = self._state, np.zeros(3)
        self._metric.functions.compare(self._metric.struct, *state.arrays, *old.arrays, at(totals))
        if self.functional.fixed is None:
            weight = self.grid.own_masses * self._metric.end_weights
            squares = (state.end_q - old.end_q) ** 2, state.end_q**2, (state.end - state.end_q) ** 2
            totals += [float(weight @ square) for square in squares]
        move, size, multiplier, *missed, energy = parallel.sum_all(
            self.grid.comm, np.concatenate([totals, self._totals])
        )
        parts = self.price(self.density, self.final_density()) | {"kinetic": self.penalty * float(energy)}
        return Check(parts, self.feasible_potential(self.phi)[1], _ratio(sum(missed), size), _ratio(move, multiplier))

    def balance(self, check: Check) -> None:
        """Change the penalty to let both residuals fall together.

        He, Yang & Wang (2000), doi:10.1023/A:1004603514434.
        """
        if not 0.0 < check.primal_residual < np.inf or not 0.0 < check.dual_residual < np.inf:
            return
        ratio = check.dual_residual / check.primal_residual
        if 1.0 / _BALANCED < ratio < _BALANCED:
            return
        factor = float(np.clip(np.sqrt(ratio), 1.0 / _LARGEST_CHANGE, _LARGEST_CHANGE))
        self.penalty *= factor
        # The multiplier stays what it is, and u is the multiplier over the penalty.
        factors = np.full(self.grid.n_nodes, 1.0 / factor)
        self._rescale(factors, factors)

    def change_metric(self, metric: Metric) -> None:
        """Go on in another metric; densities and potential stay."""
        old = self._metric
        end = np.ones(self.grid.n_nodes) if metric.gamma == 0.0 else old.end_weights / metric.end_weights
        self._rescale(old.weights / metric.weights, end)
        self._metric = metric

    def _rescale(self, factors: Floats, end_factors: Floats) -> None:
        """Multiply u = z − q at the vertices, and that of φ_T."""
        state = self._state
        self._metric.functions.rescale(self._metric.struct, at(factors), *state.arrays)
        state.end = state.end_q + (state.end - state.end_q) * end_factors
        self._acceleration.forget()
        self._start = None

    def accelerate(self, residual: float) -> None:
        """Go on where the iterations seem to lead to, after every so many of them. Collective.

        Mixed are potentials and densities, from which the rest of the state follows where the method comes to rest:
        the copies that cells have of gradients are an order of magnitude more numbers.
        """
        result = self.iterate()
        if self._start is not None:
            mixture = self._acceleration.mixed(result, self._in_metric(result - self._start), residual)
            if mixture is not None:
                self.begin_from(mixture)
                result = self.iterate()
        self._start = result

    def iterate(self) -> Floats:
        """Potential, densities on slabs and at T (up to a factor) in the problem's units, (n_nodes, 2L + 2). Local."""
        end = self.penalty * self._metric.blurred_weights[:, 0] * (self._state.end - self._state.end_q)
        return np.column_stack([self.phi, self.density, end])

    def _in_metric(self, change: Floats) -> Floats:
        """What changes of iterates mean for z, scaled so that squares are summed up; without ∇φ. Local."""
        grid, metric = self.grid, self._metric
        potential, densities = np.split(change, [grid.layers + 1], axis=1)
        weights, blurred = metric.weights[:, None], metric.blurred_weights
        inside, end = densities[:, :-1] / (self.penalty * weights), densities[:, -1:] / (self.penalty * blurred)
        parts = [  # with the weights of their squares
            (grid.tau * blurred, np.diff(potential, axis=1) / grid.tau),
            (grid.tau * weights, inside),
            (metric.end_weights[:, None], potential[:, -1:]),
            (metric.end_weights[:, None], end),
        ]
        return np.hstack([np.sqrt(grid.own_masses[:, None] * weight) * part for weight, part in parts])

    def begin_from(self, iterate: Floats) -> None:
        """The state z = Λφ + u where u is the multiplier of densities with the momenta −ρ∇φ/λ. Collective."""
        grid, state, metric = self.grid, self._state, self._metric
        self.phi = np.ascontiguousarray(iterate[:, : grid.layers + 1])
        weights = self.penalty * metric.weights
        state.mu[:] = np.maximum(iterate[:, grid.layers + 1 : -1], 0.0) / weights[:, None]
        state.shrink[:] = 1.0 / (1.0 + state.mu / (metric.kinetic * metric.omega**2))
        state.za[:], state.zb[:] = state.mu, 0.0
        squares = np.zeros_like(state.za)
        metric.functions.spread(metric.struct, at(self.phi), at(state.shrink), 1.0, at(state.zb), at(squares))
        grid.accumulate(squares)
        squares /= grid.masses[:, None] * state.shrink**2
        state.zb /= state.shrink[grid.nodes][:, :, None, :]
        self._centre = grid.falls(self.phi)
        self._project(self._centre[1], squares, 1.0)
        if self.functional.fixed is None:
            state.end = self.phi[:, -1] + iterate[:, -1] / (self.penalty * metric.blurred_weights[:, 0])
            self._project_end()

    # -- what it has found -------------------------------------------------------------------------------------------

    @property
    def density(self) -> Floats:
        """ρ ≥ 0 at vertices and on slabs, (n_nodes, L)."""
        return self.penalty * self._metric.weights[:, None] * self._state.mu

    def peak_density(self) -> Floats:
        """Largest density that a vertex or its neighbourhood sees, (n_nodes,). Collective."""
        grid = self.grid
        peak = np.maximum(self.density.max(axis=1), np.maximum(self.source / grid.masses, self.final_density()))
        return grid.smooth(grid.smooth(peak))

    def final_density(self) -> Floats:
        """ρ(T) ≥ 0 at the vertices, (n_nodes,), of the label's mass. Collective."""
        if self.functional.fixed is not None:
            return self.functional.fixed / self.grid.masses
        # The multiplier of φ_T is the density up to a factor, which its mass determines.
        rho = self._metric.end_weights * np.maximum(self._state.end - self._state.end_q, 0.0)
        total = self.grid.integrate(rho)
        return rho * (self.mass / total) if total > 0.0 else np.full_like(rho, self.mass / self.grid.volume)

    def price(self, density: Floats, final: Floats) -> Parts:
        """What densities cost without their momenta, (n_nodes, L) on the slabs and (n_nodes,) at T. Collective."""
        return {"terminal": self.functional.value(final)} | (
            {} if self.running is None else self.running.parts(density)
        )

    def end_capped(self) -> Floats:
        """The potential, (n_nodes, L + 1), at T nowhere above the loss, if there is one."""
        loss, phi = self.functional.loss, self.phi
        return phi if loss is None else np.column_stack([phi[:, :-1], np.minimum(phi[:, -1], loss)])

    def violation(self, phi: Floats) -> Floats:
        """By how much −∂_tφ + |∇φ|²/(2λ) of a potential is above g′ of the densities, (n_nodes, L) ≥ 0. Collective."""
        excess = self._metric.excess(phi)
        return np.maximum(excess if self.running is None else excess - self.running.marginal(self.density), 0.0)

    def feasible_potential(self, phi: Floats) -> tuple[Floats, float]:
        """A potential (n_nodes, L + 1) lowered until it satisfies every constraint, and its dual value. Collective.

        From φ(t) is taken the integral from t to T of a function of time, and the best constant. The function is the
        largest violation per slab (which may be negative: then φ rises). Where congestion or entropy make g* finite, so
        that there is nothing to satisfy, it is what makes the value largest.
        """
        grid, running = self.grid, self.running
        excess = self._metric.excess(phi)
        fall = grid.max_columns(excess) if running is None else running.shift(excess, self.mass, self._fall)
        self._fall = fall
        lowered = np.append(np.cumsum(grid.tau * fall[::-1])[::-1], 0.0)
        end = phi[:, -1]
        lowered += self.functional.shift(end, self.mass)
        paid = self.functional.conjugate(end - lowered[-1])
        if running is not None:
            paid += running.conjugate(excess - fall)
        return phi - lowered, grid.total(self.source * phi[:, 0]) - self.mass * float(lowered[0]) - paid


def _ratio(part: float, whole: float) -> float:
    """√(part/whole), 0 for 0/0."""
    return float(np.sqrt(part / whole)) if whole > 0.0 else float(np.inf if part > 0.0 else 0.0)
