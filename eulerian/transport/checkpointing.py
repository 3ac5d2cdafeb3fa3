"""Which time steps are stored for the adjoint sweep, and which are computed again."""

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError

# Unit sizes that are tried, spread evenly over their logarithms.
_CANDIDATES = 200


@dataclass(frozen=True)
class Budget:
    """Room for the adjoint, in bytes over all ranks.

    Attributes:
        memory: for step records and densities.
        disk: for densities on disk.
        record: size of one step record.
        state: size of one density.
    """

    memory: float
    disk: float
    record: int
    state: int


@final
@dataclass(frozen=True)
class Plan:
    """How many steps are recorded at a time, and how many densities are stored to start again from.

    A unit is a run of ``unit`` consecutive steps, recorded together. With more than one, the densities at the starts of
    some units are stored, and units are computed again in the order of Griewank & Walther (2000),
    doi:10.1145/347837.347846, which is optimal for their number; densities go to disk as Stumm & Walther (2009),
    doi:10.1137/080718036, have it: those that are read least.

    Attributes:
        steps: N, of the whole trajectory.
        unit: steps per unit.
        in_memory: densities stored in memory.
        on_disk: densities stored on disk.
        recomputed: steps that the adjoint computes again.
        budget: what all of this has to fit in.
    """

    steps: int
    unit: int
    in_memory: int
    on_disk: int
    recomputed: int
    budget: Budget

    @classmethod
    def cheapest(cls, steps: int, budget: Budget) -> "Plan":
        """The plan with the fewest steps computed again."""
        most = int(budget.memory // budget.record)
        if steps <= most:
            return cls(steps, steps, 0, 0, 0, budget)
        on_disk = int(budget.disk // budget.state)
        plans = []
        # Longer units take memory from kept densities, and rounding makes the best length irregular: many are tried.
        for unit in sorted({round(most ** (i / _CANDIDATES)) for i in range(_CANDIDATES + 1)}):
            units, room = -(-steps // unit), int((budget.memory - unit * budget.record) // budget.state)
            in_memory = min(room, units - 1)  # the last unit is recorded when the forward sweep comes to it
            more = min(on_disk, units - 1 - in_memory)
            if in_memory + more > 0:
                plans.append(cls(steps, unit, in_memory, more, unit * _recomputed(units, in_memory + more), budget))
        # Among equals the one that needs least of the disk.
        return min(plans, key=lambda plan: (plan.recomputed, plan.on_disk, plan.unit))

    @property
    def units(self) -> int:
        """How many units there are."""
        return -(-self.steps // self.unit)

    @property
    def all_bytes(self) -> int:
        """What recording every step would need, over all ranks."""
        return self.steps * self.budget.record

    @property
    def memory_bytes(self) -> int:
        """Memory of records and densities, over all ranks."""
        return self.unit * self.budget.record + self.in_memory * self.budget.state

    @property
    def statement(self) -> str:
        """In words."""
        size = f"{_size(self.memory_bytes)} of memory"
        if self.on_disk:
            size += f", {_size(self.on_disk * self.budget.state)} on disk"
        if not self.recomputed:
            return f"{self.steps} time steps; for the gradient all of them are kept, in {size}"
        share = 100.0 * self.recomputed / self.steps
        return (
            f"{self.steps} time steps; to keep them all for the gradient would take {_size(self.all_bytes)}, so "
            f"{self.unit} at a time are kept, in {size}, and {share:.0f} % of the steps are computed again"
        )

    def actions(self) -> Iterator[Any]:
        """Actions of the package checkpoint_schedules, on units."""
        from checkpoint_schedules import MultistageCheckpointSchedule  # slow to import, and seldom needed

        return iter(MultistageCheckpointSchedule(self.units, self.in_memory, self.on_disk))


def _recomputed(units: int, kept: int) -> int:
    """Units computed again by the binomial schedule: Griewank & Walther (2000), equation (2)."""
    repetitions, reach = 0, 1
    while reach < units:
        repetitions += 1
        reach = math.comb(kept + repetitions, kept)
    return repetitions * units - math.comb(kept + repetitions, repetitions - 1)


def _size(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024.0 or unit == "GiB":
            return f"{n:.4g} {unit}"
        n /= 1024.0
    raise AssertionError("unreachable")


@final
class DiskStore:
    """Arrays in a file without a name: it is gone with the process, whichever way that ends.

    Args:
        directory: where the file is made; the system's place for temporary files if none is given.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._parent = directory
        self._file: BinaryIO | None = None
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}  # offset and size by name
        self._free: dict[int, list[int]] = {}  # offsets by size

    def write(self, name: str, array: Floats) -> None:
        """Keep an array under a name.

        Raises:
            ComputationError: it cannot be written.
        """
        self.remove(name)
        size = array.nbytes
        # All densities of a group have one size, so the file grows no further than to what is kept at a time.
        known = self._free.get(size)
        offset = known.pop() if known else self._end
        try:
            if self._file is None:
                file = tempfile.TemporaryFile(prefix="eulerian-", dir=self._parent, buffering=0)  # noqa: SIM115 - kept
                self._file = cast(BinaryIO, file)
                weakref.finalize(self, self._file.close)
            _write_all(self._file.fileno(), np.ascontiguousarray(array).tobytes(), offset)
        except OSError as error:
            raise ComputationError(
                f"cannot keep densities for the adjoint in {self._parent or tempfile.gettempdir()} "
                f"({error.strerror or error}); set solver.disk_directory (in Python disk=(bytes, folder)) to a "
                "writable folder with enough room"
            ) from error
        self._places[name] = offset, size
        self._end = max(self._end, offset + size)

    def read(self, name: str, out: Floats) -> None:
        """Fill an array with what is kept under a name.

        Raises:
            ComputationError: it cannot be read.
        """
        assert self._file is not None, "nothing was written"
        offset, size = self._places[name]
        try:
            out.ravel()[:] = np.frombuffer(_read_all(self._file.fileno(), size, offset))
        except (OSError, ValueError) as error:
            where = self._parent or tempfile.gettempdir()
            raise ComputationError(f"a density kept for the adjoint in {where} cannot be read back") from error

    def remove(self, name: str) -> None:
        """Forget what is kept under a name; its room is used again."""
        if name in self._places:
            offset, size = self._places.pop(name)
            self._free.setdefault(size, []).append(offset)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:  # one call writes two gigabytes at most
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done


def _read_all(descriptor: int, size: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):  # one call reads two gigabytes at most
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)
