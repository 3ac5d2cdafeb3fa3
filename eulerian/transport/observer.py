"""What accompanies a forward sweep: it is shown the states on the way, and may restore those of an earlier sweep."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, final

from eulerian.base.arrays import Floats
from eulerian.transport.time_grid import TimeSteps


@final
@dataclass(frozen=True)
class SweepState:
    """A forward sweep between two time steps: all that the rest of it depends on, to the last bit.

    Attributes:
        step: time steps done.
        densities: by group and then by power, in batches with ghosts.
        occupation: likewise, the integrals over time since the start of the layer that the last step belongs to, of
            the density and, where costs ask for it, of (T − t) times that, as ``NodalLayout.zero_totals`` with orders.
        charged: this rank's share of congestion and entropy so far, and of the costs at moments, (2 + count,).
    """

    step: int
    densities: list[Floats]
    occupation: list[Floats]
    charged: Floats


class SweepObserver(Protocol):
    """What a forward sweep talks to. All methods are collective; none of them may raise on some ranks only.

    Attributes:
        steps: time steps of each layer as an earlier sweep counted them, or None to count.
        seconds: that were spent in the methods so far: no part of the sweep.
    """

    steps: tuple[int, ...] | None
    seconds: float

    def begin(self, steps: TimeSteps) -> Iterable[int]:
        """The time steps are known; after how many of them to stop, besides 0 and the ends of all layers."""
        ...

    def restore(self, step: int) -> SweepState | None:
        """Where an earlier sweep was after so many steps, or None: then they are computed."""
        ...

    def at(self, state: SweepState) -> None:
        """The sweep is here now. The state's arrays are overwritten afterwards."""
        ...
