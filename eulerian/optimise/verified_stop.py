"""When a descent has gone far enough: as soon as J of the network itself falls no more, whatever that of the mesh does.

An optimiser is paid for the numerical diffusion of its mesh: on one that is too coarse J falls on and on while the J of
the flow, by characteristics, has long begun to rise. So that is asked for at some iterates, the fewer the later.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, final

from numpy.typing import ArrayLike

from eulerian.base.errors import InputError
from eulerian.control.control import ControlProblem
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.result import Record
from eulerian.optimise.settings import VERIFIED

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import TrueObjective  # with a good part of SciPy

# Checks are at 0, 1, …, 8, 10, 12, 15, 18, 22, 27, 33, 41, … On too coarse a mesh the best iterate may be one of
# the first ten; on a good one a check may cost as much as five gradients.
_GROWTH = 1.25

# So many checks in a row without a fall end the descent, but not in the first iterations, where J may be on a plateau.
# What is less than these shares of J's parts, and of the error of the mesh, is no fall.
PATIENCE, _EARLIEST = 3, 10
_OF_PARTS, _OF_MESH_ERROR = 1e-4, 1e-2


def is_due(iteration: int) -> bool:
    """Whether the network's own J is asked for at an iteration; the same in a run that was interrupted."""
    due = 0
    while due < iteration:
        due = max(due + 1, int(due * _GROWTH))
    return due == iteration


def falls_no_more(history: Sequence[Record]) -> bool:
    """Whether the last checks of a history found the network's own J no lower than before."""
    lowest, since = None, 0
    for record in history:
        if record.verified is None:
            continue
        size = sum(abs(part) for part in record.parts.values())
        least = max(_OF_PARTS * size, _OF_MESH_ERROR * abs(record.total - record.verified))
        if lowest is None or record.verified < lowest - least:
            lowest, since = record.verified, 0
        else:
            since += 1
    return since >= PATIENCE and history[-1].iteration >= _EARLIEST


@final
class NetworkObjective:
    """J of the network itself at the iterates of a descent, as long as it can be told.

    Args:
        problem: J on a mesh.
        key: what errors call the wish for it.
        lost: why it could not be told at an earlier iterate; empty if it could.

    Attributes:
        lost: why it cannot be told any more.

    Raises:
        InputError: it can be told nowhere.
    """

    def __init__(self, problem: ReducedProblem, key: str = "stop", lost: str = "") -> None:
        """**Collective**."""
        self.lost = lost
        self._truth = _true_objective(problem, key)

    def value(self, theta: ArrayLike) -> float | None:
        """J at θ; None where it cannot be told, now or earlier. **Collective**."""
        if self.lost:
            return None
        value, self.lost = self._truth.value(theta)
        return None if self.lost else value


def require_verifiable(problem: ReducedProblem, key: str) -> None:
    """Raise InputError, under a key, if the network's own J can be told nowhere. **Collective**."""
    _true_objective(problem, key)


def _true_objective(problem: ReducedProblem, key: str) -> "TrueObjective":
    """**Collective**."""
    obstacle: str | None = "particles are moved as the network says, so that their J is not that of a mesh"
    if problem.on_mesh:
        from eulerian.analysis.characteristics import TrueObjective

        found = TrueObjective(cast(ControlProblem, problem))
        obstacle = found.obstacle
    if obstacle is not None:
        what = f"the network's own J cannot be told: {obstacle}"
        raise InputError(what, key=key, value=VERIFIED, remedy='Set it to "gradient".')
    return found
