"""How far a trained flow is from the best possible one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

from eulerian.config import Ideal
from eulerian.control import ControlProblem
from eulerian.errors import InputError
from eulerian.ideal.functionals import Functional, KullbackLeibler, Linear, SquaredDistance
from eulerian.ideal.hopf_lax import HopfLax, solve_hopf_lax
from eulerian.ideal.problem import LABEL_BY_LABEL, PARTS, GapRecord, IdealProblem
from eulerian.ideal.running_cost import RunningCost
from eulerian.objective.terminal import KullbackLeiblerLoss, SquaredDistanceLoss

KEY = "ideal.certificate"


@final
@dataclass(frozen=True)
class Certificate:
    """A lower bound for terminal loss + kinetic energy + running costs of any flow, and the distance of one flow to it.

    Costs of θ and of ∇v are not counted: they only raise J, so the bound holds for J with them too. A potential or an
    entropy may be negative, and so may the bound then: it stays a bound, and the gap is ≥ 0 up to the discretisation.
    But parts of opposite sign may cancel, and a distance relative to what is left of them would tell nothing. So where
    there are running costs of the density, the gap is taken relative to the sum of the parts' absolute values in the
    ideal flow; where none of its parts is negative, that is the bound itself.

    Congestion and entropy are those of all labels' density together, at least as high as those of the labels one by one
    (a convex function that is 0 at 0 is superadditive), which the bound is made of.

    Attributes:
        ideal: the lower bound.
        gap: the flow's terminal loss, kinetic energy and running costs, minus the bound.
        relative_gap: gap over the size of the bound (see above); NaN where that is 0.
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


def certify(
    problem: ControlProblem,
    kinetic: float,
    settings: Ideal,
    callback: Callable[[GapRecord], None] | None = None,
    running: RunningCost | None = None,
) -> Certificate:
    """Hold the flow of the last evaluation against the best possible one. **Collective**.

    Args:
        problem: evaluated at the θ in question.
        kinetic: λ.
        settings: the section ``[ideal]``; its ``certificate`` says which bound.
        callback: told about the convex solver's progress, where it is used.
        running: the problem's running costs of the density.

    Raises:
        InputError: there is no bound of the kind asked for.
        ComputationError: the convex solver broke down.
    """
    layers = settings.slabs(problem.n_layers)
    space, rho = problem.density_space, problem.initial_density
    ideal = IdealProblem(space, rho, _functional(problem), kinetic, problem.horizon, layers, running)
    bound = _lower_bound(ideal, settings, callback)
    cost = sum(problem.parts.get(name, 0.0) for name in PARTS)
    gap = cost - bound.value
    relative = gap / bound.size if bound.size else math.nan
    certificate = Certificate(bound.value, gap, relative, bound.origin, "")
    return replace(certificate, statement=_statement(certificate, bound, cost, ideal, _caveats(problem, ideal, gap)))


def _functional(problem: ControlProblem) -> Functional:
    """The terminal functional of a problem, with the readout of its last evaluation.

    Raises:
        InputError: it is none that the idealised problem knows.
    """
    _, readout = problem.split(problem.theta)
    terminal, loss = problem.terminal, problem.terminal.loss
    if loss is not None:
        return Linear(lambda x: loss.value(x, readout))
    match terminal:
        case KullbackLeiblerLoss():
            return KullbackLeibler(terminal.target)
        case SquaredDistanceLoss():
            return SquaredDistance(terminal.target)
    raise InputError("no bound is known for this terminal functional", key=KEY, value=type(terminal).__name__)


def try_hopf_lax(problem: IdealProblem) -> tuple[HopfLax | None, str]:
    """The solution by the Hopf–Lax formula, or why it does not apply. **Collective**."""
    if not isinstance(problem.functional, Linear):
        return None, "the terminal functional is not linear in ρ(T)"
    if problem.running is not None:
        return None, "there are running costs of the density, under which the best paths are not straight"
    try:
        return solve_hopf_lax(problem.space, problem.rho, problem.functional.loss, problem.kinetic, problem.horizon), ""
    except InputError as error:
        return None, error.what


def _lower_bound(problem: IdealProblem, settings: Ideal, callback: Callable[[GapRecord], None] | None) -> _Bound:
    """A lower bound of the kind that ``settings`` asks for. Collective."""
    if settings.certificate != "convex":
        found, reason = try_hopf_lax(problem)
        if found:
            return _Bound(found.value, "hopf_lax", abs(found.value))
        if settings.certificate == "hopf_lax":
            raise InputError(f"Hopf–Lax does not apply: {reason}", key=KEY, value="hopf_lax", remedy='Use "convex".')
    if problem.kinetic <= 0.0:
        raise InputError("the convex solver needs kinetic energy", key="objective.kinetic", value=problem.kinetic)
    from eulerian.ideal.dynamic_ot import solve_convex  # stands on a good part of SciPy, which takes its time to load

    solution = solve_convex(
        problem,
        gap_tolerance=settings.gap_tolerance,
        residual_tolerance=settings.residual_tolerance,
        max_iterations=settings.max_iterations,
        callback=callback,
    )
    size = abs(solution.dual)
    if problem.running is not None:
        size = abs(solution.dual + 2.0 * sum(-part for part in solution.parts.values() if part < 0.0))
    return _Bound(solution.dual, "convex", size)


def _statement(certificate: Certificate, bound: _Bound, cost: float, ideal: IdealProblem, caveats: list[str]) -> str:
    """The certificate in one sentence."""
    percent = 100 * abs(certificate.relative_gap)
    number = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    share = "" if math.isnan(percent) else f" ({number} %)"
    if bound.size != abs(bound.value):
        share = f" ({number} % of the sizes of its parts)"
    costs = "Terminal loss and kinetic energy"
    if ideal.running is not None:
        costs = "Terminal loss, kinetic energy and running costs of the density"
    side = "above" if certificate.gap >= 0.0 else "below"
    origin = {
        "hopf_lax": "Hopf–Lax",
        "convex": f"the dual of the convex problem, discretised on this mesh and {ideal.layers} time slabs",
    }[certificate.bound]
    sentence = (
        f"{costs} are {cost:.6g}, {abs(certificate.gap):.3g}{share} {side} the lower bound "
        f"{certificate.ideal:.6g} for any flow ({origin})"
    )
    return "; ".join([sentence, *caveats]) + "."


def _caveats(problem: ControlProblem, ideal: IdealProblem, gap: float) -> list[str]:
    """What else the reader of a certificate must know."""
    found = []
    if gap < 0.0:
        found.append("to be below it is an error of the discretisation")
    if len(problem.groups) < problem.density_space.n_labels:
        found.append(
            "the bound lets the velocity depend on the label, which this field does not see, so in general it is not "
            "attained"
        )
    if ideal.couples_labels:
        found.append(LABEL_BY_LABEL)
    if problem.split(problem.theta)[1].size:
        found.append("it is the bound for the readout as trained")
    return found
