"""θ ↦ J(θ) and its exact discrete gradient: the reduced functional that optimisers and tests talk to."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from eulerian import parallel
from eulerian.arrays import Floats
from eulerian.errors import InputError, RejectedEvaluation

# isort: split
from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.fields.base import VectorField
from eulerian.objective.running import ParameterCost, VelocityCost
from eulerian.objective.terminal import Terminal
from eulerian.space.density import DensitySpace
from eulerian.space.velocity import VelocitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.stepper import Stepper
from eulerian.transport.trajectory import TimeGrid, Trajectory

PARTS = ("terminal", "kinetic", "jacobian", "parameters")


@dataclass(frozen=True)
class Statistics:
    """What the last evaluation did. Densities are dimensionless, times in seconds.

    Attributes:
        steps_per_layer: (L,) time steps; with a label-dependent field the largest over the labels.
        mass_initial: (K,).
        mass_final: (K,).
        boundary_mass: largest mass, over the ends of the layers, in the cells at the domain's boundary.
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
    boundary_mass: float
    density_min: float
    density_max: float
    mean: Floats
    covariance: Floats
    seconds_forward: float
    seconds_gradient: float
    evaluations: int
    rejected_evaluations: int

    @property
    def mass_error(self) -> float:
        """Largest relative change of a label's mass."""
        return float(np.max(np.abs(self.mass_final - self.mass_initial) / self.mass_initial))


@dataclass
class _Timer:
    """Mean of measured times."""

    total: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.total, self.count = self.total + seconds, self.count + 1

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass
class _Evaluation:
    """The last forward solve."""

    theta: Floats
    velocities: list[list[Floats]]  # by group of labels, by layer
    value: float = math.inf
    parts: dict[str, float] = field(default_factory=dict)
    terminal: Floats | None = None
    readout: Floats | None = None
    gradient: Floats | None = None


class ControlProblem:
    """The reduced functional J(θ) on densities.

    θ is (L, p), one row of the field's parameters per layer, the same on all ranks; where the terminal loss trains a
    readout too, θ is the flat vector (θ row by row, readout) of length ``n_params``. All methods are collective.

    Args:
        velocity_space: where the field is evaluated; knows the density space.
        vector_field: v(x, θ).
        rho: (n_cells, nd, K) initial density.
        terminal: the loss at the final time.
        velocity_cost: kinetic and Jacobian cost.
        parameter_cost: (ε, ε₁), weights of the L² and H¹ costs of θ.
        grid: horizon, layers, CFL.
        label_dependent: the label is passed to the field, and every label is moved by a velocity of its own.
        initial_theta: (L, p) where optimisers start.
        limited: keep densities non-negative.
        memory: budget in bytes for the adjoint, over all ranks.
        smoothing: δ of the upwind flux, in units of velocity.

    Attributes:
        trajectories: one for every group of labels that moves with one velocity.

    Raises:
        InputError: the memory budget is too small.
    """

    def __init__(
        self,
        velocity_space: VelocitySpace,
        vector_field: VectorField,
        rho: Floats,
        terminal: Terminal,
        velocity_cost: VelocityCost,
        parameter_cost: tuple[float, float],
        grid: TimeGrid,
        initial_theta: Floats,
        *,
        label_dependent: bool = False,
        limited: bool = True,
        memory: float = 2.0**32,
        smoothing: float = 0.0,
    ) -> None:
        """Collective."""
        self.density_space: DensitySpace = velocity_space.density_space
        self.velocity_space, self.field, self.terminal, self.grid = velocity_space, vector_field, terminal, grid
        self.comm = self.density_space.comm
        self.horizon, self.n_layers = grid.horizon, grid.layers
        self.layer_shape = (grid.layers, vector_field.n_params(self.density_space.dim))
        self.n_params = math.prod(self.layer_shape) + terminal.n_readout
        self._velocity_cost = velocity_cost
        self._parameter_cost = ParameterCost(*parameter_cost, grid.layer_time)
        self._start = np.concatenate([initial_theta.ravel(), terminal.initial_readout()])
        self._groups = _groups(self.density_space.n_labels, label_dependent)
        self._label_dependent = label_dependent
        self._rho = rho
        operator = TransportOperator(self.density_space, velocity_space, len(self._groups[0]), smoothing)
        sharers = len(self._groups)
        self.trajectories = [
            Trajectory(Stepper(operator, limited=limited), grid, memory, sharers) for _ in self._groups
        ]
        self.smoothing = smoothing
        self._last: _Evaluation | None = None
        self._forward_timer, self._reverse_timer = _Timer(), _Timer()
        self.evaluations = self.rejected_evaluations = 0
        self.rejection: str | None = None

    # -- θ -----------------------------------------------------------------------------------------------------------

    @property
    def initial_theta(self) -> Floats:
        """Where to start: (L, p), or flat with a trained readout."""
        return self._start.copy() if self.terminal.n_readout else self._start.reshape(self.layer_shape).copy()

    @property
    def scaling(self) -> Floats:
        """Factors s (n_params,) such that s·θ (flat) has the Euclidean norm that θ has in L²(0, T)."""
        layers = np.full(math.prod(self.layer_shape), math.sqrt(self.grid.layer_time))
        return np.concatenate([layers, np.full(self.terminal.n_readout, math.sqrt(self.horizon))])

    def split(self, theta: ArrayLike) -> tuple[Floats, Floats]:
        """θ as the layers' parameters (L, p) and the readout (r,).

        Raises:
            InputError: the size is wrong.
        """
        flat = np.asarray(theta, dtype=np.float64).ravel()
        if flat.size != self.n_params:
            raise InputError(f"{self.n_params} numbers are needed", key="theta", value=f"{flat.size} numbers")
        size = math.prod(self.layer_shape)
        return flat[:size].reshape(self.layer_shape), flat[size:]

    def gradient_norm(self, gradient: ArrayLike) -> float:
        """Norm in L²(0, T) of the function of time that represents a gradient."""
        return float(np.linalg.norm(np.ravel(gradient) / self.scaling))

    # -- J and ∇J ----------------------------------------------------------------------------------------------------

    def value(self, theta: ArrayLike) -> float:
        """J(θ), or +∞ where it cannot be evaluated (``rejection`` says why). Collective.

        Raises:
            InputError: θ has the wrong size.
        """
        flat = self._flat(theta)
        if self._last is None or not np.array_equal(self._last.theta, flat):
            self._last = None  # first: the trajectories are overwritten, also by a solve that breaks off
            self._last = self._evaluate(flat)
        return self._last.value

    def value_and_gradient(self, theta: ArrayLike) -> tuple[float, Floats]:
        """J(θ) and dJ/dθ in the shape of θ, exact for the discrete J with its step counts held. Collective.

        The gradient is zero where the value is +∞.

        Raises:
            InputError: θ has the wrong size.
        """
        value = self.value(theta)
        last = self._last
        assert last is not None
        if last.gradient is None:
            started = time.perf_counter()
            last.gradient = self._reverse(last) if math.isfinite(value) else np.zeros(self.n_params)
            if math.isfinite(value):
                self._reverse_timer.add(time.perf_counter() - started)
        return value, last.gradient.reshape(np.shape(theta)).copy()

    def value_at_steps(self, theta: ArrayLike, steps: Sequence[tuple[int, ...]]) -> float:
        """J(θ) with given step counts (``steps`` of an earlier evaluation): the function that the gradient is of.

        Collective. Afterwards there is no last evaluation: the next value or gradient is solved for anew.

        Raises:
            RejectedEvaluation: J cannot be evaluated there.
        """
        self._last = None  # first: the trajectories are overwritten, also by a solve that breaks off
        return self._forward(self._flat(theta), steps).value

    @property
    def parts(self) -> dict[str, float]:
        """The parts of J at the last evaluation, by name; empty if it was rejected."""
        return dict(self._last.parts) if self._last else {}

    @property
    def theta(self) -> Floats:
        """θ of the last evaluation, in the shape of ``initial_theta``."""
        last = self._last
        return self.initial_theta if last is None else last.theta.reshape(self.initial_theta.shape).copy()

    @property
    def steps(self) -> list[tuple[int, ...]]:
        """Time steps per layer of the last evaluation, for every group of labels that moves together."""
        return [trajectory.steps for trajectory in self.trajectories]

    def velocity_change(self, theta: ArrayLike, change: ArrayLike) -> float:
        """Largest |v(x, θ + change) − v(x, θ)| over nodes, layers and labels. Collective."""
        rows = [self.split(self._flat(theta) + shift * self._flat(change))[0] for shift in (0.0, 1.0)]
        before, after = (self._velocities(row) for row in rows)
        largest = max(
            float(np.max(np.linalg.norm(b - a, axis=1), initial=0.0))
            for group in zip(before, after, strict=True)
            for a, b in zip(*group, strict=True)
        )
        return float(self.comm.allreduce(largest, MPI.MAX))

    def running_cost(self) -> Floats:
        """Cost per time λ/2∫|v|²ρ + η/2∫|∇v|²ρ + ε/2|θ|², the mean over each layer (L,), at the last evaluation.

        Along a critical point of a field that does not depend on time this is constant in t. Collective.
        """
        last = self._require_last()
        layers, _ = self.split(last.theta)
        local = np.zeros(self.n_layers)
        for layer in range(self.n_layers):
            for vectors, occupation in zip(*self._cost_vectors(last, layer), strict=True):
                local[layer] += sum(float(np.vdot(vector, occupation)) for vector in vectors.values())
        motion = parallel.sum_all(self.comm, local) / self.grid.layer_time
        return np.asarray(motion + 0.5 * self._parameter_cost.l2 * np.sum(layers**2, axis=1))

    @property
    def final_density(self) -> Floats:
        """ρ(T) of the last evaluation, (n_cells, nd, K)."""
        return self._density_at_layer(self.n_layers)

    @property
    def initial_density(self) -> Floats:
        """ρ₀, (n_cells, nd, K)."""
        return self._rho.copy()

    @property
    def statistics(self) -> Statistics:
        """What the last evaluation did. Collective."""
        self._require_last()
        space = self.density_space
        densities = [self._density_at_layer(layer) for layer in range(self.n_layers + 1)]
        extrema = [space.extrema(rho) for rho in densities]
        mean, covariance = space.mean_and_covariance(densities[-1])
        return Statistics(
            steps_per_layer=tuple(int(n) for n in np.max(self.steps, axis=0)),
            mass_initial=space.mass(densities[0]),
            mass_final=space.mass(densities[-1]),
            boundary_mass=max(space.boundary_mass(rho) for rho in densities),
            density_min=min(low for low, _ in extrema),
            density_max=max(high for _, high in extrema),
            mean=mean,
            covariance=covariance,
            seconds_forward=self._forward_timer.mean,
            seconds_gradient=self._forward_timer.mean + self._reverse_timer.mean if self._reverse_timer.count else 0.0,
            evaluations=self.evaluations,
            rejected_evaluations=self.rejected_evaluations,
        )

    def snapshots(self, theta: ArrayLike, n: int) -> list[tuple[float, Floats, Floats]]:
        """The solution at n equally spaced times from 0 to T. Collective.

        Returns:
            (t, ρ (n_cells, nd, K), v (n_nodes, dim)); v is (K, n_nodes, dim) if the field depends on the label, and
            belongs to the layer that ends at t (to the first one at t = 0).

        Raises:
            RejectedEvaluation: J cannot be evaluated at θ.
        """
        if not math.isfinite(self.value(theta)):
            raise RejectedEvaluation(self.rejection or "the evaluation failed")
        times = np.linspace(0.0, self.horizon, n)
        by_group = [trajectory.at_times(times) for trajectory in self.trajectories]
        result = []
        for index, t in enumerate(times):
            rho = np.concatenate([states[index] for states in by_group], axis=2)
            layer = min(max(math.ceil(t / self.grid.layer_time - 1e-9) - 1, 0), self.n_layers - 1)
            velocities = [trajectory.velocities[layer] for trajectory in self.trajectories]
            result.append((float(t), rho, np.stack(velocities) if self._label_dependent else velocities[0]))
        return result

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _flat(self, theta: ArrayLike) -> Floats:
        layers, readout = self.split(theta)
        return np.concatenate([layers.ravel(), readout])

    def _require_last(self) -> _Evaluation:
        if self._last is None or not self._last.parts:
            raise RejectedEvaluation(self.rejection or "J has not been evaluated yet")
        return self._last

    def _evaluate(self, flat: Floats) -> _Evaluation:
        self.evaluations += 1
        started = time.perf_counter()
        try:
            evaluation = self._forward(flat, None)
            self.rejection = None
            self._forward_timer.add(time.perf_counter() - started)
        except RejectedEvaluation as reason:
            self.rejected_evaluations += 1
            self.rejection = str(reason)
            evaluation = _Evaluation(flat, [])
        return evaluation

    def _forward(self, flat: Floats, steps: Sequence[tuple[int, ...]] | None) -> _Evaluation:
        theta, readout = self.split(flat)
        if not np.all(np.isfinite(flat)):
            raise RejectedEvaluation("θ is not finite")
        evaluation = _Evaluation(flat.copy(), self._velocities(theta))
        for index, (group, trajectory) in enumerate(zip(self._groups, self.trajectories, strict=True)):
            start = np.ascontiguousarray(self._rho[:, :, group])
            trajectory.forward(start, evaluation.velocities[index], None if steps is None else steps[index])
        with np.errstate(over="ignore", invalid="ignore"):  # a far-off θ is told by a J that is not finite
            self._sum_up(evaluation, theta, readout)
        return evaluation

    def _velocities(self, theta: Floats) -> list[list[Floats]]:
        """Nodal velocities by group and layer; a field that fails on one rank fails on all."""
        x = self.velocity_space.x
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            result = [
                [np.ascontiguousarray(self._field_value(row, x, group), dtype=np.float64) for row in theta]
                for group in self._groups
            ]
            for velocity in (v for layers in result for v in layers):
                if velocity.shape != x.shape:
                    raise InputError(
                        f"value(theta, x) must have the shape {x.shape} of x", key="field", value=velocity.shape
                    )
        return result

    def _field_value(self, row: Floats, x: Floats, group: list[int]) -> Floats:
        return self.field.value(row, x, label=group[0]) if self._label_dependent else self.field.value(row, x)

    def _field_vjp(self, row: Floats, x: Floats, w: Floats, group: list[int]) -> Floats:
        return self.field.vjp(row, x, w, label=group[0]) if self._label_dependent else self.field.vjp(row, x, w)

    def _cost_vectors(self, evaluation: _Evaluation, layer: int) -> tuple[list[dict[str, Floats]], list[Floats]]:
        """Per group, the cost vectors (n_owned, nd) by part, and the occupation (n_owned, nd) that they weigh."""
        vectors = [self._velocity_cost.densities(velocities[layer]) for velocities in evaluation.velocities]
        return vectors, [trajectory.occupations[layer].sum(axis=2) for trajectory in self.trajectories]

    def _sum_up(self, evaluation: _Evaluation, theta: Floats, readout: Floats) -> None:
        local = dict.fromkeys(PARTS, 0.0)
        for layer in range(self.n_layers):
            for vectors, occupation in zip(*self._cost_vectors(evaluation, layer), strict=True):
                for name, vector in vectors.items():
                    local[name] += float(np.vdot(vector, occupation))
        total = parallel.sum_all(self.comm, np.array(list(local.values())))
        evaluation.parts = dict(zip(local, total.tolist(), strict=True))
        terminal = self.terminal.evaluate(self._density_at_layer(self.n_layers), readout)
        evaluation.terminal, evaluation.readout = terminal.density, terminal.readout
        evaluation.parts["terminal"] = terminal.value
        evaluation.parts["parameters"] = self._parameter_cost.value(theta, readout)
        evaluation.value = math.fsum(evaluation.parts.values())
        if not math.isfinite(evaluation.value):
            raise RejectedEvaluation("J is not finite")

    def _reverse(self, evaluation: _Evaluation) -> Floats:
        theta, readout = self.split(evaluation.theta)
        space, x = self.density_space, self.velocity_space.x
        assert evaluation.terminal is not None
        assert evaluation.readout is not None
        gradient = np.zeros(self.layer_shape)
        for group, trajectory, velocities in zip(self._groups, self.trajectories, evaluation.velocities, strict=True):
            cotangent = np.zeros((space.n_cells, space.nd, len(group)))
            cotangent[: space.n_owned] = evaluation.terminal[:, :, group]
            by_velocity = trajectory.reverse(cotangent, [self._running(v, len(group)) for v in velocities])
            for layer, w in enumerate(by_velocity):
                w += self._velocity_cost.velocity_gradient(velocities[layer], trajectory.occupations[layer].sum(axis=2))
            with parallel.agreed(self.comm), np.errstate(all="ignore"):
                for layer, w in enumerate(by_velocity):
                    gradient[layer] += self._field_vjp(theta[layer], x, w, group)
        gradient = parallel.sum_all(self.comm, gradient)
        layers, constant = self._parameter_cost.gradient(theta, readout)
        return np.concatenate([(gradient + layers).ravel(), evaluation.readout + constant])

    def _running(self, v: Floats, columns: int) -> Floats:
        """Derivative (n_owned, nd, columns) of the running cost per time by the density."""
        space = self.density_space
        total = np.zeros((space.n_owned, space.nd, columns))
        for vector in self._velocity_cost.densities(v).values():
            total += vector[:, :, None]
        return total

    def _density_at_layer(self, layer: int) -> Floats:
        return np.concatenate([trajectory.starts[layer] for trajectory in self.trajectories], axis=2)


def _groups(n_labels: int, label_dependent: bool) -> list[list[int]]:
    """Labels that move with one velocity, and so together."""
    return [[label] for label in range(n_labels)] if label_dependent else [list(range(n_labels))]
