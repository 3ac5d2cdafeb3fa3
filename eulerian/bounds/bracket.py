"""A bracket around the value of the continuous problem: what finds it, and how it is told."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, final

from eulerian.bounds.hopf_lax import HopfLax
from eulerian.ideal.problem import GapRecord

type Origin = Literal["hopf_lax", "transform", "monotone", "convex"]


class ConvexOptions(TypedDict, total=False):
    """The arguments of ``solve_convex`` besides the problem."""

    gap_tolerance: float
    residual_tolerance: float
    max_iterations: int
    callback: Callable[[GapRecord], None]


@final
@dataclass(frozen=True)
class ContinuousBounds:
    """lower − error ≤ J* ≤ upper + error for the value J* of the continuous problem.

    Attributes:
        lower: a bound from below; with ``is_bound`` false an estimate.
        upper: the cost of a flow and its own error, +∞ where none is known.
        error: absolute, of the lower bound, and of both where they are the same: quadrature and search; for an estimate
            what two meshes differ by and more, NaN where there is no second one.
        origin: where the lower bound comes from.
        is_bound: whether it is one, up to its error.
        size: what distances to it are measured by: the sum of the sizes of J's parts, as far as they are known.
        hopf_lax: the exact solution, where there is one.
        reason: why it is an estimate, or empty.
    """

    lower: float
    upper: float
    error: float
    origin: Origin
    is_bound: bool
    size: float
    hopf_lax: HopfLax | None = None
    reason: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """The bracket for ``result.json``: what is not known is None."""
        numbers = {"lower": self.lower, "upper": self.upper, "error": self.error}
        known = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {**known, "origin": self.origin, "is_bound": self.is_bound, "reason": self.reason or None}

    @property
    def statement(self) -> str:
        """The bracket in one line."""
        what = "lower ≤ J* ≤ upper" if self.is_bound else "an estimate of lower ≤ J* ≤ upper"
        upper = f"{self.upper:.8g}" if math.isfinite(self.upper) else "unknown"
        doubt = f" ± {self.error:.1g}" if math.isfinite(self.error) else ", of unknown error"
        reason = f" ({self.reason})" if self.reason else ""
        return f"Continuous problem, {what}: {self.lower:.8g} … {upper}{doubt}{reason}"


def of_hopf_lax(exact: HopfLax) -> ContinuousBounds:
    """An exact solution as a bracket."""
    value = exact.value
    return ContinuousBounds(value, value, exact.error, "hopf_lax", True, abs(value), exact)
