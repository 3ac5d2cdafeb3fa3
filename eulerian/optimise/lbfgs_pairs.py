"""What a descent has learnt about the second derivative, to be used by the next one."""

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
_LEAST_COSINE = 1e-8


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
        """Those of the pairs (m, n_params) along which J is convex: BFGS can use no others.

        ``units`` lead to numbers in which the pairs are not all but orthogonal only because of the user's units.
        """
        units = ParameterUnits() if units is None else units
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
    """The last points of a descent, from which its curvature is read off.

    Args:
        n_params: numbers in θ.
        points: θ and dJ/dθ of points to start with, oldest first.
        units: of θ, as for ``Curvature.of``.
    """

    def __init__(
        self, n_params: int, points: Sequence[tuple[Floats, Floats]] = (), units: ParameterUnits | None = None
    ) -> None:
        self._units = units
        self._length = 1 + max(1, min(MEMORY, LARGEST // (16 * n_params)))
        self._points = list(points)

    def add(self, theta: Floats, gradient: Floats) -> None:
        """The descent has come to θ (flat), where dJ/dθ is ``gradient``."""
        if not self._points or not np.array_equal(self._points[-1][0], theta):
            self._points = [*self._points, (theta.copy(), gradient.copy())][-self._length :]

    @property
    def points(self) -> tuple[tuple[Floats, Floats], ...]:
        """θ and dJ/dθ of the points, oldest first; they are never changed."""
        return tuple(self._points)

    @property
    def curvature(self) -> Curvature:
        """Of the steps between the points."""
        thetas, gradients = (np.array(each) for each in zip(*self._points, strict=True))
        return Curvature.of(np.diff(thetas, axis=0), np.diff(gradients, axis=0), self._units)
