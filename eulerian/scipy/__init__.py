"""J as a function that ``scipy.optimize.minimize`` takes."""

import math
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import RejectedEvaluation
from eulerian.control.evaluations import Evaluations

__all__ = ["Objective", "objective"]


@final
class Objective:
    """θ ↦ (J, ∇J) of flat vectors; make it with ``objective``.

    Attributes:
        x0: where to start, (n_params,).
        rejected: how many evaluations were rejected.
    """

    def __init__(self, problem: Any) -> None:
        self._evaluate, self.rejected = Evaluations(problem), 0
        self.x0: Floats = problem.initial_theta.ravel()
        self._shape, self._largest = problem.initial_theta.shape, -math.inf
        self._last: tuple[Floats, float, Floats] | None = None  # of finite J

    def __call__(self, x: ArrayLike) -> tuple[float, Floats]:
        """J and its gradient (n_params,) at x (n_params,). Collective.

        Where J cannot be evaluated it is +∞ for the problem, which SciPy's line searches do not survive. They are given
        a parabola instead, which continues J from where it was finite last and rises above all that it has been, and
        take a shorter step.

        Raises:
            InputError: x has the wrong size.
            RejectedEvaluation: J cannot be evaluated where the descent starts.
            ComputationError: J is finite, but its gradient is not.
        """
        at = np.array(x, dtype=np.float64)
        found = self._evaluate(at)
        assert found.gradient is not None
        if not math.isfinite(found.value):
            self.rejected += 1
            return self._continued(at)
        self._largest, self._last = max(self._largest, found.value), (at, found.value, found.gradient)
        return found.value, found.gradient.copy()

    def _continued(self, x: Floats) -> tuple[float, Floats]:
        """Value and gradient of the parabola at x."""
        if self._last is None:
            raise RejectedEvaluation(self._evaluate.problem.rejection or "J cannot be evaluated at the start")
        at, value, gradient = self._last
        high, step = self._largest + max(1.0, abs(self._largest)), x - at
        square = float(step @ step)
        if not 0.0 < square < math.inf:  # not finite, or too far to say how far
            return high, np.zeros_like(gradient)
        curvature = max(2.0 * (high - value - float(gradient @ step)) / square, 0.0)
        return high, gradient + curvature * step

    def theta(self, x: ArrayLike) -> Floats:
        """A vector x in the shape of θ, as problems take it."""
        return np.array(x, dtype=np.float64).reshape(self._shape)


def objective(problem: Any) -> Objective:
    """J of a problem, with its exact gradient, for ``scipy.optimize.minimize``.

    For example::

        J = eulerian.scipy.objective(problem)
        found = scipy.optimize.minimize(J, J.x0, jac=True, method="L-BFGS-B")
        theta = J.theta(found.x)

    Under ``mpirun`` all ranks run the same minimisation, and rank 0's x counts.

    Args:
        problem: a ``ControlProblem`` or a ``ParticleProblem``.

    Raises:
        InputError: it is none.
    """
    return Objective(problem)
