"""L-BFGS pairs: what the last steps say about the second derivative of J, for the next optimiser to begin with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.fields.frame import ParameterUnits

# Pairs that L-BFGS works with. PETSc's five are few where a network is trained: on twelve problems twenty reached in 60
# iterations what five reached in 65 to 100, and fifty hardly more.
MEMORY = 20

LARGEST = 2**28  # bytes of remembered pairs on a rank; a free field on a fine mesh keeps fewer
_LEAST_COSINE = 1e-8  # between step and slope; below it their product is rounding, not convexity


@final
@dataclass(frozen=True)
class Curvature:
    """Steps of θ and what they changed in the gradient: the pairs of a quasi-Newton method, oldest first.

    Attributes:
        steps: (m, n_params), changes of θ (flat).
        slopes: (m, n_params), the changes of dJ/dθ along with them.
    """

    steps: Floats
    slopes: Floats

    @classmethod
    def of(cls, steps: Floats, slopes: Floats, units: ParameterUnits | None = None) -> "Curvature":
        """The pairs (m, n_params) along which J is convex: BFGS can use no others.

        Args:
            steps: (m, n_params), changes of θ.
            slopes: (m, n_params), of dJ/dθ.
            units: to θ in units of the domain's box.
        """
        units = ParameterUnits() if units is None else units
        # In units of the box: in others step and slope may be all but orthogonal only because the units are unequal.
        changes = [(units.relative(s), units.gradient(g)) for s, g in zip(steps, slopes, strict=True)]
        along = np.array([change @ slope for change, slope in changes])
        length = np.array([np.linalg.norm(change) * np.linalg.norm(slope) for change, slope in changes])
        convex = along > _LEAST_COSINE * length
        return cls(steps[convex], slopes[convex])

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.steps)


@final
class IterateHistory:
    """The last iterates of a descent with their gradients, whose differences are its L-BFGS pairs.

    Args:
        n_params: numbers in θ.
        points: θ and dJ/dθ of earlier iterates, oldest first.
        units: of θ, as for ``Curvature.of``.
    """

    def __init__(
        self, n_params: int, points: Sequence[tuple[Floats, Floats]] = (), units: ParameterUnits | None = None
    ) -> None:
        self._units = units
        self._length = 1 + max(1, min(MEMORY, LARGEST // (16 * n_params)))
        self._points = list(points)

    def add(self, theta: Floats, gradient: Floats) -> None:
        """Append the iterate θ (flat), where dJ/dθ is ``gradient``; the oldest one is dropped."""
        # A new segment evaluates its start again: a step of length zero would be no pair.
        if not self._points or not np.array_equal(self._points[-1][0], theta):
            self._points = [*self._points, (theta.copy(), gradient.copy())][-self._length :]

    @property
    def points(self) -> tuple[tuple[Floats, Floats], ...]:
        """θ and dJ/dθ of the iterates, oldest first; never changed in place."""
        return tuple(self._points)

    @property
    def curvature(self) -> Curvature:
        """The pairs of the steps between the iterates."""
        thetas, gradients = (np.array(each) for each in zip(*self._points, strict=True))
        return Curvature.of(np.diff(thetas, axis=0), np.diff(gradients, axis=0), self._units)
