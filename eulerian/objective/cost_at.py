"""Costs of the density at given times on the way, as a user hands them to a problem: nothing here knows a mesh."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, final

from eulerian.base.errors import InputError
from eulerian.objective.distances import DensityFunctional, as_terminal_cost
from eulerian.objective.point_loss import PointLoss

# How far a time may be from the end of a layer, in layers: what decimal numbers lose.
_SAME = 1e-6


@final
@dataclass(frozen=True)
class CostAt:
    """What the density costs at a time on the way, which must be the end of a layer.

    For example, data at half of the time (of an even number of layers)::

        eu.CostAt(0.5, eu.KullbackLeibler(eu.Samples(points)), weight=2.0)

    Attributes:
        time: t, 0 < t ≤ T, dimensionless.
        cost: whatever a problem takes as its terminal cost.
        weight: of the cost, ≥ 0.

    Raises:
        InputError: time or weight is out of its range.
    """

    time: float
    cost: Any
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("time", "> 0"), ("weight", ">= 0")):
            value = getattr(self, name)
            number = isinstance(value, Real) and math.isfinite(value)
            if not (number and (value > 0.0 or (value == 0.0 and name == "weight"))):
                raise InputError(f"must be a number {least}", key=f"at.{name}", value=value)


@final
@dataclass(frozen=True)
class LayerEnd:
    """Where something is charged beside the way.

    Attributes:
        part: of J that it belongs to.
        layer: after how many layers.
        weight: of the cost.
    """

    part: str
    layer: int
    weight: float


@final
@dataclass(frozen=True)
class LayerEndCost:
    """A cost where a number of layers has passed.

    Attributes:
        layer: that number; L is the end.
        weight: of the cost.
        cost: a distance, another functional of the density, or a loss.
        key: what it is called in messages.
    """

    layer: int
    weight: float
    cost: DensityFunctional | PointLoss
    key: str

    def end(self, n_layers: int) -> LayerEnd:
        """Where that is, and the part of J that it belongs to."""
        return LayerEnd("terminal" if self.layer == n_layers else "intermediate", self.layer, self.weight)


def layers_until(time: float, horizon: float, layers: int, key: str) -> int:
    """How many layers have passed at the time that ends one.

    Args:
        time: t.
        horizon: T.
        layers: L.
        key: what the time is called in messages.

    Raises:
        InputError: it is not the end of a layer.
    """
    if not ends_layer(time, horizon, layers):
        ends = f"multiples of {horizon / layers:.6g} up to {horizon:g}"
        what = f"is not the end of a layer: the {layers} layers end at {ends}"
        raise InputError(what, key=key, value=time, remedy="Choose one of them, or other layers.")
    return round(time * layers / horizon)


def ends_layer(time: float, horizon: float, layers: int) -> bool:
    """Whether a time t is the end of one of L layers until T."""
    passed = time * layers / horizon
    return 1 <= round(passed) <= layers and abs(passed - round(passed)) <= _SAME


def layer_end_costs(terminal: Any, at: Sequence[CostAt], horizon: float, layers: int) -> tuple[LayerEndCost, ...]:
    """The terminal cost, which comes first, and those at given times in the order of time.

    Args:
        terminal: of ρ(T).
        at: of the density at other times, or at T too.
        horizon: T.
        layers: L.

    Raises:
        InputError: a time is not the end of a layer, or a cost is nothing that can be one.
    """
    found = []
    for index, each in enumerate(at):
        key = f"at[{index}]"
        if not isinstance(each, CostAt):
            raise InputError("must be CostAt(time, cost, weight)", key=key, value=type(each).__name__)
        layer = layers_until(each.time, horizon, layers, f"{key}.time")
        found.append(LayerEndCost(layer, float(each.weight), as_terminal_cost(each.cost, f"{key}.cost"), key))
    return LayerEndCost(layers, 1.0, as_terminal_cost(terminal), "terminal"), *sorted(found, key=lambda c: c.layer)
