"""How time is cut into layers and steps, and where a time or a step lies in them."""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from numbers import Real
from typing import final

from eulerian.base.errors import InputError, RejectedEvaluation

# Where a time lies between two time steps is known up to this, in time steps.
_SAME = 1e-9


_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("horizon", lambda value: 0.0 < value < math.inf, "a finite number > 0"),
    ("layers", lambda value: value >= 1 and value == value // 1, "a whole number >= 1"),
    ("cfl", lambda value: 0.0 < value <= 1.0, "a number > 0 and <= 1"),
    ("max_steps", lambda value: value >= 1, "a whole number >= 1"),
)

# (layer, first, last): steps of one layer, numbered through all layers.
type Segment = tuple[int, int, int]


def cut(segments: Iterable[Segment], stops: Collection[int]) -> Iterator[Segment]:
    """Segments, parted where a step ends that is among ``stops``."""
    for layer, first, last in segments:
        inner = sorted(stop for stop in stops if first < stop < last)
        for begin, end in pairwise([first, *inner, last]):
            yield layer, begin, end


@final
@dataclass(frozen=True)
class TimeGrid:
    """How time is cut.

    Attributes:
        horizon: T.
        layers: L; the velocity is constant in each layer of length T/L.
        cfl: fraction of the largest stable and positive time step that is used.
        max_steps: more steps than this in one layer make the evaluation a rejected one.

    Raises:
        InputError: one of them is out of its range.
    """

    horizon: float = 1.0
    layers: int = 8
    cfl: float = 0.9
    max_steps: int = 2000

    def __post_init__(self) -> None:
        for name, fits, wanted in _RANGES:
            value = getattr(self, name)
            if not (isinstance(value, Real) and fits(float(value))):
                raise InputError(f"must be {wanted}", key=f"time.{name}", value=value)

    @property
    def layer_time(self) -> float:
        """T/L."""
        return self.horizon / self.layers

    def steps(self, rate: float) -> int:
        """Steps in a layer whose largest stable step is 1/rate.

        Raises:
            RejectedEvaluation: the count is above the cap, or the rate is not finite.
        """
        wanted = self.layer_time * rate / self.cfl
        if not wanted <= self.max_steps:  # so that NaN is refused, too
            count = f"{wanted:.3g}" if math.isfinite(wanted) else "infinitely many"
            raise RejectedEvaluation(
                f"{count} time steps in one layer; solver.max_steps_per_layer is {self.max_steps}: "
                "raise it (in Python TimeGrid(max_steps=…)), take more layers, or keep the field slower by "
                "field.max_speed (eu.Mlp(max_speed=…)) or objective.parameters (Costs(parameters=…))"
            )
        return max(1, math.ceil(wanted))


@final
@dataclass(frozen=True)
class TimeMark:
    """A time among the time steps.

    Attributes:
        step: time steps done before.
        layer: that the next step belongs to; L at the end.
        fraction: of that step that passes until then, from 0 to below 1.
    """

    step: int
    layer: int
    fraction: float


@final
@dataclass(frozen=True)
class TimeLeft:
    """The time that is left until T, as the steps of a layer know it.

    Attributes:
        at_start: of the layer.
        done: steps since then.
    """

    at_start: float = 0.0
    done: int = 0


@final
@dataclass(frozen=True)
class TimeSteps:
    """The time steps of a sweep, numbered through all layers.

    Attributes:
        grid: the layers.
        counts: steps of each layer.
    """

    grid: TimeGrid
    counts: tuple[int, ...]

    @cached_property
    def ends(self) -> list[int]:
        """The number of steps up to the end of each layer."""
        return list(accumulate(self.counts))

    def begin(self, layer: int) -> int:
        """The number of steps before a layer."""
        return self.ends[layer] - self.counts[layer]

    def dt(self, layer: int) -> float:
        """Length of the steps of a layer."""
        return self.grid.layer_time / self.counts[layer]

    def segments(self, begin: int, end: int) -> Iterator[Segment]:
        """The parts of steps ``begin`` to ``end`` in each layer."""
        for layer, stop in enumerate(self.ends):
            first, last = max(begin, self.begin(layer)), min(end, stop)
            if first < last:
                yield layer, first, last

    def left(self, layer: int, step: int) -> TimeLeft:
        """What is left of the time before a step of a layer."""
        # Kept in two numbers: their difference would depend, in the last bit, on where a sweep is split into calls.
        return TimeLeft(self.grid.layer_time * (self.grid.layers - layer), step - self.begin(layer))

    def time(self, step: int) -> float:
        """When a number of time steps is done."""
        if step == self.ends[-1]:
            return self.grid.horizon  # exactly, which a multiple of the layer time may miss by rounding
        layer = bisect_left(self.ends, step)
        return (layer + (step - self.begin(layer)) / self.counts[layer]) * self.grid.layer_time

    def mark(self, t: float) -> TimeMark:
        """Where a time lies among the steps."""
        # The end of a layer is the start of the next one, also where rounding puts a time just before it.
        layer = int(t / self.grid.layer_time + _SAME)
        if layer >= len(self.counts):
            return TimeMark(self.ends[-1], len(self.counts), 0.0)
        elapsed = max(t - layer * self.grid.layer_time, 0.0) * self.counts[layer] / self.grid.layer_time
        done = int(elapsed + _SAME)
        if done >= self.counts[layer]:
            return TimeMark(self.ends[layer], layer + 1, 0.0)
        fraction = elapsed - done
        return TimeMark(self.begin(layer) + done, layer, fraction if fraction > _SAME else 0.0)
