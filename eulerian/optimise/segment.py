"""The part of a descent in which one optimiser works in one metric."""

import math
from typing import Protocol, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.first_step import in_initial_hessian, in_sensible_unit
from eulerian.optimise.lbfgs_pairs import LARGEST, MEMORY, Curvature
from eulerian.optimise.metric import Metric
from eulerian.optimise.replay import Evaluation, Iterate
from eulerian.optimise.result import Record
from eulerian.optimise.tao import LMVM, REASONS, Method, lbfgs_matrix
from eulerian.optimise.velocity_metric import velocity_metric


def longest_segment(n_params: int) -> int:
    """Iterations of a leg: all its answers are kept, and may take as much room as the curvature."""
    return max(MEMORY, LARGEST // (8 * n_params))


class Whole(Protocol):
    """The descent that a leg is a part of."""

    problem: ReducedProblem
    history: list[Record]

    def stand(self, theta: Floats, value: float, gradient: Floats | None, norm: float) -> None:
        """The next iterate: θ where J is ``value``, dJ/dθ (flat) if it is known, and its norm."""

    def tell(self, iteration: int, value: float, norm: float) -> None:
        """Make and tell the record of the present iterate, where J was evaluated last. Collective."""

    def restore(self) -> None:
        """All answers have been told again: be where the state is. Collective."""

    def stopping_reason(self, iteration: int, norm: float) -> int | None:
        """TAO's reason to end after an iteration, if there is one."""


@final
class Leg:
    """The optimiser asks, and J answers; or what J has answered before is told again.

    Args:
        descent: whose part.
        began: where the descent stands.
        first: iterations before.
        known: the curvature that the optimiser is given.
        told: what J has answered in this leg before, to be told again.

    Attributes:
        began: where the leg began.
        first: iterations before it.
        known: the curvature that it began with.
        iteration: the last one that was accepted.
        answers: of J so far.
        rejection: why J could not be evaluated at the last trial point where it could not.
    """

    def __init__(
        self,
        descent: Whole,
        began: Iterate,
        first: int,
        known: Curvature | None,
        told: tuple[Evaluation, ...] = (),
    ) -> None:
        self.began, self.first = began, first
        self.known = known if known is not None and len(known) else None
        self.iteration = first if first else -1  # where a leg begins, another one has ended: that iterate is known
        self.answers: list[Evaluation] = []
        self._descent, self._problem, self._told = descent, descent.problem, told
        self._last = first  # iteration at which the leg ends
        self._metric = Metric(self._problem.scaling, units=self._problem.units)
        self._origin = np.zeros(0)  # the variable at its start
        self._seen: tuple[Floats, Floats, float] | None = None  # θ of the last gradient, that, and its norm
        self.rejection: str | None = None

    def run(self, method: Method, max_iterations: int, renewal: int | None) -> int:
        """Go on until the optimiser is to be made anew, or to the end; TAO's reason to stop. Collective.

        Args:
            method: the optimiser.
            max_iterations: of the descent.
            renewal: the iteration at which the metric of velocities is to be made anew; None for no such metric.
        """
        problem, theta = self._problem, self.began.theta
        value, gradient = problem.value_and_gradient(theta)
        found = velocity_metric(problem) if method.name == LMVM and renewal is not None else None
        metric = Metric(problem.scaling, units=problem.units) if found is None else found
        known = self.known
        if known is None:
            metric = in_sensible_unit(problem, metric, theta, value, gradient)
        else:
            metric = in_initial_hessian(metric, known)
        longest = self.first + longest_segment(problem.n_params)
        self._last = longest if found is None or renewal is None else min(renewal, longest)
        self._metric, self._origin = metric, metric.variable(theta.ravel())
        initial_hessian = None
        if known is not None:
            slope = metric.gradient(gradient.ravel())
            initial_hessian = lambda x: lbfgs_matrix(known, metric, x, slope)  # noqa: E731
        return method.run(problem.comm, self, self._origin, max_iterations - self.first, initial_hessian)

    def value(self, x: Floats) -> float:
        """J at the variable x (n,). Collective."""
        answer = self._known_answer() or Evaluation(self._problem.value(self._theta(x)))
        self.rejection = self._problem.rejection or self.rejection
        self.answers.append(answer)
        return answer.value

    def value_and_gradient(self, x: Floats) -> tuple[float, Floats]:
        """J and its derivative by x, both (n,). Collective."""
        theta, answer = self._theta(x), self._known_answer()
        if answer is None:
            value, found = self._problem.value_and_gradient(theta)
            answer = Evaluation(value, found.ravel())
            self.rejection = self._problem.rejection or self.rejection
        self.answers.append(answer)
        gradient = answer.gradient
        assert gradient is not None
        self._seen = theta, gradient, self._problem.gradient_norm(gradient)
        return answer.value, self._metric.gradient(gradient)

    def accepted(self, iteration: int, value: float, norm: float, x: Floats) -> int | None:
        """The next iterate; TAO's reason to stop there, or None. Collective."""
        iteration += self.first
        if iteration == self.iteration:
            return None
        self.iteration, descent = iteration, self._descent
        latest = descent.history[-1].iteration if descent.history else -1
        theta, gradient = self._theta(x), None
        # The last trial point is nearly always the accepted one: then this is free.
        if iteration > latest and not math.isfinite(self._problem.value(theta)):
            raise ComputationError(f"J cannot be evaluated at the next iterate: {self._problem.rejection}")
        if self._seen is not None and np.array_equal(self._seen[0], theta):
            _, gradient, norm = self._seen
        elif iteration <= latest:
            norm = descent.history[iteration].gradient_norm
        else:  # the optimiser's own norm may be that of a rejected trial point, which is zero
            norm = self._problem.gradient_norm(self._problem.value_and_gradient(theta)[1])
        descent.stand(theta, value, gradient, norm)
        if iteration < latest:
            return None
        if iteration == latest:
            descent.restore()
        else:
            descent.tell(iteration, value, norm)
        reason = descent.stopping_reason(iteration, norm)
        return int(REASONS.CONVERGED_USER) if reason is None and iteration >= self._last else reason

    def _theta(self, x: Floats) -> Floats:
        """θ of the variable, from a point that is known to the last bit."""
        start = self.began.theta
        return np.asarray(start + self._metric.theta(x - self._origin).reshape(start.shape))

    def _known_answer(self) -> Evaluation | None:
        """What J has answered to this question before, or None."""
        index = len(self.answers)
        return self._told[index] if index < len(self._told) else None
