"""The parts of J, in the order of all reports: columns, tables, colours and results follow from this list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from eulerian.base.errors import RejectedEvaluation

type Kind = Literal["terminal", "velocity", "parameters", "potential", "density", "intermediate", "functional"]


@final
@dataclass(frozen=True)
class Part:
    """One part of J.

    Attributes:
        name: as in results, and as the key of its weight.
        kind: what it is a cost of: ρ(T); the velocity, weighted by ρ; θ; ρ in a potential, which is linear in it; ρ
            itself, point by point; ρ at the ends of earlier layers; ρ as a whole, all along the way.
        of_any_flow: whether a flow without network has it too, as in the idealised problem.
    """

    name: str
    kind: Kind
    of_any_flow: bool = True


PARTS = (
    Part("terminal", "terminal"),
    Part("kinetic", "velocity"),
    Part("jacobian", "velocity", of_any_flow=False),
    Part("parameters", "parameters", of_any_flow=False),
    # Costs of the density came later: they come last, so that columns of earlier versions keep their places.
    Part("potential", "potential"),
    Part("congestion", "density"),
    Part("entropy", "density"),
    Part("intermediate", "intermediate"),
    Part("interaction", "functional"),
    Part("running", "functional"),
)


# Where a part is a function of the density that a user may have written: the key of that.
_OF_DENSITY = {
    "terminal": "terminal",
    "potential": "costs.potential",
    "intermediate": "at",
    "running": "costs.running",
}
_REMEDY = (
    "A form is evaluated at its own quadrature points, where a density of degree >= 1 may be <= 0: write "
    "ufl.max_value(rho, 1e-12) in it. Any other function must be finite for all densities >= 0"
)


def rejection(parts: Mapping[str, float], broken: Sequence[str], *, bounded: bool) -> RejectedEvaluation:
    """Why J, which is not finite, is not.

    Args:
        parts: of J.
        broken: the names of those that are not finite; none where their sum overflows.
        bounded: whether the densities are finite for sure, so that costs of these have themselves to blame.
    """
    why = ", ".join(f"{name} is {parts[name]}" for name in broken) or "the sum of its parts overflows"
    own = bounded and bool(broken) and all(name in _OF_DENSITY for name in broken)
    what, key, remedy = f"J is not finite: {why}", _OF_DENSITY[broken[0]] if own else None, _REMEDY if own else None
    return RejectedEvaluation(what, key=key, remedy=remedy)


def part_names(*kinds: Kind) -> tuple[str, ...]:
    """Names of the parts of these kinds, of all parts without one."""
    return tuple(part.name for part in PARTS if part.kind in kinds or not kinds)
