"""Minimise J, with PETSc's optimisers on a variable in which the problem's inner product is Euclidean."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats, theta_array
from eulerian.base.errors import EulerianError, InputError, RejectedEvaluation
from eulerian.base.log import LOGGER
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.box import Bounds, Box, started_inside, stationarity
from eulerian.optimise.callbacks import Callback, following
from eulerian.optimise.lbfgs_pairs import Curvature, IterateHistory
from eulerian.optimise.replay import Best, DescentState, Iterate
from eulerian.optimise.result import History, OptimiseResult, Record
from eulerian.optimise.segment import Segment
from eulerian.optimise.settings import VERIFIED, Settings, ending
from eulerian.optimise.tao import LMVM, REASONS, chosen
from eulerian.optimise.verified_stop import PATIENCE, NetworkObjective, falls_no_more, is_due

# Iterations before the velocity metric is made anew for the first time; each time it then serves twice as long.
_FIRST_METRIC = 5


@final
class Descent:
    """One minimisation of J; after any iteration it has a state, from which another one goes on. **Collective**.

    From a state of the same problem, computed by the same programs on the same kind of processor and on as many ranks,
    it goes on as if it had never stopped, to the last bit: earlier evaluations are replayed to the optimiser. Elsewhere
    it goes on from the same θ, with an optimiser made anew from the L-BFGS pairs of the last steps.

    Args:
        problem: J.
        settings: how.
        theta: the starting point, the problem's initial θ by default.
        initial_hessian: the L-BFGS pairs of an earlier descent that ended near ``theta``; of use to ``lmvm`` only.
        first_norm: the gradient norm that the tolerance is relative to, if not that at the start.
        state: of the descent to go on with; it brings its own starting point.
        before: iterations of earlier stages, for the numbers in its reason to end.

    Attributes:
        problem: J.
        box: that θ stays in; None without bounds.
        current: the last iterate.
        history: one record per iteration.
    """

    def __init__(
        self,
        problem: ReducedProblem,
        settings: Settings,
        theta: ArrayLike | None = None,
        *,
        initial_hessian: Curvature | None = None,
        first_norm: float | None = None,
        state: DescentState | None = None,
        before: int = 0,
    ) -> None:
        self._before = before
        self._started = time.perf_counter()
        self.problem, self._settings = problem, settings
        self.box = None if settings.bounds is None else Box.of(settings.bounds, problem.initial_theta.shape)
        start = theta_array(problem.initial_theta if theta is None else theta)
        self.current = Iterate(start if state is not None else started_inside(problem, settings.bounds, start))
        self.history: list[Record] = [] if state is None else list(state.history)
        self._keeps_pairs = settings.method.name == LMVM
        self._given_hessian = initial_hessian if self._keeps_pairs else None
        self._first_norm, self._resumed = first_norm, state
        self._renewal = _FIRST_METRIC
        self._callback: Callable[[Record], object] | None = None
        self._segment: Segment | None = None
        self._stopped = self._falls_no_more = False
        self._truth: NetworkObjective | None = None
        self._verified: float | None = None  # J of the network itself at the present iterate
        self._rejected = 0  # evaluations before the best iterate was found

    def run(self, callback: Callable[[Record], object] | None = None) -> OptimiseResult:
        """Minimise, once. **Collective**.

        What goes wrong after the first record, on all ranks alike, raises nothing: the result says so, and has the best
        iterate.

        Args:
            callback: called once per iteration on all ranks; a true result, the same on all, ends the minimisation.

        Raises:
            InputError: J cannot be evaluated at the start, or PETSc does not know the method or an option's value.
            ComputationError: the gradient is not finite there, or the state is one of another J.
        """
        self._callback = callback
        try:
            status, reason = self._outcome(self._minimise())
            best, said = self._chosen()
        except EulerianError as error:
            # Without a new record there is no result that could say what went wrong.
            if len(self.history) == (0 if self._resumed is None else len(self._resumed.history)):
                raise
            status, reason, said = "failed", f"{error}; the best iterate is kept", ""
            assert self.current.best is not None
            best = self.current.best
        reason += said + self._at_bounds(best.theta)
        if self.problem.comm.rank == 0:
            LOGGER.info("%s: J = %.8g; %s", status, best.value, reason)
        return OptimiseResult(
            best.theta,
            best.value,
            best.gradient_norm,
            self.history[-1].iteration,
            status,
            reason,
            History(self.history),
            self._latest_pairs if self._keeps_pairs else None,
            verified=best.verified,
        )

    @property
    def state(self) -> DescentState:
        """After the last iteration; from inside of callbacks on. Not collective."""
        segment, problem = self._segment, self.problem
        assert segment is not None
        assert self._first_norm is not None
        return DescentState(
            start=segment.start,
            first=segment.first,
            initial_hessian=None if segment.start.points else segment.initial_hessian,
            renewal=self._renewal,
            replay=tuple(segment.evaluations),
            current=self.current,
            history=tuple(self.history),
            first_norm=self._first_norm,
            evaluations=problem.evaluations,
            rejected_evaluations=problem.rejected_evaluations,
            lost="" if self._truth is None else self._truth.lost,
        )

    # -- what segments call ------------------------------------------------------------------------------------------

    def record_iterate(self, iteration: int, theta: Floats, value: float, gradient: Floats | None, norm: float) -> None:
        """Keep the next iterate: θ where J is ``value``, dJ/dθ (flat) if it is known, and its norm. **Collective**."""
        points = IterateHistory(self.problem.n_params, self.current.points, self.problem.units)
        if gradient is not None and self._keeps_pairs:
            points.add(theta.ravel(), gradient)
        best = self.current.best
        # Not always the last one: a search that ignores ascent, as `unit` does, goes up too.
        if math.isfinite(value) and (best is None or value < best.value):
            best = Best(value, theta, norm)
            self._rejected = self.problem.rejected_evaluations
        self._verified = self._verified_at(iteration, theta)
        lowest = self.current.verified
        if self._verified is not None and (lowest is None or self._verified < cast(float, lowest.verified)):
            lowest = Best(value, theta, norm, self._verified)
        self.current = Iterate(theta, best, points.points, lowest)

    def report(self, iteration: int, value: float, norm: float) -> None:
        """Make the record of the present iterate, where J was evaluated last, and call back. **Collective**."""
        seconds = time.perf_counter() - self._started
        evaluations, verified = self.problem.evaluations, self._verified
        record = Record(iteration, value, self.problem.parts, norm, evaluations, seconds, verified=verified)
        self.history.append(record)
        if self.problem.comm.rank == 0:
            own = "" if verified is None else f", J of the network itself = {verified:.8g}"
            LOGGER.info("iteration %d: J = %.8g, |∇J| = %.3e%s", iteration, value, norm, own)
        self._stopped = self._callback is not None and bool(self._callback(record))

    def stopping_reason(self, iteration: int, norm: float) -> int | None:
        """TAO's reason to end after an iteration, if there is one. Not collective."""
        assert self._first_norm is not None
        if self._stopped:
            return int(REASONS.CONVERGED_USER)
        if norm <= self._settings.gradient_tolerance * self._first_norm:
            return int(REASONS.CONVERGED_GATOL)
        if self._truth is not None and falls_no_more(self.history):
            self._falls_no_more = True
            return int(REASONS.CONVERGED_USER)
        if iteration >= self._settings.max_iterations:
            return int(REASONS.DIVERGED_MAXITS)
        return None

    def restore(self) -> None:
        """Evaluate J at the θ of the state, as it was evaluated last when the state was taken. **Collective**.

        Raises:
            ComputationError: J is another one there.
        """
        state, problem = self._resumed, self.problem
        assert state is not None
        state.require_same(problem)
        problem.value_and_gradient(state.current.theta)
        # Counts are those of the run, not of this process.
        problem.evaluations, problem.rejected_evaluations = state.evaluations, state.rejected_evaluations

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _minimise(self) -> int:
        """Segment by segment; TAO's reason to end. **Collective**."""
        settings, resumed = self._settings, self._resumed
        if settings.stop == VERIFIED:
            self._truth = NetworkObjective(self.problem, lost="" if resumed is None else resumed.lost)
        self._segment = self._first_segment() if self._resumed is None else self._resumed_segment(self._resumed)
        if self.history and self._segment.iteration == self.history[-1].iteration:
            # The segment begins at an iterate that is recorded already: that may be the end.
            code = self.stopping_reason(self._segment.iteration, self.history[-1].gradient_norm)
            if code is not None:
                return code
        while True:
            renewal = self._renewal if settings.metric == "velocity" else None
            code = self._segment.run(settings.method, settings.max_iterations, renewal)
            if self._stopped or self._falls_no_more or code != REASONS.CONVERGED_USER:
                return code
            if self._segment.iteration == self._renewal:
                self._renewal *= 2
            self._segment = Segment(self, self.current, self._segment.iteration, self._latest_pairs)

    @property
    def _latest_pairs(self) -> Curvature | None:
        """The L-BFGS pairs of the last steps; None where none are kept."""
        problem, points = self.problem, self.current.points
        return IterateHistory(problem.n_params, points, problem.units).curvature if points else None

    def _first_segment(self) -> Segment:
        value, gradient = self.problem.value_and_gradient(self.current.theta)
        if not math.isfinite(value):
            raise _no_start(self.problem.rejected)
        if self._first_norm is None:
            self._first_norm = stationarity(self.problem, self.box, self.current.theta, gradient)
        return Segment(self, self.current, 0, self._given_hessian)

    def _resumed_segment(self, state: DescentState) -> Segment:
        """The segment of the state, to be replayed; a new one from its θ where the replay would not be exact."""
        problem = self.problem
        self._started -= state.history[-1].seconds  # the clock goes on where the history ends
        self._first_norm, self._renewal = state.first_norm, state.renewal
        value, gradient = problem.value_and_gradient(state.start.theta)
        first = state.replay[0]
        same = value == first.value and first.gradient is not None and np.array_equal(first.gradient, gradient.ravel())
        if problem.comm.bcast(same, 0):  # one bit more or less may differ on some ranks only
            self.current = state.start
            return Segment(self, self.current, state.first, self._latest_pairs or state.initial_hessian, state.replay)
        self.current = state.current
        self.restore()
        return Segment(self, self.current, state.history[-1].iteration, self._latest_pairs)

    def _verified_at(self, iteration: int, theta: Floats) -> float | None:
        """J of the network itself at an iterate, if it is asked for there. **Collective**."""
        if iteration < len(self.history):  # replayed
            return self.history[iteration].verified
        return self._truth.value(theta) if self._truth is not None and is_due(iteration) else None

    def _chosen(self) -> tuple[Best, str]:
        """The iterate to return, and what there is to say of it; once all is done. **Collective**."""
        best, lowest, truth = self.current.best, self.current.verified, self._truth
        assert best is not None
        if truth is None:
            return best, ""
        last = self.history[-1]
        if last.total == best.value and last.verified is not None:
            best = replace(best, verified=last.verified)
        else:
            best = replace(best, verified=truth.value(best.theta))
        if truth.lost:
            return replace(best, verified=None), f"; J of the network itself had no say: {truth.lost}"
        if lowest is None or cast(float, best.verified) <= cast(float, lowest.verified):
            return best, ""
        number = next(record.iteration for record in self.history if record.total == lowest.value)
        why = "" if self._falls_no_more else ", where the network's own J is lowest"
        return lowest, f"; iterate {self._before + number} of {self._before + last.iteration} is kept{why}"

    def _at_bounds(self, theta: Floats) -> str:
        """What there is to say of bounds at the θ that is returned."""
        if self.box is None:
            return ""
        return f"; {self.box.active(theta)} of {theta.size} numbers of θ are at a bound ({self._settings.method.name})"

    def _outcome(self, code: int) -> tuple[str, str]:
        """Status and reason in words."""
        if self._stopped:
            return "stopped", "stopped by the caller"
        if self._falls_no_more:
            return "converged", f"the network's own J has not fallen for {PATIENCE} checks"
        reduction = self.history[-1].gradient_norm / self._first_norm if self._first_norm else None
        return ending(code, self._settings, reduction, lambda: self._obstacle(reduction or 0.0))

    def _obstacle(self, reduction: float) -> str:
        """Why a line search may have failed."""
        rejected = self.problem.rejected_evaluations - self._rejected
        if self._segment is not None and self._segment.rejection is not None and rejected > 0:
            return f"J could not be evaluated at {rejected} of its trial points ({self._segment.rejection})"
        return (
            f"the {self._settings.gradient_name} norm is still {reduction:.1e} of its first value, so either the "
            "gradient is wrong (`eulerian verify` checks it) or J is not smooth enough there"
        )


def _no_start(rejected: RejectedEvaluation | None) -> InputError:
    """What to raise where J has no value at the starting point, because of the field or of what is said to be."""
    if rejected is not None and rejected.key is not None:
        what = f"is not finite for the density at the start ({rejected})"
        return InputError(what, key=rejected.key, remedy=rejected.remedy)
    remedy = "Start from a slower field: zero_init = true, or field.max_speed (in Python eu.Mlp(max_speed=…))"
    what = f"J cannot be evaluated at the starting point: {rejected}"
    return InputError(what, key="field.theta", remedy=remedy)


def minimise(
    problem: ReducedProblem,
    theta: ArrayLike | None = None,
    *,
    max_iterations: int = 100,
    gradient_tolerance: float = 1e-6,
    method: str | None = None,
    petsc_options: str = "",
    metric: str = "velocity",
    callback: Callback | None = None,
    progress: bool = False,
    initial_hessian: Curvature | None = None,
    first_norm: float | None = None,
    stop: str = "gradient",
    bounds: Bounds | None = None,
) -> OptimiseResult:
    """Minimise J, from the problem's initial θ by default. **Collective**.

    TAO works on a variable that is distributed over the ranks, and every rank reads the same bits. It is θ scaled to
    the inner product of L²(0, T), so that refining the layers does not change the iteration; with ``lmvm`` and a field
    that has derivatives by θ it is scaled to the inner product of the velocities that θ makes, anew after 5, 10, 20,
    40, … iterations. A trial point at which J cannot be evaluated counts as +∞ in the line search.

    Ctrl-C ends the minimisation after the present iteration, on all ranks, with the status "interrupted" and the best
    iterate; pressed again it raises KeyboardInterrupt at once.

    Args:
        problem: J.
        theta: the starting point.
        max_iterations: at most this many.
        gradient_tolerance: on the gradient norm relative to that at the start.
        method: a TAO type that needs gradients only; by default "lmvm", with bounds "bqnls".
        petsc_options: like ``"-tao_ls_type more-thuente"``; applies to this minimisation only.
        metric: "velocity", or "parameters" for L²(0, T) whatever the method and the field.
        callback: called with the ``Record`` of each iteration on all ranks; a true result on any of them ends the
            minimisation, with the status "stopped".
        progress: show a bar on rank 0.
        initial_hessian: ``result.curvature`` of an earlier minimisation that ended near ``theta``; of use to ``lmvm``.
        first_norm: the gradient norm that the tolerance is relative to, if not that at the start.
        stop: "gradient" to end by the tolerance; "verified" to end as well when J of the network itself, by
            characteristics, falls no more, and to return the iterate where that is lowest. On a mesh that is too coarse
            for its flow the J of the mesh falls on while that of the network rises.
        bounds: lower and upper ones of θ: numbers for all of it, a trained readout included, or arrays that broadcast
            to its shape; None or ±∞ for none. Where they touch a number is held. A θ to start from that is beyond them
            is brought to them, as TAO does. The tolerance, and ``gradient_norm``, are then those of the projected
            gradient: without the numbers at a bound that J would fall beyond. Methods that keep to bounds are bqnls,
            blmvm, bqnktr, bqnktl and bncg; they work in L²(0, T), whatever ``metric`` is.

    Raises:
        InputError: J cannot be evaluated at the start, PETSc does not know the method or an option's value, J of the
            network itself is to be verified and cannot be, or bounds do not fit θ or the method.
    """
    how = chosen(method, petsc_options, bounded=bounds is not None)
    settings = Settings(how, max_iterations, gradient_tolerance, metric, stop=stop, bounds=bounds)
    descent = Descent(problem, settings, theta, initial_hessian=initial_hessian, first_norm=first_norm)
    with following(problem.comm, callback, max_iterations if progress else None) as follower:
        return follower.outcome(descent.run(follower))
