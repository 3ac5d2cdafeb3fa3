"""Who goes along with a forward sweep: told where it is, and able to take it on from where an earlier one was."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final

import numpy as np

from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.transport.trajectory import Trajectory

# Where a time lies between two time steps is known up to this, in time steps.
_SAME = 1e-9


@final
@dataclass(frozen=True)
class SweepState:
    """A forward sweep between two time steps: all that the rest of it depends on, to the last bit.

    Attributes:
        step: time steps done.
        densities: by group and then by power, in batches with ghosts.
        occupation: likewise, the integrals over time since the start of the layer that the last step belongs to, of
            the density and, where costs ask for it, of (T − t) times that, as ``NodalLayout.zero_totals`` with orders.
        charged: this rank's share of congestion and entropy so far, (2,).
    """

    step: int
    densities: list[Floats]
    occupation: list[Floats]
    charged: Floats


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

    @classmethod
    def of(cls, t: float, layer_time: float, steps: tuple[int, ...]) -> "TimeMark":
        """Where t lies, given the time steps of each layer."""
        layer = int(t / layer_time + _SAME)
        if layer >= len(steps):
            return cls(sum(steps), len(steps), 0.0)
        elapsed = max(t - layer * layer_time, 0.0) * steps[layer] / layer_time
        done = int(elapsed + _SAME)
        if done >= steps[layer]:
            return cls(sum(steps[: layer + 1]), layer + 1, 0.0)
        fraction = elapsed - done
        return cls(sum(steps[:layer]) + done, layer, fraction if fraction > _SAME else 0.0)


class SweepObserver(Protocol):
    """What a forward sweep talks to. All methods are collective; none of them may raise on some ranks only.

    Attributes:
        steps: time steps of each layer as an earlier sweep counted them, or None to count.
        seconds: that were spent in the methods so far: no part of the sweep.
    """

    steps: tuple[int, ...] | None
    seconds: float

    def begin(self, trajectory: "Trajectory") -> Iterable[int]:
        """The velocities are known; at which numbers of steps to stop, besides 0 and the ends of all layers."""
        ...

    def known(self, step: int) -> SweepState | None:
        """Where an earlier sweep was after so many steps, or None: then they are computed."""
        ...

    def passes(self, position: SweepState) -> None:
        """The sweep is here now. The position's arrays are overwritten afterwards."""
        ...


def copied(source: list[Floats], target: list[Floats]) -> None:
    """Copy arrays, group by group."""
    for a, b in zip(source, target, strict=True):
        np.copyto(b, a)
