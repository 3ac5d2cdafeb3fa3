"""How far a trained flow is from the best possible one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack, final

from numpy.typing import ArrayLike

from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.control.control import ControlProblem
from eulerian.ideal.functionals import functional_of
from eulerian.ideal.hopf_lax import try_hopf_lax
from eulerian.ideal.problem import LABEL_BY_LABEL, LEAST_SLABS, PARTS, GapRecord, IdealProblem

KEY = "bound"

# A bound that is smaller than this, relative to the parts of J, is no measure of a distance to it.
_SMALL = 0.1


@final
@dataclass(frozen=True)
class Certificate:
    """A lower bound for terminal loss + kinetic energy + running costs of any flow, and the distance of one flow to it.

    Costs of θ and of ∇v are not counted: they only raise J, so the bound holds for J with them too. A potential or an
    entropy may be negative, and so may the bound then: it stays a bound, and the gap is ≥ 0 up to the discretisation.
    But parts of opposite sign may cancel, and a distance relative to what is left of them would mean nothing. So where
    there are running costs of the density, the gap is taken relative to the sum of the parts' absolute values in the
    ideal flow; where none of its parts is negative, that is the bound itself.

    Congestion and entropy are those of all labels' density together, at least as high as those of the labels one by one
    (a convex function that is 0 at 0 is superadditive), which the bound is made of.

    A distance is given in absolute terms only where no flow of the kind attains the bound (a field that does not see
    labels although the costs do, costs of all labels' density together): of what the best one leaves over, nobody knows
    how much it is. So it is where the bound is ≤ 0, without running costs, or far below the parts of J.

    Attributes:
        ideal: the lower bound.
        gap: the flow's terminal loss, kinetic energy and running costs, minus the bound.
        relative_gap: gap over the size of the bound (see above); NaN where it would mean nothing.
        bound: what it comes from.
        statement: all this in one sentence.
    """

    ideal: float
    gap: float
    relative_gap: float
    bound: Literal["hopf_lax", "convex"]
    statement: str


@final
@dataclass(frozen=True)
class _Bound:
    """A lower bound, where it comes from, and the size that distances to it are measured by."""

    value: float
    origin: Literal["hopf_lax", "convex"]
    size: float


class ConvexOptions(TypedDict, total=False):
    """The arguments of ``solve_convex`` besides the problem."""

    gap_tolerance: float
    residual_tolerance: float
    max_iterations: int
    callback: Callable[[GapRecord], None]


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
        bound: where it comes from; "auto" takes Hopf–Lax where that applies, which is exact and quick.
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
    found = _lower_bound(ideal, bound, convex)
    own = [(verified or {}).get(name, math.nan) for name in PARTS]
    # All or none: parts of the flow and parts of the mesh add up to the cost of nothing.
    exact = all(map(math.isfinite, own))
    parts = own if exact else [problem.parts.get(name, 0.0) for name in PARTS]
    cost = sum(parts)
    gap, caveats = cost - found.value, _unattained(problem, ideal)
    relative = math.nan if caveats else _relative(gap, found, sum(map(abs, parts)))
    if not caveats and math.isnan(relative):
        kind = "is not positive" if found.value <= 0.0 else "lies so far below the parts of J"
        caveats = [f"as a percentage of a bound that {kind} it would tell nothing"]
    caveats += _caveats(problem, gap, exact=exact)
    if verified is not None and not exact:
        caveats.append("the costs are those of the mesh, because the flow's own are not known")
    certificate = Certificate(found.value, gap, relative, found.origin, "")
    whose = " of the flow itself" if exact else ""
    return replace(certificate, statement=_statement(certificate, found, cost, ideal, caveats, whose))


def ideal_problem(problem: ControlProblem, slabs: int | None = None) -> IdealProblem:
    """The idealised problem of a control problem, with the readout of its last evaluation. **Collective**.

    Args:
        problem: evaluated at the θ in question.
        slabs: time slabs; None for as many as the problem has layers, and at least 16.

    Raises:
        InputError: the idealised problem does not know the terminal functional.
    """
    space, readout, costs = problem.density_space, problem.split(problem.theta)[1], problem.costs
    return IdealProblem(
        space,
        problem.initial,
        functional_of(problem.terminal, space, readout),
        costs.kinetic,
        problem.horizon,
        slabs or max(problem.n_layers, LEAST_SLABS),
        potential=costs.potential,
        congestion=costs.congestion,
        entropy=costs.entropy,
        initial=problem.continuous.initial,
    )


def _relative(gap: float, bound: _Bound, size: float) -> float:
    """A gap relative to its bound, or NaN where the bound is no measure beside J's parts, which sum up to ``size``."""
    negative = bound.value <= 0.0 and bound.size == abs(bound.value)
    return math.nan if negative or not bound.size > _SMALL * size else gap / bound.size


def _lower_bound(problem: IdealProblem, kind: str, convex: ConvexOptions) -> _Bound:
    """A lower bound of a given kind. Collective."""
    if kind != "convex":
        exact, reason = try_hopf_lax(problem)
        if exact:
            return _Bound(exact.value, "hopf_lax", abs(exact.value))
        if kind == "hopf_lax":
            raise InputError(f"Hopf–Lax does not apply: {reason}", key=KEY, value="hopf_lax", remedy='Use "convex".')
    if problem.kinetic <= 0.0:
        raise InputError("the convex solver needs kinetic energy", key="kinetic", value=problem.kinetic)
    from eulerian.ideal.dynamic_ot import solve_convex  # loads a good part of SciPy, which takes its time

    solution = solve_convex(problem, **convex)
    size = abs(solution.dual)
    if problem.running is not None:
        # Σ|part| is the sum of the parts, here the dual value, minus twice the negative ones.
        size = abs(solution.dual + 2.0 * sum(-part for part in solution.parts.values() if part < 0.0))
    return _Bound(solution.dual, "convex", size)


def _statement(
    certificate: Certificate, bound: _Bound, cost: float, ideal: IdealProblem, caveats: list[str], whose: str
) -> str:
    """The certificate in one sentence; ``whose`` costs they are, if not the mesh's."""
    percent = 100 * abs(certificate.relative_gap)
    number = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    share = "" if math.isnan(percent) else f" ({number} %)"
    if bound.size != abs(bound.value):
        share = f" ({number} % of the sizes of its parts)"
    costs = f"Terminal loss and kinetic energy{whose} add up to"
    if ideal.running is not None:
        costs = f"Terminal loss, kinetic energy and running costs of the density{whose} add up to"
    side = "above" if certificate.gap >= 0.0 else "below"
    origin = {
        "hopf_lax": "Hopf–Lax",
        "convex": f"the dual of the convex problem, discretised on this mesh and {ideal.slabs} time slabs",
    }[certificate.bound]
    sentence = (
        f"{costs} {cost:.6g}, which is {abs(certificate.gap):.3g}{share} {side} the lower bound "
        f"{certificate.ideal:.6g} for any flow ({origin})"
    )
    return "; ".join([sentence, *caveats]) + "."


def _unattained(problem: ControlProblem, ideal: IdealProblem) -> list[str]:
    """Why in general no flow of this kind attains the bound, if that is so. Collective."""
    found = []
    if len(problem.groups) < problem.density_space.n_labels and ideal.functional.tells_labels_apart(ideal.space):
        found.append(
            "the bound lets the velocity depend on the label, which this field does not see: in general none of its "
            "flows attains the bound, and how much of the distance could be saved is not known"
        )
    if ideal.couples_labels:
        found.append(LABEL_BY_LABEL)
    return found


def _caveats(problem: ControlProblem, gap: float, *, exact: bool) -> list[str]:
    """What else the reader of a certificate must know."""
    found = []
    if gap < 0.0:
        found.append("to be below it is an error of the discretisation" + (" of ρ₀" if exact else ""))
    if problem.split(problem.theta)[1].size:
        found.append("it is the bound for the readout as trained")
    return found
