"""Memory that the sweeps of a trajectory use one after the other, and densities that they start again from."""

from pathlib import Path
from typing import final

import numpy as np

from eulerian.base import parallel
from eulerian.transport.checkpointing import DiskStore
from eulerian.transport.group_stepper import Groups, GroupStepper, Records


@final
class SweepStorage:
    """Where a sweep is, the records of the steps of one unit, and the densities stored at the starts of units.

    It outlives the sweeps: records are most of the memory, and fresh pages would have to be cleared by the system.

    Args:
        stepper: whose densities and records.
        disk_directory: where densities are put that do not fit in memory.

    Attributes:
        state: densities and powers where the sweep is.
        unit_start: those that the recorded steps started from.
        sweeps: how many have begun; only the last one finds here what it has written.
    """

    def __init__(self, stepper: GroupStepper, disk_directory: Path | None) -> None:
        self._stepper, self._disk = stepper, DiskStore(disk_directory)
        self.state, self.unit_start = stepper.zeros(), stepper.zeros()
        self.sweeps = 0  # a number, for a reference to the sweep would be a cycle that keeps all records alive
        self._records: list[Records] = []
        self._kept: dict[int, Groups] = {}

    @property
    def size(self) -> int:
        """Bytes of records and stored densities that this rank holds in memory."""
        return len(self._records) * self._stepper.record_bytes + len(self._kept) * self._stepper.state_bytes

    def begin_sweep(self) -> int:
        """Forget what an earlier sweep has stored; the new one's number."""
        self._kept.clear()
        self.sweeps += 1
        return self.sweeps

    def move_to(self, state: Groups) -> None:
        """Overwrite the state."""
        copy_groups(state, self.state)

    def begin_unit(self, count: int) -> None:
        """The next ``count`` steps are recorded."""
        copy_groups(self.state, self.unit_start)
        while len(self._records) < count:
            self._records.append(self._stepper.new_records())

    def records(self, first: int, last: int) -> list[Records]:
        """Those of steps ``first`` to ``last`` of the unit."""
        return self._records[first:last]

    def before(self, step: int) -> Groups:
        """Densities and powers before a step of the unit."""
        return self.unit_start if step == 0 else [record.states[-1] for record in self._records[step - 1]]

    def keep(self, unit: int, *, on_disk: bool) -> None:
        """Keep the state as that at the start of a unit. Collective."""
        if not on_disk:
            self._kept[unit] = [group.copy() for group in self.state]
            return
        with parallel.agreed(self._stepper.space.comm):  # one rank's disk may be full
            for g, group in enumerate(self.state):
                self._disk.write(f"{unit}-{g}", group)

    def go_back(self, unit: int, *, on_disk: bool, drop: bool) -> None:
        """Make the state that at the start of a unit, which need not be kept any longer if ``drop``. Collective."""
        if not on_disk:
            self.move_to(self._kept.pop(unit) if drop else self._kept[unit])
            return
        with parallel.agreed(self._stepper.space.comm):
            for g, group in enumerate(self.state):
                self._disk.read(f"{unit}-{g}", group)
                if drop:
                    self._disk.remove(f"{unit}-{g}")


def copy_groups(source: Groups, target: Groups) -> None:
    """Copy arrays, group by group."""
    for a, b in zip(source, target, strict=True):
        np.copyto(b, a)
