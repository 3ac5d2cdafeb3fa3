"""Bounds on θ: the box that a descent stays in, and when it has come to an end there."""

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.log import LOGGER
from eulerian.control.reduced import ReducedProblem

type Bounds = tuple[ArrayLike | None, ArrayLike | None]
"""Lower and upper ones: numbers for all of θ, or arrays that broadcast to its shape; None or ±∞ for none."""

_REMEDY = "Give (lower, upper): numbers, or arrays that broadcast to the shape of θ; None for no bound."


@final
@dataclass(frozen=True)
class Box:
    """All θ between bounds, which may touch: then a number is held.

    Attributes:
        lower: (n_params,), may be −∞.
        upper: (n_params,), may be ∞.
    """

    lower: Floats
    upper: Floats

    @classmethod
    def of(cls, bounds: Bounds, shape: tuple[int, ...]) -> Self:
        """The box of bounds for a θ of a shape.

        Raises:
            InputError: they are no bounds, or do not fit.
        """
        try:
            low, high = bounds
        except (TypeError, ValueError):
            raise InputError("are no pair", key="bounds", value=repr(bounds)[:60], remedy=_REMEDY) from None
        lower, upper = _side(low, -np.inf, shape), _side(high, np.inf, shape)
        wrong = ~(lower <= upper) | (lower == np.inf) | (upper == -np.inf)
        if np.any(wrong):
            i = int(np.argmax(wrong))
            value, remedy = f"[{lower[i]:g}, {upper[i]:g}]", "Every lower bound must be at most the upper one."
            raise InputError("hold no number", key="bounds", value=value, remedy=remedy)
        return cls(lower, upper)

    def nearest(self, theta: Floats) -> Floats:
        """The point of the box that is nearest to θ, in its shape; θ itself, to the last bit, where it is inside."""
        return np.clip(theta.ravel(), self.lower, self.upper).reshape(theta.shape)

    def free(self, theta: Floats, gradient: Floats) -> Floats:
        """The part (n_params,) of dJ/dθ that J can fall along: zero where a bound at θ is in the way."""
        theta, gradient = theta.ravel(), gradient.ravel()
        blocked = ((theta <= self.lower) & (gradient > 0.0)) | ((theta >= self.upper) & (gradient < 0.0))
        return np.where(blocked, 0.0, gradient)

    def active(self, theta: Floats) -> int:
        """How many numbers of θ are at a bound."""
        flat = theta.ravel()
        return int(np.count_nonzero((flat <= self.lower) | (flat >= self.upper)))


def box_scaling(problem: ReducedProblem) -> Floats:
    """Factors (n_params,) of θ in a variable in which bounds are bounds, with the lengths of L²(0, T).

    θ in units of the domain's box, but for what a W adds to the b behind it: that would turn the box of θ.
    """
    return problem.scaling * problem.units.diagonal(problem.n_params)


def stationarity(problem: ReducedProblem, box: Box | None, theta: Floats, gradient: Floats) -> float:
    """The norm in L²(0, T) of dJ/dθ, in a box of what is free of it: zero where J cannot fall any more."""
    if box is None:
        return problem.gradient_norm(gradient)
    return float(np.linalg.norm(box.free(theta, gradient) / box_scaling(problem)))


def started_inside(problem: ReducedProblem, bounds: Bounds | None, theta: Floats) -> Floats:
    """Where a descent within bounds starts that was to start at θ, in its shape: brought into the box, as TAO does.

    Raises:
        InputError: the bounds, or θ, do not fit the problem.
    """
    if bounds is None:
        return theta
    problem.split(theta)  # refuses a wrong size
    inside = Box.of(bounds, problem.initial_theta.shape).nearest(theta)
    moved = int(np.count_nonzero(inside != theta))
    if moved and problem.comm.rank == 0:
        LOGGER.info("%d of %d numbers of the starting θ are beyond their bounds, and start there", moved, theta.size)
    return inside


def _side(bound: Any, missing: float, shape: tuple[int, ...]) -> Floats:
    """Lower or upper bounds, flat."""
    try:
        array = np.array(missing if bound is None else bound, dtype=np.float64)
        return np.broadcast_to(array, shape).ravel()
    except (TypeError, ValueError):
        what = f"must be numbers, or arrays that broadcast to the shape {shape} of θ"
        raise InputError(what, key="bounds", value=repr(np.shape(bound) or bound)[:60], remedy=_REMEDY) from None
