"""Explicit Runge–Kutta methods on particles: one step, its exact adjoint, and step sizes under error control."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import RejectedEvaluation
from eulerian.base.parallel import agreed, sum_all

if TYPE_CHECKING:
    from scipy.integrate import RK45


class Differentiable(Protocol):
    """Rates of change of (x, q) that depend on x alone, with their derivatives: ``right_hand_side.Motion`` is one."""

    def velocity(self, x: Floats) -> Floats:
        """The columns of ``value`` that belong to x, (n, dim)."""
        ...

    def value(self, x: Floats) -> Floats:
        """d/dt (x, q) at points (n, dim), (n, width)."""
        ...

    def vjp(self, x: Floats, v: Floats, w: Floats) -> tuple[Floats, Floats]:
        """Derivatives (n, dim) by x and (p,) by θ of Σ w · value(x); v is the velocity at x."""
        ...


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method.

    Stage i is evaluated at X_i = x + h Σ_{j<i} a_ij k_j with k_i = value(X_i); the step is h Σ b_i k_i.

    Attributes:
        a: one row per stage, of the stages before it.
        b: weights.
        order: of convergence.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        if [len(row) for row in self.a] != list(range(len(self.b))):
            raise ValueError("row i of an explicit tableau has i entries")
        if abs(sum(self.b) - 1.0) > 1e-14:
            raise ValueError("the weights of a consistent method sum to 1")


RK4 = Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4)
"""The classical method (Kutta 1901)."""

DORMAND_PRINCE = Tableau(
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    5,
)
"""The fifth-order method of Dormand & Prince (1980), doi:10.1016/0771-050X(80)90013-3; its seventh stage serves the
error estimate only."""


def step(tableau: Tableau, motion: Differentiable, y: Floats, h: float, dim: int) -> Floats:
    """(x, q) after a time h, (n, width)."""
    slopes: list[Floats] = []
    for row in tableau.a:
        slopes.append(motion.value(_shifted(y[:, :dim], h, row, [slope[:, :dim] for slope in slopes])))
    return _shifted(y, h, tableau.b, slopes)


def step_vjp(tableau: Tableau, motion: Differentiable, x: Floats, h: float, w: Floats) -> tuple[Floats, Floats]:
    """Adjoint of ``step`` from points x (n, dim), with the stages computed anew.

    Args:
        tableau: the method.
        motion: the rates.
        x: where the step starts.
        h: its length.
        w: (n, width) derivatives by (x, q) after the step.

    Returns:
        derivatives (n, width) by (x, q) before the step, and (p,) by θ.
    """
    dim = x.shape[1]
    stages: list[Floats] = []
    velocities: list[Floats] = []
    for row in tableau.a:
        stages.append(_shifted(x, h, row, velocities))
        velocities.append(motion.velocity(stages[-1]))  # integrals do not act back: velocities make the stages
    before = w.copy()
    by_stage: list[Floats] = []  # from the last stage to the first
    by_theta: Floats | None = None
    for i in reversed(range(len(stages))):
        by_slope = (h * tableau.b[i]) * w
        # Stage i acts on the step itself, and through all later stages, whose derivatives are known by now.
        later = [tableau.a[j][i] for j in reversed(range(i + 1, len(stages)))]
        by_slope[:, :dim] = _shifted(by_slope[:, :dim], h, later, by_stage)
        by_point, more = motion.vjp(stages[i], velocities[i], by_slope)
        by_theta = more if by_theta is None else by_theta + more
        before[:, :dim] += by_point
        by_stage.append(by_point)
    assert by_theta is not None
    return before, by_theta


def _shifted(start: Floats, h: float, weights: Sequence[float], slopes: Sequence[Floats]) -> Floats:
    """Start + h Σ weights · slopes."""
    # In place from the second term on: new arrays would cost more than the sums.
    result = start
    for weight, slope in zip(weights, slopes, strict=True):
        if weight != 0.0:
            term = (h * weight) * slope
            result = np.add(start, term, out=term) if result is start else np.add(result, term, out=result)
    return result.copy() if result is start else result


def controlled(
    motion: Differentiable,
    y: Floats,
    duration: float,
    dim: int,
    tolerance: float,
    *,
    first: float,
    max_steps: int,
    comm: MPI.Comm | None,
    length: float = 1.0,
) -> tuple[Floats, list[Floats], Floats]:
    """Integrate over ``duration`` with Dormand and Prince's pair under SciPy's error control.

    The norm of the error is the root mean square over positions and integrals of all particles of all ranks: every rank
    takes the same steps, which depend on the number of ranks by rounding only. Collective, if there is a
    communicator.

    Args:
        motion: the rates.
        y: (n, width) the start.
        duration: how long.
        dim: of space.
        tolerance: of positions in units of ``length``, wherever the origin is; of integrals relative and absolute.
        first: the step to try first.
        max_steps: where more are needed, J cannot be evaluated.
        comm: who shares the particles.
        length: that matters, the size of the domain.

    Returns:
        the steps (k,), the positions (n, dim) at their k starts, and (x, q) at the end.

    Raises:
        RejectedEvaluation: too many steps, or no step is small enough.
        EulerianError: what the field raised on some rank, on all ranks.
    """
    watched = _Watched(motion, y.shape, dim, comm, length)
    if not watched.all_finite(y):  # SciPy refuses it, and one rank alone would
        raise RejectedEvaluation("positions or what particles gather are not finite")
    solver = _solver(watched, watched.packed(y), duration, min(first, duration), tolerance)
    times = [0.0]
    starts: list[Floats] = []
    while solver.status == "running":
        if len(starts) == max_steps:
            raise RejectedEvaluation(f"a layer needs more than {max_steps} steps for the tolerance {tolerance:g}")
        starts.append(watched.positions(solver.y))
        solver.step()
        times.append(float(solver.t))
    if solver.status != "finished":
        raise RejectedEvaluation("no time step is small enough for the error control")
    return np.diff(times), starts, np.asarray(solver.y)[: y.size].reshape(y.shape)


class _Watched:
    """The right-hand side as SciPy calls it; a failure on one rank waits until all ranks meet at the error norm.

    SciPy ends the integration of nothing at once. A rank without particles integrates a constant instead, so that it
    meets the others.
    """

    def __init__(
        self, motion: Differentiable, shape: tuple[int, ...], dim: int, comm: MPI.Comm | None, length: float
    ) -> None:
        self.motion, self.shape, self.dim, self.comm, self.length = motion, shape, dim, comm, length
        self.failure: BaseException | None = None

    def __call__(self, _t: float, flat: Floats) -> Floats:
        if self.failure is None:
            try:
                return self.packed(self.motion.value(self.positions(flat)))
            except BaseException as error:
                if self.comm is None:
                    raise
                self.failure = error
        return np.full(flat.size, np.nan)

    def packed(self, y: Floats) -> Floats:
        """(n, width) as SciPy wants it."""
        return y.ravel() if y.size else np.zeros(1)

    def positions(self, flat: Floats) -> Floats:
        """(n, dim) of SciPy's vector."""
        size = math.prod(self.shape)
        return np.ascontiguousarray(flat[:size].reshape(self.shape)[:, : self.dim])

    def tolerances(self, tolerance: float) -> tuple[Floats, Floats]:
        """Relative and absolute ones of SciPy's vector; the least relative one that SciPy takes is that of rounding."""
        if math.prod(self.shape) == 0:  # a rank without particles
            return np.ones(1), np.ones(1)
        relative, absolute = np.full((2, *self.shape), tolerance)
        # Positions have no natural zero: a relative tolerance would depend on where the origin is.
        relative[:, : self.dim] = min(100.0 * float(np.finfo(float).eps), tolerance)
        absolute[:, : self.dim] = tolerance * self.length
        return self.packed(relative), self.packed(absolute)

    def all_finite(self, y: Floats) -> bool:
        """Whether all numbers of all ranks are finite. Collective."""
        finite = bool(np.all(np.isfinite(y)))
        return finite if self.comm is None else bool(self.comm.allreduce(finite, MPI.LAND))

    def norm(self, scaled: Floats) -> float:
        """Root mean square; raises on all ranks what one of them met. Collective."""
        scaled = scaled[: math.prod(self.shape)]
        local = np.array([np.vdot(scaled, scaled), scaled.size, self.failure is not None], dtype=np.float64)
        if self.comm is not None:
            local = sum_all(self.comm, local)
            if local[2] > 0.0:
                with agreed(self.comm, "the field"):
                    if self.failure is not None:
                        raise self.failure
        return float(np.sqrt(local[0] / max(local[1], 1.0)))


def _solver(rates: _Watched, y: Floats, duration: float, first: float, tolerance: float) -> "RK45":
    """SciPy's solver with a norm over all ranks."""
    from scipy.integrate import RK45  # takes its time to load: only where it is wanted

    class Solver(RK45):
        def _estimate_error_norm(self, slopes: Floats, h: float, scale: Floats) -> float:
            return rates.norm(np.dot(slopes.T, self.E) * (h / scale))

    relative, absolute = cast(Any, rates.tolerances(tolerance))  # arrays will do, whatever its annotations say
    return Solver(cast(Any, rates), 0.0, y, duration, rtol=relative, atol=absolute, first_step=first)
