"""What the continuous problem is worth: a bracket around its value, whatever mesh the problem is posed on.

For a loss the formula of Hopf and Lax is exact; for distances from a target density a potential and its map bound the
value from both sides (``transform_bounds``). Elsewhere, with running costs of the density or where straight paths would
leave the domain, the convex solver's values on two meshes are held against each other: an estimate, not a bound.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, final

from eulerian.base.errors import InputError
from eulerian.ideal.convexity import straight_domain
from eulerian.ideal.hopf_lax import HopfLax, try_hopf_lax
from eulerian.ideal.problem import GapRecord, IdealProblem

if TYPE_CHECKING:
    from eulerian.ideal.dynamic_ot import ConvexSolution

type Origin = Literal["hopf_lax", "transform", "monotone", "convex"]

_SLACK = 2.0  # times what two meshes differ by: the finer one's error, if it falls with h or faster


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
        upper: the cost of a flow, +∞ where none is known.
        error: absolute, of both: quadrature and search; for an estimate what two meshes differ by, NaN where there is
            no second one.
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


def continuous_bounds(
    problem: IdealProblem, solution: "ConvexSolution | None" = None, **convex: Unpack[ConvexOptions]
) -> ContinuousBounds:
    """A bracket around the value of the continuous problem. **Collective**.

    For example::

        import eulerian as eu

        space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [16, 16]))
        start, goal = eu.Gaussian([-0.5, 0.3], std=0.5), eu.Gaussian([1.0, -0.5], std=0.3)
        problem = eu.IdealProblem(space, start, eu.KullbackLeibler(goal), kinetic=0.5)
        bounds = eu.continuous_bounds(problem)
        print(bounds.lower - bounds.error, bounds.upper + bounds.error)

    Args:
        problem: the idealised one.
        solution: its convex solution, if it is known already.
        convex: tolerances and callback of the convex solver, where it is needed.

    Raises:
        InputError: λ = 0, or what else the convex solver refuses.
        ComputationError: the convex solver broke down.
    """
    exact, reason = try_hopf_lax(problem)
    if exact is not None:
        return of_hopf_lax(exact)
    if problem.running is None and problem.functional.target is not None and problem.kinetic > 0.0:
        from eulerian.ideal.transform_bounds import transform_bounds  # sparse matrices take their time to load

        if straight_domain(problem.space) is not None:
            found = transform_bounds(problem)
            return ContinuousBounds(found.lower, found.upper, found.error, "transform", True, abs(found.lower))
        reason = "the domain is not convex"
        if problem.space.dim == 2:
            return _walled(problem, solution, **convex)
    guess = estimate(problem, solution, **convex)
    return replace(guess, reason="; ".join(filter(None, (reason, guess.reason))))


def _walled(
    problem: IdealProblem, solution: "ConvexSolution | None", **convex: Unpack[ConvexOptions]
) -> ContinuousBounds:
    """Collective."""
    from eulerian.ideal.dynamic_ot import solve_convex
    from eulerian.ideal.walled_bounds import walled_bounds

    return walled_bounds(problem, (solution or solve_convex(problem, **convex)).flow)


def of_hopf_lax(exact: HopfLax) -> ContinuousBounds:
    """An exact solution as a bracket."""
    value = exact.value
    return ContinuousBounds(value, value, exact.error, "hopf_lax", True, abs(value), exact)


def estimate(
    problem: IdealProblem, solution: "ConvexSolution | None" = None, **convex: Unpack[ConvexOptions]
) -> ContinuousBounds:
    """The value of the convex solver, with an error from a second mesh; arguments as above. **Collective**."""
    if problem.kinetic <= 0.0:
        raise InputError("the convex solver needs kinetic energy", key="kinetic", value=problem.kinetic)
    from eulerian.ideal.dynamic_ot import solve_convex  # loads a good part of SciPy, which takes its time
    from eulerian.ideal.second_mesh import on_second_mesh

    own = solution or solve_convex(problem, **convex)
    value, error, reason = own.dual, math.nan, ""
    try:
        second, finer = on_second_mesh(problem)
    except InputError as failure:
        reason = f"there is no second mesh: {failure.what}"
    else:
        other = solve_convex(second, **convex)
        value = other.dual if finer else own.dual
        error = _SLACK * abs(own.dual - other.dual) + max(abs(own.gap), abs(other.gap))
    return ContinuousBounds(value, math.inf, error, "convex", False, _size(problem, own), None, reason)


def _size(problem: IdealProblem, solution: "ConvexSolution") -> float:
    """The sum of the sizes of J's parts, for a value that may be small because they cancel."""
    if problem.running is None:
        return abs(solution.dual)
    # Σ|part| is the sum of the parts, here the dual value, minus twice the negative ones.
    return abs(solution.dual + 2.0 * sum(-part for part in solution.parts.values() if part < 0.0))
