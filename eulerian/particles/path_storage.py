"""The way of a group of particles through all layers: what of it is kept, and the derivatives back along it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.particles.flow import Leg, Rows
from eulerian.particles.right_hand_side import Motion, RightHandSide
from eulerian.particles.runge_kutta import Tableau, step, step_vjp


@dataclass
class PathStorage:
    """How the particles of one group went.

    Attributes:
        label: theirs, or None where the field does not ask.
        rows: of the cloud.
        motions: one per layer.
        steps: one array (k,) per layer.
        starts: per layer the positions (n, dim) at the start of each step, or of the first step only.
    """

    label: int | None
    rows: Rows
    motions: list[Motion] = field(default_factory=list)
    steps: list[Floats] = field(default_factory=list)
    starts: list[list[Floats]] = field(default_factory=list)

    def add(self, segment: Leg) -> None:
        """Keep one more layer."""
        self.motions.append(segment.motion)
        self.steps.append(segment.steps)
        self.starts.append(segment.starts)

    @property
    def size(self) -> int:
        """Bytes of all positions."""
        return sum(positions.nbytes for starts in self.starts for positions in starts)

    def thin(self) -> None:
        """Forget all but the first start of every layer; the others are found again when they are needed."""
        self.starts = [starts[:1] for starts in self.starts]

    def pulled_back(self, tableau: Tableau, w: Floats, picked: NDArray[np.intp] | None = None) -> Floats:
        """Derivatives (L, p) by θ of Σ w · (x, q)(T), w (n, width), over all particles of the group or those picked."""
        by_layer: list[Floats] = []
        w = w.copy()
        for motion, steps, kept in reversed(list(zip(self.motions, self.steps, self.starts, strict=True))):
            starts = kept if picked is None else [positions[picked] for positions in kept]
            # Starts that have to be found again are found for so few particles at a time that together they need no
            # more memory than one start of all particles.
            pieces = 1 if len(starts) == len(steps) else len(steps)
            total: Floats | float = 0.0
            for block in _pieces(len(w), pieces):
                ways = [positions[block] for positions in starts]
                if len(ways) < len(steps):
                    ways = _found_again(tableau, motion, ways[0], steps)
                for h, x in zip(reversed(steps), reversed(ways), strict=True):
                    w[block], more = step_vjp(tableau, motion, x, float(h), w[block])
                    total = total + more
            by_layer.append(np.asarray(total))
        return np.array(by_layer[::-1])


def keep_within(passages: Sequence[PathStorage], budget: float) -> None:
    """Thin passages, the fullest first, until all together have no more bytes than the budget, or are all thin."""
    for passage in sorted(passages, key=lambda passage: -passage.size):
        if sum(each.size for each in passages) <= budget:
            return
        passage.thin()


def _pieces(n: int, count: int) -> Iterator[slice]:
    """Cut n particles into ``count`` pieces, or fewer; one at least, so that nothing is left unsaid if n = 0."""
    size = max(-(-n // count), 1)
    return (slice(start, min(start + size, n)) for start in range(0, max(n, 1), size))


def _found_again(tableau: Tableau, motion: Motion, x: Floats, steps: Floats) -> list[Floats]:
    """Positions (n, dim) at the start of every step of a layer."""
    dim = x.shape[1]
    bare = Motion(RightHandSide(motion.rates.field, dim), motion.layer, motion.theta, motion.label)
    ways = [x]
    for h in steps[:-1]:
        ways.append(step(tableau, bare, ways[-1], float(h), dim))
    return ways
