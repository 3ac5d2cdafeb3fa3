"""How far a trained flow is from the best possible one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

from eulerian.config import Ideal
from eulerian.control import ControlProblem
from eulerian.errors import InputError
from eulerian.ideal.dynamic_ot import GapRecord, IdealProblem, solve_convex
from eulerian.ideal.functionals import Linear
from eulerian.ideal.hopf_lax import HopfLax, solve_hopf_lax

KEY = "ideal.certificate"


@final
@dataclass(frozen=True)
class Certificate:
    """A lower bound for terminal loss + kinetic energy of any flow, and the distance of one flow to it.

    Costs of θ and of ∇v are not counted: they only raise J, so the bound holds for J with them too.

    Attributes:
        ideal: the lower bound.
        gap: terminal + kinetic part of the flow, minus the bound.
        relative_gap: gap over the size of the bound; NaN where that is 0.
        bound: what it comes from.
        statement: all this in one sentence.
    """

    ideal: float
    gap: float
    relative_gap: float
    bound: Literal["hopf_lax", "convex"]
    statement: str


def certify(
    problem: ControlProblem, kinetic: float, settings: Ideal, callback: Callable[[GapRecord], None] | None = None
) -> Certificate:
    """Hold the flow of the last evaluation against the best possible one. **Collective**.

    Args:
        problem: evaluated at the θ in question.
        kinetic: λ.
        settings: the section ``[ideal]``; its ``certificate`` says which bound.
        callback: told about the convex solver's progress, where it is used.

    Raises:
        InputError: there is no bound of the kind asked for.
        ComputationError: the convex solver broke down.
    """
    _, readout = problem.split(problem.theta)
    functional = Linear(lambda x: problem.terminal.losses(x, readout))
    layers = settings.slabs(problem.n_layers)
    ideal = IdealProblem(problem.density_space, problem.initial_density, functional, kinetic, problem.horizon, layers)
    bound, origin = _lower_bound(ideal, settings, callback)
    cost = problem.parts["terminal"] + problem.parts["kinetic"]
    gap = cost - bound
    relative = gap / abs(bound) if bound else math.nan
    certificate = Certificate(bound, gap, relative, origin, "")
    return replace(certificate, statement=_statement(certificate, cost, layers, _caveats(problem, gap)))


def try_hopf_lax(problem: IdealProblem) -> tuple[HopfLax | None, str]:
    """The solution by the Hopf–Lax formula, or why it does not apply. **Collective**."""
    if not isinstance(problem.functional, Linear):
        return None, "the terminal functional is not linear in ρ(T)"
    try:
        return solve_hopf_lax(problem.space, problem.rho, problem.functional.loss, problem.kinetic, problem.horizon), ""
    except InputError as error:
        return None, error.what


def _lower_bound(
    problem: IdealProblem, settings: Ideal, callback: Callable[[GapRecord], None] | None
) -> tuple[float, Literal["hopf_lax", "convex"]]:
    """A lower bound of the kind that ``settings`` asks for. Collective."""
    if settings.certificate != "convex":
        found, reason = try_hopf_lax(problem)
        if found:
            return found.value, "hopf_lax"
        if settings.certificate == "hopf_lax":
            raise InputError(f"Hopf–Lax does not apply: {reason}", key=KEY, value="hopf_lax", remedy='Use "convex".')
    if problem.kinetic <= 0.0:
        raise InputError("the convex solver needs kinetic energy", key="objective.kinetic", value=problem.kinetic)
    solution = solve_convex(
        problem,
        gap_tolerance=settings.gap_tolerance,
        residual_tolerance=settings.residual_tolerance,
        max_iterations=settings.max_iterations,
        callback=callback,
    )
    return solution.dual, "convex"


def _statement(certificate: Certificate, cost: float, layers: int, caveats: list[str]) -> str:
    """The certificate in one sentence."""
    percent = 100 * abs(certificate.relative_gap)
    share = "" if math.isnan(percent) else f" ({percent:.0f} %)" if percent >= 10 else f" ({percent:.2g} %)"
    side = "above" if certificate.gap >= 0.0 else "below"
    origin = {
        "hopf_lax": "Hopf–Lax",
        "convex": f"the dual of the convex problem, discretised on this mesh and {layers} time slabs",
    }[certificate.bound]
    sentence = (
        f"Terminal loss and kinetic energy are {cost:.6g}, {abs(certificate.gap):.3g}{share} {side} the lower bound "
        f"{certificate.ideal:.6g} for any flow ({origin})"
    )
    return "; ".join([sentence, *caveats]) + "."


def _caveats(problem: ControlProblem, gap: float) -> list[str]:
    """What else the reader of a certificate must know."""
    found = []
    if gap < 0.0:
        found.append("to be below it is an error of the discretisation")
    if len(problem.trajectories) < problem.density_space.n_labels:
        found.append(
            "the bound lets the velocity depend on the label, which this field does not see, so in general it is not "
            "attained"
        )
    if problem.terminal.n_readout:
        found.append("it is the bound for the readout as trained")
    return found
