"""What a problem in θ alone is, whichever way J is computed: the face that optimisers and tests see."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats, theta_array
from eulerian.base.errors import ComputationError, EulerianError, InputError, RejectedEvaluation
from eulerian.fields.frame import ParameterUnits
from eulerian.objective.costs import ParameterCost
from eulerian.objective.parts import part_names, rejection

# Displacements below this, relative to the domain, are rounding.
_ROUNDING = 1e-14


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
    """The last evaluation of J, and where it started; no parts where it was rejected, and no sweep either."""

    theta: Floats
    value: float = math.inf
    parts: dict[str, float] = field(default_factory=dict)
    gradient: Floats | None = None
    sweep: Any = None
    start: Any = None

    def is_of(self, theta: Floats, start: Any) -> bool:
        """Whether it is J at this θ, to the last bit, from this start."""
        return start is self.start and np.array_equal(self.theta, theta)


class Sweep(Protocol):
    """What a forward sweep leaves: all that its adjoint needs."""

    @property
    def parts(self) -> dict[str, float]:
        """The parts of J that depend on the flow, the same on all ranks; missing ones are zero."""
        ...


class ReducedProblem(ABC):
    """θ ↦ J(θ), ∇J(θ), and a memory of the last evaluation.

    θ is (L, p), one row of the field's parameters per layer, or (1, p) where the layers are tied, the same on all
    ranks; where the terminal loss trains a readout too, θ is the flat vector (θ row by row, readout) of length
    ``n_params``. All methods are collective.

    Args:
        comm: who shares the work.
        horizon: T.
        n_layers: L.
        initial_theta: where optimisers start, (L, p), or (1, p) for tied layers.
        initial_readout: (r,).
        parameter_weights: (ε, ε₁), of the L² and H¹ costs of θ.
        tied: all layers share one row.
        units: from θ to numbers in units of the domain's box, in which descents work; by default θ itself.

    Attributes:
        layer_shape: (L, p), or (1, p) for tied layers.
        n_params: of θ and readout.
        evaluations: of J so far, rejected ones included.
        rejected_evaluations: those where J could not be evaluated.
        rejected: the error with which the last one was rejected, or None.
        units: as given.
        on_mesh: whether J is that of a mesh, beside which the flow has one of its own.
    """

    on_mesh: ClassVar[bool] = False

    def __init__(
        self,
        comm: MPI.Comm,
        horizon: float,
        n_layers: int,
        initial_theta: Floats,
        initial_readout: Floats,
        parameter_weights: tuple[float, float],
        *,
        tied: bool = False,
        units: ParameterUnits | None = None,
    ) -> None:
        self.units = ParameterUnits() if units is None else units
        self.comm, self.horizon, self.n_layers = comm, horizon, n_layers
        self.layer_shape = (1 if tied else n_layers, initial_theta.shape[1])
        self.n_params = math.prod(self.layer_shape) + initial_readout.size
        self.evaluations = self.rejected_evaluations = 0
        self.rejected: RejectedEvaluation | None = None
        self._n_readout = initial_readout.size
        self._start = np.concatenate([initial_theta.ravel(), initial_readout])
        self._parameter_cost = ParameterCost(*parameter_weights, horizon / n_layers)
        self._last: _Evaluation | None = None
        self._forward_timer, self._reverse_timer = _Timer(), _Timer()

    # -- what a method of computing J provides -----------------------------------------------------------------------

    @abstractmethod
    def _forward(self, theta: Floats, readout: Floats) -> Sweep:
        """The forward sweep at θ (L, p) and readout (r,): the parts of J of the flow, and what ``_adjoint`` needs.

        Collective.

        Raises:
            RejectedEvaluation: J cannot be evaluated there; the same on all ranks.
        """

    @abstractmethod
    def _adjoint(self, sweep: Any) -> tuple[Floats, Floats]:
        """Derivatives (L, p) and (r,) of the parts of the last ``_forward``'s sweep, alike on all ranks. Collective."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """Its sizes in one line. Not collective: one rank alone may print it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.headline})"

    @abstractmethod
    def _numbers(self) -> dict[str, Any]:
        """What the last evaluation found, by the keys of ``describe``. Collective."""

    @abstractmethod
    def velocity_change(self, theta: ArrayLike, change: ArrayLike) -> float:
        """Largest |v(x, θ + change) − v(x, θ)| over points, layers and labels; ∞ where v fails. Collective."""

    def velocity_matrices(self) -> dict[int, Floats] | None:
        """By row of θ a matrix A (m, p) such that |A δϑ|² is the mean of ∫ |δv|² dμ over the row's layers. Collective.

        ϑ is θ in units of the box, v is linearised at the last evaluation, and μ is the mass as it is in a layer. Each
        rank has the matrices of some rows. None where the problem has none.
        """
        return None

    @property
    @abstractmethod
    def speed(self) -> float:
        """Largest |v| over points, layers and labels at the last evaluation. Collective.

        Raises:
            RejectedEvaluation: there is none.
        """

    @property
    @abstractmethod
    def extent(self) -> float:
        """Longest side of the domain's bounding box. Collective."""

    @property
    def has_statistics(self) -> bool:
        """Whether the last evaluation left densities, and so ``statistics``."""
        return False

    @property
    def reduced(self) -> Self:
        """θ ↦ J(θ) itself: a problem may come with what it was made of."""
        return self

    @property
    def at_rest(self) -> bool:
        """Whether the last evaluation moves nothing: v = 0 up to rounding, which no slow flow is. Collective."""
        return self.speed * self.horizon <= _ROUNDING * self.extent

    # -- θ -----------------------------------------------------------------------------------------------------------

    @property
    def initial_theta(self) -> Floats:
        """Where to start: in the shape ``layer_shape``, or flat with a trained readout."""
        return self._start.copy() if self._n_readout else self._start.reshape(self.layer_shape).copy()

    @property
    def scaling(self) -> Floats:
        """Factors s (n_params,) such that s·θ (flat) has the Euclidean norm that θ has in L²(0, T)."""
        # |θ|² in L²(0, T) is Σ T/L |θ_l|² + T |r|²: the readout is constant in time.
        rows = math.sqrt(self.horizon / self.layer_shape[0])
        layers = np.full(math.prod(self.layer_shape), rows)
        return np.concatenate([layers, np.full(self._n_readout, math.sqrt(self.horizon))])

    def split(self, theta: ArrayLike) -> tuple[Floats, Floats]:
        """θ as the layers' parameters (L, p), tied ones repeated, and the readout (r,).

        Raises:
            InputError: the size is wrong.
        """
        flat = self._flat(theta)
        size = math.prod(self.layer_shape)
        rows = flat[:size].reshape(self.layer_shape)
        return np.broadcast_to(rows, (self.n_layers, rows.shape[1])), flat[size:]

    def parameter_cost(self, theta: ArrayLike) -> float:
        """The part of J that is a cost of θ itself. Not collective.

        Raises:
            InputError: the size is wrong.
        """
        return self._parameter_cost.value(*self.split(theta))

    def gradient_norm(self, gradient: ArrayLike) -> float:
        """Norm in L²(0, T) of the function of time that represents a gradient, θ being in units of the box."""
        return float(np.linalg.norm(self.units.gradient(np.ravel(gradient)) / self.scaling))

    # -- J and ∇J ----------------------------------------------------------------------------------------------------

    def value(self, theta: ArrayLike) -> float:
        """J(θ), or +∞ where it cannot be evaluated (``rejection`` says why). Collective.

        Raises:
            InputError: θ has the wrong size.
        """
        flat = self._flat(theta)
        # To the last bit: optimisers ask for the value and then for the gradient at the same θ.
        if self._last is None or not self._last.is_of(flat, self._beginning()):
            self._last = None  # first: the flow is overwritten, also by a solve that breaks off
            self._last = self._evaluate(flat)
        return self._last.value

    def value_and_gradient(self, theta: ArrayLike) -> tuple[float, Floats]:
        """J(θ) and dJ/dθ in the shape of θ, exact for the discrete J with its step counts held. Collective.

        The gradient is zero where the value is +∞.

        Raises:
            InputError: θ has the wrong size.
            ComputationError: J is finite, but its gradient is not or could not be computed; the same on all ranks.
        """
        value = self.value(theta)
        last = self._last
        assert last is not None
        if last.gradient is None:
            started = time.perf_counter()
            last.gradient = self._finite_gradient(last) if math.isfinite(value) else np.zeros(self.n_params)
            if math.isfinite(value):
                self._reverse_timer.add(time.perf_counter() - started)
        return value, last.gradient.reshape(np.shape(theta)).copy()  # a copy: the original serves again

    def value_from(self, theta: ArrayLike, rho0: Any) -> float:
        """J(θ, ρ₀) of another ρ₀ than the problem's own; InputError where it starts from no density. Collective."""
        return self.value_and_gradients(theta, rho0)[0]

    def value_and_gradients(self, theta: ArrayLike, rho0: Any) -> tuple[float, Floats, Floats]:  # noqa: ARG002
        """J(θ, ρ₀) of another ρ₀, dJ/dθ and dJ/dρ₀; InputError where it starts from no density. Collective."""
        self.check_rho0(np.shape(rho0))
        raise AssertionError("who has densities says how")

    def check_rho0(self, shape: tuple[int, ...]) -> None:  # noqa: ARG002
        """Raise InputError unless another ρ₀ may have this shape."""
        what = "this problem starts from particles, not from a density: its J is a function of θ alone"
        raise InputError(what, key="rho0", remedy="Leave rho0 out, or take a ControlProblem.")

    def forget(self) -> None:
        """Drop the last evaluation: the next value or gradient is computed anew, as measurements of time want it."""
        self._last = None

    @property
    def rejection(self) -> str | None:
        """Why the last evaluation was rejected, or None."""
        return None if self.rejected is None else str(self.rejected)

    @property
    def parts(self) -> dict[str, float]:
        """The parts of J at the last evaluation, by name; empty if it was rejected."""
        return dict(self._last.parts) if self._last else {}

    def describe(self) -> dict[str, Any]:
        """What the last evaluation found, by the keys of ``result.json``; without one, the sizes only. Collective."""
        counts = {"evaluations": self.evaluations, "rejected_evaluations": self.rejected_evaluations}
        found: dict[str, Any] = {**counts, "time": {"layers": self.n_layers, "horizon": self.horizon}}
        if not self.parts:  # rejected, or never evaluated
            return found
        numbers = self._numbers()
        seconds = {"forward": self.seconds_forward, "gradient": self.seconds_gradient or None}
        return {**found, **numbers, "time": found["time"] | numbers["time"], "seconds": seconds}

    @property
    def theta(self) -> Floats:
        """θ of the last evaluation, in the shape of ``initial_theta``."""
        last = self._last
        return self.initial_theta if last is None else last.theta.reshape(self.initial_theta.shape).copy()

    @property
    def seconds_forward(self) -> float:
        """Mean time of an evaluation of J."""
        return self._forward_timer.mean

    @property
    def seconds_gradient(self) -> float:
        """Mean time of a value with its gradient; 0 before the first."""
        return self._forward_timer.mean + self._reverse_timer.mean if self._reverse_timer.count else 0.0

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _flat(self, theta: ArrayLike) -> Floats:
        # A copy: the caller may change its θ in place, and the next call is compared with this one.
        flat = theta_array(theta).ravel()
        if flat.size != self.n_params:
            raise InputError(f"{self.n_params} numbers are needed", key="theta", value=f"{flat.size} numbers")
        return flat

    def _beginning(self) -> Any:
        """What evaluations start from: another object for another ρ₀."""
        return None

    def _require_last(self) -> _Evaluation:
        if self._last is None or not self._last.parts:
            raise RejectedEvaluation(self.rejection or "J has not been evaluated yet")
        return self._last

    def _evaluate(self, flat: Floats) -> _Evaluation:
        self.evaluations += 1
        started = time.perf_counter()
        evaluation = _Evaluation(flat, start=self._beginning())
        try:
            if not np.all(np.isfinite(flat)):
                raise RejectedEvaluation("θ is not finite")
            theta, readout = self.split(flat)
            evaluation.sweep = self._forward(theta, readout)
            evaluation.value, evaluation.parts = self._summed(evaluation.sweep.parts, theta, readout)
            self.rejected = None
            self._forward_timer.add(time.perf_counter() - started)
        except RejectedEvaluation as reason:
            evaluation.sweep = None
            self.rejected_evaluations += 1
            self.rejected = reason
        return evaluation

    def _summed(self, found: dict[str, float], theta: Floats, readout: Floats) -> tuple[float, dict[str, float]]:
        """J and all of its parts, the cost of the parameters included.

        Raises:
            RejectedEvaluation: J is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # a far-off θ shows in a J that is not finite
            parameters = self._parameter_cost.value(theta, readout)
        # Always all parts, in one order: tables and histories have a column for each.
        parts = {**dict.fromkeys(part_names(), 0.0), **found, "parameters": parameters}
        broken = [name for name, value in parts.items() if not math.isfinite(value)]
        total = math.nan if broken else sum(parts.values())  # not fsum yet: it raises where a sum overflows
        if not math.isfinite(total):
            raise rejection(parts, broken, bounded=self.on_mesh)
        return math.fsum(parts.values()), parts  # correctly rounded, whatever the order of the parts

    def _finite_gradient(self, last: _Evaluation) -> Floats:
        try:
            gradient = self._gradient(last)
            if not np.all(np.isfinite(gradient)):
                where = self._name(int(np.flatnonzero(~np.isfinite(gradient))[0]))
                raise ComputationError(
                    f"the gradient is not finite, first by {where}, although J = {last.value:.6g}: "
                    "a derivative of the field or a cost fails there (`eulerian verify` checks them at the initial θ)"
                )
            with np.errstate(over="ignore"):
                overflows = not math.isfinite(self.gradient_norm(gradient))
            if overflows:
                raise ComputationError("the norm of the gradient overflows: give the objective smaller weights")
        except EulerianError:
            self._last = None  # an adjoint sweep consumes the forward one
            raise
        return gradient

    def _name(self, index: int) -> str:
        """A number of the flat θ in words."""
        row, column = divmod(index, self.layer_shape[1])
        if row >= self.layer_shape[0]:
            return f"number {index - math.prod(self.layer_shape)} of the readout"
        return f"parameter {column} of {f'layer {row}' if self.layer_shape[0] > 1 else 'every layer'}"

    def _gradient(self, last: _Evaluation) -> Floats:
        theta, readout = self.split(last.theta)
        layers, constant = self._adjoint(last.sweep)
        with np.errstate(over="ignore", invalid="ignore"):  # shows in a gradient that is not finite
            more_layers, more_constant = self._parameter_cost.gradient(theta, readout)
            rows = layers + more_layers
            if self.layer_shape[0] < self.n_layers:
                rows = rows.sum(axis=0)  # tied layers share one row
            return np.concatenate([rows.ravel(), constant + more_constant])
