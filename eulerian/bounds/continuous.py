"""What the continuous problem is worth: a bracket around its value, whatever mesh the problem is posed on.

For a loss the formula of Hopf and Lax is exact; for distances from a target density a potential and its map bound the
value from both sides (``transform_bounds``). Elsewhere, with running costs of the density or where straight paths would
leave the domain, the convex solver's values on two meshes are held against each other: an estimate, not a bound.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from eulerian.bounds.bracket import ContinuousBounds, ConvexOptions, of_hopf_lax
from eulerian.bounds.convex_estimate import estimate
from eulerian.bounds.convexity import straight_domain
from eulerian.bounds.hopf_lax import Accuracy, try_hopf_lax
from eulerian.ideal.problem import IdealProblem

if TYPE_CHECKING:
    from eulerian.ideal.dynamic_ot import ConvexSolution


def continuous_bounds(
    problem: IdealProblem,
    solution: "ConvexSolution | None" = None,
    *,
    lower_only: bool = False,
    accuracy: Accuracy | None = None,
    **convex: Unpack[ConvexOptions],
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
        lower_only: an upper bound is not wanted, and the lower one may be a little worse.
        accuracy: tells an error of the lower bound that is small enough in any case, of about what it is.
        convex: tolerances and callback of the convex solver, where it is needed.

    Raises:
        InputError: λ = 0, or what else the convex solver refuses.
        ComputationError: the convex solver broke down.
    """
    exact, reason = try_hopf_lax(problem, accuracy)
    if exact is not None:
        return of_hopf_lax(exact)
    if problem.running is None and problem.functional.exact is not None and problem.kinetic > 0.0:
        from eulerian.bounds.transform_bounds import transform_bounds  # sparse matrices take their time to load

        if straight_domain(problem.space) is not None:
            found = transform_bounds(problem, lower_only=lower_only, accuracy=accuracy)
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
    from eulerian.bounds.walled_bounds import walled_bounds
    from eulerian.ideal.dynamic_ot import solve_convex

    return walled_bounds(problem, (solution or solve_convex(problem, **convex)).flow)
