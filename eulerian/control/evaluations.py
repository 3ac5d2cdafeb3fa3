"""J of a problem for optimisers of other libraries: from any thread, and on all ranks in one order.

What a compiled program of such a library calls, it calls from threads of its own, and calls that do not depend on each
other in an order that may differ from rank to rank, be they of one problem or of several. J is collective: all ranks
have to evaluate the same one at the same θ at the same time. So rank 0 says what is evaluated, and hands out its θ; the
others evaluate that, and keep the outcome for the thread that asks for it, or has asked.
"""

import math
import time
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any, final
from weakref import WeakKeyDictionary, WeakValueDictionary

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, InputError
from eulerian.base.parallel import lasting
from eulerian.control.reduced import ReducedProblem

# θ of two ranks may differ by rounding, relative to its largest number: their libraries may sum in different orders.
_ROUNDING = 1e-9

# How long a rank that has been told to evaluate J where it does not want to know it waits for what it has asked for.
_SECONDS = 60.0

# How long a rank looks without a break whether rank 0 has come.
_SECONDS_AWAKE = 0.01


@final
@dataclass(frozen=True)
class Outcome:
    """What an evaluation has found.

    Attributes:
        value: J, or +∞ where it was rejected.
        gradient: dJ/dθ (n_params,); None if it was not asked for.
        by_rho0: dJ/dρ₀ (C, nd, K); None likewise, or without ρ₀.
    """

    value: float
    gradient: Floats | None = None
    by_rho0: Floats | None = None


@final
@dataclass(frozen=True, eq=False)
class _Request:
    """Which J is asked for, where, and whether with derivatives."""

    problem: int
    theta: Floats
    rho0: Floats | None
    derivatives: bool

    def distance(self, other: "_Request") -> float:
        """The largest difference between numbers of the two, relative to the largest number; ∞ if of another kind."""
        if (self.problem, self.derivatives) != (other.problem, other.derivatives) or (self.rho0 is None) != (
            other.rho0 is None
        ):
            return np.inf
        pairs = [(self.theta, other.theta)] + ([] if self.rho0 is None else [(self.rho0, other.rho0)])
        found = 0.0
        for a, b in pairs:
            if b is None or a.shape != b.shape:
                return np.inf
            if not np.array_equal(a, b, equal_nan=True):
                with np.errstate(all="ignore"):
                    change = np.max(np.abs(a - b)) / np.max(np.abs(a))
                found = max(found, float(change) if change >= 0.0 else np.inf)
        return found


@final
@dataclass(eq=False)
class _Asked:
    """A thread of this rank that waits for an outcome, or for an error."""

    request: _Request
    outcome: Outcome | BaseException | None = None


@final
@dataclass(eq=False)
class _Queue:
    """Who asks for evaluations of the problems of a communicator: they are done one by one.

    Attributes:
        comm: of this queue alone: what waits for rank 0 is not to mix with what problems send.
        problems: by number, the same on all ranks.
        numbers: of the problems.
        count: of all problems so far.
        turn: of one thread of rank 0, or of the only rank.
        changed: guards what follows, on other ranks.
        leading: whether a thread of this rank hears rank 0.
        waiting: threads of this rank.
        early: outcomes that rank 0 has asked for and nobody here, yet.
        signal: with which rank 0 comes, a buffer.
        coming: what waits for it; who gives up leaves it to the next one.
    """

    comm: MPI.Comm
    problems: "WeakValueDictionary[int, ReducedProblem]" = field(default_factory=WeakValueDictionary)
    numbers: "WeakKeyDictionary[ReducedProblem, int]" = field(default_factory=WeakKeyDictionary)
    count: int = 0
    turn: Lock = field(default_factory=Lock)
    changed: Condition = field(default_factory=Condition)
    leading: bool = False
    waiting: list[_Asked] = field(default_factory=list)
    early: list[tuple[_Request, Outcome | BaseException]] = field(default_factory=list)
    signal: Floats = field(default_factory=lambda: np.zeros(1))
    coming: MPI.Request | None = None

    def number(self, problem: ReducedProblem) -> int:
        """Of a problem, in the order in which they come, which is that of the program."""
        if problem not in self.numbers:
            self.numbers[problem] = self.count
            self.problems[self.count] = problem
            self.count += 1  # counted: ranks may forget problems at different times
        return self.numbers[problem]

    def match(self) -> None:
        """Hand outcomes to those who wait for them: at the same θ, or else up to rounding to the only one who waits."""
        for pair in list(self.early):
            request, outcome = pair
            exact = [asked for asked in self.waiting if asked.request.distance(request) == 0.0]
            close = [asked for asked in self.waiting if asked.request.distance(request) <= _ROUNDING]
            for asked in exact[:1] or (close if len(self.waiting) == 1 else []):
                asked.outcome = outcome
                self.waiting.remove(asked)
                self.early = [other for other in self.early if other is not pair]


# By the size of the communicator: of all ranks, or of one. Problems of other communicators have one each.
_QUEUES: dict[int, _Queue] = {}
_OWN_QUEUES: WeakKeyDictionary[ReducedProblem, _Queue] = WeakKeyDictionary()


def _queue_of(problem: ReducedProblem) -> _Queue:
    """The queue of a problem's communicator. Collective."""
    comm = lasting(problem.comm)
    if comm not in (MPI.COMM_WORLD, MPI.COMM_SELF):
        return _OWN_QUEUES.setdefault(problem, _Queue(comm))
    if comm.size not in _QUEUES:
        _QUEUES[comm.size] = _Queue(comm.Dup())
    return _QUEUES[comm.size]


@final
class Evaluations:
    """Evaluations of a problem that anybody may ask for. To make it is **collective**.

    Args:
        problem: whose J it is.

    Attributes:
        problem: as given.

    Raises:
        InputError: it is none.
    """

    def __init__(self, problem: Any) -> None:
        if not callable(getattr(problem, "value_and_gradients", None)):
            what = "must be a ControlProblem or a ParticleProblem"
            raise InputError(what, key="problem", value=type(problem).__name__)
        self.problem: ReducedProblem = problem
        self._queue = _queue_of(problem)
        self._number = self._queue.number(problem)

    def __call__(self, theta: Any, rho0: Any = None, *, derivatives: bool = True) -> Outcome:
        """J, with or without derivatives. **Collective**; from any thread.

        Args:
            theta: flat, (n_params,), the same on all ranks but for rounding: rank 0's counts.
            rho0: (C, nd, K), likewise; None for the problem's own.
            derivatives: whether they are wanted.

        Raises:
            InputError: θ or ρ₀ does not fit; or MPI does not allow another thread than the main one.
            ComputationError: a derivative is not finite; or this rank asks for J where rank 0 does not.
        """
        _require_threads(self.problem.comm)
        asked = _Request(
            self._number,
            np.array(theta, dtype=np.float64).ravel(),
            None if rho0 is None else np.array(rho0, dtype=np.float64),
            derivatives,
        )
        if self.problem.comm.rank > 0:
            return self._follow(asked)
        with self._queue.turn:
            if self._queue.comm.size > 1:
                self._queue.comm.Ibcast(np.zeros(1), 0).Wait()  # what the others wait for
                self._queue.comm.bcast(asked, 0)
            return self._evaluate(asked)

    def check_size(self, size: int) -> None:
        """Raise InputError unless a flat θ has so many numbers."""
        wanted, shape = self.problem.n_params, self.problem.layer_shape
        if size != wanted:
            rest = wanted - math.prod(shape)
            more = f' and a readout of {rest}: {{"layers": …, "readout": …}}' if rest else ""
            what = f"{shape[0]} layers of {shape[1]} parameters are needed{more}"
            raise InputError(what, key="theta", value=f"{size} numbers")

    def _evaluate(self, request: _Request) -> Outcome:
        theta, rho0 = request.theta, request.rho0
        problem: Any = self._problem(request.problem)
        if not request.derivatives:
            return Outcome(problem.value(theta) if rho0 is None else problem.value_from(theta, rho0))
        if rho0 is None:
            return Outcome(*problem.value_and_gradient(theta))
        return Outcome(*problem.value_and_gradients(theta, rho0))

    def _problem(self, number: int) -> ReducedProblem:
        """The problem of a number; this rank may not have come to where it is made."""
        started = time.monotonic()
        while True:
            problem = self._queue.problems.get(number)
            if problem is not None:
                return problem
            if time.monotonic() - started > _SECONDS:
                rank = self._queue.comm.rank
                raise ComputationError(f"rank 0 asks for J of a problem that rank {rank} does not have")
            time.sleep(1e-4)

    # -- ranks that follow rank 0 ------------------------------------------------------------------------------------

    def _follow(self, request: _Request) -> Outcome:
        queue, asked = self._queue, _Asked(request)
        with queue.changed:
            queue.waiting.append(asked)
            queue.match()
            try:
                while asked.outcome is None:
                    if queue.leading:
                        queue.changed.wait()
                    else:  # one thread hears rank 0 for all of them
                        self._lead()
            except BaseException:  # who gives up leaves nothing behind
                queue.waiting.remove(asked)
                queue.early.clear()
                raise
        if isinstance(asked.outcome, BaseException):
            raise asked.outcome
        return asked.outcome

    def _lead(self) -> None:
        """Do what rank 0 does next, without holding the others up. Collective."""
        queue = self._queue
        queue.leading = True
        queue.changed.release()
        try:
            found = self._next()
        finally:
            queue.changed.acquire()
            queue.leading = False
            queue.changed.notify_all()
        queue.early.append(found)
        queue.match()

    def _next(self) -> tuple[_Request, Outcome | BaseException]:
        """What rank 0 evaluates next. Collective."""
        queue, started = self._queue, time.monotonic()
        comm = queue.comm
        queue.coming = queue.coming or comm.Ibcast(queue.signal, 0)
        while not queue.coming.Test():
            waited = time.monotonic() - started
            if queue.early and waited > _SECONDS:
                raise ComputationError(
                    f"rank {comm.rank} asks for J at another θ than rank 0: all ranks must ask for the same in the end"
                )
            if waited > _SECONDS_AWAKE:
                time.sleep(1e-4)
        queue.coming = None
        request: _Request = comm.bcast(None, 0)
        try:
            return request, self._evaluate(request)
        except Exception as error:  # noqa: BLE001 - it belongs to another thread
            return request, error


def _require_threads(comm: MPI.Comm) -> None:
    """Raise InputError where this thread must not call MPI."""
    if comm.size > 1 and not MPI.Is_thread_main() and MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        what = "MPI was started for the main thread only, and a compiled program asks for J from another one"
        raise InputError(what, key="problem", remedy="Evaluate J outside of jit, or let mpi4py start MPI.")
