"""One run of an optimiser of PETSc's TAO (https://petsc.org/release/manual/tao)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, final

from mpi4py import MPI

import numpy as np
from petsc4py import PETSc

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, InputError
from eulerian.optimise.lbfgs_pairs import MEMORY, Curvature
from eulerian.optimise.metric import Metric

LMVM: Final = "lmvm"

# The methods that keep to bounds, the one that is taken where none is named first.
BOUNDED: Final = ("bqnls", "blmvm", "bqnktr", "bqnktl", "bncg")

# With PETSc's default search a trial point at +∞ ends `lmvm`; this backtracks from it. Nearly all searches end with the
# first trial; where the first is far too long, as near a minimum, a quarter gets down twice as fast as PETSc's half.
_SEARCH = {"tao_ls_type": "armijo", "tao_ls_armijo_beta": 0.25, "tao_ls_max_funcs": 15}
_PREFIX = "eulerian_"
# By method: PETSc reads the options of its matrix of L-BFGS pairs without the optimiser's prefix.
_MATRICES = {LMVM: "tao_lmvm_", "blmvm": "tao_blmvm_", "bqnls": "tao_bqnk_"}

REASONS = PETSc.TAO.ConvergedReason


class Objective(Protocol):
    """What TAO minimises; x is the variable in which the metric is Euclidean, all of it on every rank."""

    def value(self, x: Floats) -> float:
        """J at x (n,). Collective."""

    def value_and_gradient(self, x: Floats) -> tuple[float, Floats]:
        """J and its derivative by x, both (n,). Collective."""

    def accepted(self, iteration: int, value: float, norm: float, x: Floats) -> int | None:
        """An iterate x (n,), J there and the norm of its derivative; a reason of ``REASONS`` to stop, or None.

        Collective.
        """


@final
@dataclass(frozen=True)
class Method:
    """Which optimiser, and how it is set up.

    Attributes:
        name: a TAO type that needs gradients only.
        petsc_options: like ``"-tao_ls_type more-thuente"``.
    """

    name: str
    petsc_options: str = ""

    def run(
        self,
        comm: MPI.Comm,
        objective: Objective,
        x0: Floats,
        iterations: int,
        initial_hessian: Callable[[PETSc.Vec], PETSc.Mat] | None = None,
        bounds: tuple[Floats, Floats] | None = None,
    ) -> int:
        """Minimise from x0 until ``objective.accepted`` gives a reason to stop; returns TAO's reason. **Collective**.

        Args:
            comm: who shares the variable.
            objective: J as a function of the variable.
            x0: (n,) where to start, the same on all ranks.
            iterations: at most this many.
            initial_hessian: for ``lmvm``, makes the matrix that the new L-BFGS pairs are added to.
            bounds: lower and upper ones (n,) of the variable; None for none.

        Raises:
            InputError: PETSc does not know the method or an option's value, or the method knows no bounds.
        """
        x = PETSc.Vec().createMPI(len(x0), comm=comm)
        x.array_w[:] = x0[slice(*x.getOwnershipRange())]
        tao = PETSc.TAO().create(comm)
        matrix = None if initial_hessian is None else initial_hessian(x)
        sides = [] if bounds is None else [_like(x, side) for side in bounds]
        try:
            self._configure(tao, recycle=matrix is not None)
            if sides:
                require_bounded(tao.getType(), "petsc_options")  # an option may have named another one
                tao.setVariableBounds(tuple(sides))
            _connect(tao, objective, comm)
            tao.setMaximumIterations(max(iterations, 1))  # it does not accept 0; the monitor stops it
            tao.setTolerances(gatol=0.0, grtol=0.0, gttol=0.0)  # our own is on the norm in L²(0, T)
            if matrix is not None:
                tao.setLMVMH0(matrix)
            try:
                tao.solve(x)
            except PETSc.Error as error:
                if error.__cause__ is not None:  # what a callback raised, not PETSc's account of it
                    raise error.__cause__ from None
                raise ComputationError(f"{self.name} broke off: {_error_text(error)}") from error
            return int(tao.getConvergedReason())
        finally:
            # Explicitly and on all ranks at once: garbage collection would come at another moment on each.
            tao.destroy()
            for vector in (x, *sides):
                vector.destroy()
            if matrix is not None:
                matrix.destroy()

    def _configure(self, tao: PETSc.TAO, *, recycle: bool) -> None:
        """Set method, line search and the user's options; ``recycle`` keeps the pairs of the initial Hessian."""
        tao.setOptionsPrefix(_PREFIX)
        ours: dict[str, object] = {}
        matrix = _MATRICES.get(self.name)
        theirs = self.petsc_options.replace("-tao_", f"-{_PREFIX}tao_")
        if matrix is not None:
            ours = {f"{_PREFIX}{name}": value for name, value in _SEARCH.items()}
            ours[f"{matrix}mat_lmvm_hist_size"] = MEMORY
            if self.name != LMVM:
                # Near a minimum their first trial may be as far off as 10⁷ times the step that is to be found.
                ours[f"{_PREFIX}tao_ls_max_funcs"] = 20
            theirs = theirs.replace(f"-{_PREFIX}{matrix}mat_", f"-{matrix}mat_")
        if self.name == LMVM:
            # Without "recycle" TAO empties its matrix at the start, and with it the initial Hessian's.
            ours[f"{_PREFIX}tao_lmvm_recycle"] = recycle
        try:
            with _options(ours, theirs):
                tao.setType(self.name)
                tao.setFromOptions()
        except PETSc.Error as error:
            raise InputError(
                "PETSc refuses the method or an option",
                key="optimiser.petsc_options" if self.petsc_options else "optimiser.method",
                value=self.petsc_options or self.name,
                remedy=_error_text(error),
            ) from error


def chosen(method: str | None, petsc_options: str, *, bounded: bool) -> Method:
    """The method of this name, or without one that for a θ with bounds or without."""
    return Method(method or (BOUNDED[0] if bounded else LMVM), petsc_options)


def require_bounded(name: str, key: str) -> None:
    """Raise InputError, under a key, unless a TAO type keeps to bounds."""
    if name not in BOUNDED:
        what, remedy = "is a method that keeps to no bounds, and θ has some", f"Those that do are {', '.join(BOUNDED)}."
        raise InputError(what, key=key, value=name, remedy=remedy)


def _like(x: PETSc.Vec, values: Floats) -> PETSc.Vec:
    """A vector that is distributed as x is, of values (n,) that all ranks know."""
    vector = x.duplicate()
    vector.array_w[:] = values[slice(*x.getOwnershipRange())]
    return vector


def _connect(tao: PETSc.TAO, objective: Objective, comm: MPI.Comm) -> None:
    """Set the callbacks by which TAO evaluates the objective and reports its iterates."""

    def gathered(vector: PETSc.Vec) -> Floats:
        return np.concatenate(comm.allgather(vector.array_r.copy()))

    def value_and_gradient(_tao: PETSc.TAO, z: PETSc.Vec, g: PETSc.Vec) -> float:
        value, gradient = objective.value_and_gradient(gathered(z))
        g.array_w[:] = gradient[slice(*g.getOwnershipRange())]
        return value

    def gradient_only(tao_: PETSc.TAO, z: PETSc.Vec, g: PETSc.Vec) -> None:
        value_and_gradient(tao_, z, g)

    def monitor(tao_: PETSc.TAO) -> None:
        iteration, value, norm, *_ = tao_.getSolutionStatus()
        reason = objective.accepted(iteration, value, norm, gathered(tao_.getSolution()))
        if reason is not None:
            tao_.setConvergedReason(reason)

    tao.setObjective(lambda _tao, z: objective.value(gathered(z)))
    tao.setGradient(gradient_only, None)
    tao.setObjectiveGradient(value_and_gradient, None)
    tao.setMonitor(monitor)


def _error_text(error: PETSc.Error) -> str:
    """PETSc's own message, without its stack of calls."""
    return str(error).splitlines()[-1].partition("] ")[2]


def lbfgs_matrix(pairs: Curvature, metric: Metric, x: PETSc.Vec, gradient: Floats) -> PETSc.Mat:
    """PETSc's L-BFGS matrix of given pairs, as if they had been found on the way to x. **Collective**.

    Args:
        pairs: of θ and dJ/dθ.
        metric: between θ and x.
        x: (n,) where TAO is going to start.
        gradient: (n,) dJ/dx there.
    """
    begin, end = x.getOwnershipRange()
    sizes = (x.getLocalSize(), x.getSize())
    matrix = PETSc.Mat().create(x.comm)
    matrix.setSizes((sizes, sizes))
    matrix.setType(PETSc.Mat.Type.LMVMBFGS)
    with _options({f"{_PREFIX}initial_mat_lmvm_hist_size": MEMORY}):
        matrix.setOptionsPrefix(f"{_PREFIX}initial_")
        matrix.setFromOptions()
    # PETSc's matrix takes points, not steps, and TAO goes on adding its own: the last point must be where TAO starts.
    steps = np.array([metric.variable(step)[begin:end] for step in pairs.steps])
    slopes = np.array([metric.gradient(slope)[begin:end] for slope in pairs.slopes])
    point, slope = x.duplicate(), x.duplicate()
    matrix.allocateLMVM(point, slope)
    for k in range(len(pairs) + 1):
        point.array_w[:] = x.array_r - steps[k:].sum(axis=0)
        slope.array_w[:] = gradient[begin:end] - slopes[k:].sum(axis=0)
        matrix.updateLMVM(point, slope)
    point.destroy()
    slope.destroy()
    return matrix


@contextmanager
def _options(values: Mapping[str, object], text: str = "") -> Iterator[None]:
    """Put options into PETSc's database, and take them out again afterwards."""
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
