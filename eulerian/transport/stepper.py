"""Steps of the limited scheme and their adjoint, many in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.transport.operator import Accumulated, TransportOperator, ffi, pointer
from eulerian.transport.simd_layout import LANES, aligned
from eulerian.transport.time_grid import TimeLeft

# Where steps of densities started from, and the records of all of them: what powers take from their densities.
type Source = tuple[Floats, Sequence["StepRecord"]]


@final
@dataclass(frozen=True)
class StepRecord:
    """What the adjoint of one step needs: every stage behind the limiter, and what the limiter did.

    Factors and deciding points mean something only where ``limited`` says that some cell of the batch was.

    Attributes:
        block: the memory of all of it, and ``pointer`` to it for C.
        states: (stages, *layout.shape); the last one is the result of the step.
        factors: (stages, n_batches, groups, 8) scaling of the deviations from the mean.
        lowest_at: (stages, n_batches, groups, 8) the point that decided (see ``kernels.c``).
        limited: (stages, n_batches, groups) whether anything in the eight lanes was.
    """

    block: NDArray[np.uint8]
    pointer: Any
    states: Floats
    factors: Floats
    lowest_at: NDArray[np.uint8]
    limited: NDArray[np.uint8]


@final
class Stepper:
    """Steps of the limited scheme for the velocity that its operator holds.

    Densities are batches of the operator's layout. The law: for the map u ↦ (result, Δt Σ wᵢ ⟨runningᵢ + left·tilt,
    Σ_y u_yⁱ⟩ over all steps), ``step_adjoint`` is the exact transpose of the derivative of ``step_forward`` wherever
    the limiter is differentiable. The time ``left`` until T is that in the middle of a step.

    Powers are stepped forward after the same steps of their densities, and backward before them: what they gain at
    walls is the densities' doing, and the derivative by that is handed on.
    """

    def __init__(self, operator: TransportOperator, *, limited: bool = True) -> None:
        self.operator, self.layout = operator, operator.layout
        self.scheme = operator.method
        self.limited = limited
        batches = (self.scheme.stages, *self.layout.owned_shape[:2])
        self._parts: list[tuple[tuple[int, ...], type]] = [
            ((self.scheme.stages, *self.layout.shape), np.float64),
            ((*batches, LANES), np.float64),
            ((*batches, LANES), np.uint8),
            (batches, np.uint8),
        ]
        # Two: a step reads the last stage of the one before while it writes its own.
        self._scratch = [self.new_record() for _ in range(2)]
        arrays = {number: self.layout.zeros() for number in sorted(set(self.scheme.cotangents))}
        self._cotangents = [arrays[number] for number in self.scheme.cotangents]

    @property
    def record_bytes(self) -> int:
        """Size of a record on this rank."""
        return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in self._parts)

    @property
    def state_bytes(self) -> int:
        """Size of a density on this rank."""
        return int(np.prod(self.layout.shape)) * 8

    def new_record(self) -> StepRecord:
        """An empty record for ``step_forward`` to fill."""
        block = aligned((self.record_bytes,), np.uint8)  # one piece: C finds the parts by their offsets
        views: list[Any] = []
        start = 0
        for shape, kind in self._parts:
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            views.append(block[start : start + size].view(kind).reshape(shape))
            start += size
        return StepRecord(block, ffi.from_buffer("char *", block), *views)

    def step_forward(
        self,
        start: Floats,
        dt: float,
        count: int,
        records: Sequence[StepRecord] | None = None,
        occupation: Floats | None = None,
        left: TimeLeft | None = None,
        source: Source | None = None,
    ) -> Floats:
        """Advance a density by ``count`` steps of ``dt``. Collective.

        Args:
            start: batches with ghosts up to date, left as they are.
            dt: time step.
            count: at least one.
            records: ``count`` of them to be filled for ``step_adjoint``, or none to keep.
            occupation: (orders, ...) of ``NodalLayout.zero_totals``: to the first is added Σ_y ∫ρ_y dt over the steps,
                and to the second, if there is one, Σ_y ∫(T − t)ρ_y dt.
            left: when the steps begin, where there is a second order.
            source: the densities' start and ``count`` records, for powers.

        Returns:
            The new density; a view into the last record, or into memory that the next call overwrites.
        """
        used, left = self._scratch if records is None else records, left or TimeLeft()
        orders = [ffi.NULL, ffi.NULL]  # C skips integrals that are not wanted
        if occupation is not None:
            orders[: len(occupation)] = map(pointer, occupation)
        self.operator.kernels.step_forward(
            self.operator.scheme, pointer(start), _blocks(used), len(used), count, dt, self.limited, *orders,
            left.at_start, left.done, *self._from(source, count),
        )  # fmt: skip
        # Scratch records are used in turns.
        return np.asarray(used[(count - 1) % len(used)].states[-1])

    def step_adjoint(
        self,
        cotangent: Floats,
        start: Floats,
        dt: float,
        records: Sequence[StepRecord],
        running: Sequence[Floats],
        accumulated: Accumulated,
        tilt: Floats | None = None,
        left: TimeLeft | None = None,
        source: Source | None = None,
        handed: Floats | None = None,
    ) -> None:
        """Adjoint of ``step_forward`` with the records that it filled. Collective.

        Args:
            cotangent: batches that represent the derivative by the result in L² (``NodalLayout.pack_derivative``);
                overwritten by that by ``start``.
            start: what the steps started from.
            dt: time step.
            records: of all steps.
            running: the derivative of the running cost per time by any column's density (``NodalLayout.pack_shared``),
                one for all steps and stages, or one for each.
            accumulated: to which the derivatives by the operator's coefficients are added.
            tilt: the derivative of what costs (T − t) times that per time, like one of ``running``.
            left: as for ``step_forward``.
            source: the densities' start and records, for powers.
            handed: what powers owe to their densities at every stage (``new_handed`` of the powers' stepper), written
                by the adjoint of the powers and read by that of the densities.
        """
        left = left or TimeLeft()
        work = [*self._cotangents, cotangent]  # the last one goes in and comes out
        self.operator.kernels.step_adjoint(
            self.operator.scheme, pointer(start), _blocks(records), len(records), dt, self.limited, _pointers(running),
            len(running), ffi.NULL if tilt is None else pointer(tilt), left.at_start, left.done, _pointers(work),
            *map(pointer, accumulated), *self._from(source, len(records)),
            ffi.NULL if handed is None else pointer(handed),
        )  # fmt: skip

    def new_handed(self, count: int) -> Floats:
        """Room for what powers hand on in the adjoint of ``count`` steps."""
        assert self.operator.power is not None, "densities hand nothing on"
        sources = self.operator.power.density.columns
        return np.empty((count, self.scheme.stages, self.operator.n_walls, sources))

    def _from(self, source: Source | None, count: int) -> tuple[Any, Any]:
        """A source as the compiled loops take it."""
        assert (source is None) == (self.operator.power is None), "powers, and nothing else, have a source"
        if source is None:
            return ffi.NULL, ffi.NULL
        assert len(source[1]) == count, "one record for every step"
        return pointer(source[0]), _blocks(source[1])


def _blocks(records: Sequence[StepRecord]) -> Any:
    return ffi.new("char *[]", [record.pointer for record in records])


def _pointers(arrays: Sequence[Floats]) -> Any:
    return ffi.new("double *[]", [pointer(array) for array in arrays])
