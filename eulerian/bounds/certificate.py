"""How far a trained flow is from the best possible one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Unpack, final

from numpy.typing import ArrayLike

from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.bounds.bracket import ContinuousBounds, ConvexOptions, Origin, of_hopf_lax
from eulerian.bounds.continuous import continuous_bounds
from eulerian.bounds.convex_estimate import estimate
from eulerian.bounds.hopf_lax import try_hopf_lax
from eulerian.bounds.several_times import TimedFunctional, composed
from eulerian.control.control import ControlProblem
from eulerian.control.end_costs import EndCost
from eulerian.ideal.functionals import functional_of
from eulerian.ideal.problem import LABEL_BY_LABEL, LEAST_SLABS, PARTS, IdealProblem

KEY = "bound"

_WHAT: dict[Origin, str] = {
    "hopf_lax": "the lower bound",
    "transform": "the lower bound",
    "monotone": "the lower bound",
    "convex": "an estimate of the lower bound,",
}
_ORIGIN: dict[Origin, str] = {
    "hopf_lax": "Hopf–Lax",
    "transform": "the transform of a potential",
    "monotone": "flows on the line keep the order of points",
    "convex": "the dual of the convex problem, discretised on two meshes and {slabs} time slabs",
}

# A distance is told with three digits: by how much the bound may be off, relative to that and to itself.
_PRECISION = 1e-3

# A bound that is smaller than this, relative to the parts of J, is no measure of a distance to it.
_SMALL = 0.1


@final
@dataclass(frozen=True)
class Certificate:
    """A lower bound for terminal loss + kinetic energy + running costs of any flow, and the distance of one flow to it.

    The bound is that of the continuous problem, whatever the mesh, so the gap of costs that are verified is ≥ 0 up to
    the errors of both. Costs of θ and of ∇v are not counted: they only raise J, so the bound holds for J with them too.
    A potential or an entropy may be negative, and so may the bound then. But parts of opposite sign may cancel, and a
    distance relative to what is left of them would mean nothing. So where there are running costs of the density, the
    gap is taken relative to the sum of the parts' absolute values in the ideal flow; where none of its parts is
    negative, that is the bound itself.

    Congestion and entropy are those of all labels' density together, at least as high as those of the labels one by one
    (a convex function that is 0 at 0 is superadditive), which the bound is made of.

    Fields that do not see the label although the costs do: on the line their flows keep the order of points, and the
    bound is the exact infimum of such flows (``monotone_bound``). In the plane and in space it is that of fields that
    see the label: ever wilder flows come close to it, none attains it. There, and with costs of all labels' density
    together, a distance is given in absolute terms only: of what the best flow leaves over, nobody knows how much it
    is. So it is where the bound is ≤ 0, without running costs, or far below the parts of J.

    Losses at several times have a bound of their own (``hopf_lax_at``). Where there is none, as with distances from
    densities at several times, the bound is that without the costs at given times, as long as these cannot be negative.
    It says so, and a distance to it is given in absolute terms only.

    Attributes:
        ideal: the lower bound.
        gap: the flow's terminal loss, kinetic energy and running costs, minus the bound.
        relative_gap: gap over the size of the bound (see above); NaN where it would mean nothing.
        bound: what it comes from: "hopf_lax", "transform" (of a potential), "monotone", or "convex", an estimate.
        error: of the bound, absolute; NaN where it is an estimate whose error is not known.
        statement: all this in one sentence.
    """

    ideal: float
    gap: float
    relative_gap: float
    bound: Origin
    error: float
    statement: str


def certify(
    problem: ControlProblem,
    theta: ArrayLike | None = None,
    bound: Literal["auto", "hopf_lax", "convex"] = "auto",
    *,
    slabs: int | None = None,
    verified: Mapping[str, float] | None = None,
    **convex: Unpack[ConvexOptions],
) -> Certificate:
    """Compare a flow with the best possible one. **Collective**.

    For example, after ``result = eulerian.minimise(problem)``: ``eulerian.certify(problem, result.theta).statement``.

    Args:
        problem: on a mesh.
        theta: of the flow; by default that of the last evaluation.
        bound: where it comes from; "auto" takes what is known of the continuous problem where there is something, else
            the convex solver's estimate.
        slabs: time slabs of the convex solver; None for as many as the problem has layers, and at least 16.
        verified: the parts of J of the flow itself, by characteristics, which are then held against the bound. Where
            one is missing or not finite those of the mesh are, and the statement says so.
        convex: tolerances and callback, as for ``solve_convex``.

    Raises:
        InputError: there is no bound of this kind.
        RejectedEvaluation: J cannot be evaluated at θ.
        ComputationError: the convex solver broke down.
    """
    if theta is not None:
        problem.value(theta)
    if not problem.parts:
        raise RejectedEvaluation(problem.rejection or "J has not been evaluated yet")
    ideal = ideal_problem(problem, slabs)
    own = [(verified or {}).get(name, math.nan) for name in PARTS]
    # All or none: parts of the flow and parts of the mesh add up to the cost of nothing.
    exact = all(map(math.isfinite, own))
    parts = own if exact else [problem.parts.get(name, 0.0) for name in PARTS]
    cost = sum(parts)
    ideal, left_out = _with_times(problem, ideal)
    found = _lower_bound(problem, ideal, bound, cost, convex)
    gap, caveats = cost - found.lower, _unattained(problem, ideal, found)
    if left_out:
        what = "the bound leaves out the costs at given times, which cannot be negative: in general no flow attains it"
        caveats.append(f"{what} ({left_out})")
    relative = math.nan if caveats else _relative(gap, found, sum(map(abs, parts)))
    if not caveats and math.isnan(relative):
        kind = "is not positive" if found.lower <= 0.0 else "lies so far below the parts of J"
        caveats = [f"as a percentage of a bound that {kind} it would tell nothing"]
    caveats += _caveats(problem, gap, found, exact=exact)
    if verified is not None and not exact:
        caveats.append("the costs are those of the mesh, because the flow's own are not known")
    certificate = Certificate(found.lower, gap, relative, found.origin, found.error, "")
    whose = " of the flow itself" if exact else ""
    costs = f"{_names(problem, ideal)}{whose}"
    return replace(certificate, statement=_statement(certificate, found, cost, ideal, caveats, costs))


def ideal_problem(problem: ControlProblem, slabs: int | None = None) -> IdealProblem:
    """The idealised problem of a control problem, with the readout of its last evaluation. **Collective**.

    Args:
        problem: evaluated at the θ in question.
        slabs: time slabs; None for as many as the problem has layers, and at least 16.

    Raises:
        InputError: the idealised problem does not know the terminal functional.
    """
    space, readout, costs = problem.density_space, problem.terminal_readout(problem.theta), problem.costs
    if costs.running is not None:
        raise InputError(costs.running.ideal_cannot, key="costs.running", value=costs.running.kind)
    potential = problem.continuous.potential
    return IdealProblem(
        space,
        problem.initial,
        functional_of(problem.terminal, space, readout),
        costs.kinetic,
        problem.horizon,
        slabs or max(problem.n_layers, LEAST_SLABS),
        potential=None if potential is None else potential.at(problem.split(problem.theta)[1]),
        congestion=costs.congestion,
        entropy=costs.entropy,
        interaction=costs.interaction,
        initial=problem.continuous.initial,
    )


def _timed(problem: ControlProblem) -> tuple[EndCost, ...]:
    """The costs at given times that are parts of J."""
    return tuple(cost for cost in problem.ends.later if cost.at.weight > 0.0)


def _with_times(problem: ControlProblem, ideal: IdealProblem) -> tuple[IdealProblem, str]:
    """What to bound: with costs at several times the problem until the first of them; or why they are left out.

    Collective.

    Raises:
        InputError: they may be negative, so that the bound without them would be none.
    """
    costs, readout = _timed(problem), problem.split(problem.theta)[1]
    if not costs:
        return ideal, ""
    layer_time = problem.horizon / problem.n_layers
    try:
        timed = [
            TimedFunctional(
                cost.at.layer * layer_time if cost.at.layer < problem.n_layers else problem.horizon,
                cost.at.weight,
                functional_of(cost.functional, ideal.space, readout[cost.readout]),
            )
            for cost in costs
        ]
        return composed(ideal, timed).problem, ""
    except InputError as error:
        reason = error.what
    losses = [cost.functional.loss for cost in costs]
    if all(loss is None or loss.non_negative for loss in losses):  # distances are not negative
        return ideal, reason
    what = f"no lower bound is known: {reason}, and the costs at given times may be negative"
    raise InputError(what, key="at", remedy="Leave the bound out.")


def _relative(gap: float, bound: ContinuousBounds, size: float) -> float:
    """A gap relative to its bound, or NaN where the bound is no measure beside J's parts, which sum up to ``size``."""
    negative = bound.lower <= 0.0 and bound.size == abs(bound.lower)
    return math.nan if negative or not bound.size > _SMALL * size else gap / bound.size


def _lower_bound(
    problem: ControlProblem, ideal: IdealProblem, kind: str, cost: float, convex: ConvexOptions
) -> ContinuousBounds:
    """A lower bound of a given kind, as accurate as its distance to a cost needs it. Collective."""

    def accuracy(about: float) -> float:
        return _PRECISION * min(abs(cost - about), abs(about))

    if kind == "convex":
        return estimate(ideal, **convex)
    if kind == "hopf_lax":
        exact, reason = try_hopf_lax(ideal, accuracy)
        if exact is None:
            raise InputError(f"Hopf–Lax does not apply: {reason}", key=KEY, value="hopf_lax", remedy='Use "convex".')
        return of_hopf_lax(exact)
    on_line = ideal.space.dim == 1 and ideal.functional.loss is not None and not ideal.running
    # With several times labels would have to keep their order at each of them.
    if on_line and not _timed(problem) and _is_blind(problem, ideal):
        from eulerian.bounds.monotone_flows import monotone_bound  # not often

        best = monotone_bound(ideal)
        return ContinuousBounds(best.value, best.value, best.error, "monotone", True, abs(best.value))
    return continuous_bounds(ideal, lower_only=True, accuracy=accuracy, **convex)


def _is_blind(problem: ControlProblem, ideal: IdealProblem) -> bool:
    """Whether the costs tell labels apart, and the field does not. Collective."""
    return len(problem.groups) < problem.density_space.n_labels and ideal.functional.tells_labels_apart(ideal.space)


def _statement(
    certificate: Certificate, bound: ContinuousBounds, cost: float, ideal: IdealProblem, caveats: list[str], costs: str
) -> str:
    """The certificate in one sentence; ``costs``: which and whose they are."""
    percent = 100 * abs(certificate.relative_gap)
    number = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    share = "" if math.isnan(percent) else f" ({number} %)"
    if bound.size != abs(bound.lower):
        share = f" ({number} % of the sizes of its parts)"
    side = "above" if certificate.gap >= 0.0 else "below"
    doubt = f" ± {certificate.error:.1g}" if math.isfinite(certificate.error) else ", of unknown error"
    sentence = (
        f"{costs} add up to {cost:.6g}, which is {abs(certificate.gap):.3g}{share} {side} {_WHAT[certificate.bound]} "
        f"{certificate.ideal:.6g}{doubt} for any flow ({_ORIGIN[certificate.bound].format(slabs=ideal.slabs)})"
    )
    return "; ".join([sentence, *caveats]) + "."


def _names(problem: ControlProblem, ideal: IdealProblem) -> str:
    """The costs that are held against a bound, in words."""
    more = [(bool(_timed(problem)), "costs at given times"), (True, "kinetic energy")]
    more.append((ideal.running is not None, "running costs of the density"))
    *names, last = ["Terminal loss", *(name for there, name in more if there)]
    return f"{', '.join(names)} and {last}"


def _unattained(problem: ControlProblem, ideal: IdealProblem, bound: ContinuousBounds) -> list[str]:
    """Why in general no flow of this kind attains the bound, if that is so. Collective."""
    found = []
    if bound.origin != "monotone" and _is_blind(problem, ideal):
        found.append(
            "the bound lets the velocity depend on the label, which this field does not see: in general none of its "
            "flows attains the bound, and how much of the distance could be saved is not known"
        )
    if ideal.couples_labels:
        found.append(LABEL_BY_LABEL)
    return found


def _caveats(problem: ControlProblem, gap: float, bound: ContinuousBounds, *, exact: bool) -> list[str]:
    """What else the reader of a certificate must know."""
    found = []
    if gap < 0.0:
        close = exact and gap >= -bound.error
        found.append(
            "to be below it is " + ("within the errors of both" if close else "an error of the discretisation")
        )
    if bound.reason:
        found.append(f"an estimate, because {bound.reason}")
    limit = getattr(problem.field, "max_speed", None)
    if limit is not None:
        found.append(f"it is that of flows of any speed, and those that keep to the limit of {limit:g} may stay above")
    if problem.split(problem.theta)[1].size:
        found.append("it is the bound for the readout as trained")
    return found
