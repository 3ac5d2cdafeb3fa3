"""When a mesh has told what it knows: as soon as J can fall by less there than it is in error by.

What a descent on a coarse mesh gains beyond the error of that mesh is not gained on the next one. The error is known
without any other mesh: |J_h − J|, with the true J of the flow by characteristics, which takes less than a forward solve.
What J can still fall by is told by how it has fallen. The gradient's norm says neither: along flat directions much may be
left where it is small, and where the mesh does not resolve its density nothing may be where it is large.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError
from eulerian.control.control import ControlProblem
from eulerian.optimise.result import Record

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import TrueObjective  # with a good part of SciPy

EVERY = 5
"""Iterations of a level from one check to the next: on coarse meshes a check takes up to half of a gradient."""


@final
class LevelEnd:
    """Whether the descent on a mesh may end, iterate by iterate: it depends on nothing else, so that it can be resumed.

    Args:
        problem: J on the mesh.

    Attributes:
        known: whether the error of J can be told; where it cannot, no iterate is the last one.
    """

    def __init__(self, problem: ControlProblem) -> None:
        """**Collective**."""
        from eulerian.analysis.characteristics import TrueObjective

        self._problem = problem
        self._truth: TrueObjective | None
        try:
            self._truth = TrueObjective(problem)
        except EulerianError:
            self._truth = None
        self.known = self._truth is not None and self._truth.obstacle is None

    def reached(self, records: Sequence[Record], theta: Floats) -> bool:
        """Whether J can fall by less than its error from here on; the same on all ranks. **Collective**.

        Args:
            records: of this level, counting the iterations of all; the last one is that of θ.
            theta: where the descent is.
        """
        error = self.error(records, theta)
        # Rounding must not part the ranks.
        return bool(self._problem.comm.bcast(math.isfinite(error) and remaining_gain(records) <= error, 0))

    def error(self, records: Sequence[Record], theta: Floats) -> float:
        """|J_h − J| at the last of some records; NaN between two checks, or if it cannot be told. **Collective**."""
        count = len(records) - 1
        if not self.known or count == 0 or count % EVERY:
            return math.nan
        assert self._truth is not None
        try:
            value, _ = self._truth.value(theta)
        except EulerianError:  # the field fails where the mesh did not ask it
            return math.nan
        return abs(records[-1].total - value)


def remaining_gain(records: Sequence[Record]) -> float:
    """What J may still fall by: as if it were J* + C/n² after n iterations, with C by the later half of those here.

    That is how networks come down once the first steps are made: over several problems the estimate was one to three
    times what many more iterations gained. Iterations of coarser levels count in n, for they have led to this start.

    Args:
        records: of one level, counting the iterations of all.
    """
    last, middle = records[-1], records[-1 - len(records) // 2]
    fall = max(middle.total - last.total, 0.0)
    return fall / ((last.iteration / max(middle.iteration, 1)) ** 2 - 1.0) if last.iteration > 1 else math.inf
