"""Densities through all layers and back, within a memory budget."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.errors import InputError
from eulerian.transport.checkpointing import Budget, Plan
from eulerian.transport.density_cost import DensityCost
from eulerian.transport.group_stepper import Groups, GroupStepper
from eulerian.transport.stepper import Stepper
from eulerian.transport.storage import SweepStorage
from eulerian.transport.sweep import Sweep
from eulerian.transport.time_grid import TimeGrid, TimeSteps

# Fewer records than this would make the adjoint sweep recompute without end.
MINIMAL_RECORDS = 8


@final
class Trajectory:
    """ρ₀ ↦ ρ(T) for velocities that are constant in each layer, with the exact adjoint.

    Densities that move with one velocity are a group, the columns of one array (n_cells, nd, columns). All groups take
    the same time steps, so that a cost of their sum has a meaning at every stage. Powers of a group's densities may go
    with it (``Power``): they are columns of arrays of their own.

    A forward sweep keeps step records and densities as its ``Plan`` says; its adjoint computes the rest again.

    Args:
        steppers: one step and its adjoint, for every group; each has an operator of its own.
        grid: horizon, layers, CFL number and step cap.
        memory: bytes for the adjoint on all ranks together.
        density_cost: running costs that are not linear in the densities.
        powers: the group of each power, and one step of it and its adjoint.
        moments: whether costs count the time that is left until T.
        derivatives: of costs at moments, how many a sweep keeps (see ``MomentCosts``).
        disk: bytes on disk for densities that do not fit in memory, on all ranks together.
        disk_directory: where they are put.
    """

    def __init__(
        self,
        steppers: Sequence[Stepper],
        grid: TimeGrid,
        memory: float,
        density_cost: DensityCost | None = None,
        *,
        powers: Sequence[tuple[int, Stepper]] = (),
        moments: bool = False,
        derivatives: int = 0,
        disk: float = 0.0,
        disk_directory: Path | None = None,
    ) -> None:
        """Collective.

        Raises:
            InputError: the budget is too small for any adjoint sweep.
        """
        self.grid, self.orders = grid, 2 if moments else 1
        self._stepper = GroupStepper(steppers, powers, density_cost, self.orders)
        self._budget = self._room(memory, disk, 2 * grid.layers + 1 + derivatives)
        self._storage = SweepStorage(self._stepper, disk_directory)

    @property
    def steppers(self) -> tuple[Stepper, ...]:
        """One step of every group and its adjoint."""
        return self._stepper.densities

    @property
    def power_steppers(self) -> tuple[Stepper, ...]:
        """One step of every power and its adjoint."""
        return self._stepper.powers

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Sweeps with derivatives by what they start from, where it is zero, too: those of mass that might be there.

        Where a density is zero they are one-sided, and as if the limiter did nothing there. Outside of this the
        transport does no work where no mass is.
        """
        operators = [stepper.operator for stepper in (*self.steppers, *self.power_steppers)]
        for operator in operators:
            operator.count_zeros(True)
        try:
            yield
        finally:
            for operator in operators:
                operator.count_zeros(False)

    @property
    def kept_bytes(self) -> int:
        """Size of the records and densities that this rank holds in memory for the adjoint."""
        return self._storage.size

    def prepare(self, velocities: list[Groups], counts: tuple[int, ...] | None = None) -> Sweep:
        """A sweep that has not begun: its time steps are counted and its adjoint is planned. Collective.

        Args:
            velocities: (n_nodes, dim) by layer and group, ghosts up to date.
            counts: steps of each layer to use instead of the CFL condition's (to look at J with the counts held fixed).

        Raises:
            RejectedEvaluation: too many steps; the same on all ranks.
        """
        if counts is None:
            # One reduction for all layers, after which all ranks count the same steps or reject together.
            rates = np.array([self._stepper.set_velocities(groups) for groups in velocities])
            largest = np.empty_like(rates)
            self._stepper.space.comm.Allreduce(rates, largest, MPI.MAX)
            counts = tuple(self.grid.steps(rate) for rate in largest.tolist())
        plan = Plan.cheapest(sum(counts), self._budget)
        return Sweep(self._stepper, self._storage, TimeSteps(self.grid, tuple(counts)), velocities, plan)

    def forward(self, rho: Groups, velocities: list[Groups], counts: tuple[int, ...] | None = None) -> Sweep:
        """A sweep that has arrived at T: ``prepare``, and then ``Sweep.forward``. Collective.

        Raises:
            RejectedEvaluation: too many steps; the same on all ranks.
        """
        sweep = self.prepare(velocities, counts)
        sweep.forward(rho)
        return sweep

    def _room(self, memory: float, disk: float, held: int) -> Budget:
        """What is left of the memory for records and densities beside ``held`` densities. Collective."""
        sizes = np.array([self._stepper.record_bytes, self._stepper.state_bytes], dtype=float)
        record, state = parallel.sum_all(self._stepper.space.comm, sizes)
        # The densities at the ends of the layers stay in memory, and the integrals over each are about as large.
        layers = held * state
        if memory - layers < MINIMAL_RECORDS * record:
            least = (layers + MINIMAL_RECORDS * record) / 2**20
            raise InputError(
                "too small for the adjoint of this problem",
                key="solver.memory",
                value=f"{memory / 2**20:.1f} MiB",
                remedy=f"Give at least {math.ceil(1.05 * least)} MiB (in Python memory=…, in bytes), or use a coarser "
                "mesh or fewer layers",
            )
        return Budget(memory - layers, disk, int(record), int(state))
