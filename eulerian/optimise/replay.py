"""All that a descent knows, so that it can go on later, in another process, as if it had never stopped.

PETSc's optimisers keep their own state to themselves. But they are machines that ask for J and ∇J and do nothing else:
given the same values they do the same again, to the last bit. So a state holds the evaluations since the optimiser was
last made anew, which is seldom long ago, and these are replayed to a new optimiser, without a single solve.
"""

import math
from dataclasses import dataclass
from typing import final

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.lbfgs_pairs import Curvature
from eulerian.optimise.result import Record

# J at the θ of a state may differ by rounding from what it was on other ranks or another processor, not by more.
_SAME = 1e-6

type Points = tuple[tuple[Floats, Floats], ...]


@final
@dataclass(frozen=True)
class Evaluation:
    """J at a point that an optimiser has tried.

    Attributes:
        value: J, +∞ where it could not be evaluated.
        gradient: dJ/dθ (n_params,), or None where only J was evaluated.
    """

    value: float
    gradient: Floats | None = None


@final
@dataclass(frozen=True)
class Best:
    """An iterate that is the lowest so far.

    Attributes:
        value: J.
        theta: in the shape of the starting point.
        gradient_norm: in L²(0, T).
        verified: J of the network itself, if it was asked for.
    """

    value: float
    theta: Floats
    gradient_norm: float
    verified: float | None = None


@final
@dataclass(frozen=True)
class Iterate:
    """What a descent has found up to an iteration.

    Attributes:
        theta: of this iteration, in the shape of the starting point.
        best: the lowest iterate, or None before the first.
        points: θ and dJ/dθ (both flat) of the last iterates, oldest first; empty where no L-BFGS pairs are kept.
        verified: of those where the network's own J was asked for, the one where that is lowest; None before the first.
    """

    theta: Floats
    best: Best | None = None
    points: Points = ()
    verified: Best | None = None


@final
@dataclass(frozen=True)
class DescentState:
    """A descent after an iteration.

    Attributes:
        start: the iterate at which the optimiser was last made anew.
        first: its iteration.
        initial_hessian: the pairs that the optimiser was given, if they are not those of ``start.points``.
        renewal: the iteration at which the metric is next made anew.
        replay: the evaluations since ``start``.
        current: the last iterate.
        history: one record per iteration.
        first_norm: the gradient norm that the tolerance is relative to.
        evaluations: of J so far.
        rejected_evaluations: those where J could not be evaluated.
        lost: why the network's own J cannot be told any more; empty if it can, or was never asked for.
    """

    start: Iterate
    first: int
    initial_hessian: Curvature | None
    renewal: int
    replay: tuple[Evaluation, ...]
    current: Iterate
    history: tuple[Record, ...]
    first_norm: float
    evaluations: int
    rejected_evaluations: int
    lost: str = ""

    def require_same(self, problem: ReducedProblem) -> None:
        """Evaluate J at the present iterate, and raise unless it is what it was. **Collective**.

        Raises:
            ComputationError: J is another one there.
        """
        value, expected, scale = problem.value(self.current.theta), self.history[-1].total, abs(self.history[0].total)
        # J may be close to zero by now: its first value gives the size of its rounding.
        if not math.isclose(value, expected, rel_tol=_SAME, abs_tol=_SAME * scale):
            raise ComputationError(
                f"J at the θ of the checkpoint was {expected:.10g} and is {value:.10g} now: something that the run "
                "depends on has changed since (its mesh, its data, the code of its field, the program's version). "
                "Start anew; field.theta may name the checkpoint"
            )

    def refuse_another(self, problem: ReducedProblem) -> None:
        """``require_same``, before anything else: where J starts with the same bits nothing more is computed.

        **Collective**.

        Raises:
            ComputationError: J is another one.
        """
        same = problem.value(self.start.theta) == self.replay[0].value
        if not problem.comm.bcast(same, 0):
            self.require_same(problem)
