"""Minimise J with PETSc's TAO."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from eulerian import parallel  # noqa: F401 - starts MPI before PETSc
from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.optimise.curvature import MEMORY, Curvature, Trail
from eulerian.optimise.first_step import in_learnt_unit, in_sensible_unit
from eulerian.optimise.metric import Metric
from eulerian.optimise.probes import velocity_metric
from eulerian.optimise.records import OptimiseResult, Record
from eulerian.reduced import ReducedProblem

# isort: split
import numpy as np
from numpy.typing import ArrayLike
from petsc4py import PETSc

LMVM: Final = "lmvm"

# With PETSc's default search a trial point at +∞ ends `lmvm`; this backtracks from it. Nearly all searches end with the
# first trial; where the first is far too long, as near a minimum, a quarter gets down twice as fast as PETSc's half.
_SEARCH = {"tao_ls_type": "armijo", "tao_ls_armijo_beta": 0.25, "tao_ls_max_funcs": 15}
_PREFIX = "eulerian_"
_MATRIX = "tao_lmvm_"  # of its options PETSc does not ask with the prefix

# J jumps by the time error where a step count changes and bends at the limiter's kinks, so close to a minimum a line
# search may find nothing lower before the gradient is as small as asked. Below this share of its first norm that is
# the accuracy of J, not a failure.
STAGNATION = 1e-3

# Iterations before the velocity metric is made anew for the first time; each time it then serves twice as long.
_FIRST_METRIC = 5


@dataclass
class _Descent:
    """What the callbacks of one minimisation share."""

    problem: ReducedProblem
    max_iterations: int
    tolerance: float  # on the gradient norm in L²(0, T)
    callback: Callable[[Record], object] | None
    started: float  # by time.perf_counter
    trail: Trail | None = None
    best: tuple[float, Floats, float] | None = None
    history: list[Record] = field(default_factory=list)
    stopped: bool = False
    # of the present leg, in which the metric stays the same:
    now: Floats = field(init=False)
    start: Floats = field(init=False)
    metric: Metric = field(init=False)
    origin: Floats = field(init=False)  # the variable at its start
    first: int = 0  # iterations before it
    last: int | None = None  # iteration at which it ends
    _seen: tuple[Floats, float] | None = None  # θ of the last gradient, and its norm

    def begin(self, start: Floats, metric: Metric, last: int | None) -> None:
        """The next leg goes from ``start`` to the iteration ``last``."""
        self.start, self.metric, self.last = start, metric, last
        self.origin = metric.variable(start.ravel())
        self.first = self.history[-1].iteration if self.history else 0

    def goes_on(self, code: int) -> bool:
        """Whether the leg has ended, with TAO's reason, because the metric is to be made anew."""
        return not self.stopped and code == PETSc.TAO.ConvergedReason.CONVERGED_USER

    def theta(self, x: PETSc.Vec) -> Floats:
        """The whole θ, on every rank, from the distributed variable."""
        whole = np.concatenate(self.problem.comm.allgather(x.array_r.copy()))
        step = self.metric.theta(whole - self.origin)  # from a point that is known to the last bit
        return self.start + step.reshape(self.start.shape)

    def value_and_gradient(self, x: PETSc.Vec, g: PETSc.Vec) -> float:
        theta = self.theta(x)
        value, gradient = self.problem.value_and_gradient(theta)
        begin, end = g.getOwnershipRange()
        g.array_w[:] = self.metric.gradient(gradient.ravel())[begin:end]
        self._seen = theta, self.problem.gradient_norm(gradient)
        return value

    def value(self, x: PETSc.Vec) -> float:
        return self.problem.value(self.theta(x))

    def monitor(self, tao: PETSc.TAO) -> None:
        """Once per accepted iterate: keep the best one, and tell the caller."""
        iteration, value, norm, *_ = tao.getSolutionStatus()
        iteration += self.first
        if self.history and self.history[-1].iteration == iteration:
            return
        self.now = theta = self.theta(tao.getSolution())
        self.problem.value(theta)  # the last trial point is nearly always the accepted one: then this costs nothing
        if self._seen is not None and np.array_equal(self._seen[0], theta):
            norm = self._seen[1]
            if self.trail is not None:
                self.trail.add(theta.ravel(), self.problem.value_and_gradient(theta)[1].ravel())
        if math.isfinite(value) and (self.best is None or value < self.best[0]):
            self.best = (value, theta, norm)
        seconds = time.perf_counter() - self.started
        record = Record(iteration, value, self.problem.parts, norm, self.problem.evaluations, seconds)
        self.history.append(record)
        reasons = PETSc.TAO.ConvergedReason
        if self.callback is not None and self.callback(record):
            self.stopped = True
            tao.setConvergedReason(reasons.CONVERGED_USER)
        elif norm <= self.tolerance:
            tao.setConvergedReason(reasons.CONVERGED_GATOL)
        elif iteration >= self.max_iterations:  # TAO itself does not accept a limit of 0
            tao.setConvergedReason(reasons.DIVERGED_MAXITS)
        elif iteration == self.last:
            tao.setConvergedReason(reasons.CONVERGED_USER)


def minimise(
    problem: ReducedProblem,
    theta0: ArrayLike | None = None,
    *,
    method: str = LMVM,
    petsc_options: str = "",
    max_iterations: int = 100,
    gradient_tolerance: float = 1e-6,
    metric: str = "velocity",
    callback: Callable[[Record], object] | None = None,
    curvature: Curvature | None = None,
    first_norm: float | None = None,
) -> OptimiseResult:
    """Minimise J from ``theta0`` (the problem's initial θ by default). Collective.

    TAO works on a variable that is distributed over the ranks, and every rank reads the same bits. It is θ scaled to
    the inner product of L²(0, T), so that refining the layers does not change the iteration; with ``lmvm`` and a field
    that tells its derivatives by θ it is stretched to the inner product of the velocities that θ makes, made anew after
    5, 10, 20, 40, … iterations. A trial point at which J cannot be evaluated counts as +∞ in the line search.

    Args:
        problem: J.
        theta0: the starting point.
        method: a TAO type that needs gradients only.
        petsc_options: like ``"-tao_ls_type more-thuente"``; applies to this minimisation only.
        max_iterations: at most this many.
        gradient_tolerance: on the gradient norm relative to that at the start.
        metric: "velocity", or "parameters" for L²(0, T) whatever the method and the field.
        callback: called once per iteration on all ranks; a true result ends the minimisation.
        curvature: what an earlier descent has learnt near ``theta0``; methods other than ``lmvm`` have no use for it.
        first_norm: the gradient norm that the tolerance is relative to, if not that at the start.

    Raises:
        InputError: J cannot be evaluated at ``theta0``, or PETSc does not know the method or an option's value.
    """
    started = time.perf_counter()
    theta = np.array(problem.initial_theta if theta0 is None else theta0, dtype=np.float64)
    value, gradient = problem.value_and_gradient(theta)
    if not math.isfinite(value):
        raise InputError(
            f"J cannot be evaluated at the starting point: {problem.rejection}",
            key="field.theta",
            remedy="Start from a slower field (zero_init = true), raise solver.max_steps_per_layer, or use more layers",
        )
    first_norm = problem.gradient_norm(gradient) if first_norm is None else first_norm
    descent = _Descent(problem, max_iterations, gradient_tolerance * first_norm, callback, started)
    if method == LMVM:
        descent.trail = Trail(problem.n_params)
    else:
        curvature = None
    renewed = _FIRST_METRIC
    while True:
        found = velocity_metric(problem) if method == LMVM and metric == "velocity" else None
        plain = Metric(problem.scaling) if found is None else found
        known = curvature if curvature is not None and len(curvature) else None
        if known is None:
            scaled = in_sensible_unit(problem, plain, theta, value, gradient)
        else:
            scaled = in_learnt_unit(plain, known)
        descent.begin(theta, scaled, None if found is None else renewed)
        code = _leg(descent, method, petsc_options, known)
        if not descent.goes_on(code):
            break
        theta, renewed = descent.now, 2 * renewed
        value, gradient = problem.value_and_gradient(theta)
        assert descent.trail is not None
        curvature = descent.trail.curvature
    status, reason = _outcome(code, descent, gradient_tolerance, first_norm)
    assert descent.best is not None
    best, theta, norm = descent.best
    learnt = None if descent.trail is None else descent.trail.curvature
    iterations = descent.history[-1].iteration
    return OptimiseResult(theta, best, norm, iterations, status, reason, descent.history, learnt)


def _leg(descent: _Descent, method: str, petsc_options: str, known: Curvature | None) -> int:
    """Go on until the metric is to be made anew, or to the end; TAO's reason to stop. Collective."""
    problem = descent.problem
    x = PETSc.Vec().createMPI(problem.n_params, comm=problem.comm)
    begin, end = x.getOwnershipRange()
    x.array_w[:] = descent.origin[begin:end]
    tao = PETSc.TAO().create(problem.comm)
    learnt = None
    if known is not None:
        _, gradient = problem.value_and_gradient(descent.start)
        learnt = _lbfgs_matrix(known, descent.metric, x, descent.metric.gradient(gradient.ravel()))
    try:
        _configure(tao, method, petsc_options, recycle=learnt is not None)
        tao.setObjective(lambda _tao, z: descent.value(z))
        tao.setGradient(lambda _tao, z, g: _discard(descent.value_and_gradient(z, g)), None)
        tao.setObjectiveGradient(lambda _tao, z, g: descent.value_and_gradient(z, g), None)
        tao.setMonitor(lambda t: descent.monitor(t))
        tao.setMaximumIterations(max(descent.max_iterations - descent.first, 1))
        tao.setTolerances(gatol=0.0, grtol=0.0, gttol=0.0)  # our own is on the norm in L²(0, T)
        if learnt is not None:
            tao.setLMVMH0(learnt)
        try:
            tao.solve(x)
        except PETSc.Error as error:
            raise (error.__cause__ or error) from None  # what a callback raised, not PETSc's account of it
        return int(tao.getConvergedReason())
    finally:
        tao.destroy()
        x.destroy()
        if learnt is not None:
            learnt.destroy()


def _lbfgs_matrix(known: Curvature, metric: Metric, x: PETSc.Vec, gradient: Floats) -> PETSc.Mat:
    """PETSc's L-BFGS matrix that has seen the pairs on its way to x, where dJ/dx is ``gradient``. Collective."""
    begin, end = x.getOwnershipRange()
    sizes = (x.getLocalSize(), x.getSize())
    matrix = PETSc.Mat().create(x.comm)
    matrix.setSizes((sizes, sizes))
    matrix.setType(PETSc.Mat.Type.LMVMBFGS)
    with _options({f"{_PREFIX}known_mat_lmvm_hist_size": MEMORY}):
        matrix.setOptionsPrefix(f"{_PREFIX}known_")
        matrix.setFromOptions()
    # The matrix is told points, not steps, and TAO goes on telling it: the last one must be where TAO starts.
    steps = np.array([metric.variable(step)[begin:end] for step in known.steps])
    slopes = np.array([metric.gradient(slope)[begin:end] for slope in known.slopes])
    point, slope = x.duplicate(), x.duplicate()
    matrix.allocateLMVM(point, slope)
    for k in range(len(known) + 1):
        point.array_w[:] = x.array_r - steps[k:].sum(axis=0)
        slope.array_w[:] = gradient[begin:end] - slopes[k:].sum(axis=0)
        matrix.updateLMVM(point, slope)
    point.destroy()
    slope.destroy()
    return matrix


def _discard(_value: object) -> None:
    """PETSc's gradient callback returns nothing."""


@contextmanager
def _options(values: Mapping[str, object], text: str = "") -> Iterator[None]:
    """Options in PETSc's database, which are gone from it afterwards."""
    options = PETSc.Options()
    before = options.getAll()
    try:
        for name, value in values.items():
            options[name] = value
        options.insertString(text)
        yield
    finally:
        for name in set(options.getAll()) - set(before):
            options.delValue(name)


def _configure(tao: PETSc.TAO, method: str, petsc_options: str, *, recycle: bool) -> None:
    """Method, line search and the user's options.

    ``recycle`` keeps TAO from emptying its matrix, and the known one below it, at the start.
    """
    tao.setOptionsPrefix(_PREFIX)
    ours = {}
    if method == LMVM:
        ours = {f"{_PREFIX}{name}": value for name, value in _SEARCH.items()}
        ours |= {f"{_MATRIX}mat_lmvm_hist_size": MEMORY, f"{_PREFIX}tao_lmvm_recycle": recycle}
    theirs = petsc_options.replace("-tao_", f"-{_PREFIX}tao_").replace(f"-{_PREFIX}{_MATRIX}mat_", f"-{_MATRIX}mat_")
    try:
        with _options(ours, theirs):
            tao.setType(method)
            tao.setFromOptions()
    except PETSc.Error as error:
        raise InputError(
            "PETSc refuses the method or an option",
            key="optimiser.petsc_options" if petsc_options else "optimiser.method",
            value=petsc_options or method,
            remedy=str(error).splitlines()[-1],
        ) from error


def _outcome(code: int, descent: _Descent, tolerance: float, first_norm: float) -> tuple[str, str]:
    """Status and reason in words."""
    reasons = PETSc.TAO.ConvergedReason
    if descent.stopped:
        return "max_iterations", "stopped by the caller"
    names = {getattr(reasons, name): name for name in dir(reasons) if name.isupper()}
    if code == reasons.CONVERGED_GATOL:
        return "converged", f"the gradient norm fell below {tolerance:g} times its first value"
    if code > 0:
        return "converged", f"TAO ended with {names.get(code, code)}"
    if code == reasons.DIVERGED_MAXITS:
        return "max_iterations", f"the limit of {descent.max_iterations} iterations was reached"
    if code == reasons.DIVERGED_LS_FAILURE:
        fallen = descent.history[-1].gradient_norm / first_norm
        if fallen <= STAGNATION:
            return (
                "converged",
                f"no lower value is in reach, and the gradient norm fell to {fallen:.1e} of its first value",
            )
        return "failed", "the line search found no lower value; the best iterate is kept"
    return "failed", f"TAO ended with {names.get(code, code)}; the best iterate is kept"
