"""How long a computation will go on, by the pace at which it has gone so far. Not collective: clocks differ."""

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import final

# Before so many steps and seconds a pace says little: caches are cold, and the first iterations are of another kind.
_LEAST_STEPS = 3
_LEAST_SECONDS = 2.0


@final
class Pace:
    """Tells what is left of a number of steps.

    The pace is that of the latter half of what was done: it follows where the work changes, and does not jump.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: list[int] = []
        self._times: list[float] = []

    def mark(self, done: int) -> None:
        """So many steps are done now; the first mark is where the clock starts."""
        if self._done and done <= self._done[-1]:
            return
        self._done.append(done)
        self._times.append(self._clock())

    def seconds(self, total: int) -> float | None:
        """Seconds that the rest of ``total`` steps will take; None where too little was seen to say so."""
        if len(self._done) <= _LEAST_STEPS or self._times[-1] - self._times[0] < _LEAST_SECONDS:
            return None
        half = bisect_left(self._done, (self._done[0] + self._done[-1]) / 2, hi=len(self._done) - 1)
        half = min(half, len(self._done) - 2)
        each = (self._times[-1] - self._times[half]) / (self._done[-1] - self._done[half])
        return max(0, total - self._done[-1]) * each

    def restart(self) -> None:
        """What comes now is of another kind."""
        self._done.clear()
        self._times.clear()


@final
class IterationsToGo:
    """Says how long iterations may go on at most; most end before that, by themselves.

    On coarse levels, and on meshes that are adapted to the flow, nothing is said: what is to come is dearer than what
    was, and nobody knows by how much.

    Args:
        maximum: iterations on all levels together.
        levels: how many there are; None where that is not known.
    """

    def __init__(self, maximum: int, levels: int | None = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum, self._levels = maximum, levels
        self._pace, self._level, self._last = Pace(clock), 0, maximum

    def __call__(self, iteration: int, level: int = 1) -> str:
        """After an iteration of a level: the time that may be left, in words; empty where that is not known."""
        if self._levels is None:
            return ""
        if level != self._level:
            self._pace.restart()
            self._level, self._last = level, min(self._maximum, iteration + self._maximum // self._levels)
        self._pace.mark(iteration)
        seconds = self._pace.seconds(self._last)
        return f"up to {in_words(seconds)} to go" if seconds and level == self._levels else ""


def in_words(seconds: float) -> str:
    """A time, as roughly as it is known."""
    if seconds < 10.0:
        return f"{max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"{5 * round(seconds / 5.0)} s"
    minutes = max(1, round(seconds / 60.0))
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 10 * 60:
        hours, rest = divmod(5 * round(minutes / 5.0), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    hours = round(minutes / 60.0)
    return f"{hours} h" if hours < 48 else f"{hours / 24.0:.1f} days"
