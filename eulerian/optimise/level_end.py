"""When a coarse mesh has told what it knows: most of what J gains there is its discretisation error, or little is left.

What counts on the next level is by how much the true J falls, that of the flow itself. It is known without any other
mesh, by characteristics, in less time than a forward solve takes. Where J_h falls by ΔJ_h and J by ΔJ, ΔJ_h − ΔJ is the
change of the discretisation error: a level ends where that is more than half of what it has gained. The error itself is
no measure: much of it is the same at all θ, and while a flow is far from its aim a mesh that is wrong by all of J may
show the way. Nor is the gradient's norm: along flat directions much is left to be gained where it is small, and where a
mesh does not resolve its density nothing where it is large.

The last steps towards a minimum are many and small. What they gain is there to be gained on the finest mesh too, so a
level also ends when J can fall by little compared to the error up to which a mesh counts as resolving it.
"""

import math
from collections.abc import Sequence
from typing import final

from eulerian.analysis.tolerances import NATS, OBJECTIVE
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError
from eulerian.control.control import ControlProblem
from eulerian.optimise.result import Record

# Iterations before the true J is asked for first; then after twice as many each time. On coarse meshes that takes up to
# half of a gradient.
FIRST_CHECK = 5

# Of the fall of J_h. With less the next level, whose iterations cost more but are real, gains more in the same time.
_LEAST_SHARE = 0.5

# Of the tolerances of J: what is left where a level ends.
_LITTLE = 0.05


@final
class LevelEnd:
    """Whether the descent on a mesh is to end, asked after every iteration.

    Args:
        problem: J on the mesh.
        before: iterations on coarser levels.
        truth: as an earlier process has left it.
        coarse: whether finer meshes follow, to which the last small steps are left.

    Attributes:
        truth: the true J at the last check; NaN before the first.
    """

    def __init__(
        self, problem: ControlProblem, before: int = 0, truth: float = math.nan, *, coarse: bool = True
    ) -> None:
        """**Collective**."""
        from eulerian.analysis.characteristics import TrueObjective  # with a good part of SciPy, which is slow to load

        self.truth = truth
        self._problem, self._before, self._coarse = problem, before, coarse
        self._objective: TrueObjective | None = None
        try:
            self._objective = TrueObjective(problem)
        except EulerianError:
            return
        if self._objective.obstacle is not None:
            self._objective = None

    @property
    def known(self) -> bool:
        """Whether the true J can be told."""
        return self._objective is not None

    def reached(self, records: Sequence[Record], theta: Floats) -> bool:
        """Whether the last iteration is to be that of this level; the same on all ranks. **Collective**.

        Args:
            records: of this level.
            theta: of the last one.
        """
        if len(records) <= FIRST_CHECK:
            return False
        little = self._coarse and remaining_gain(records, self._before) <= self._little(records[-1])
        # Rounding must not part the ranks.
        return bool(self._problem.comm.bcast(self._in_vain(records, theta) or little, 0))

    def _in_vain(self, records: Sequence[Record], theta: Floats) -> bool:
        """Whether less than half of the fall since the last check is real; what is not known is. **Collective**."""
        count = len(records) - 1
        checks, rest = divmod(count, FIRST_CHECK)
        if self._objective is None or rest or checks & (checks - 1):  # 1, 2, 4, 8, … times as many
            return False
        before, known = self.truth, records[-1].verified  # by a training that ends by it
        self.truth = self._objective.value(theta)[0] if known is None else known
        fall = records[count // 2].total - records[-1].total
        return before - self.truth < _LEAST_SHARE * fall

    def _little(self, record: Record) -> float:
        """What is not worth while on this level."""
        if self._problem.ends.logarithmic:
            return _LITTLE * NATS
        return _LITTLE * OBJECTIVE * math.fsum(abs(part) for part in record.parts.values())


def remaining_gain(records: Sequence[Record], before: int) -> float:
    """What J may still fall by: as if it were J* + C/n² after n iterations, with C by the later half of those here.

    That is how networks come down once the first steps are made: on several problems many more iterations gained
    between a third of the estimate and all of it.

    Args:
        records: of one level, three at least.
        before: iterations that have led to its start, on coarser levels: they count in n.
    """
    count = len(records) - 1
    middle, last = count // 2, before + count
    fall = max(records[middle].total - records[-1].total, 0.0)
    return fall / ((last / (before + middle)) ** 2 - 1.0)
