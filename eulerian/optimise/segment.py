"""A segment of a descent: from where the optimiser is made, in one metric, to where it is made anew."""

import math
from typing import Protocol, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.box import Box, box_scaling, stationarity
from eulerian.optimise.lbfgs_pairs import LARGEST, MEMORY, Curvature
from eulerian.optimise.metric import Metric, velocity_metric
from eulerian.optimise.replay import Evaluation, Iterate
from eulerian.optimise.result import Record
from eulerian.optimise.tao import LMVM, REASONS, Method, lbfgs_matrix


def longest_segment(n_params: int) -> int:
    """Iterations of a segment, at most: all its evaluations are kept, and may take as much room as the L-BFGS pairs."""
    return max(MEMORY, LARGEST // (8 * n_params))


class Recorder(Protocol):
    """The descent that a segment is a part of, as the segment sees it."""

    problem: ReducedProblem
    box: Box | None
    history: list[Record]
    current: Iterate

    def record_iterate(self, iteration: int, theta: Floats, value: float, gradient: Floats | None, norm: float) -> None:
        """Keep the next iterate: θ where J is ``value``, dJ/dθ (flat) if it is known, and its norm. **Collective**."""

    def report(self, iteration: int, value: float, norm: float) -> None:
        """Make the record of the present iterate, where J was evaluated last, and call back. **Collective**."""

    def restore(self) -> None:
        """All evaluations have been replayed: take up the state that they lead to. **Collective**."""

    def stopping_reason(self, iteration: int, norm: float) -> int | None:
        """TAO's reason to end after an iteration, if there is one."""


@final
class Segment:
    """Evaluates J where the optimiser asks for it, or replays what was evaluated there before.

    Args:
        descent: whose part.
        start: where the descent is.
        first: the iteration of that.
        initial_hessian: the L-BFGS pairs that the optimiser begins with.
        replay: the evaluations of this very segment in an earlier process.

    Attributes:
        start: as given.
        first: as given.
        initial_hessian: as given; None if it is empty.
        iteration: the last one that was accepted.
        evaluations: so far, replayed ones included.
        rejection: why J could not be evaluated at the last trial point where it could not.
    """

    def __init__(
        self,
        descent: Recorder,
        start: Iterate,
        first: int,
        initial_hessian: Curvature | None,
        replay: tuple[Evaluation, ...] = (),
    ) -> None:
        self.start, self.first = start, first
        self.initial_hessian = initial_hessian if initial_hessian is not None and len(initial_hessian) else None
        self.iteration = first if first else -1  # later segments begin at an iterate that the one before has recorded
        self.evaluations: list[Evaluation] = []
        self.rejection: str | None = None
        self._descent, self._problem, self._replay = descent, descent.problem, replay
        self._box = descent.box
        self._last = first  # iteration at which the segment ends
        self._metric = self._plain_metric
        self._origin = np.zeros(0)  # the variable at its start
        self._sides: tuple[Floats, Floats] | None = None  # of the variable
        self._latest: tuple[Floats, Floats, float] | None = None  # θ of the last gradient, that, and its norm

    def run(self, method: Method, max_iterations: int, renewal: int | None) -> int:
        """Go on until the optimiser is to be made anew, or to the end; TAO's reason to stop. **Collective**.

        Args:
            method: the optimiser.
            max_iterations: of the descent.
            renewal: the iteration at which the metric of velocities is to be made anew; None for no such metric.
        """
        problem, theta, pairs = self._problem, self.start.theta, self.initial_hessian
        value, gradient = problem.value_and_gradient(theta)
        found = velocity_metric(problem) if method.name == LMVM and renewal is not None else None
        metric = self._plain_metric if found is None else found
        if pairs is None:
            free = gradient if self._box is None else self._box.free(theta, gradient).reshape(theta.shape)
            metric = scaled_to_first_step(problem, metric, theta, value, free)
        else:
            metric = scaled_to_last_pair(metric, pairs)
        longest = self.first + longest_segment(problem.n_params)
        self._last = longest if found is None or renewal is None else min(renewal, longest)
        self._metric, self._origin = metric, metric.variable(theta.ravel())
        if self._box is not None:
            # With the origin where it starts, a number that starts at its bound does so in the variable, too.
            self._origin = np.zeros(problem.n_params)
            low, high = (metric.variable(side - theta.ravel()) for side in (self._box.lower, self._box.upper))
            self._sides = low, high
        make_hessian = None
        if pairs is not None:
            slope = metric.gradient(gradient.ravel())
            make_hessian = lambda x: lbfgs_matrix(pairs, metric, x, slope)  # noqa: E731
        return method.run(problem.comm, self, self._origin, max_iterations - self.first, make_hessian, self._sides)

    def value(self, x: Floats) -> float:
        """J at the variable x (n,). **Collective**."""
        evaluation = self._replayed() or Evaluation(self._problem.value(self._theta(x)))
        self.rejection = self._problem.rejection or self.rejection
        self.evaluations.append(evaluation)
        return evaluation.value

    def value_and_gradient(self, x: Floats) -> tuple[float, Floats]:
        """J and its derivative by x, both (n,). **Collective**."""
        theta, evaluation = self._theta(x), self._replayed()
        if evaluation is None:
            value, found = self._problem.value_and_gradient(theta)
            evaluation = Evaluation(value, found.ravel())
            self.rejection = self._problem.rejection or self.rejection
        self.evaluations.append(evaluation)
        gradient = evaluation.gradient
        assert gradient is not None
        self._latest = theta, gradient, stationarity(self._problem, self._box, theta, gradient)
        return evaluation.value, self._metric.gradient(gradient)

    def accepted(self, iteration: int, value: float, norm: float, x: Floats) -> int | None:
        """Record the next iterate; TAO's reason to stop there, or None. **Collective**."""
        iteration, theta, descent = iteration + self.first, self._theta(x), self._descent
        if iteration == self.iteration:
            if self._box is None or norm > 0.0 or np.array_equal(theta, descent.current.theta):
                return None
            iteration += 1  # `bncg` ends without counting its last step where nothing of the gradient is left after it
        self.iteration = iteration
        latest = descent.history[-1].iteration if descent.history else -1
        # The last trial point is nearly always the accepted one: then this is free.
        if iteration > latest and not math.isfinite(self._problem.value(theta)):
            raise ComputationError(f"J cannot be evaluated at the next iterate: {self._problem.rejection}")
        gradient, norm = self._gradient_at(theta, iteration, latest)
        descent.record_iterate(iteration, theta, value, gradient, norm)
        if iteration < latest:
            return None
        if iteration == latest:
            descent.restore()
        else:
            descent.report(iteration, value, norm)
        reason = descent.stopping_reason(iteration, norm)
        return int(REASONS.CONVERGED_USER) if reason is None and iteration >= self._last else reason

    def _gradient_at(self, theta: Floats, iteration: int, latest: int) -> tuple[Floats | None, float]:
        """dJ/dθ at an iterate, where it is known already, and its norm. **Collective**."""
        if self._latest is not None and np.array_equal(self._latest[0], theta):
            return self._latest[1:]
        if iteration <= latest:
            return None, self._descent.history[iteration].gradient_norm
        # Not the norm that TAO gives: that may be of a rejected trial point, where it is zero.
        gradient = self._problem.value_and_gradient(theta)[1]
        return None, stationarity(self._problem, self._box, theta, gradient)

    def _theta(self, x: Floats) -> Floats:
        """θ of the variable."""
        # Relative to the start, so that x = origin gives its θ to the last bit: a resumed run begins there.
        start = self.start.theta
        theta = np.asarray(start + self._metric.theta(x - self._origin).reshape(start.shape))
        if self._box is None or self._sides is None:
            return theta
        # What is at a bound in the variable is there in θ, to the last bit, and nothing is beyond one.
        inside, (low, high) = self._box.nearest(theta).ravel(), self._sides
        inside = np.where(x <= low, self._box.lower, np.where(x >= high, self._box.upper, inside))
        return inside.reshape(start.shape)

    @property
    def _plain_metric(self) -> Metric:
        """That of L²(0, T)."""
        problem = self._problem
        return Metric(problem.scaling, units=problem.units) if self._box is None else Metric(box_scaling(problem))

    def _replayed(self) -> Evaluation | None:
        """What was evaluated here in an earlier process, or None."""
        index = len(self.evaluations)
        return self._replay[index] if index < len(self._replay) else None


def scaled_to_first_step(
    problem: ReducedProblem, metric: Metric, theta: Floats, value: float, gradient: Floats
) -> Metric:
    """The metric in the unit in which a gradient is a sensible step: it is an optimiser's first. **Collective**.

    σ² = |∇J|²/(2|J|): the step would halve a quadratic of minimum zero. Near a minimum that is far too long, so it is
    bounded by a change of the velocity that crosses the domain once. A wild first step may throw all mass into one
    cell, where the gradient says little and nothing leads back.

    Args:
        problem: J.
        metric: in any unit.
        theta: where the descent starts.
        value: J there.
        gradient: dJ/dθ there, in the shape of θ.
    """
    norm = metric.norm(gradient.ravel())
    if norm <= 0.0 or not abs(value) > 1e-12 * norm:
        return metric.times(max(norm, 1.0))
    unit = norm / math.sqrt(2.0 * abs(value))
    scaled = metric.times(unit)
    step = scaled.theta(scaled.gradient(gradient.ravel()))
    crossing = problem.extent / problem.horizon
    crossings = problem.velocity_change(theta, step) / crossing
    return metric.times(unit * math.sqrt(crossings)) if 1.0 < crossings < math.inf else scaled


def scaled_to_last_pair(metric: Metric, pairs: Curvature) -> Metric:
    """The metric in the unit in which the second derivative of J along the last step is one."""
    step, slope = pairs.steps[-1], pairs.slopes[-1]
    return metric.times(metric.norm(slope) / math.sqrt(float(step @ slope)))
