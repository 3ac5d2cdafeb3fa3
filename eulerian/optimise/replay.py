"""All that a descent knows, so that it can go on later, in another process, as if it had never stopped.

PETSc's optimisers keep what they have learnt to themselves. But they are machines that ask for J and ∇J and do nothing
else: given the same answers they do the same again, to the last bit. So a state holds what J has answered since the
optimiser was last made anew, which is seldom long ago, and the optimiser is told once more, without a single solve.
"""

from dataclasses import dataclass
from typing import final

from eulerian.base.arrays import Floats
from eulerian.optimise.lbfgs_pairs import Curvature
from eulerian.optimise.result import Record

type Points = tuple[tuple[Floats, Floats], ...]


@final
@dataclass(frozen=True)
class Evaluation:
    """What J answered to an optimiser.

    Attributes:
        value: J, +∞ where it could not be evaluated.
        gradient: dJ/dθ (n_params,), or None where only J was asked for.
    """

    value: float
    gradient: Floats | None = None


@final
@dataclass(frozen=True)
class Best:
    """The lowest iterate so far.

    Attributes:
        value: J.
        theta: in the shape of the starting point.
        gradient_norm: in L²(0, T).
    """

    value: float
    theta: Floats
    gradient_norm: float


@final
@dataclass(frozen=True)
class Iterate:
    """Where a descent stands after an iteration.

    Attributes:
        theta: in the shape of the starting point.
        best: the lowest iterate, or None before the first.
        points: θ and dJ/dθ (both flat) of the last iterates, oldest first; empty where no curvature is kept.
    """

    theta: Floats
    best: Best | None = None
    points: Points = ()


@final
@dataclass(frozen=True)
class DescentState:
    """A descent after an iteration.

    Attributes:
        began: where it stood when its optimiser was last made anew.
        first: iterations before that.
        known: the curvature that the optimiser was given, if that is not the one of ``began.points``.
        renewal: the iteration at which the metric is next made anew.
        answers: what J has answered since.
        now: where it stands.
        history: one record per iteration.
        first_norm: the gradient norm that the tolerance is relative to.
        evaluations: of J so far.
        rejected_evaluations: those where J could not be evaluated.
    """

    began: Iterate
    first: int
    known: Curvature | None
    renewal: int
    answers: tuple[Evaluation, ...]
    now: Iterate
    history: tuple[Record, ...]
    first_norm: float
    evaluations: int
    rejected_evaluations: int
