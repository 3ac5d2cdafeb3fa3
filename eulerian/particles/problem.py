"""θ ↦ J(θ) and its exact gradient on particles."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.control.parametrisation import check_field, initial_rows, require_derivatives
from eulerian.control.reduced import ReducedProblem
from eulerian.fields.base import VectorField
from eulerian.fields.frame import ParameterUnits, unwrapped
from eulerian.fields.piecewise import PiecewiseField
from eulerian.objective.costs import Costs
from eulerian.particles.flow import Labels, Layers, Scheme, carry, carry_back, carry_density, label_groups, segments
from eulerian.particles.kl import particle_loss, refuse_costs
from eulerian.particles.path_storage import PathStorage, thin_to_budget
from eulerian.particles.right_hand_side import COSTS, LOG_DENSITY, RightHandSide
from eulerian.particles.sample import ParticleSample
from eulerian.particles.statistics import count_replicates, half_widths, moments, standard_errors

TERMINAL = "terminal"


@dataclass
class _Forward:
    """What the forward sweep leaves to the adjoint one.

    Attributes:
        paths: one per group.
        ends: (n, width) positions and integrals at T.
        readout: (r,) that the losses were taken with.
        values: (n,) what each particle contributes to a part of J, by name.
        parts: their weighted sums over all particles.
    """

    paths: list[PathStorage]
    ends: Floats
    readout: Floats
    values: dict[str, Floats]
    parts: dict[str, float]


class ParticleProblem(ReducedProblem):
    """The reduced functional J(θ) as the mean over weighted particles. All methods are **collective**.

    Particles follow dx/dt = v(x, θ_t) by a Runge–Kutta method; kinetic, Jacobian and potential costs and the
    log-density are integrated with the same weights on the same stages, and the gradient is that of the discrete J,
    with step sizes held. Positions at the starts of all steps are stored if the memory allows, else those at the starts
    of the layers; stages are computed anew by the adjoint sweep. Particles feel no walls.

    For example::

        x = np.random.default_rng(0).normal([-0.5, 0.3], 0.5, (2000, 2))
        problem = eu.ParticleProblem(
            x, eu.Mlp(2, [16]), eu.QuadraticLoss([1.0, -0.5]), eu.Costs(kinetic=0.5), eu.TimeGrid(horizon=1.0, layers=4)
        )
        result = eu.minimise(problem, max_iterations=50)

    Args:
        sample: this rank's share of the particles, or points (n, dim) of all particles, the same on all ranks.
        field: v(x, θ), with its Jacobian; relative entropies and the Jacobian cost need the Jacobian's VJPs too.
        terminal: a loss, a function ℓ(x) or ℓ(x, label) of points x (n, dim), or ``KullbackLeibler(target)``.
        costs: the weights of all other costs, without those of the density itself.
        time: horizon and layers.
        comm: who shares the particles, everybody by default.
        n_labels: K, by default one more than the largest label of a particle.
        box: (2, dim) corners of the domain, by default of the box of all particles: the length that tolerances and
            optimisers go by.
        initial_theta: where optimisers start, (L, p), or one row for all layers; by default the field's own random
            start, the same in every layer.
        label_dependent: the label is passed to the field.
        tied: all layers share one row of θ.
        method: the classical Runge–Kutta method of order 4, or Dormand and Prince's pair under error control.
        steps_per_layer: of "rk4".
        tolerance: of "dopri5".
        memory: budget in bytes over all ranks.
        seed: of the random start.

    Attributes:
        sample, box, n_labels: as above.
        layered: the field as the layers use it.
        loss: ℓ, bound to dimension and labels.
        scheme: horizon and time stepping.
        count: of all particles.

    Raises:
        InputError: something does not fit the rest, particles cannot have a cost, the field lacks a derivative, log ρ₀
            is needed and unknown, or the memory is too small; the same on all ranks.
    """

    def __init__(
        self,
        sample: ParticleSample | ArrayLike,
        field: VectorField,
        terminal: Any,
        costs: Costs,
        time: Layers,
        *,
        comm: MPI.Comm | None = None,
        n_labels: int | None = None,
        box: ArrayLike | None = None,
        initial_theta: ArrayLike | None = None,
        label_dependent: bool = False,
        tied: bool = False,
        method: Literal["rk4", "dopri5"] = "rk4",
        steps_per_layer: int = 4,
        tolerance: float = 1e-8,
        memory: float = 2.0**32,
        seed: int = 0,
    ) -> None:
        """Collective."""
        comm = MPI.COMM_WORLD if comm is None else comm
        own = sample if isinstance(sample, ParticleSample) else ParticleSample.of(sample, comm)
        self.n_labels = own.count_labels(comm) if n_labels is None else n_labels
        own.check(comm, self.n_labels)
        dim = own.dim
        self.box = own.box(comm) if box is None else np.asarray(box, dtype=np.float64)
        field = check_field(
            field, self.box[0], self.box[1], time.horizon, self.n_labels, label_dependent=label_dependent
        )
        self.layered = PiecewiseField.equal(field, time.horizon, time.layers, label_dependent=label_dependent)
        self.sample, self.loss = own, particle_loss(terminal, dim, self.n_labels)
        refuse_costs(costs)
        relative = self.loss.adds_log_density
        twice = relative or any(term.of_gradient for term, _ in costs.velocity_terms)
        second = ("jacobian_vjp", "jacobian_vjp_x") if twice else ()
        require_derivatives(self.layered, ("jacobian", *second), "particles")
        if relative:
            own.require_log_density(comm)
        rows = initial_rows(field, dim, comm, time.layers, initial_theta, seed, tied=tied)
        potential, weights = costs.potential_in(dim), (costs.parameters, costs.parameters_h1)
        self.rates = RightHandSide(self.layered, dim, costs.velocity_terms, potential, log_density=relative)
        readout = comm.bcast(np.concatenate([self.loss.initial_readout(), self.rates.initial_readout()]), 0)
        affine = self.loss.affine_readout and not self.rates.n_readout
        units = ParameterUnits.of(field, (self.box[0], self.box[1]), readout.size, affine=affine)
        super().__init__(comm, time.horizon, time.layers, rows, readout, weights, tied=tied, units=units)
        length = 0.5 * float(np.max(self.box[1] - self.box[0]))
        self.scheme = Scheme(time.horizon, method, steps_per_layer, tolerance, length=length)
        self.count = int(comm.allreduce(len(own.x)))
        self._budget = memory / comm.size
        self._groups = label_groups(own.labels, label_dependent=label_dependent, comm=comm)
        self._last_sweep: _Forward | None = None
        self._check_memory(memory)

    # -- J and ∇J ----------------------------------------------------------------------------------------------------

    def value_at_steps(self, theta: ArrayLike, steps: Sequence[Sequence[Floats]]) -> float:
        """J(θ) with given step sizes (``steps`` of an earlier evaluation): the function that the gradient is of.

        Collective. Afterwards there is no last evaluation: the next value or gradient is computed anew.

        Raises:
            RejectedEvaluation: J cannot be evaluated there.
        """
        self._last = None
        layers, readout = self.split(theta)
        self._last_sweep = self._sweep(layers, readout, steps)
        return self._summed(self._last_sweep.parts, layers, readout)[0]

    @property
    def steps(self) -> list[list[Floats]]:
        """Lengths of the steps (k,) of the last evaluation, for every group of labels, for every layer."""
        return [path.steps for path in self._require_sweep().paths]

    def _forward(self, theta: Floats, readout: Floats) -> _Forward:
        # First: the paths of two sweeps are not to be held at once.
        self._last_sweep = None
        self._last_sweep = self._sweep(theta, readout, None)
        return self._last_sweep

    def _sweep(self, theta: Floats, readout: Floats, steps: Sequence[Sequence[Floats]] | None) -> _Forward:
        """All particles at T, with what they have gathered. Collective."""
        ends = np.empty((len(self.sample.x), self.rates.width))
        theta = self.rates.extended(theta, readout)
        paths: list[PathStorage] = []
        for index, (label, rows) in enumerate(self._groups):
            paths.append(PathStorage(label, rows))
            x, given = self.sample.x[rows], None if steps is None else steps[index]
            for segment in segments(self.rates, theta, x, label, self.scheme, comm=self.comm, steps=given):
                paths[-1].add(segment)
                # After every layer, so that the peak stays within the budget, too.
                thin_to_budget(paths, self._budget)
                ends[rows] = segment.end
        values = dict(zip(self.rates.names, ends.T[self.rates.dim :], strict=True))
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            losses = self.loss.value(self._positions(ends), readout)
            terminal = np.take_along_axis(losses, self.sample.labels[:, None], axis=1)[:, 0]
            if self.loss.adds_log_density:
                assert self.sample.log_density is not None
                terminal = terminal + self.sample.log_density + values[LOG_DENSITY]
        by_part = {TERMINAL: terminal, **{n: v for n, v in values.items() if n in COSTS}}
        return _Forward(paths, ends, readout, by_part, self._means(by_part))

    def _means(self, values: dict[str, Floats]) -> dict[str, float]:
        """Collective."""
        with np.errstate(all="ignore"):
            local = np.array([float(self.sample.weights @ column) for column in values.values()])
        return dict(zip(values, parallel.sum_all(self.comm, local).tolist(), strict=True))

    def _adjoint(self, sweep: _Forward) -> tuple[Floats, Floats]:
        rows, constant = self._local_gradient(sweep.readout, None)
        total = parallel.sum_all(self.comm, np.concatenate([rows.ravel(), constant]))
        return total[: rows.size].reshape(rows.shape), total[rows.size :]

    def _local_gradient(self, readout: Floats, chosen: NDArray[np.bool_] | None) -> tuple[Floats, Floats]:
        """This rank's part of the derivatives (L, p) and (r,), of the chosen particles only. Collective."""
        forward, sample = self._require_sweep(), self.sample
        x = self._positions(forward.ends)
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            weights = sample.weights if chosen is None else np.where(chosen, sample.weights, 0.0)
            slopes = np.take_along_axis(self.loss.gradient(x, readout), sample.labels[:, None, None], axis=1)[:, 0]
            # Integrals enter J with the weight of their particle, positions through the slope of the loss.
            by_end = np.repeat(weights[:, None], self.rates.width, axis=1)
            by_end[:, : self.rates.dim] *= slopes
            by_label = weights[:, None] * (sample.labels[:, None] == np.arange(self.n_labels))
            constant = self.loss.readout_vjp(x, readout, by_label)
            rows = np.zeros((self.n_layers, self.layer_shape[1] + self.rates.n_readout))
            for path in forward.paths:
                picked = None if chosen is None else np.flatnonzero(chosen[path.rows])
                by_own = by_end[path.rows]
                rows += path.adjoint(self.scheme.tableau, by_own if picked is None else by_own[picked], picked)
        rows, more = np.split(rows, [self.layer_shape[1]], axis=1)
        return rows, np.concatenate([constant, more.sum(axis=0)])

    # -- what the last evaluation found ------------------------------------------------------------------------------

    @property
    def final_points(self) -> Floats:
        """(n, dim) where this rank's particles ended, in the order of the sample."""
        return self._positions(self._require_sweep().ends)

    def final_log_density(self) -> Floats:
        """(n,) log ρ_y(T, x(T)) of this rank's particles, y their label. Collective.

        Raises:
            InputError: log ρ₀ is not known.
        """
        if self.sample.log_density is None:
            raise InputError("log ρ₀ is not known at the particles", key="sample.log_density")
        if self.loss.adds_log_density:
            return np.asarray(self.sample.log_density + self._require_sweep().ends[:, -1])
        theta, _ = self.split(self._require_last().theta)
        return self.sample.log_density + self.log_density_change(theta, self.sample.x, self.sample.labels)

    def interval(self, name: str = "total", level: float = 0.95) -> float:
        """Half width of the confidence interval of J ("total") or of a part of it. Collective.

        From the variance over independent particles, or that over replicates of others (see ``uncertainty``).
        """
        values = self._require_sweep().values
        if name != "total" and name not in values:
            return 0.0  # the parameters' cost is no mean over particles, other parts are zero
        chosen = sum(values.values()) if name == "total" else values[name]
        column = np.asarray(chosen)[:, None]
        return float(half_widths(self.sample, column, self.n_labels, self.comm, level)[0])

    def gradient_by_replicate(self) -> Floats:
        """∇J of each replicate alone, (R, n_params), at the last evaluation; their mean is ∇J. Collective.

        Costs about as much as one gradient.
        """
        last = self._require_last()
        layers, readout = self.split(last.theta)
        more_rows, more_constant = self._parameter_cost.gradient(layers, readout)
        result = []
        for replicate in range(count_replicates(self.sample, self.comm)):
            chosen = self.sample.replicate == replicate
            rows, constant = self._local_gradient(readout, chosen)
            weight = self.sample.weights[chosen].sum()
            total = parallel.sum_all(self.comm, np.concatenate([rows.ravel(), constant, [weight]]))
            rows = total[: layers.size].reshape(layers.shape) / total[-1] + more_rows
            own = rows.sum(axis=0) if self.layer_shape[0] < self.n_layers else rows
            result.append(np.concatenate([own.ravel(), total[layers.size : -1] / total[-1] + more_constant]))
        return np.array(result)

    def gradient_interval(self) -> Floats:
        """Standard errors of ∇J in the shape of θ, from the variance over replicates; NaN of one only. Collective."""
        return standard_errors(self.gradient_by_replicate()).reshape(self.initial_theta.shape)

    @property
    def field(self) -> VectorField:
        """v(x, θ)."""
        return self.layered.field

    @property
    def headline(self) -> str:
        """Its sizes in one line."""
        return (
            f"{self.count} particles in {self.rates.dim}-D; {type(unwrapped(self.field)).__name__} field, "
            f"{self.n_layers} layers of {self.layer_shape[1]} parameters"
        )

    def _numbers(self) -> dict[str, Any]:
        mass, (mean, covariance) = self.masses(), self.moments()
        # Groups may take different numbers of steps: the largest is reported.
        counts = [[len(steps) for steps in layers] for layers in self.steps]
        return {
            "mass": {"initial": mass, "final": mass, "relative_error": 0.0},  # every particle keeps its weight
            "moments": {"mean": mean, "covariance": covariance},
            "time": {"steps_per_layer": np.max(counts, axis=0)},
        }

    def moments(self) -> tuple[Floats, Floats]:
        """Means (K, dim) and covariances (K, dim, dim) of the particles at T, per label. Collective."""
        return moments(self.sample, self.final_points, self.n_labels, self.comm)

    def masses(self) -> Floats:
        """Weight (K,) of all particles of each label. Collective."""
        local = np.bincount(self.sample.labels, self.sample.weights, self.n_labels)
        return parallel.sum_all(self.comm, local)

    @property
    def outside(self) -> float:
        """Share of the weight that ends outside the domain's bounding box. Collective."""
        x = self.final_points
        beyond = np.any((x < self.box[0]) | (x > self.box[1]), axis=1)
        return float(parallel.sum_all(self.comm, np.array([self.sample.weights[beyond].sum()]))[0])

    @property
    def extent(self) -> float:
        """Longest side of the domain's bounding box."""
        return float(np.max(self.box[1] - self.box[0]))

    def velocity_change(self, theta: ArrayLike, change: ArrayLike) -> float:
        """Largest |v(x, θ + change) − v(x, θ)| over particles where layers start, layers and labels. Collective."""
        before, _ = self.split(theta)
        after, _ = self.split(np.ravel(theta) + np.ravel(change))
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            pairs = zip(self._velocities(before), self._velocities(after), strict=True)
            largest = max((_largest(w - v) for v, w in pairs), default=0.0)
        return float(self.comm.allreduce(largest, MPI.MAX))

    @property
    def speed(self) -> float:
        """Largest |v| over particles where layers start, layers and labels at the last evaluation. Collective."""
        theta, _ = self.split(self._require_last().theta)
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            largest = max(map(_largest, self._velocities(theta)), default=0.0)
        return float(self.comm.allreduce(largest, MPI.MAX))

    def _velocities(self, theta: Floats) -> Iterator[Floats]:
        """Velocities (n, dim) of θ (L, p) for every group and layer, where the last evaluation had the particles."""
        for index, (label, rows) in enumerate(self._groups):
            for layer in range(self.n_layers):
                sweep = self._last_sweep
                x = self.sample.x[rows] if sweep is None else sweep.paths[index].starts[layer][0]
                yield self.layered.value(layer, theta[layer], x, label)

    # -- the flow at any θ -------------------------------------------------------------------------------------------

    def push(self, theta: Floats, x: Floats, labels: Labels, n_times: int) -> Floats:
        """Positions (n_times, n, dim) of this rank's points at equally spaced times from 0 to T. Collective."""
        return carry(self.layered, theta, x, labels, np.linspace(0.0, self.horizon, n_times), self.scheme, self.comm)

    def log_density_change(self, theta: Floats, x: Floats, labels: Labels) -> Floats:
        """−∫div v dt (n,) along the paths of points that start at x (n, dim). Collective."""
        return carry_density(self.layered, theta, x, labels, self.scheme, self.comm)[1]

    def pull(self, theta: Floats, x: Floats, labels: Labels) -> tuple[Floats, Floats]:
        """Where points x (n, dim) at T come from, and −∫div v dt on the way: log ρ(T, x) = log ρ₀(x₀) + change.

        Collective.
        """
        return carry_back(self.layered, theta, x, labels, self.scheme, self.comm)

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _positions(self, ends: Floats) -> Floats:
        return np.ascontiguousarray(ends[:, : self.rates.dim])

    def _require_sweep(self) -> _Forward:
        if self._last_sweep is None:
            raise RejectedEvaluation(self.rejection or "J has not been evaluated yet")
        return self._last_sweep

    def _check_memory(self, memory: float) -> None:
        needed = 8.0 * self.rates.dim * self.count * (self.n_layers + 1)
        if needed > memory:
            raise InputError(
                f"the particles need {math.ceil(needed / 2**20)} MiB for their positions where layers start",
                key="solver.memory",
                value=f"{memory / 2**20:.3g} MiB",
                remedy="Raise it, or take fewer particles.",
            )


def _largest(v: Floats) -> float:
    """Largest length of vectors (n, dim)."""
    return float(np.max(np.linalg.norm(v, axis=1), initial=0.0))
