"""One run of an optimiser of PETSc's TAO."""

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

# With PETSc's default search a trial point at +∞ ends `lmvm`; this backtracks from it. Nearly all searches end with the
# first trial; where the first is far too long, as near a minimum, a quarter gets down twice as fast as PETSc's half.
_SEARCH = {"tao_ls_type": "armijo", "tao_ls_armijo_beta": 0.25, "tao_ls_max_funcs": 15}
_PREFIX = "eulerian_"
_MATRIX = "tao_lmvm_"  # of its options PETSc does not ask with the prefix

REASONS = PETSc.TAO.ConvergedReason


class Asked(Protocol):
    """Whom an optimiser asks; x is the variable in which the metric is Euclidean, whole on every rank."""

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
        asked: Asked,
        x0: Floats,
        iterations: int,
        initial_hessian: Callable[[PETSc.Vec], PETSc.Mat] | None = None,
    ) -> int:
        """Start at x0 (n,), the same on all ranks, and go on until ``asked`` says stop; TAO's reason. Collective.

        Args:
            comm: who shares the variable.
            asked: J.
            x0: where to start.
            iterations: more are not made.
            initial_hessian: makes the L-BFGS matrix to begin with, for ``lmvm``.

        Raises:
            InputError: PETSc does not know the method or an option's value.
        """
        x = PETSc.Vec().createMPI(len(x0), comm=comm)
        begin, end = x.getOwnershipRange()
        x.array_w[:] = x0[begin:end]
        tao = PETSc.TAO().create(comm)
        matrix = None if initial_hessian is None else initial_hessian(x)

        def whole(vector: PETSc.Vec) -> Floats:
            return np.concatenate(comm.allgather(vector.array_r.copy()))

        def value_and_gradient(_tao: PETSc.TAO, z: PETSc.Vec, g: PETSc.Vec) -> float:
            value, gradient = asked.value_and_gradient(whole(z))
            g.array_w[:] = gradient[begin:end]
            return value

        def gradient_only(tao_: PETSc.TAO, z: PETSc.Vec, g: PETSc.Vec) -> None:
            value_and_gradient(tao_, z, g)

        def monitor(tao_: PETSc.TAO) -> None:
            iteration, value, norm, *_ = tao_.getSolutionStatus()
            reason = asked.accepted(iteration, value, norm, whole(tao_.getSolution()))
            if reason is not None:
                tao_.setConvergedReason(reason)

        try:
            self._configure(tao, recycle=matrix is not None)
            tao.setObjective(lambda _tao, z: asked.value(whole(z)))
            tao.setGradient(gradient_only, None)
            tao.setObjectiveGradient(value_and_gradient, None)
            tao.setMonitor(monitor)
            tao.setMaximumIterations(max(iterations, 1))  # it does not accept 0; the monitor stops it
            tao.setTolerances(gatol=0.0, grtol=0.0, gttol=0.0)  # our own is on the norm in L²(0, T)
            if matrix is not None:
                tao.setLMVMH0(matrix)
            try:
                tao.solve(x)
            except PETSc.Error as error:
                if error.__cause__ is not None:  # what a callback raised, not PETSc's account of it
                    raise error.__cause__ from None
                raise ComputationError(f"{self.name} broke off: {_last_words(error)}") from error
            return int(tao.getConvergedReason())
        finally:
            tao.destroy()
            x.destroy()
            if matrix is not None:
                matrix.destroy()

    def _configure(self, tao: PETSc.TAO, *, recycle: bool) -> None:
        """Method, line search and the user's options.

        ``recycle`` keeps TAO from emptying its matrix, and the known one below it, at the start.
        """
        tao.setOptionsPrefix(_PREFIX)
        ours = {}
        if self.name == LMVM:
            ours = {f"{_PREFIX}{name}": value for name, value in _SEARCH.items()}
            ours |= {f"{_MATRIX}mat_lmvm_hist_size": MEMORY, f"{_PREFIX}tao_lmvm_recycle": recycle}
        theirs = self.petsc_options.replace("-tao_", f"-{_PREFIX}tao_").replace(
            f"-{_PREFIX}{_MATRIX}mat_", f"-{_MATRIX}mat_"
        )
        try:
            with _options(ours, theirs):
                tao.setType(self.name)
                tao.setFromOptions()
        except PETSc.Error as error:
            raise InputError(
                "PETSc refuses the method or an option",
                key="optimiser.petsc_options" if self.petsc_options else "optimiser.method",
                value=self.petsc_options or self.name,
                remedy=_last_words(error),
            ) from error


def _last_words(error: PETSc.Error) -> str:
    """What went wrong, without the way there."""
    return str(error).splitlines()[-1].partition("] ")[2]


def lbfgs_matrix(known: Curvature, metric: Metric, x: PETSc.Vec, gradient: Floats) -> PETSc.Mat:
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
