"""θ ↦ J(θ) and its exact gradient on particles."""

from collections.abc import Iterator, Sequence
from itertools import repeat
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
from eulerian.objective.cost_at import CostAt, layer_end_costs
from eulerian.objective.costs import INTERACTION, Costs
from eulerian.particles.crowd import CrowdLoss, Meetings
from eulerian.particles.end_costs import ParticleEndCosts, ParticleForward, ParticleStates
from eulerian.particles.flow import Labels, Layers, Scheme, carry, carry_back, carry_density, label_groups, segments
from eulerian.particles.kl import refuse_costs
from eulerian.particles.path_storage import PathStorage, require_memory_for_paths, thin_to_budget
from eulerian.particles.right_hand_side import COSTS, LOG_DENSITY, RightHandSide
from eulerian.particles.sample import ParticleSample
from eulerian.particles.statistics import count_replicates, half_widths, moments, standard_errors


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
        at: costs like ``terminal`` at given times, the ends of layers.
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
        ends: the costs at ends of layers, bound to dimension and labels.
        loss: the terminal one.
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
        at: Sequence[CostAt] = (),
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
            comm, field, self.box[0], self.box[1], time.horizon, self.n_labels, label_dependent=label_dependent
        )
        self.layered = PiecewiseField.equal(field, time.horizon, time.layers, label_dependent=label_dependent)
        ends = layer_end_costs(terminal, at, time.horizon, time.layers)
        self.sample, self.ends = own, ParticleEndCosts.of(ends, time.layers, dim, self.n_labels)
        self.loss = self.ends.terminal.loss
        refuse_costs(costs, method)
        relative = self.ends.add_log_density
        twice = relative or any(term.of_gradient for term, _ in costs.velocity_terms)
        second = ("jacobian_vjp", "jacobian_vjp_x") if twice else ()
        require_derivatives(self.layered, ("jacobian", *second), "particles")
        if relative:
            own.require_log_density(comm)
        rows = initial_rows(field, dim, comm, time.layers, initial_theta, seed, tied=tied)
        potential, weights = costs.potential_in(dim), (costs.parameters, costs.parameters_h1)
        self.rates = RightHandSide(self.layered, dim, costs.velocity_terms, potential, log_density=relative)
        readout = comm.bcast(np.concatenate([self.ends.initial_readout(), self.rates.initial_readout()]), 0)
        affine = self.ends.affine_readout and not self.rates.n_readout
        units = ParameterUnits.of(field, (self.box[0], self.box[1]), readout.size, affine=affine)
        super().__init__(comm, time.horizon, time.layers, rows, readout, weights, tied=tied, units=units)
        length = 0.5 * float(np.max(self.box[1] - self.box[0]))
        self.scheme = Scheme(time.horizon, method, steps_per_layer, tolerance, length=length)
        energy = costs.interaction_energy
        self._interaction = None if energy is None else CrowdLoss.of(energy, dim, self.n_labels, INTERACTION)
        self.count = int(comm.allreduce(len(own.x)))
        self._budget = memory / comm.size
        self._groups = label_groups(own.labels, label_dependent=label_dependent, comm=comm)
        self._last_sweep: ParticleForward | None = None
        require_memory_for_paths(8.0 * dim * self.count * (self.n_layers + len(self.ends.layers)), memory)

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

    def _forward(self, theta: Floats, readout: Floats) -> ParticleForward:
        # First: the paths of two sweeps are not to be held at once.
        self._last_sweep = None
        self._last_sweep = self._sweep(theta, readout, None)
        return self._last_sweep

    def _sweep(self, theta: Floats, readout: Floats, steps: Sequence[Sequence[Floats]] | None) -> ParticleForward:
        """All particles at T, with what they have gathered. Collective."""
        at = {layer: np.empty((len(self.sample.x), self.rates.width)) for layer in self.ends.layers}
        theta = self.rates.extended(theta, readout)
        paths = [PathStorage(label, rows) for label, rows in self._groups]
        energy, steps_per_layer = self._interaction, self.scheme.steps_per_layer
        meetings = None if energy is None else Meetings(energy, self.horizon, self.n_layers, steps_per_layer)
        tracks = [
            segments(self.rates, theta, self.sample.x[path.rows], path.label, self.scheme, comm=self.comm, steps=given)
            for path, given in zip(paths, repeat(None) if steps is None else steps, strict=False)
        ]
        # Layer by layer: particles of all groups may pay for one another.
        for passed, through in enumerate(zip(*tracks, strict=True), 1):
            for path, segment in zip(paths, through, strict=True):
                path.add(segment)
                if passed in at:
                    at[passed][path.rows] = segment.end
            # After every layer, so that the peak stays within the budget, too.
            thin_to_budget(paths, self._budget)
            if meetings is not None:
                starts = [(path.rows, segment.starts) for path, segment in zip(paths, through, strict=True)]
                meetings.in_layer(passed - 1, starts, self.sample, self.comm)
        names = self.rates.names
        states = ParticleStates(self.sample, self.rates.dim, names, LOG_DENSITY if LOG_DENSITY in names else None, at)
        ends = self.ends.met(states, self.comm)
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            by_part = states.by_part(ends, readout)
        gathered = zip(names, at[self.n_layers].T[self.rates.dim :], strict=True)
        by_part |= {name: values for name, values in gathered if name in COSTS}
        constants = ends.constants()
        if meetings is not None:
            meetings.meet(self.n_layers, 0, states.positions(self.n_layers), self.sample, self.comm)
            by_part["interaction"], constants["interaction"] = meetings.values, meetings.constant
        parts = self._means(by_part)
        parts |= {name: parts[name] + constant for name, constant in constants.items()}
        return ParticleForward(paths, states, ends, meetings, readout, by_part, parts)

    def _means(self, values: dict[str, Floats]) -> dict[str, float]:
        """Collective."""
        with np.errstate(all="ignore"):
            local = np.array([float(self.sample.weights @ column) for column in values.values()])
        return dict(zip(values, parallel.sum_all(self.comm, local).tolist(), strict=True))

    def _adjoint(self, sweep: ParticleForward) -> tuple[Floats, Floats]:
        rows, constant = self._local_gradient(sweep.readout, None)
        total = parallel.sum_all(self.comm, np.concatenate([rows.ravel(), constant]))
        return total[: rows.size].reshape(rows.shape), total[rows.size :]

    def _local_gradient(self, readout: Floats, chosen: NDArray[np.bool_] | None) -> tuple[Floats, Floats]:
        """This rank's part of the derivatives (L, p) and (r,), of the chosen particles only. Collective."""
        forward, weights = self._require_sweep(), self.sample.weights
        with parallel.agreed(self.comm), np.errstate(all="ignore"):
            weights = weights if chosen is None else np.where(chosen, weights, 0.0)
            by_state = forward.by_state(weights, self.n_layers)
            constant = forward.states.by_readout(forward.ends, readout, weights, self.n_labels)
            rows = np.zeros((self.n_layers, self.layer_shape[1] + self.rates.n_readout))
            for path in forward.paths:
                picked = None if chosen is None else np.flatnonzero(chosen[path.rows])
                own = {layer: found[path.rows] for layer, found in by_state.items()}
                own = own if picked is None else {layer: found[picked] for layer, found in own.items()}
                rows += path.adjoint(self.scheme.tableau, own, picked, forward.on_the_way(path.rows, picked, weights))
        # What rides behind the θ of every layer is one and the same for all: the parameters of the potential.
        rows, more = np.split(rows, [self.layer_shape[1]], axis=1)
        constant[constant.size - more.shape[1] :] += more.sum(axis=0)
        return rows, constant

    # -- what the last evaluation found ------------------------------------------------------------------------------

    @property
    def states(self) -> ParticleStates:
        """Positions and integrals of this rank's particles where there are costs, in the order of the sample."""
        return self._require_sweep().states

    @property
    def met_ends(self) -> ParticleEndCosts:
        """``ends`` at the last evaluation: those of all particles together by their tangents there."""
        return self._require_sweep().ends

    @property
    def final_points(self) -> Floats:
        """(n, dim) where this rank's particles ended, in the order of the sample."""
        return self.states.positions(self.n_layers)

    def final_log_density(self) -> Floats:
        """(n,) log ρ_y(T, x(T)) of this rank's particles, y their label. Collective.

        Raises:
            InputError: log ρ₀ is not known.
        """
        if self.sample.log_density is None:
            raise InputError("log ρ₀ is not known at the particles", key="sample.log_density")
        if (known := self.states.log_densities(self.n_layers)) is not None:
            return known
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

        Costs about as much as one gradient. Where particles pay for one another, each replicate does for all of them.
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

    def _require_sweep(self) -> ParticleForward:
        if self._last_sweep is None:
            raise RejectedEvaluation(self.rejection or "J has not been evaluated yet")
        return self._last_sweep


def _largest(v: Floats) -> float:
    """Largest length of vectors (n, dim)."""
    return float(np.max(np.linalg.norm(v, axis=1), initial=0.0))
