"""`[[objective.at]]`: what a terminal cost needs to be charged at a time on the way."""

from typing import Annotated, Any, Union

from pydantic import Field, create_model

from eulerian.app.config.values import NonNegative, Positive, Section


class AtTime(Section):
    """When a cost is charged, and what it counts.

    Attributes:
        time: the end of a layer, 0 < t ≤ T.
        weight: of the cost; with 0 it is no part of J, and is reported only.
    """

    time: Positive = Field(description="the end of a layer, a number > 0 and at most field.horizon")
    weight: NonNegative = Field(default=1.0, description="the weight of the cost, a number >= 0")


def at_times(*kinds: type[Section]) -> Any:
    """The type of a list whose tables have the keys of one of these kinds, and those of ``AtTime``.

    Where a kind has a weight of its own, that is the weight.
    """
    # AtTime comes first, so that its weight is that of every kind.
    timed = [create_model(f"{kind.__name__}At", __base__=(AtTime, kind), __doc__=kind.__doc__) for kind in kinds]
    union: Any = Union[tuple(timed)]  # noqa: UP007 - of a list
    return tuple[Annotated[union, Field(discriminator="kind")], ...]
