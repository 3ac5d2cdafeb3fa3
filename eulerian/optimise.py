"""Minimise J with PETSc's TAO."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from eulerian import parallel  # noqa: F401 - starts MPI before PETSc
from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.reduced import ReducedProblem

# isort: split
import numpy as np
from numpy.typing import ArrayLike
from petsc4py import PETSc

# With PETSc's default search a trial point at +∞ ends `lmvm`; these backtrack from it.
_SEARCH = {"lmvm": "armijo"}
_PREFIX = "eulerian_"

# J jumps by the time error where a step count changes and bends at the limiter's kinks, so close to a minimum a line
# search may find nothing lower before the gradient is as small as asked. Below this share of its first norm that is
# the accuracy of J, not a failure.
STAGNATION = 1e-3


@dataclass(frozen=True)
class Record:
    """One iteration.

    Attributes:
        iteration: 0 is the starting point.
        total: J.
        parts: J by name.
        gradient_norm: in L²(0, T).
        evaluations: forward solves so far.
        seconds: since the start.
    """

    iteration: int
    total: float
    parts: dict[str, float]
    gradient_norm: float
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class OptimiseResult:
    """Where the minimisation ended; θ is the best iterate, also after a failure.

    Attributes:
        theta: in the shape of the starting point.
        value: J there.
        gradient_norm: in L²(0, T), there.
        iterations: taken.
        status: "converged", "max_iterations" or "failed".
        reason: why it ended, in words.
        history: one record per iteration, the starting point first.
    """

    theta: Floats
    value: float
    gradient_norm: float
    iterations: int
    status: str
    reason: str
    history: list[Record] = field(repr=False)


@dataclass
class _Run:
    """What the callbacks of one minimisation share."""

    problem: ReducedProblem
    start: Floats
    unit: float  # TAO's variable is unit × scaling × θ
    max_iterations: int
    callback: Callable[[Record], object] | None
    started: float = field(default_factory=time.perf_counter)
    best: tuple[float, Floats, float] | None = None
    history: list[Record] = field(default_factory=list)
    failure: Exception | None = None
    stopped: bool = False

    @property
    def scaling(self) -> Floats:
        """TAO's variable over θ, (n_params,)."""
        return self.unit * self.problem.scaling

    def theta(self, x: PETSc.Vec) -> Floats:
        """The whole θ, on every rank, from the distributed scaled vector."""
        scaled = np.concatenate(self.problem.comm.allgather(x.array_r.copy()))
        if np.array_equal(scaled, self.start.ravel() * self.scaling):
            return self.start  # to the last bit, so that the problem knows it again
        return np.asarray(scaled / self.scaling).reshape(self.start.shape)

    def value_and_gradient(self, x: PETSc.Vec, g: PETSc.Vec) -> float:
        value, gradient = self.problem.value_and_gradient(self.theta(x))
        begin, end = g.getOwnershipRange()
        g.array_w[:] = (gradient.ravel() / self.scaling)[begin:end]
        return value

    def value(self, x: PETSc.Vec) -> float:
        return self.problem.value(self.theta(x))

    def monitor(self, tao: PETSc.TAO) -> None:
        """Once per accepted iterate: keep the best one, and tell the caller."""
        iteration, value, norm, *_ = tao.getSolutionStatus()
        norm *= self.unit
        if self.history and self.history[-1].iteration == iteration:
            return
        theta = self.theta(tao.getSolution())
        self.problem.value(theta)  # the last trial point is nearly always the accepted one: then this costs nothing
        if math.isfinite(value) and (self.best is None or value < self.best[0]):
            self.best = (value, theta, norm)
        seconds = time.perf_counter() - self.started
        record = Record(iteration, value, self.problem.parts, norm, self.problem.evaluations, seconds)
        self.history.append(record)
        if self.callback is not None and self.callback(record):
            self.stopped = True
            tao.setConvergedReason(PETSc.TAO.ConvergedReason.CONVERGED_USER)
        elif iteration >= self.max_iterations:  # TAO itself does not accept a limit of 0
            tao.setConvergedReason(PETSc.TAO.ConvergedReason.DIVERGED_MAXITS)


def minimise(
    problem: ReducedProblem,
    theta0: ArrayLike | None = None,
    *,
    method: str = "lmvm",
    petsc_options: str = "",
    max_iterations: int = 100,
    gradient_tolerance: float = 1e-6,
    callback: Callable[[Record], object] | None = None,
) -> OptimiseResult:
    """Minimise J from ``theta0`` (the problem's initial θ by default). Collective.

    TAO works on θ scaled to the inner product of L²(0, T), distributed over the ranks, so that refining the layers does
    not change the iteration and every rank reads the same bits. A trial point at which J cannot be evaluated counts as
    +∞ in the line search.

    Args:
        problem: J.
        theta0: the starting point.
        method: a TAO type that needs gradients only.
        petsc_options: like ``"-tao_ls_type more-thuente"``; applies to this minimisation only.
        max_iterations: at most this many.
        gradient_tolerance: on the gradient norm relative to that at the start.
        callback: called once per iteration on all ranks; a true result ends the minimisation.

    Raises:
        InputError: J cannot be evaluated at ``theta0``, or PETSc does not know the method or an option's value.
    """
    start = np.array(problem.initial_theta if theta0 is None else theta0, dtype=np.float64)
    value, gradient = problem.value_and_gradient(start)
    if not math.isfinite(value):
        raise InputError(
            f"J cannot be evaluated at the starting point: {problem.rejection}",
            key="field.theta",
            remedy="Start from a slower field (zero_init = true), raise solver.max_steps_per_layer, or use more layers",
        )
    norm = problem.gradient_norm(gradient)
    run = _Run(problem, start, _unit(problem, start, value, gradient), max_iterations, callback)
    x = PETSc.Vec().createMPI(problem.n_params, comm=problem.comm)
    begin, end = x.getOwnershipRange()
    x.array_w[:] = (start.ravel() * run.scaling)[begin:end]
    tao = PETSc.TAO().create(problem.comm)
    try:
        _configure(tao, method, petsc_options)
        tao.setObjective(lambda _tao, z: run.value(z))
        tao.setGradient(lambda _tao, z, g: _discard(run.value_and_gradient(z, g)), None)
        tao.setObjectiveGradient(lambda _tao, z, g: run.value_and_gradient(z, g), None)
        tao.setMonitor(lambda t: run.monitor(t))
        tao.setMaximumIterations(max(max_iterations, 1))
        tao.setTolerances(gatol=max(gradient_tolerance * norm / run.unit, 1e-300), grtol=0.0, gttol=0.0)
        try:
            tao.solve(x)
        except PETSc.Error as error:
            raise (error.__cause__ or error) from None  # what a callback raised, not PETSc's account of it
        status, reason = _outcome(tao, run, max_iterations, gradient_tolerance)
        iterations = tao.getIterationNumber()
    finally:
        tao.destroy()
        x.destroy()
    assert run.best is not None
    best, theta, best_norm = run.best
    return OptimiseResult(theta, best, best_norm, iterations, status, reason, run.history)


def _unit(problem: ReducedProblem, theta: Floats, value: float, gradient: Floats) -> float:
    """The unit of θ in which the unit step of steepest descent, TAO's first one, is a sensible step. Collective.

    σ² = |∇J|²/(2|J|): the step would halve a quadratic of minimum zero. Near a minimum that is far too long, so it is
    bounded by a change of the velocity that crosses the domain once. A wild first step may throw all mass into one
    cell, where the gradient says little and nothing leads back.
    """
    norm = problem.gradient_norm(gradient)
    if norm <= 0.0 or not abs(value) > 1e-12 * norm:
        return max(norm, 1.0)
    unit = norm / math.sqrt(2.0 * abs(value))
    step = np.ravel(gradient) / (problem.scaling * unit) ** 2
    crossing = problem.extent / problem.horizon
    crossings = problem.velocity_change(theta, step) / crossing
    return unit * math.sqrt(crossings) if 1.0 < crossings < math.inf else unit


def _discard(_value: object) -> None:
    """PETSc's gradient callback returns nothing."""


def _configure(tao: PETSc.TAO, method: str, petsc_options: str) -> None:
    """Method, line search and the user's options, which are gone from PETSc's database afterwards."""
    options = PETSc.Options()
    before = options.getAll()
    tao.setOptionsPrefix(_PREFIX)
    try:
        if method in _SEARCH:
            options[f"{_PREFIX}tao_ls_type"] = _SEARCH[method]
        options.insertString(petsc_options.replace("-tao_", f"-{_PREFIX}tao_"))
        tao.setType(method)
        tao.setFromOptions()
    except PETSc.Error as error:
        raise InputError(
            "PETSc refuses the method or an option",
            key="optimiser.petsc_options" if petsc_options else "optimiser.method",
            value=petsc_options or method,
            remedy=str(error).splitlines()[-1],
        ) from error
    finally:
        for name in set(options.getAll()) - set(before):
            options.delValue(name)


def _outcome(tao: PETSc.TAO, run: _Run, max_iterations: int, tolerance: float) -> tuple[str, str]:
    """Status and reason in words."""
    reasons = PETSc.TAO.ConvergedReason
    code = tao.getConvergedReason()
    if run.stopped:
        return "max_iterations", "stopped by the caller"
    names = {getattr(reasons, name): name for name in dir(reasons) if name.isupper()}
    if code == reasons.CONVERGED_GATOL:
        return "converged", f"the gradient norm fell below {tolerance:g} times its first value"
    if code > 0:
        return "converged", f"TAO ended with {names.get(code, code)}"
    if code == reasons.DIVERGED_MAXITS:
        return "max_iterations", f"the limit of {max_iterations} iterations was reached"
    if code == reasons.DIVERGED_LS_FAILURE:
        fallen = run.history[-1].gradient_norm / run.history[0].gradient_norm
        if fallen <= STAGNATION:
            return (
                "converged",
                f"no lower value is in reach, and the gradient norm fell to {fallen:.1e} of its first value",
            )
        return "failed", "the line search found no lower value; the best iterate is kept"
    return "failed", f"TAO ended with {names.get(code, code)}; the best iterate is kept"
