"""Minimise J, with PETSc's optimisers on a variable in which the problem's inner product is Euclidean."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.app.config import Config
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, EulerianError, InputError
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.lbfgs_pairs import Curvature, IterateHistory
from eulerian.optimise.replay import Best, DescentState, Iterate
from eulerian.optimise.result import OptimiseResult, Record
from eulerian.optimise.segment import Leg
from eulerian.optimise.tao import LMVM, REASONS, Method

# J jumps by the time error where a step count changes and bends at the limiter's kinks, so close to a minimum a line
# search may find nothing lower before the gradient is as small as asked. Below this share of its first norm that is
# the accuracy of J, not a failure.
STAGNATION = 1e-3

# Iterations before the velocity metric is made anew for the first time; each time it then serves twice as long.
_FIRST_METRIC = 5

# What to look at where a line search fails: derivatives of this package's own fields are tested.
_ADVICE = "the field is of your own: check its vjp: `eulerian verify CONFIG`"

# J at the θ of a state may differ by rounding from what it was on other ranks or another processor, not by more.
_SAME = 1e-6


@final
@dataclass(frozen=True)
class Settings:
    """How a descent goes down, and when it ends.

    Attributes:
        method: which optimiser.
        max_iterations: at most this many.
        gradient_tolerance: on the gradient norm relative to that at the start.
        metric: "velocity", or "parameters" for L²(0, T) whatever the method and the field.
        advice: what to look at where a line search fails.
    """

    method: Method
    max_iterations: int = 100
    gradient_tolerance: float = 1e-6
    metric: str = "velocity"
    advice: str = ""

    @classmethod
    def of(cls, config: Config, max_iterations: int, gradient_tolerance: float) -> Self:
        """Those of a configuration, but for when the descent ends."""
        optimiser = config.optimiser
        return cls(
            Method(optimiser.method, optimiser.petsc_options),
            max_iterations,
            gradient_tolerance,
            optimiser.metric,
            _ADVICE if config.field.kind == "python" else "",
        )


@final
class Descent:
    """One minimisation of J; after any iteration it has a state, from which another one goes on. Collective.

    From a state of the same problem, computed by the same programs on the same kind of processor and on as many ranks,
    it goes on as if it had never stopped, to the last bit: the optimiser is told again what J has answered. Elsewhere
    it goes on from the same θ, with an optimiser made anew from the curvature of the last steps.

    Args:
        problem: J.
        settings: how.
        theta0: the starting point, the problem's initial θ by default.
        curvature: what an earlier descent has learnt near ``theta0``; methods other than ``lmvm`` have no use for it.
        first_norm: the gradient norm that the tolerance is relative to, if not that at the start.
        state: of the descent to go on with; it brings its own starting point.

    Attributes:
        problem: J.
        now: where it stands.
        history: one record per iteration.
    """

    def __init__(
        self,
        problem: ReducedProblem,
        settings: Settings,
        theta0: ArrayLike | None = None,
        *,
        curvature: Curvature | None = None,
        first_norm: float | None = None,
        state: DescentState | None = None,
    ) -> None:
        self._started = time.perf_counter()
        self.problem, self._settings = problem, settings
        self.now = Iterate(np.array(problem.initial_theta if theta0 is None else theta0, dtype=np.float64))
        self.history: list[Record] = [] if state is None else list(state.history)
        self._keeps_curvature = settings.method.name == LMVM
        self._curvature = curvature if self._keeps_curvature else None
        self._first_norm, self._resumed = first_norm, state
        self._renewal = _FIRST_METRIC
        self._callback: Callable[[Record], object] | None = None
        self._leg: Leg | None = None
        self._stopped = False
        self._rejected = 0  # evaluations before the best iterate was found

    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Minimise, once. Collective.

        What goes wrong after an iterate has been told, on all ranks alike, raises nothing: the result says so, and has
        the best iterate.

        Args:
            callback: called once per iteration on all ranks; a true result ends the minimisation.

        Raises:
            InputError: J cannot be evaluated at the start, or PETSc does not know the method or an option's value.
            ComputationError: the gradient is not finite there, or the state is one of another J.
        """
        self._callback = callback
        try:
            status, reason = self._outcome(self._go_down())
        except EulerianError as error:
            if len(self.history) == (0 if self._resumed is None else len(self._resumed.history)):
                raise
            status, reason = "failed", f"{error}; the best iterate is kept"
        best = self.now.best
        assert best is not None
        initial_hessian = self._initial_hessian if self._keeps_curvature else None
        iterations = self.history[-1].iteration
        return OptimiseResult(
            best.theta, best.value, best.gradient_norm, iterations, status, reason, self.history, initial_hessian
        )

    def _go_down(self) -> int:
        """Leg by leg; TAO's reason to end. Collective."""
        settings = self._settings
        self._leg = self._first_segment() if self._resumed is None else self._resumed_segment(self._resumed)
        if self.history and self._leg.iteration == self.history[-1].iteration:  # the leg only begins where it stands
            code = self.stopping_reason(self._leg.iteration, self.history[-1].gradient_norm)
            if code is not None:
                return code
        while True:
            renewal = self._renewal if settings.metric == "velocity" else None
            code = self._leg.run(settings.method, settings.max_iterations, renewal)
            if self._stopped or code != REASONS.CONVERGED_USER:
                break
            if self._leg.iteration == self._renewal:
                self._renewal *= 2
            self._leg = Leg(self, self.now, self._leg.iteration, self._initial_hessian)
        return code

    @property
    def state(self) -> DescentState:
        """After the last iteration; from inside of callbacks on. Not collective."""
        segment, problem = self._leg, self.problem
        assert segment is not None
        assert self._first_norm is not None
        return DescentState(
            began=segment.began,
            first=segment.first,
            known=None if segment.began.points else segment.known,
            renewal=self._renewal,
            answers=tuple(segment.answers),
            now=self.now,
            history=tuple(self.history),
            first_norm=self._first_norm,
            evaluations=problem.evaluations,
            rejected_evaluations=problem.rejected_evaluations,
        )

    # -- what legs tell ----------------------------------------------------------------------------------------------

    def stand(self, theta: Floats, value: float, gradient: Floats | None, norm: float) -> None:
        """The next iterate: θ where J is ``value``, dJ/dθ (flat) if it is known, and its norm. Not collective."""
        trail = IterateHistory(self.problem.n_params, self.now.points, self.problem.units)
        if gradient is not None and self._keeps_curvature:
            trail.add(theta.ravel(), gradient)
        best = self.now.best
        if math.isfinite(value) and (best is None or value < best.value):
            best = Best(value, theta, norm)
            self._rejected = self.problem.rejected_evaluations
        self.now = Iterate(theta, best, trail.points)

    def tell(self, iteration: int, value: float, norm: float) -> None:
        """Make and tell the record of the present iterate, where J was evaluated last. Collective."""
        seconds = time.perf_counter() - self._started
        record = Record(iteration, value, self.problem.parts, norm, self.problem.evaluations, seconds)
        self.history.append(record)
        self._stopped = self._callback is not None and bool(self._callback(record))

    def stopping_reason(self, iteration: int, norm: float) -> int | None:
        """TAO's reason to end after an iteration, if there is one. Not collective."""
        assert self._first_norm is not None
        if self._stopped:
            return int(REASONS.CONVERGED_USER)
        if norm <= self._settings.gradient_tolerance * self._first_norm:
            return int(REASONS.CONVERGED_GATOL)
        if iteration >= self._settings.max_iterations:
            return int(REASONS.DIVERGED_MAXITS)
        return None

    def restore(self) -> None:
        """Evaluate J where the state stands, as it was evaluated last when the state was taken. Collective.

        Raises:
            ComputationError: J is another one there.
        """
        state, problem = self._resumed, self.problem
        assert state is not None
        value, _ = problem.value_and_gradient(self.now.theta)
        expected, scale = state.history[-1].total, abs(state.history[0].total)
        if not math.isclose(value, expected, rel_tol=_SAME, abs_tol=_SAME * scale):
            raise ComputationError(
                f"J at the θ of the checkpoint was {expected:.10g} and is {value:.10g} now: something that the run "
                "depends on has changed since (its mesh, its data, the code of its field, the program's version). "
                "Start anew; field.theta may name the checkpoint"
            )
        problem.evaluations, problem.rejected_evaluations = state.evaluations, state.rejected_evaluations

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _initial_hessian(self) -> Curvature | None:
        """What the last steps tell; None where nothing is kept."""
        problem = self.problem
        return IterateHistory(problem.n_params, self.now.points, problem.units).curvature if self.now.points else None

    def _first_segment(self) -> Leg:
        value, gradient = self.problem.value_and_gradient(self.now.theta)
        if not math.isfinite(value):
            remedy = (
                "Start from a slower field (zero_init = true), raise solver.max_steps_per_layer, or use more layers"
            )
            what = f"J cannot be evaluated at the starting point: {self.problem.rejection}"
            raise InputError(what, key="field.theta", remedy=remedy)
        if self._first_norm is None:
            self._first_norm = self.problem.gradient_norm(gradient)
        return Leg(self, self.now, 0, self._curvature)

    def _resumed_segment(self, state: DescentState) -> Leg:
        """The leg of the state, to be told again; where that would not be the same again, one that begins there."""
        problem = self.problem
        self._started -= state.history[-1].seconds
        self._first_norm, self._renewal = state.first_norm, state.renewal
        value, gradient = problem.value_and_gradient(state.began.theta)
        first = state.answers[0]
        same = value == first.value and first.gradient is not None and np.array_equal(first.gradient, gradient.ravel())
        if problem.comm.bcast(same, 0):
            self.now = state.began
            return Leg(self, self.now, state.first, self._initial_hessian or state.known, state.answers)
        self.now = state.now
        self.restore()
        return Leg(self, self.now, state.history[-1].iteration, self._initial_hessian)

    def _outcome(self, code: int) -> tuple[str, str]:
        """Status and reason in words."""
        names = {getattr(REASONS, name): name for name in dir(REASONS) if name.isupper()}
        limit, tolerance = self._settings.max_iterations, self._settings.gradient_tolerance
        fallen = self.history[-1].gradient_norm / self._first_norm if self._first_norm else 0.0
        if self._stopped:
            return "max_iterations", "stopped by the caller"
        if code == REASONS.CONVERGED_GATOL and not self._first_norm:
            return "converged", "the gradient is zero"
        if code == REASONS.CONVERGED_GATOL and fallen > tolerance:
            return "failed", f"{self._settings.method.name} stands still at {fallen:.1e} of the first gradient norm"
        if code == REASONS.CONVERGED_GATOL:
            return "converged", f"the gradient norm fell below {tolerance:g} times its first value"
        if code > 0:
            return "converged", f"TAO ended with {names.get(code, code)}"
        if code == REASONS.DIVERGED_MAXITS:
            return "max_iterations", f"the limit of {limit} iterations was reached"
        if code == REASONS.DIVERGED_MAXFCN:
            return "max_iterations", "the limit of evaluations was reached (-tao_max_funcs)"
        if code == REASONS.DIVERGED_LS_FAILURE and fallen <= STAGNATION:
            reason = f"no lower value is in reach, and the gradient norm fell to {fallen:.1e} of its first value"
            return "converged", reason
        if code == REASONS.DIVERGED_LS_FAILURE:
            reason = f"the line search found no lower value: {self._obstacle(fallen)}; the best iterate is kept"
            return "failed", "; ".join(filter(None, (reason, self._settings.advice)))
        return "failed", f"TAO ended with {names.get(code, code)}; the best iterate is kept"

    def _obstacle(self, fallen: float) -> str:
        """Why a line search may have failed."""
        rejected = self.problem.rejected_evaluations - self._rejected
        if self._leg is not None and self._leg.rejection is not None and rejected > 0:
            return f"J could not be evaluated at {rejected} of its trial points ({self._leg.rejection})"
        return (
            f"the gradient norm is still {fallen:.1e} of its first value, so either the gradient is wrong (`eulerian "
            "verify` checks it) or J is not smooth enough there"
        )


def minimise(
    problem: ReducedProblem,
    theta0: ArrayLike | None = None,
    *,
    method: str = LMVM,
    petsc_options: str = "",
    max_iterations: int = 100,
    gradient_tolerance: float = 1e-6,
    metric: str = "velocity",
    callback: Callable[[Record], object] | None = None,
    curvature: Curvature | None = None,
    first_norm: float | None = None,
) -> OptimiseResult:
    """Minimise J from ``theta0`` (the problem's initial θ by default). Collective.

    TAO works on a variable that is distributed over the ranks, and every rank reads the same bits. It is θ scaled to
    the inner product of L²(0, T), so that refining the layers does not change the iteration; with ``lmvm`` and a field
    that tells its derivatives by θ it is stretched to the inner product of the velocities that θ makes, made anew after
    5, 10, 20, 40, … iterations. A trial point at which J cannot be evaluated counts as +∞ in the line search.

    Args:
        problem: J.
        theta0: the starting point.
        method: a TAO type that needs gradients only.
        petsc_options: like ``"-tao_ls_type more-thuente"``; applies to this minimisation only.
        max_iterations: at most this many.
        gradient_tolerance: on the gradient norm relative to that at the start.
        metric: "velocity", or "parameters" for L²(0, T) whatever the method and the field.
        callback: called once per iteration on all ranks; a true result ends the minimisation.
        curvature: what an earlier descent has learnt near ``theta0``; methods other than ``lmvm`` have no use for it.
        first_norm: the gradient norm that the tolerance is relative to, if not that at the start.

    Raises:
        InputError: J cannot be evaluated at ``theta0``, or PETSc does not know the method or an option's value.
    """
    settings = Settings(Method(method, petsc_options), max_iterations, gradient_tolerance, metric)
    return Descent(problem, settings, theta0, curvature=curvature, first_norm=first_norm).run(callback)
