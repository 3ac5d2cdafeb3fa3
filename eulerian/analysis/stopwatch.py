"""What values and gradients cost: time on the clock, and of all processors."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.control.reduced import ReducedProblem


@final
@dataclass(frozen=True)
class Seconds:
    """Of one piece of work.

    Attributes:
        wall: on the clock of rank 0.
        cpu: of the processors, threads included, summed over ranks.
    """

    wall: float
    cpu: float


@final
@dataclass(frozen=True)
class EvaluationCost:
    """Of a problem.

    Attributes:
        value: J.
        gradient: J and ∇J together.
    """

    value: Seconds
    gradient: Seconds


def clocked[T](comm: MPI.Comm, work: Callable[[], T]) -> tuple[T, Seconds]:
    """Do collective work, and say what it took, the same on all ranks. Collective."""
    comm.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    cpu = time.process_time() - cpu  # before the barrier: MPI waits by spinning, which would count as work
    comm.barrier()
    wall = time.perf_counter() - wall
    total = float(parallel.sum_all(comm, np.array([cpu]))[0])
    return result, Seconds(comm.bcast(wall, 0), total)


def evaluation_cost(problem: ReducedProblem, theta: Floats, *, at_least: float = 0.2, most: int = 5) -> EvaluationCost:
    """Measure J and ∇J at θ, repeatedly while that takes less than ``at_least`` seconds; the quickest counts.

    The problem's last evaluation is at θ afterwards. What happens once, on the first evaluation, should have happened.
    Collective.
    """
    found: list[EvaluationCost] = []
    spent = 0.0
    while not found or (spent < at_least and len(found) < most):
        problem.forget()
        _, value = clocked(problem.comm, lambda: problem.value(theta))
        _, rest = clocked(problem.comm, lambda: problem.value_and_gradient(theta))
        found.append(EvaluationCost(value, Seconds(value.wall + rest.wall, value.cpu + rest.cpu)))
        spent += found[-1].gradient.wall
    return EvaluationCost(_least([each.value for each in found]), _least([each.gradient for each in found]))


def _least(found: Sequence[Seconds]) -> Seconds:
    return Seconds(min(each.wall for each in found), min(each.cpu for each in found))
