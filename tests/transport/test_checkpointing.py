"""Plans for the adjoint, on a toy storage without any densities."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest

from eulerian.transport.checkpointing import Budget, DiskStore, Plan

pytestmark = pytest.mark.one_process

RECORD, STATE = 11, 4


def plan_of(steps: int, records: float, disk: int = 0) -> Plan:
    return Plan.cheapest(steps, Budget(records * RECORD, disk * STATE, RECORD, STATE))


@dataclass
class Toy:
    """Carries out a plan, with numbers of steps instead of densities."""

    plan: Plan
    position: int = 0
    kept: dict[int, str] = field(default_factory=dict)
    recorded: range | None = None
    forward: int = 0
    remaining: int = 0
    most: dict[str, int] = field(default_factory=lambda: {"RAM": 0, "DISK": 0})

    def run(self) -> int:
        """Forward steps in all; every step must be reversed once, last to first."""
        self.remaining = self.plan.steps
        for action in self.plan.actions():
            getattr(self, type(action).__name__)(action)
            for storage in self.most:
                held = sum(1 for where in self.kept.values() if where == storage)
                self.most[storage] = max(self.most[storage], held)
        assert self.remaining == 0
        return self.forward

    def steps(self, units: range) -> range:
        return range(units.start * self.plan.unit, min(units.stop * self.plan.unit, self.plan.steps))

    def Forward(self, action) -> None:
        steps = self.steps(range(action.n0, action.n1))
        assert self.position == steps.start
        if action.write_ics:
            self.kept[steps.start] = action.storage.name
        if action.write_adj_deps:
            assert len(steps) <= self.plan.unit
            self.recorded = steps
        self.forward += len(steps)
        self.position = steps.stop

    def Reverse(self, action) -> None:
        steps = self.steps(range(action.n0, action.n1))
        assert self.recorded == steps
        assert self.remaining == steps.stop
        self.remaining, self.recorded = steps.start, None

    def Copy(self, action) -> None:
        self.position = action.n * self.plan.unit
        assert self.kept[self.position] == action.from_storage.name

    def Move(self, action) -> None:
        self.Copy(action)
        del self.kept[self.position]

    def EndForward(self, _action) -> None:
        assert self.position == self.plan.steps

    def EndReverse(self, _action) -> None:
        assert not self.kept


@cache
def fewest(steps: int, room: int) -> int:
    """Steps computed again at best, in any order, to reverse ``steps`` from a kept density with that much room."""
    if steps * RECORD <= room:
        return steps
    splits = [k + fewest(steps - k, room - STATE) + fewest(k, room) for k in range(1, steps)] if room >= STATE else []
    return min(splits, default=10**9)


@pytest.mark.parametrize("disk", [0, 3, 100])
@pytest.mark.parametrize("records", [8, 9.5, 13, 40, 99])
@pytest.mark.parametrize("steps", [1, 7, 8, 9, 39, 100, 257])
def test_plans_are_carried_out(steps: int, records: float, disk: int) -> None:
    plan = plan_of(steps, records, disk)
    toy = Toy(plan)
    again = toy.run() - steps
    assert again <= plan.recomputed
    assert again >= plan.recomputed - plan.unit * (plan.recomputed // max(steps, 1) + 1)  # the last unit may be short
    assert toy.most["RAM"] == plan.in_memory
    assert toy.most["DISK"] == plan.on_disk <= disk
    assert plan.unit * RECORD + plan.in_memory * STATE == plan.memory_bytes <= records * RECORD
    if steps <= records:
        assert again == 0
    else:
        assert "again" in plan.statement


@pytest.mark.parametrize("records", [8, 12, 20])
@pytest.mark.parametrize("steps", [30, 60, 90])
def test_plans_are_close_to_the_best_ones(steps: int, records: int) -> None:
    """The best order of all, in which units may have any length, starts with a sweep that may record as well."""
    again = Toy(plan_of(steps, records)).run() - steps
    best = fewest(steps, records * RECORD - STATE) - steps
    assert 0.9 * best <= again <= 1.4 * best


def test_a_tenth_of_the_memory_costs_one_sweep() -> None:
    assert plan_of(1000, 100).recomputed < 1000


def test_many_plans_are_quick() -> None:
    assert plan_of(10**6, 20.0).recomputed > 10**6


def test_statement_names_sizes() -> None:
    plan = Plan.cheapest(1000, Budget(50 * 2.0**20, 10 * 2.0**20, 2**20, 2**18))
    assert "1000 time steps" in plan.statement
    assert "1000 MiB" in plan.statement
    assert Plan.cheapest(10, Budget(50 * 2.0**20, 0, 2**20, 2**18)).statement.endswith(
        "all of them are kept, in 10 MiB of memory"
    )


def test_disk_store(tmp_path) -> None:
    store, out = DiskStore(tmp_path), np.zeros((2, 3))
    store.write("a", np.arange(6.0).reshape(2, 3))
    store.read("a", out)
    np.testing.assert_array_equal(out.ravel(), np.arange(6.0))
    store.remove("a")
    store.remove("a")
