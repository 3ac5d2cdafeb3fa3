"""θ ↦ J(θ) and its exact discrete gradient on densities: the reduced functional of the mesh."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import RejectedEvaluation
from eulerian.control.reduced import ReducedProblem
from eulerian.control.velocity_probes import velocity_matrices
from eulerian.density.space import DensitySpace
from eulerian.fields.base import VectorField
from eulerian.fields.frame import Charts
from eulerian.fields.piecewise import PiecewiseField
from eulerian.objective.continuous import ContinuousData
from eulerian.objective.entropy import EntropyBalance
from eulerian.objective.running import VelocityCost
from eulerian.objective.squares import SquareCosts, integral
from eulerian.objective.terminal import Terminal, TerminalValue
from eulerian.transport.checkpointing import Plan
from eulerian.transport.density_cost import DensityCost
from eulerian.transport.observer import SweepObserver, TimeMark
from eulerian.transport.operator import TransportOperator
from eulerian.transport.stepper import Stepper
from eulerian.transport.trajectory import Groups, TimeGrid, Trajectory
from eulerian.transport.velocity_space import VelocitySpace


@dataclass(frozen=True)
class Statistics:
    """What the last evaluation did. Densities are dimensionless, times in seconds.

    Attributes:
        steps_per_layer: (L,) time steps; with a label-dependent field the largest over the labels.
        mass_initial: (K,).
        mass_final: (K,).
        boundary_masses: (L + 1, K) mass in the cells at the domain's boundary, at the ends of the layers.
        density_min: smallest value at the limiter's points, over the ends of the layers.
        density_max: largest one.
        mean: (K, dim) of ρ(T).
        covariance: (K, dim, dim) of ρ(T).
        seconds_forward: mean time of a forward solve.
        seconds_gradient: mean time of a value with its gradient.
        evaluations: forward solves so far, rejected ones included.
        rejected_evaluations: trial points that would have needed too many steps or overflowed.
    """

    steps_per_layer: tuple[int, ...]
    mass_initial: Floats
    mass_final: Floats
    boundary_masses: Floats
    density_min: float
    density_max: float
    mean: Floats
    covariance: Floats
    seconds_forward: float
    seconds_gradient: float
    evaluations: int
    rejected_evaluations: int

    @property
    def boundary_mass(self) -> float:
        """Largest mass of all labels at the boundary."""
        return float(self.boundary_masses.sum(axis=1).max())

    @property
    def mass_error(self) -> float:
        """Largest relative change of a label's mass."""
        return float(np.max(np.abs(self.mass_final - self.mass_initial) / self.mass_initial))


@dataclass(frozen=True)
class EntropyCosts:
    """Costs of ∫ρ log ρ by its balance, which follow from what it is at the start and from what the flow does to it.

    Attributes:
        balance: d/dt ∫ρ log ρ.
        terminal: the weight of ∫ρ log ρ at T, which the terminal cost leaves to the balance: 1 for kl, or 0.
        running: σ, the weight of ∫∫ρ log ρ dt; 0 unless all labels have one velocity.
        initial: ∫ρ₀ log ρ₀ of all labels together, where σ > 0.
    """

    balance: EntropyBalance
    terminal: float = 0.0
    running: float = 0.0
    initial: float = 0.0


@dataclass(frozen=True)
class RunningCosts:
    """Costs per time of a flow.

    Attributes:
        velocity: kinetic and Jacobian cost.
        potential: (n_owned, nd) derivative of ∫Vρ by the coefficients of ρ, or None.
        nonlinear: congestion and entropy, or None.
        entropy: the costs that the balance of ∫ρ log ρ tells, or None.
        squares: the costs of ∫ρ² by squares that move beside the densities, or None.
    """

    velocity: VelocityCost
    potential: Floats | None = None
    nonlinear: DensityCost | None = None
    entropy: EntropyCosts | None = None
    squares: SquareCosts | None = None

    def linear(self, v: Floats) -> dict[str, Floats]:
        """By part, the vector (n_owned, nd) whose product with ρ's coefficients is the cost per time."""
        vectors = self.velocity.densities(v)
        if self.potential is not None:
            vectors["potential"] = self.potential
        return vectors

    @property
    def counts_time_left(self) -> bool:
        """Whether there is a cost per time that is (T − t) times something."""
        return self.entropy is not None and self.entropy.running > 0.0

    def velocity_gradient(self, v: Floats, occupation: Floats, moment: Floats | None) -> Floats:
        """This rank's contribution (n_nodes, dim) to the derivative by v of the costs.

        Args:
            v: (n_nodes, dim).
            occupation: ∫ρ dt, (n_owned, nd).
            moment: ∫(T − t)ρ dt, where it counts.
        """
        gradient, entropy = self.velocity.velocity_gradient(v, occupation), self.entropy
        if entropy is None:
            return gradient
        weighted = entropy.terminal * occupation
        if moment is not None:
            weighted = weighted + entropy.running * moment
        return gradient + entropy.balance.velocity_gradient(v, weighted)


@dataclass
class _Flow:
    """The last forward solve; lists by layer and group of labels.

    Attributes:
        velocities: at the nodes.
        vjps: w ↦ gradient (p,) of Σ w · velocity by the layer's θ.
        costs: by part, what the velocity costs (see ``RunningCosts.linear``).
        rates: d/dt ∫ρ log ρ (see ``EntropyBalance.rate``), where that is charged.
        terminal: where the flow ends.
    """

    velocities: list[Groups] = field(default_factory=list)
    vjps: list[list[Callable[[Floats], Floats]]] = field(default_factory=list)
    costs: list[list[dict[str, Floats]]] = field(default_factory=list)
    rates: list[Groups] = field(default_factory=list)
    terminal: TerminalValue | None = None


class ControlProblem(ReducedProblem):
    """The reduced functional J(θ) on densities. All methods are collective.

    Args:
        velocity_space: where the field is evaluated; knows the density space.
        vector_field: v(x, θ).
        rho: (n_cells, nd, K) initial density.
        terminal: the loss at the final time.
        costs: the costs along the way.
        parameter_weights: (ε, ε₁), of the L² and H¹ costs of θ.
        grid: horizon, layers, CFL.
        initial_theta: (L, p) where optimisers start, or (1, p) for tied layers.
        label_dependent: the label is passed to the field, and every label is moved by a velocity of its own.
        tied: all layers share one row of θ.
        limited: keep densities non-negative.
        memory: budget in bytes for the adjoint, over all ranks.
        disk: budget in bytes on disk, and the folder for it (None: the system's for temporary files).
        smoothing: δ of the upwind flux, in units of velocity.
        continuous: what ρ₀, targets and costs are before they are discretised; None if nobody knows.

    Attributes:
        layered: the field as the layers use it.
        trajectory: of all groups of labels, each of which moves with one velocity.
        groups: the labels of each group.

    Raises:
        InputError: the memory budget is too small.
    """

    def __init__(
        self,
        velocity_space: VelocitySpace,
        vector_field: VectorField,
        rho: Floats,
        terminal: Terminal,
        costs: RunningCosts,
        parameter_weights: tuple[float, float],
        grid: TimeGrid,
        initial_theta: Floats,
        *,
        label_dependent: bool = False,
        tied: bool = False,
        limited: bool = True,
        memory: float = 2.0**32,
        disk: tuple[float, Path | None] = (0.0, None),
        smoothing: float = 0.0,
        continuous: ContinuousData | None = None,
    ) -> None:
        """Collective."""
        space = velocity_space.density_space
        readout = terminal.initial_readout()
        super().__init__(
            space.comm,
            grid.horizon,
            grid.layers,
            initial_theta,
            readout,
            parameter_weights,
            tied=tied,
            charts=Charts.of(vector_field, space.bounding_box, readout.size),
        )
        self.density_space: DensitySpace = space
        self.velocity_space, self.terminal, self.grid = velocity_space, terminal, grid
        self.layered = PiecewiseField.equal(vector_field, grid.horizon, grid.layers, label_dependent=label_dependent)
        self.costs, self.smoothing, self.continuous = costs, smoothing, continuous
        labels = list(range(space.n_labels))
        self.groups = [[label] for label in labels] if label_dependent else [labels]
        self._rho, self._flow = rho, _Flow()
        self._observer: SweepObserver | None = None
        self._bare = False  # whether the last forward solve left nothing for a reverse
        operators = [TransportOperator(space, velocity_space, len(group), smoothing) for group in self.groups]
        steppers = [Stepper(operator, limited=limited) for operator in operators]
        self._squares = [] if costs.squares is None else costs.squares.columns(self.groups)
        powers = [(columns.group, columns.power(operators[columns.group].layout)) for columns in self._squares]
        room, folder = disk
        self.trajectory = Trajectory(
            steppers,
            grid,
            memory,
            costs.nonlinear,
            powers=[
                (
                    group,
                    Stepper(TransportOperator(space, velocity_space, p.columns, smoothing, power=p), limited=limited),
                )
                for group, p in powers
            ],
            moments=costs.counts_time_left,
            disk=room,
            disk_directory=folder,
        )

    # -- J in other ways, and what the last evaluation left -----------------------------------------------------------

    def value_observed(self, theta: ArrayLike, observer: SweepObserver) -> float:
        """``value(theta)`` to the last bit, computed now, with somebody who goes along. Collective."""
        self._last, self._observer = None, observer
        try:
            value = self.value(theta)
        finally:
            self._observer = None
        if math.isfinite(value):
            self._forward_timer.total -= observer.seconds
        return value

    def value_and_gradient(self, theta: ArrayLike) -> tuple[float, Floats]:
        """See ``ReducedProblem``; after ``value_observed`` at the same θ the forward solve is done again."""
        if self._bare:
            self.forget()
        return super().value_and_gradient(theta)

    def value_at_steps(self, theta: ArrayLike, steps: Sequence[int]) -> float:
        """J(θ) with given step counts (``steps`` of an earlier evaluation): the function that the gradient is of.

        Collective. Afterwards there is no last evaluation: the next value or gradient is solved for anew.

        Raises:
            RejectedEvaluation: J cannot be evaluated there.
        """
        self._last = None  # first: the flow is overwritten, also by a solve that breaks off
        layers, readout = self.split(theta)
        return self._summed(self._solve(layers, readout, tuple(steps)), layers, readout)[0]

    @property
    def field(self) -> VectorField:
        """v(x, θ)."""
        return self.layered.field

    @property
    def steps(self) -> tuple[int, ...]:
        """Time steps per layer of the last evaluation."""
        return self.trajectory.steps

    def plan(self, theta: ArrayLike) -> Plan:
        """What a gradient at θ would keep, and what it would compute again. Collective.

        Afterwards there is no last evaluation.

        Raises:
            RejectedEvaluation: J cannot be evaluated there.
        """
        self._last = None
        return self.trajectory.prepare(self._flow_of(self.split(theta)[0]).velocities)

    @property
    def extent(self) -> float:
        """Longest side of the domain's bounding box. Collective."""
        low, high = self.density_space.bounding_box
        return float(np.max(high - low))

    def velocity_change(self, theta: ArrayLike, change: ArrayLike) -> float:
        """Largest |v(x, θ + change) − v(x, θ)| over nodes, layers and labels; ∞ where v fails. Collective."""
        rows = [self.split(self._flat(theta) + shift * self._flat(change))[0] for shift in (0.0, 1.0)]
        try:
            before, after = (self._flow_of(row).velocities for row in rows)
        except RejectedEvaluation:
            return math.inf
        largest = max(
            float(np.max(np.linalg.norm(b - a, axis=1), initial=0.0))
            for layer in zip(before, after, strict=True)
            for a, b in zip(*layer, strict=True)
        )
        return float(self.comm.allreduce(largest, MPI.MAX))

    def velocity_matrices(self) -> dict[int, Floats] | None:
        """See ``ReducedProblem``; None where the field has no derivatives by θ, or too many. Collective."""
        return velocity_matrices(self)

    @property
    def speed(self) -> float:
        """Largest |v| over nodes, layers and labels at the last evaluation. Collective."""
        self._require_last()
        velocities = [v for layer in self._flow.velocities for v in layer]
        largest = max(float(np.max(np.linalg.norm(v, axis=1), initial=0.0)) for v in velocities)
        return float(self.comm.allreduce(largest, MPI.MAX))

    def running_cost(self) -> Floats:
        """Cost per time λ/2∫|v|²ρ + η/2∫|∇v|²ρ + ∫Vρ + ε/2|θ|², the mean over each layer (L,), at the last evaluation.

        Without a potential this is constant in t along a critical point of a field that does not depend on time.
        Costs that are not linear in the density are left out. Collective.
        """
        layers, _ = self.split(self._require_last().theta)
        local = np.array([sum(self._linear_costs(layer).values()) for layer in range(self.n_layers)])
        motion = parallel.sum_all(self.comm, local) / self.grid.layer_time
        return np.asarray(motion + 0.5 * self._parameter_cost.l2 * np.sum(layers**2, axis=1))

    @property
    def final_density(self) -> Floats:
        """ρ(T) of the last evaluation, (n_cells, nd, K)."""
        return self.density_at(self.n_layers)

    @property
    def initial_density(self) -> Floats:
        """ρ₀, (n_cells, nd, K)."""
        return self._rho.copy()

    def density_at(self, layer: int) -> Floats:
        """ρ at the start of a layer, ρ(T) for L, of the last evaluation, (n_cells, nd, K). Collective."""
        return self._joined(self.trajectory.start(layer))

    @property
    def statistics(self) -> Statistics:
        """What the last evaluation did. Collective."""
        self._require_last()
        space = self.density_space
        densities = [self.density_at(layer) for layer in range(self.n_layers + 1)]
        extrema = [space.extrema(rho) for rho in densities]
        mean, covariance = space.mean_and_covariance(densities[-1])
        return Statistics(
            steps_per_layer=self.steps,
            mass_initial=space.mass(densities[0]),
            mass_final=space.mass(densities[-1]),
            boundary_masses=np.array([space.boundary_masses(rho) for rho in densities]),
            density_min=min(low for low, _ in extrema),
            density_max=max(high for _, high in extrema),
            mean=mean,
            covariance=covariance,
            seconds_forward=self.seconds_forward,
            seconds_gradient=self.seconds_gradient,
            evaluations=self.evaluations,
            rejected_evaluations=self.rejected_evaluations,
        )

    def snapshots(self, theta: ArrayLike, n: int) -> Iterator[tuple[float, Floats, Floats]]:
        """The solution at n equally spaced times from 0 to T. Collective.

        They are computed one by one, as they are asked for; nothing else may be evaluated meanwhile.

        Returns:
            (t, ρ (n_cells, nd, K), v (n_nodes, dim)); v is (K, n_nodes, dim) if the field depends on the label, and
            belongs to the layer that ends at t (to the first one at t = 0).

        Raises:
            RejectedEvaluation: J cannot be evaluated at θ.
        """
        if not math.isfinite(self.value(theta)):
            raise RejectedEvaluation(self.rejection or "the evaluation failed")
        times = np.linspace(0.0, self.horizon, n)
        samples = zip(times.tolist(), self.trajectory.at_times(times), strict=True)
        return ((t, self._joined(groups), self._velocity(self.trajectory.mark(t))) for t, groups in samples)

    def sample(self, t: float, densities: Groups) -> tuple[float, Floats, Floats]:
        """What ``snapshots`` gives for t, in a forward solve that is watched. Collective.

        Args:
            t: time.
            densities: in batches, after as many steps as the mark of t says.
        """
        mark = self.trajectory.mark(t)
        return t, self._joined(self.trajectory.between(densities, mark)), self._velocity(mark)

    def carry(self, theta: ArrayLike, rho: Floats) -> Floats:
        """Another initial density (n_cells, nd, K) at time T, in the flow of θ. Collective.

        Afterwards there is no last evaluation: the next value or gradient is solved for anew.

        Raises:
            RejectedEvaluation: the flow needs too many time steps.
        """
        self._last = None
        layers, _ = self.split(theta)
        self._flow = self._flow_of(layers)
        squares = [columns.initial for columns in self._squares]  # of ρ₀: nobody asks for these here
        self.trajectory.forward(self._parted(rho), self._flow.velocities, None, powers=squares)
        return self.final_density

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _forward(self, theta: Floats, readout: Floats) -> dict[str, float]:
        return self._solve(theta, readout, None)

    def _velocity(self, mark: TimeMark) -> Floats:
        """Of the layer that a mark lies in or ends, at the nodes; by label if the field depends on it."""
        layer = mark.layer - (mark.layer > 0 and mark.step == sum(self.steps[: mark.layer]) and mark.fraction == 0.0)
        velocities = self._flow.velocities[layer]
        return np.stack(velocities) if self.layered.label_dependent else velocities[0]

    def _solve(self, theta: Floats, readout: Floats, steps: tuple[int, ...] | None) -> dict[str, float]:
        self._flow, observer = self._flow_of(theta), self._observer
        self._bare = observer is not None
        if observer is not None:
            steps = observer.steps
        squares = [columns.initial for columns in self._squares]
        self.trajectory.forward(self._parted(self._rho), self._flow.velocities, steps, observer, squares)
        with np.errstate(over="ignore", invalid="ignore"):  # a far-off θ is told by a J that is not finite
            return self._sum_up(readout)

    @property
    def _steady(self) -> bool:
        """Whether all layers have one and the same velocity."""
        return self.layer_shape[0] == 1 and not self.layered.time_dependent

    def _flow_of(self, theta: Floats) -> _Flow:
        """The velocities of θ (L, p) and their derivatives; a field that fails on one rank fails on all. Collective."""
        x, repeats = self.velocity_space.x, self.n_layers if self._steady else 1
        with parallel.agreed(self.comm, "the field"), np.errstate(all="ignore"):
            found = [
                [self.layered.value_and_vjp(layer, row, x, labels[0]) for labels in self.groups]
                for layer, row in enumerate(theta[: self.n_layers // repeats])
            ]
            velocities = [[np.ascontiguousarray(v) for v, _ in groups] for groups in found] * repeats
            for layer, groups in enumerate(velocities[: len(found)]):
                for velocity in groups:
                    _check_velocity(velocity, x, "every layer" if self._steady else f"layer {layer}")
        return _Flow(velocities, [[vjp for _, vjp in groups] for groups in found] * repeats)

    def _linear_costs(self, layer: int) -> dict[str, float]:
        """This rank's share of the costs that are linear in the density, over one layer."""
        found: dict[str, float] = {}
        for costs, occupation in zip(self._flow.costs[layer], self.trajectory.occupations[layer], strict=True):
            for name, vector in costs.items():
                found[name] = found.get(name, 0.0) + float(np.vdot(vector, occupation))
        return found

    def _sum_up(self, readout: Floats) -> dict[str, float]:
        """The parts of J of the flow. Collective."""
        self._flow.costs = [[self.costs.linear(v) for v in groups] for groups in self._flow.velocities]
        layers = [self._linear_costs(layer) for layer in range(self.n_layers)]
        local = {name: sum(costs[name] for costs in layers) for name in layers[0]}
        if self.costs.nonlinear is not None:
            local |= dict(zip(("congestion", "entropy"), self.trajectory.charged.tolist(), strict=True))
        changes = [*self._entropy_changes().items(), *self._square_costs().items()]
        total = parallel.sum_all(self.comm, np.array([*local.values(), *(change for _, change in changes)]))
        parts = dict(zip(local, total.tolist(), strict=False))
        for (name, _), change in zip(changes, total[len(local) :].tolist(), strict=True):
            parts[name] = parts.get(name, 0.0) + change
        entropy = self.costs.entropy
        if entropy is not None and entropy.running > 0.0:
            parts["entropy"] += entropy.running * self.horizon * entropy.initial
        self._flow.terminal = self.terminal.evaluate(self.final_density, readout)
        parts["terminal"] = self._flow.terminal.value + parts.get("terminal", 0.0)
        return parts

    def _entropy_changes(self) -> dict[str, float]:
        """This rank's share of what the flow does to the costs of ∫ρ log ρ, by part of J."""
        entropy, flow, trajectory = self.costs.entropy, self._flow, self.trajectory
        if entropy is None:
            return {}
        flow.rates = [[entropy.balance.rate(v) for v in groups] for groups in flow.velocities]
        changes = {}
        if entropy.terminal > 0.0:
            changes["terminal"] = entropy.terminal * _inner(flow.rates, trajectory.occupations)
        if entropy.running > 0.0:
            changes["entropy"] = entropy.running * _inner(flow.rates, trajectory.moments)
        return changes

    def _square_costs(self) -> dict[str, float]:
        """This rank's share of the costs of ∫ρ² by squares, by part of J. Collective."""
        space, trajectory, costs = self.density_space, self.trajectory, dict[str, float]()
        if not self._squares:
            return costs
        for g, (columns, final) in enumerate(zip(self._squares, trajectory.powers_at(self.n_layers), strict=True)):
            if columns.congestion > 0.0:
                occupation = sum(groups[g] for groups in trajectory.power_occupations)
                charged = float(np.vdot(columns.running(space), occupation))
                costs["congestion"] = costs.get("congestion", 0.0) + charged
            if columns.terminal > 0.0:
                left = 0.5 * columns.terminal * float(np.vdot(integral(space), final[: space.n_owned].sum(axis=2)))
                costs["terminal"] = costs.get("terminal", 0.0) + left
        return costs

    def _adjoint(self, theta: Floats, readout: Floats) -> tuple[Floats, Floats]:  # noqa: ARG002 - the base's argument
        space, flow, terminal = self.density_space, self._flow, self._flow.terminal
        assert terminal is not None
        cotangent = space.zeros()
        cotangent[: space.n_owned] = terminal.density
        running = [[self._running(costs) for costs in layer] for layer in flow.costs]
        tilted, entropy, moments = None, self.costs.entropy, self.trajectory.moments
        if entropy is not None:
            for sums, rates in zip(running, flow.rates, strict=True):
                sums[:] = [s + entropy.terminal * rate for s, rate in zip(sums, rates, strict=True)]
            if entropy.running > 0.0:
                tilted = [[entropy.running * rate for rate in rates] for rates in flow.rates]
        squares = [s.cotangent(space) for s in self._squares], [s.running(space) for s in self._squares]
        by_velocity = self.trajectory.adjoint(self._parted(cotangent), running, tilted, squares)
        for layer, occupations in enumerate(self.trajectory.occupations):
            for g, occupation in enumerate(occupations):
                moment = moments[layer][g] if moments else None
                by_velocity[layer][g] += self.costs.velocity_gradient(flow.velocities[layer][g], occupation, moment)
        if self._steady:
            by_velocity = [[np.sum(layers, axis=0) for layers in zip(*by_velocity, strict=True)]]
        gradient = np.zeros((self.n_layers, self.layer_shape[1]))
        with parallel.agreed(self.comm, "the field"), np.errstate(all="ignore"):
            for layer, groups in enumerate(by_velocity):
                for w, vjp in zip(groups, flow.vjps[layer], strict=True):
                    gradient[layer] += vjp(w)
        return parallel.sum_all(self.comm, gradient), terminal.readout

    def _running(self, costs: dict[str, Floats]) -> Floats:
        """Derivative (n_owned, nd) of the linear running costs per time by the density of any label."""
        space = self.density_space
        return sum(costs.values(), start=np.zeros((space.n_owned, space.nd)))

    def _parted(self, rho: Floats) -> Groups:
        """Labels (…, K) by group."""
        return [np.ascontiguousarray(rho[..., group]) for group in self.groups]

    def _joined(self, groups: Groups) -> Floats:
        """Groups as labels (…, K)."""
        return np.concatenate(groups, axis=2)


def _inner(rates: list[Groups], integrals: list[Groups]) -> float:
    """Σ of the products of vectors by layer and group."""
    pairs = (pair for layer in zip(rates, integrals, strict=True) for pair in zip(*layer, strict=True))
    return float(sum(np.vdot(rate, integral) for rate, integral in pairs))


def _check_velocity(velocity: Floats, x: Floats, where: str) -> None:
    """Look at the numbers of a velocity at the nodes x, both (n, dim).

    Raises:
        RejectedEvaluation: one of them is not finite.
    """
    if not np.isfinite(velocity).all():
        broken = np.flatnonzero(~np.isfinite(velocity).all(axis=1))
        raise RejectedEvaluation(
            f"the velocity is not finite in {where}, at {len(broken)} of {len(x)} nodes, "
            f"first at {x[broken[0]].tolist()}"
        )
