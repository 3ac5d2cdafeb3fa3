"""The paths of a group of particles through all layers: what is stored of them, and the adjoint sweep along them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.particles.flow import Rows, Segment
from eulerian.particles.right_hand_side import Motion, RightHandSide
from eulerian.particles.runge_kutta import Tableau, step, step_vjp


@dataclass
class PathStorage:
    """The paths of the particles of one group, at the starts of their time steps.

    Attributes:
        label: theirs, or None where the field does not depend on it.
        rows: of the sample.
        motions: one per layer.
        steps: one array (k,) per layer.
        starts: per layer the positions (n, dim) at the start of each step, or of the first step only.
    """

    label: int | None
    rows: Rows
    motions: list[Motion] = field(default_factory=list)
    steps: list[Floats] = field(default_factory=list)
    starts: list[list[Floats]] = field(default_factory=list)

    def add(self, segment: Segment) -> None:
        """Store one more layer."""
        self.motions.append(segment.motion)
        self.steps.append(segment.steps)
        self.starts.append(segment.starts)

    @property
    def size(self) -> int:
        """Bytes of all positions."""
        return sum(positions.nbytes for starts in self.starts for positions in starts)

    def thin(self) -> None:
        """Drop all but the first start of every layer; the others are computed again when they are needed."""
        self.starts = [starts[:1] for starts in self.starts]

    def adjoint(
        self,
        tableau: Tableau,
        by_state: Mapping[int, Floats],
        picked: NDArray[np.intp] | None = None,
        on_the_way: Callable[[int, int, Floats, slice], Floats | None] | None = None,
    ) -> Floats:
        """Derivatives (L, p) by θ of a sum over all particles of the group or those picked.

        Args:
            tableau: of the steps.
            by_state: its derivatives (n, width) by (x, q) where a number of layers has passed, L among them.
            picked: of the group, or all.
            on_the_way: the derivative (m, dim) by positions x (m, dim) of what some of these particles, a slice of
                them, pay where so many steps of a layer have passed; None where they pay nothing.
        """
        by_layer: list[Floats] = []
        # Overwritten on the way back.
        w = by_state[len(self.motions)].copy()
        layers = list(zip(range(1, len(self.motions) + 1), self.motions, self.steps, self.starts, strict=True))
        for passed, motion, steps, stored in reversed(layers):
            if passed < len(layers) and passed in by_state:  # what is paid there jumps into the adjoint state
                w += by_state[passed]
            starts = stored if picked is None else [positions[picked] for positions in stored]
            # Starts that have to be computed again are computed for so few particles at a time that together they need
            # no more memory than one start of all particles.
            pieces = 1 if len(starts) == len(steps) else len(steps)
            total: Floats | float = 0.0
            for block in _pieces(len(w), pieces):
                points = [positions[block] for positions in starts]
                if len(points) < len(steps):
                    points = _recomputed(tableau, motion, points[0], steps)
                for index in reversed(range(len(steps))):
                    x = points[index]
                    w[block], more = step_vjp(tableau, motion, x, float(steps[index]), w[block])
                    total = total + more
                    paid = None if on_the_way is None else on_the_way(passed - 1, index, x, block)
                    if paid is not None:
                        w[block, : x.shape[1]] += paid
            by_layer.append(np.asarray(total))
        return np.array(by_layer[::-1])


def require_memory_for_paths(needed: float, memory: float) -> None:
    """Raise InputError unless so many bytes are within a budget."""
    if needed > memory:
        raise InputError(
            f"the particles need {math.ceil(needed / 2**20)} MiB for their positions where layers start",
            key="solver.memory",
            value=f"{memory / 2**20:.3g} MiB",
            remedy="Raise it (in Python memory=…, in bytes), or take fewer particles.",
        )


def thin_to_budget(paths: Sequence[PathStorage], budget: float) -> None:
    """Thin paths, the largest first, until all together have no more bytes than the budget, or are all thin."""
    for path in sorted(paths, key=lambda path: -path.size):
        if sum(each.size for each in paths) <= budget:
            return
        path.thin()


def _pieces(n: int, count: int) -> Iterator[slice]:
    """Cut n particles into ``count`` pieces, or fewer; one at least, so that no particles too have a gradient: 0."""
    size = max(-(-n // count), 1)
    return (slice(start, min(start + size, n)) for start in range(0, max(n, 1), size))


def _recomputed(tableau: Tableau, motion: Motion, x: Floats, steps: Floats) -> list[Floats]:
    """Positions (n, dim) at the start of every step of a layer."""
    dim = x.shape[1]
    # Positions do not depend on the integrals.
    bare = Motion(RightHandSide(motion.rates.field, dim), motion.layer, motion.theta, motion.label)
    points = [x]
    for h in steps[:-1]:
        points.append(step(tableau, bare, points[-1], float(h), dim))
    return points
