"""Steps and their adjoint on modal coefficients, for tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.transport.operator import ffi, pointer
from eulerian.transport.simd_layout import NodalLayout
from eulerian.transport.stepper import Stepper, StepRecord
from eulerian.transport.time_grid import TimeLeft


@dataclass(frozen=True)
class Steps:
    """What some steps led to.

    Attributes:
        start: (n_cells, nd, columns), as given.
        end: (n_cells, nd, columns), with ghosts.
        occupation: (n_owned, nd), of all columns together.
        moment: likewise, weighted with the time that is left.
        records: one per step.
    """

    start: Floats
    end: Floats
    occupation: Floats
    moment: Floats
    records: list[StepRecord]


def modes(layout: NodalLayout, batches: Floats) -> Floats:
    """Modal coefficients with ghosts. Collective."""
    rho = layout.unpack(batches)
    layout.space.update_ghosts(rho)
    return rho


def steps(stepper: Stepper, rho: Floats, dt: float, count: int = 1, left: TimeLeft | None = None) -> Steps:
    """Recorded steps from ρ (n_cells, nd, columns); ``left`` for the moment. Collective."""
    layout = stepper.layout
    records = [stepper.new_record() for _ in range(count)]
    occupation = layout.zero_totals(2)
    packed = layout.pack(rho, fill=1.0)
    before = packed.copy()
    end = stepper.step_forward(packed, dt, count, records, occupation, left)
    np.testing.assert_array_equal(packed, before)
    return Steps(rho, modes(layout, end), *map(layout.unpack_totals, occupation), records)


def pull_back(
    stepper: Stepper,
    taken: Steps,
    cotangent: Floats,
    dt: float,
    running: Sequence[Floats],
    tilt: Floats | None = None,
    left: TimeLeft | None = None,
) -> tuple[Floats, Floats]:
    """The derivatives by the start (n_owned, nd, columns) and by the velocity (n_nodes, dim). Collective.

    Args:
        stepper: that took the steps.
        taken: the steps.
        cotangent: derivative (n_owned, nd, columns) by the end.
        dt: time step.
        running: derivative (n_owned, nd) of the running cost per time by any column, by stage.
        tilt: likewise of a cost per time that counts as often as time is left.
        left: as for ``steps``.
    """
    layout, sums = stepper.layout, stepper.operator.accumulator()
    packed = layout.pack_derivative(cotangent)
    start = layout.pack(taken.start, fill=1.0)
    rates = [layout.pack_shared(r) for r in running] * len(taken.records)
    tilted = None if tilt is None else layout.pack_shared(tilt)
    stepper.step_adjoint(packed, start, dt, taken.records, rates, sums, tilted, left)
    return layout.unpack_derivative(packed)[: layout.space.n_owned], stepper.operator.contract(sums)


def limiter_vjp(stepper: Stepper, record: StepRecord, stage: int, cotangent: Floats) -> Floats:
    """The limiter's transposed derivative (n_owned, nd, columns) behind a stage."""
    layout = stepper.layout
    packed = layout.pack_derivative(cotangent[: layout.space.n_owned])
    block = ffi.from_buffer("char *", record.block)
    stepper.operator.kernels.limit_vjp(stepper.operator.scheme, block, stage, pointer(packed))
    return layout.unpack_derivative(packed)[: layout.space.n_owned]


def decided(stepper: Stepper, record: StepRecord) -> np.ndarray:
    """Which point decided, (stages, n_owned, columns); 255 where nothing was limited."""
    layout = stepper.layout
    points = np.where(record.limited[..., None] > 0, record.lowest_at, 255)
    split = points.reshape(*points.shape[:3], layout.cells, layout.width)
    by_cell = np.moveaxis(split, 3, 2).reshape(len(points), -1, layout.groups * layout.width)
    return by_cell[:, : layout.space.n_owned, : layout.columns]
