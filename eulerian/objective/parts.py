"""The parts of J, in the order of all reports: columns, tables, colours and results follow from this list."""

from dataclasses import dataclass
from typing import Literal, final

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


def part_names(*kinds: Kind) -> tuple[str, ...]:
    """Names of the parts of these kinds, of all parts without one."""
    return tuple(part.name for part in PARTS if part.kind in kinds or not kinds)
