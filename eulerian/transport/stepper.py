"""One strong-stability-preserving Runge–Kutta step with its limiter, and the reverse of that step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eulerian.arrays import Floats
from eulerian.transport.kernels import pointer
from eulerian.transport.operator import TransportOperator


@dataclass(frozen=True)
class SSPScheme:
    """u⁰ = u,  uⁱ⁺¹ = limit( αᵢ u⁰ + (1 − αᵢ)(uⁱ + Δt B uⁱ) ),  last uⁱ = next u;  ∫ f(u) dt ≈ Δt Σ wᵢ f(uⁱ).

    All coefficients are convex, so a stage keeps what an Euler step keeps (Gottlieb, Shu & Tadmor 2001,
    doi:10.1137/S003614450036757X). The weights are those of the same method for the running cost as an extra unknown.
    """

    alpha: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.alpha)


# SSPRK of order degree + 1, by polynomial degree.
SCHEMES = (
    SSPScheme((0.0,), (1.0,)),
    SSPScheme((0.0, 0.5), (0.5, 0.5)),
    SSPScheme((0.0, 0.75, 1.0 / 3.0), (1.0 / 6.0, 1.0 / 6.0, 2.0 / 3.0)),
)


@dataclass(frozen=True)
class StepRecord:
    """What the reverse of one step needs: every stage behind the limiter, and what the limiter did.

    Attributes:
        states: (stages, n_cells, nd, columns); the last one is the result of the step.
        factors: (stages, n_owned, columns) scaling of the higher modes.
        lowest_at: (stages, n_owned, columns) the point that decided (see ``kernels.c``).
    """

    states: Floats
    factors: Floats
    lowest_at: NDArray[np.uint8]


class Stepper:
    """Steps of the limited scheme for the velocity that its operator holds.

    The law: for the map u ↦ (result, Δt Σ wᵢ ⟨runningᵢ, uⁱ⟩), ``step_vjp`` is the exact transpose of the derivative of
    ``step`` wherever the limiter is differentiable.
    """

    def __init__(self, operator: TransportOperator, *, limited: bool = True) -> None:
        space = operator.density_space
        self.operator = operator
        self.scheme = SCHEMES[space.degree]
        self.limited = limited
        self._shape = (space.n_cells, space.nd, operator.columns)
        self._cotangents = np.zeros((self.scheme.stages + 1, *self._shape))

    def new_record(self) -> StepRecord:
        """An empty record for ``step`` to fill."""
        stages, n_owned = self.scheme.stages, self.operator.density_space.n_owned
        decided = (stages, n_owned, self.operator.columns)
        return StepRecord(np.zeros((stages, *self._shape)), np.empty(decided), np.empty(decided, dtype=np.uint8))

    @property
    def bytes_per_cell(self) -> int:
        """Size of a record per cell."""
        space, columns = self.operator.density_space, self.operator.columns
        return int(self.scheme.stages * columns * (8 * space.nd + 9))

    def step(self, u: Floats, dt: float, record: StepRecord, occupation: Floats) -> Floats:
        """Advance ``u`` (n_cells, nd, columns; ghosts up to date) by ``dt``. Collective.

        Args:
            u: the density, left as it is.
            dt: time step.
            record: filled for ``step_vjp``.
            occupation: (n_owned, nd, columns), to which ∫ρ dt over the step is added.

        Returns:
            The new density, a view into the record.
        """
        operator = self.operator
        stage, scheme, blocks = operator.kernels.stage, operator.scheme, pointer(operator.blocks)
        start, total = pointer(u), pointer(occupation)
        current = start
        for i, (alpha, weight) in enumerate(zip(self.scheme.alpha, self.scheme.weights, strict=True)):
            state = record.states[i]
            target, factors, lowest = pointer(state), pointer(record.factors[i]), pointer(record.lowest_at[i])
            stage(
                scheme, blocks, current, start, alpha, 1.0 - alpha, dt, self.limited,
                target, factors, lowest, weight * dt, total,
            )  # fmt: skip
            operator.density_space.update_ghosts(state)
            current = target
        return np.asarray(record.states[-1])

    def step_vjp(
        self,
        cotangent: Floats,
        u: Floats,
        dt: float,
        record: StepRecord,
        running: Sequence[Floats],
        accumulated: Floats,
    ) -> None:
        """Reverse of ``step``. Collective.

        Args:
            cotangent: (n_cells, nd, columns) of the step's result; overwritten by that of ``u``.
            u: the density at the start of the step.
            dt: time step.
            record: what ``step`` recorded.
            running: at every stage, (n_owned, nd, columns) derivative of the running cost per time by the density.
            accumulated: (n_owned, dim+2, nd, nd), to which Δt λ⊗ρ is added (``TransportOperator.contract``).
        """
        operator, kernels = self.operator, self.operator.kernels
        scheme, blocks, sums = operator.scheme, pointer(operator.blocks), pointer(accumulated)
        cotangents = self._cotangents
        cotangents[:-1] = 0.0
        cotangents[-1] = cotangent
        first = pointer(cotangents[0])
        for i in reversed(range(self.scheme.stages)):
            z = cotangents[i + 1]
            kernels.limit_vjp(
                scheme, pointer(record.states[i]), pointer(record.factors[i]), pointer(record.lowest_at[i]), pointer(z)
            )
            operator.density_space.update_ghosts(z)
            before = u if i == 0 else record.states[i - 1]
            alpha, weight = self.scheme.alpha[i], self.scheme.weights[i]
            kernels.stage_vjp(
                scheme, blocks, pointer(z), pointer(before), alpha, 1.0 - alpha, dt, weight * dt, pointer(running[i]),
                pointer(cotangents[i]), first, sums,
            )  # fmt: skip
        cotangent[:] = cotangents[0]
