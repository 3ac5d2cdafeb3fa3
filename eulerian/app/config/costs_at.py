"""`[[objective.at]]`: what a terminal cost needs to be charged at a time on the way."""

from typing import Annotated, Any, Union

from pydantic import Field, create_model

from eulerian.app.config.schema import NotKinds
from eulerian.app.config.values import NonNegative, Positive, Section


class AtTime(Section):
    """When a cost is charged, and what it counts.

    Attributes:
        time: when it is charged: the end of a layer, 0 < t ≤ T.
        weight: factor of the cost; with 0 it is no part of J, and is reported only.
    """

    time: Positive = Field(description="the end of a layer, a number > 0 and at most field.horizon", examples=[0.5])
    weight: NonNegative = Field(default=1.0, description="the weight of the cost, a number >= 0", examples=[0.5])


def at_times(*kinds: type[Section]) -> Any:
    """The type of a list whose tables have the keys of one of these kinds, and those of ``AtTime``.

    Where a kind has a weight of its own, that is the weight.
    """
    union: Any = Union[tuple(map(_timed, kinds))]  # noqa: UP007 - of a list
    return tuple[Annotated[union, Field(discriminator="kind"), NotKinds("fixed")], ...]


def _timed(kind: type[Section]) -> Any:
    """A kind with the keys of ``AtTime``, which come first, so that its weight is the weight."""
    name = f"{kind.__name__}At"
    found = create_model(name, __base__=(AtTime, kind), __module__=__name__, __doc__=kind.__doc__)
    globals()[name] = found  # where other ranks look for it
    return found
