"""θ ↦ J(θ) and its exact discrete gradient on densities: the reduced functional of the mesh."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import RejectedEvaluation
from eulerian.control import initial, velocity_probes
from eulerian.control.discretisation import Discretisation, Objective, check_time
from eulerian.control.initial import Start, Starts
from eulerian.control.parametrisation import check_field, initial_rows
from eulerian.control.reduced import ReducedProblem
from eulerian.control.state_equation import StateEquation
from eulerian.control.statistics import Statistics, counted, describe_space, mesh_sizes
from eulerian.control.sweep import ForwardSweep, Velocities, largest_speed
from eulerian.density.density import Density
from eulerian.density.space import DensitySpace
from eulerian.fields.base import VectorField
from eulerian.fields.frame import ParameterUnits, unwrapped
from eulerian.fields.piecewise import PiecewiseField
from eulerian.objective.cost_at import CostAt, layer_end_costs
from eulerian.objective.costs import Costs
from eulerian.transport.checkpointing import Plan
from eulerian.transport.group_stepper import Groups
from eulerian.transport.observer import SweepObserver
from eulerian.transport.sweep import Sweep
from eulerian.transport.time_grid import TimeGrid, TimeMark
from eulerian.transport.velocity_space import VelocitySpace


class ControlProblem(ReducedProblem):
    """The reduced functional J(θ) on densities. All methods are **collective**.

    Args:
        space: of the densities.
        field: v(x, θ).
        rho0: the initial density, or whatever ``space.project`` takes.
        terminal: the cost of ρ(T): a loss, a distance, or any function ℓ(x) or ℓ(x, label) of points x (n, dim).
            (Costs at earlier times: ``at``.)
        costs: the weights of all other costs; none by default.
        time: horizon, layers, CFL number.
        at: costs at ends of earlier layers (or more of them at T), each of any kind that ``terminal`` can have.
        initial_theta: where optimisers start, (L, p), or one row for all layers; by default the field's own random
            start, the same in every layer.
        label_dependent: the label is passed to the field, and every label is moved by a velocity of its own.
        tied: all layers share one row of θ.
        entropy_form: how ∫∫ρ log ρ is taken: by its "balance" along the flow, or of the mesh's "density", which
            numerical diffusion lowers.
        power_form: how ∫∫ρ² is taken: by a "companion", squares that move beside the densities, or of the mesh's
            "density".
        limiter: keep densities non-negative.
        flux_smoothing: δ in the upwind flux's √(s² + δ²), relative to the domain's extent per horizon.
        memory: budget in bytes for the adjoint, over all ranks.
        disk: budget in bytes on disk, and the folder for it (None: the system's for temporary files).
        seed: of the random start.
        velocity_space: where the field is evaluated, where it has been made already (a nodal field needs its nodes).

    Attributes:
        density_space, velocity_space, costs, smoothing: as given; δ in units of velocity.
        initial: ρ₀.
        terminal: the functional of ρ(T) on the mesh.
        ends: all functionals at ends of layers, the terminal one first.
        running: the costs along the way on the mesh.
        continuous: what ρ₀, target and costs are before they are discretised.
        grid: ``time``.
        layered: the field as the layers use it.
        state: the state equation and its adjoint.
        trajectory: of all groups of labels, each of which moves with one velocity.
        groups: the labels of each group.
        starts: what evaluations start from.

    Raises:
        InputError: something does not fit the rest, or the memory budget is too small; the same on all ranks.
    """

    on_mesh: ClassVar[bool] = True

    def __init__(
        self,
        space: DensitySpace,
        field: VectorField,
        rho0: Any,
        terminal: Any,
        costs: Costs | None = None,
        time: TimeGrid | None = None,
        *,
        at: Sequence[CostAt] = (),
        initial_theta: ArrayLike | None = None,
        label_dependent: bool = False,
        tied: bool = False,
        entropy_form: str = "balance",
        power_form: str = "companion",
        limiter: bool = True,
        flux_smoothing: float = 1e-3,
        memory: float = 2.0**32,
        disk: tuple[float, Path | None] = (0.0, None),
        seed: int = 0,
        velocity_space: VelocitySpace | None = None,
    ) -> None:
        """Collective."""
        self.costs, self.grid = Costs() if costs is None else costs, check_time(TimeGrid() if time is None else time)
        forms = {"entropy_form": entropy_form, "power_form": power_form}
        ends = layer_end_costs(terminal, at, self.grid.horizon, self.grid.layers)
        objective = Objective.of(ends, self.costs, label_dependent=label_dependent, **forms)
        field = check_field(
            space.comm, field, *space.bounding_box, self.grid.horizon, space.n_labels, label_dependent=label_dependent
        )
        self.density_space = space
        self.velocity_space = VelocitySpace(space) if velocity_space is None else velocity_space
        self.initial = Density.of(space, rho0, key="rho0")
        found = Discretisation.of(self.velocity_space, self.initial, objective, self.grid, flux_smoothing)
        self.ends, self.running, self.continuous = found.ends, found.running, found.continuous
        self.terminal, self.smoothing = found.ends.terminal, found.smoothing
        potential, layers = self.continuous.potential, self.grid.layers
        more = np.zeros(0) if potential is None else potential.initial_readout()
        # What a user draws without a seed differs from rank to rank.
        readout = space.comm.bcast(np.concatenate([self.ends.initial_readout(), more]), 0)
        affine = self.ends.affine_readout and not more.size
        super().__init__(
            space.comm,
            self.grid.horizon,
            layers,
            initial_rows(field, space.dim, space.comm, layers, initial_theta, seed, tied=tied),
            readout,
            (self.costs.parameters, self.costs.parameters_h1),
            tied=tied,
            units=ParameterUnits.of(field, space.bounding_box, readout.size, affine=affine),
        )
        self.layered = PiecewiseField.equal(field, self.grid.horizon, layers, label_dependent=label_dependent)
        labels = list(range(space.n_labels))
        self.groups = [[label] for label in labels] if label_dependent else [labels]
        self._observer: SweepObserver | None = None
        self._bare = False  # whether the last forward solve left nothing for an adjoint
        self.state = StateEquation(found, self.layered, self.groups, self.grid, (memory, *disk), limited=limiter)
        self.trajectory = self.state.trajectory
        self.starts = Starts(self.state.start, self.state.start)

    def terminal_readout(self, theta: ArrayLike) -> Floats:
        """The terminal loss's own part (r,) of the readout of θ."""
        return self.split(theta)[1][self.ends.costs[0].readout]

    # -- J in other ways, and what the last evaluation left -----------------------------------------------------------

    def value_observed(self, theta: ArrayLike, observer: SweepObserver) -> float:
        """``value(theta)`` to the last bit, computed now, with an observer of the sweep. Collective."""
        self._last, self._observer = None, observer  # a remembered value would show the observer nothing
        try:
            value = self.value(theta)
        finally:
            self._observer = None
        if math.isfinite(value):
            self._forward_timer.total -= observer.seconds  # writing snapshots is no part of a solve
        return value

    def value_and_gradient(self, theta: ArrayLike) -> tuple[float, Floats]:
        """J(θ) and dJ/dθ in the shape of θ, exact for the discrete J with its step counts held. Collective.

        The gradient is zero where J is +∞. After ``value_observed`` at the same θ the forward solve is done again.

        Raises:
            InputError: θ has the wrong size.
            ComputationError: J is finite, but its gradient is not or could not be computed; the same on all ranks.
        """
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
        solved = self.state.solve(self.starts.own, self._velocities(layers), readout, tuple(steps))
        return self._summed(solved.parts, layers, readout)[0]

    @property
    def field(self) -> VectorField:
        """v(x, θ)."""
        return self.layered.field

    @property
    def steps(self) -> tuple[int, ...]:
        """Time steps per layer of the last evaluation."""
        return () if self.state.sweep is None else self.state.sweep.steps.counts

    @property
    def sweep(self) -> Sweep:
        """The last forward sweep through the layers.

        Raises:
            RejectedEvaluation: there is none.
        """
        if self.state.sweep is None:
            raise RejectedEvaluation(self.rejection or "J has not been evaluated yet")
        return self.state.sweep

    def plan(self, theta: ArrayLike) -> Plan:
        """What a gradient at θ would keep, and compute again; then there is no last evaluation. Collective.

        Raises:
            RejectedEvaluation: J cannot be evaluated there.
        """
        self._last = None
        return self.state.prepare(self._velocities(self.split(theta)[0])).plan

    @property
    def extent(self) -> float:
        """Longest side of the domain's bounding box. Collective."""
        low, high = self.density_space.bounding_box
        return float(np.max(high - low))

    def velocity_change(self, theta: ArrayLike, change: ArrayLike) -> float:
        """Largest |v(x, θ + change) − v(x, θ)| over nodes, layers and labels; ∞ where v fails. Collective."""
        rows = [self.split(self._flat(theta) + shift * self._flat(change))[0] for shift in (0.0, 1.0)]
        try:
            # Both anew: the last evaluation may be at another θ.
            before, after = (self._velocities(row).values for row in rows)
        except RejectedEvaluation:
            return math.inf
        changes = [[b - a for a, b in zip(*layer, strict=True)] for layer in zip(before, after, strict=True)]
        return float(self.comm.allreduce(largest_speed(changes), MPI.MAX))

    value_from, value_and_gradients = initial.value_from, initial.value_and_gradients  # of another ρ₀ than its own

    velocity_matrices = velocity_probes.velocity_matrices  # None where the field has no derivatives by θ, or too many

    @property
    def speed(self) -> float:
        """Largest |v| over nodes, layers and labels at the last evaluation. Collective."""
        self._require_last()
        return float(self.comm.allreduce(largest_speed(self.sweep.velocities), MPI.MAX))

    def running_cost(self) -> Floats:
        """Cost per time λ/2∫|v|²ρ + η/2∫|∇v|²ρ + ∫Vρ + ε/2|θ|², the mean over each layer (L,), at the last evaluation.

        Without a potential this is constant in t along a critical point of a field that does not depend on time.
        Costs that are not linear in the density are left out. Collective.
        """
        last = self._require_last()
        layers, _ = self.split(last.theta)
        sweep, of_layer = last.sweep, self.state.costs.of_layer
        costs = [of_layer(sweep.densities, linear, layer) for layer, linear in enumerate(sweep.linear)]
        local = np.array([sum(each.values()) for each in costs])
        motion = parallel.sum_all(self.comm, local) / self.grid.layer_time
        return np.asarray(motion + 0.5 * self._parameter_cost.l2 * np.sum(layers**2, axis=1))

    @property
    def final_density(self) -> Floats:
        """ρ(T) of the last evaluation, (n_cells, nd, K)."""
        return self.density_at(self.n_layers)

    @property
    def initial_density(self) -> Floats:
        """ρ₀, (n_cells, nd, K)."""
        return self.initial.coefficients.copy()

    def density_at(self, layer: int) -> Floats:
        """ρ at the start of a layer, ρ(T) for L, of the last evaluation, (n_cells, nd, K). Collective."""
        return self.state.joined(self.sweep.start(layer))

    @property
    def statistics(self) -> Statistics:
        """What the last evaluation did. Collective."""
        self._require_last()
        densities = [self.density_at(layer) for layer in range(self.n_layers + 1)]
        return Statistics.of(
            self.density_space,
            densities,
            steps_per_layer=self.steps,
            seconds_forward=self.seconds_forward,
            seconds_gradient=self.seconds_gradient,
            evaluations=self.evaluations,
            rejected_evaluations=self.rejected_evaluations,
        )

    def snapshots(self, theta: ArrayLike, times: int | ArrayLike) -> Iterator[tuple[float, Floats, Floats]]:
        """The solution at ascending times, or at so many equally spaced ones from 0 to T. Collective.

        They are computed one by one, on demand; nothing else may be evaluated meanwhile.

        Returns:
            (t, ρ (n_cells, nd, K), v (n_nodes, dim)); v is (K, n_nodes, dim) if the field depends on the label, and
            belongs to the layer that ends at t (to the first one at t = 0).

        Raises:
            RejectedEvaluation: J cannot be evaluated at θ.
        """
        if not math.isfinite(self.value(theta)):
            raise RejectedEvaluation(self.rejection or "the evaluation failed")
        wanted = np.linspace(0.0, self.horizon, times) if isinstance(times, int) else np.atleast_1d(np.array(times))
        samples = zip(wanted.tolist(), self.sweep.at_times(wanted), strict=True)
        return ((t, self.state.joined(groups), self._velocity(self.sweep.steps.mark(t))) for t, groups in samples)

    def sample(self, t: float, densities: Groups) -> tuple[float, Floats, Floats]:
        """What ``snapshots`` gives for t, in a forward solve with an observer. Collective.

        Args:
            t: time.
            densities: in batches, after as many steps as the mark of t says.
        """
        mark = self.sweep.steps.mark(t)
        return t, self.state.joined(self.sweep.between(densities, mark)), self._velocity(mark)

    def carry(self, theta: ArrayLike, rho: Floats) -> Floats:
        """Another initial density (n_cells, nd, K) at time T, in the flow of θ. Collective.

        Afterwards there is no last evaluation: the next value or gradient is solved for anew.

        Raises:
            RejectedEvaluation: the flow needs too many time steps.
        """
        self._last = None
        return self.state.carry(rho, self._velocities(self.split(theta)[0]))

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def headline(self) -> str:
        """Its sizes in one line."""
        layers, size = self.layer_shape[0], self.layer_shape[1]
        layers = max(layers, self.n_layers)
        name = type(unwrapped(self.field)).__name__
        network = f"{name} field, {counted(layers, 'layer')} of {counted(size, 'parameter')}"
        return f"{describe_space(self.density_space)}; {network}; {counted(self.comm.size, 'rank')}"

    def describe(self) -> dict[str, Any]:
        """See ``ReducedProblem``; with the sizes of the mesh."""
        return {"mesh": mesh_sizes(self.density_space), **super().describe()}

    @property
    def has_statistics(self) -> bool:
        """See ``ReducedProblem``."""
        return bool(self.parts)

    def _numbers(self) -> dict[str, Any]:
        return self.statistics.numbers

    def _forward(self, theta: Floats, readout: Floats) -> ForwardSweep:
        velocities, observer = self._velocities(theta), self._observer
        self._bare = observer is not None
        steps = None if observer is None else observer.steps
        return self.state.solve(self.starts.chosen, velocities, readout, steps, observer)

    def check_rho0(self, shape: tuple[int, ...]) -> None:
        """See ``ReducedProblem``."""
        self.density_space.check_array(shape, key="rho0")

    def _beginning(self) -> Start:
        return self.starts.chosen

    def _velocity(self, mark: TimeMark) -> Floats:
        """Of the layer that a mark lies in or ends, at the nodes; by label if the field depends on it."""
        layer = mark.layer - (mark.layer > 0 and mark.step == sum(self.steps[: mark.layer]) and mark.fraction == 0.0)
        velocities = self.sweep.velocities[layer]
        return np.stack(velocities) if self.layered.label_dependent else velocities[0]

    @property
    def _repeats(self) -> int:
        """L, where all layers have one and the same velocity; else 1."""
        return self.n_layers if self.layer_shape[0] == 1 and not self.layered.time_dependent else 1

    def _velocities(self, theta: Floats) -> Velocities:
        """Those of θ (L, p) and their derivatives. Collective."""
        return self.state.velocities(theta, repeats=self._repeats)

    def _adjoint(self, sweep: ForwardSweep) -> tuple[Floats, Floats]:
        found = self.state.adjoint(sweep, repeats=self._repeats)
        self.starts.chosen.keep(found.initial, found.squares)
        return found.theta, found.readout
