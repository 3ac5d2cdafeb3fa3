"""Densities through all layers and back, within a memory budget."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, final

from mpi4py import MPI

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.transport.checkpointing import Budget, DiskStore, Plan
from eulerian.transport.density_cost import DensityCharge, DensityCost
from eulerian.transport.observer import SweepObserver, SweepState, TimeMark, copied
from eulerian.transport.operator import Accumulated
from eulerian.transport.stepper import Source, Stepper, StepRecord, TimeLeft

# Fewer records than this would make the adjoint sweep recompute without end.
MINIMAL_RECORDS = 8


@dataclass(frozen=True)
class TimeGrid:
    """How time is cut.

    Attributes:
        horizon: T.
        layers: L; the velocity is constant in each layer of length T/L.
        cfl: fraction of the largest stable and positive time step that is used.
        max_steps: more steps than this in one layer make the evaluation a rejected one.
    """

    horizon: float = 1.0
    layers: int = 8
    cfl: float = 0.9
    max_steps: int = 2000

    @property
    def layer_time(self) -> float:
        """T/L."""
        return self.horizon / self.layers

    def steps(self, rate: float) -> int:
        """Steps in a layer whose largest stable step is 1/rate.

        Raises:
            RejectedEvaluation: the count is above the cap, or the rate is not finite.
        """
        wanted = self.layer_time * rate / self.cfl
        if not wanted <= self.max_steps:
            count = f"{wanted:.3g}" if math.isfinite(wanted) else "infinitely many"
            raise RejectedEvaluation(
                f"{count} time steps in one layer; solver.max_steps_per_layer is {self.max_steps}: "
                "raise it, take more layers, or start from a slower field"
            )
        return max(1, math.ceil(wanted))


# Numbers in densities that are charged together by costs that are not linear in them: they should stay in the cache.
_CHARGED_TOGETHER = 1 << 19

type Groups = list[Floats]
type Records = list[StepRecord]


@final
class Trajectory:
    """ρ₀ ↦ ρ(T) for velocities that are constant in each layer, with the exact reverse.

    Densities that move with one velocity are a group, the columns of one array (n_cells, nd, columns). All groups take
    the same time steps, so that a cost of their sum has a meaning at every stage. Powers of a group's densities may go
    with it (``Power``): they are columns of arrays of their own.

    The forward sweep keeps step records and densities as its ``Plan`` says; the adjoint sweep computes the rest again.
    Recomputation repeats the same operations, so the gradient does not depend on the budget, to the last bit.

    Args:
        steppers: one step and its reverse, for every group; each has an operator of its own.
        grid: horizon, layers, CFL number and step cap.
        memory: bytes for the reverse on all ranks together.
        density_cost: running costs that are not linear in the densities.
        powers: the group of each power, and one step of it and its reverse.
        moments: whether costs count the time that is left until T.
        disk: bytes on disk for densities that do not fit in memory, on all ranks together.
        disk_directory: where they are put.

    Attributes:
        velocities: by layer and group, as given.
        steps: time steps of each layer.
        occupations: by layer and group, ∫ρ dt (n_owned, nd) of all its columns together.
        moments: likewise ∫(T − t)ρ dt; empty unless they were asked for.
        power_occupations: by layer and power, ∫q dt (n_owned, nd) of all its columns together.
        charged: this rank's share of congestion and entropy over all time, (2,).
        plan: of the last forward sweep.
        recomputed: steps that its reverse has computed again.
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
        disk: float = 0.0,
        disk_directory: Path | None = None,
    ) -> None:
        """Collective.

        Raises:
            InputError: the budget is too small for any adjoint sweep.
        """
        self.steppers, self.grid = tuple(steppers), grid
        # Densities and powers, in this order wherever there is one array for each.
        self._all = (*self.steppers, *(stepper for _, stepper in powers))
        self._group = (*range(len(self.steppers)), *(group for group, _ in powers))
        self._space = self.steppers[0].operator.density_space
        self._charge = None if density_cost is None else DensityCharge(self.steppers[0].layout, density_cost)
        self._stages = self.steppers[0].scheme.stages
        self._budget = self._room(memory, disk)
        # Steps whose stages are charged together: as many on all ranks, so that all exchange ghosts in one order.
        numbers = self._stages * sum(math.prod(stepper.layout.shape) for stepper in self._all)
        self._chunk = max(1, _CHARGED_TOGETHER // self._space.comm.allreduce(max(numbers, 1), MPI.MAX))
        self._records: list[Records] = []
        self._charging: list[Records] = []
        self._kept: dict[int, Groups] = {}
        self._disk = DiskStore(disk_directory)
        self._position = [stepper.layout.zeros() for stepper in self._all]
        self._unit_start = [stepper.layout.zeros() for stepper in self._all]
        self._starts: list[Groups] = []
        self._sums: list[Accumulated] = []
        self._pending: Iterator[Any] | None = None
        self.plan: Plan | None = None
        self.recomputed = 0
        self.velocities: list[Groups] = []
        self.steps: tuple[int, ...] = ()
        self.occupations: list[Groups] = []
        self.moments: list[Groups] = []
        self.power_occupations: list[Groups] = []
        self.orders = 2 if moments else 1
        self.charged: Floats = np.zeros(2)

    def prepare(self, velocities: list[Groups], steps: tuple[int, ...] | None = None) -> Plan:
        """Take velocities, count the time steps and plan the reverse; ``forward`` begins with it. Collective.

        Args:
            velocities: (n_nodes, dim) by layer and group, ghosts up to date.
            steps: step counts to use instead of the CFL condition's (to look at J with the counts held fixed).

        Raises:
            RejectedEvaluation: too many steps; the same on all ranks.
        """
        self.velocities, self._pending = velocities, None
        if steps is None:
            rates = [self._rate(layer) for layer in range(self.grid.layers)]
            largest = np.empty(len(rates))
            self._space.comm.Allreduce(np.array(rates), largest, MPI.MAX)
            steps = tuple(self.grid.steps(rate) for rate in largest.tolist())
        self.steps = tuple(steps)
        self.plan = Plan.cheapest(sum(self.steps), self._budget)
        return self.plan

    def forward(
        self,
        rho: Groups,
        velocities: list[Groups],
        steps: tuple[int, ...] | None = None,
        observer: SweepObserver | None = None,
        powers: Sequence[Floats] = (),
    ) -> Groups:
        """Transport ρ₀; velocities, steps and errors as for ``prepare``. Collective.

        The result has the same bits with and without somebody who watches.

        Args:
            rho: initial density (n_cells, nd, columns) of every group, ghosts up to date.
            velocities: by layer and group.
            steps: step counts, or none.
            observer: who is told where the sweep is, and may know from an earlier one; then nothing is kept for an
                adjoint sweep.
            powers: of the initial density, (n_cells, nd, columns) each, ghosts up to date.

        Returns:
            ρ(T) of every group, with ghosts.
        """
        plan = self.prepare(velocities, steps)
        layers = range(self.grid.layers)
        self._starts = [[s.layout.pack(r, fill=1.0) for s, r in zip(self._all, [*rho, *powers], strict=True)]]
        copied(self._starts[0], self._position)
        occupations = [[s.layout.zero_totals(self.orders) for s in self._all] for _ in layers]
        self.charged = np.zeros(2)
        self._kept, self.recomputed = {}, 0
        if observer is None:
            self._pending = plan.actions()
            self._play("EndForward", occupations)
        else:
            self._accompany(observer, occupations)
        found = [self._totals(occupations, order) for order in range(self.orders)]
        n = len(self.steppers)
        self.occupations, *more = [[groups[:n] for groups in totals] for totals in found]
        self.moments = more[0] if more else []
        self.power_occupations = [groups[n:] for groups in found[0]]
        return self.start(self.grid.layers)

    def adjoint(
        self,
        cotangents: Groups,
        running: list[Groups],
        tilted: list[Groups] | None = None,
        powers: tuple[Groups, Groups] = ([], []),
    ) -> list[Groups]:
        """Pull the derivative by ρ(T) back to the velocities. Collective. Once after each ``forward``.

        Args:
            cotangents: (n_cells, nd, columns) per group, of the terminal cost; overwritten by those of ρ₀ on owned
                cells.
            running: by layer and group, (n_owned, nd) derivative of the linear running costs per time by ρ, the same
                for all columns.
            tilted: likewise of costs that are (T − t) times this per time; None if there are none.
            powers: by power, the derivative by it at T, overwritten likewise, and (n_owned, nd) that of the running
                costs per time, the same in all layers.

        Returns:
            By layer and group, this rank's contribution (n_nodes, dim) to the derivative by the velocity, through the
            density.
        """
        cotangents = [*cotangents, *powers[0]]
        packed = [s.layout.pack_derivative(c) for s, c in zip(self._all, cotangents, strict=True)]
        running = [[*groups, *powers[1]] for groups in running]
        back = _Adjoint(packed, running, tilted, [[] for _ in range(self.grid.layers)])
        self._play("EndReverse", back=back)
        self._pending = None
        for stepper, cotangent, result in zip(self._all, cotangents, packed, strict=True):
            cotangent[:] = stepper.layout.unpack_derivative(result)
        return back.gradients

    def start(self, layer: int) -> Groups:
        """Densities (n_cells, nd, columns) at the start of a layer, or at the end for ``layers``. Collective."""
        return [self._unpacked(*pair) for pair in zip(self.steppers, self._starts[layer], strict=False)]

    @property
    def power_steppers(self) -> tuple[Stepper, ...]:
        """One step of every power and its reverse."""
        return self._all[len(self.steppers) :]

    def powers_at(self, layer: int) -> Groups:
        """Powers, as ``start``. Collective."""
        starts = self._starts[layer][len(self.steppers) :]
        return [self._unpacked(*pair) for pair in zip(self.power_steppers, starts, strict=True)]

    def at_times(self, times: Floats) -> Iterator[Groups]:
        """Densities at ascending times, linear between time steps (which keeps mass and sign). Collective.

        They are computed one by one, as they are asked for; nothing else may be done with the trajectory meanwhile.
        """
        n = len(self.steppers)
        layer, done, state = -1, 0, self._starts[0][:n]
        for mark in map(self.mark, times.tolist()):
            if mark.layer != layer:
                layer, state = mark.layer, [group.copy() for group in self._starts[mark.layer][:n]]
                done = sum(self.steps[:layer])
            if mark.step > done:
                self.assemble(layer)
                state = [group.copy() for group in self._steps(state, self._dt(layer), mark.step - done)]
                done = mark.step
            yield self.between(state, mark)

    def time(self, step: int) -> float:
        """When a number of time steps is done."""
        if step == self._ends[-1]:
            return self.grid.horizon
        layer = bisect_left(self._ends, step)
        done = step - self._ends[layer] + self.steps[layer]
        return (layer + done / self.steps[layer]) * self.grid.layer_time

    def mark(self, t: float) -> TimeMark:
        """Where a time lies among the time steps of the last sweep, or of the one that is prepared."""
        return TimeMark.of(t, self.grid.layer_time, self.steps)

    def between(self, state: Groups, mark: TimeMark) -> Groups:
        """Densities (n_cells, nd, columns) at a mark, from those in batches after its number of steps. Collective.

        Powers may stand behind them, and are left out.
        """
        state = state[: len(self.steppers)]
        if mark.fraction > 0.0:
            self.assemble(mark.layer)
            after = self._steps(state, self._dt(mark.layer), 1)
            f = mark.fraction
            state = [(1.0 - f) * a + f * b for a, b in zip(state, after, strict=True)]
        return [self._unpacked(*pair) for pair in zip(self.steppers, state, strict=True)]

    @property
    def kept_bytes(self) -> int:
        """Size of the records and densities that this rank holds in memory for the reverse."""
        records = len(self._records) * sum(stepper.record_bytes for stepper in self._all)
        return records + len(self._kept) * sum(stepper.state_bytes for stepper in self._all)

    # -- inner workings ----------------------------------------------------------------------------------------------

    def _room(self, memory: float, disk: float) -> Budget:
        """What is left of the memory for records and densities. Collective."""
        sizes = [
            sum(stepper.record_bytes for stepper in self._all),
            sum(stepper.state_bytes for stepper in self._all),
        ]
        record, state = parallel.sum_all(self._space.comm, np.array(sizes, dtype=float))
        layers = (2 * self.grid.layers + 1) * state
        if memory - layers < MINIMAL_RECORDS * record:
            least = (layers + MINIMAL_RECORDS * record) / 2**20
            raise InputError(
                "too small for the adjoint of this problem",
                key="solver.memory",
                value=f"{memory / 2**20:.1f} MiB",
                remedy=f"Give at least {math.ceil(1.05 * least)} MiB, or use a coarser mesh or fewer layers",
            )
        return Budget(memory - layers, disk, int(record), int(state))

    def _play(self, end: str, occupations: list[Groups] | None = None, back: "_Adjoint | None" = None) -> None:
        """Carry out the plan's actions up to one of a given name; unit n begins with step n·unit."""
        assert self._pending is not None, "forward comes first"
        assert self.plan is not None
        unit, last = self.plan.unit, self.plan.steps
        for action in self._pending:
            kind = type(action).__name__
            if kind == end:
                return
            if kind == "Forward":
                if action.write_ics:
                    self._keep(action.n0, action.storage.name)
                self._advance(action.n0 * unit, min(action.n1 * unit, last), occupations, record=action.write_adj_deps)
            elif kind == "Reverse":
                assert back is not None
                self._step_adjoint(action.n0 * unit, min(action.n1 * unit, last), back)
            elif kind in ("Copy", "Move"):
                self._fetch(action.n, action.from_storage.name, drop=kind == "Move")

    def _accompany(self, observer: SweepObserver, occupations: list[Groups]) -> None:
        """All steps, with stops where somebody who watches is told, or knows how it goes on. Collective."""
        done, ends = 0, self._ends
        for stop in sorted({0, *observer.begin(self), *ends}):
            layer = bisect_left(ends, stop)
            known = observer.known(stop)
            if known is not None:
                copied(known.densities, self._position)
                copied(known.occupation, occupations[layer])
                self.charged[:] = known.charged
                if stop == ends[layer]:
                    self._starts.append([group.copy() for group in self._position])
                elif stop == 0:
                    copied(self._position, self._starts[0])
            elif stop > 0:
                self._advance(done, stop, occupations, record=False)
            done = stop
            observer.passes(SweepState(stop, self._position, occupations[layer], self.charged))

    def _keep(self, unit: int, storage: str) -> None:
        """Keep the present densities as those at the start of a unit. Collective."""
        if storage == "DISK":
            with parallel.agreed(self._space.comm):
                for g, group in enumerate(self._position):
                    self._disk.write(f"{unit}-{g}", group)
        else:
            self._kept[unit] = [group.copy() for group in self._position]

    def _fetch(self, unit: int, storage: str, *, drop: bool) -> None:
        """Go back to the start of a unit. Collective."""
        if storage == "DISK":
            with parallel.agreed(self._space.comm):
                for g, group in enumerate(self._position):
                    self._disk.read(f"{unit}-{g}", group)
                    if drop:
                        self._disk.remove(f"{unit}-{g}")
        else:
            copied(self._kept.pop(unit) if drop else self._kept[unit], self._position)

    def _advance(self, begin: int, end: int, occupations: list[Groups] | None, *, record: bool) -> None:
        """Steps ``begin`` to ``end`` from the present densities; the first time with their occupations and costs."""
        if record:
            copied(self._position, self._unit_start)
            while len(self._records) < end - begin:
                self._records.append([stepper.new_record() for stepper in self._all])
        if occupations is None:
            self.recomputed += end - begin
        for layer, first, last in self._pieces(begin, end):
            self.assemble(layer)
            records = self._records[first - begin : last - begin] if record else None
            occupation = None if occupations is None else occupations[layer]
            state = self._march(layer, first, last - first, records, occupation)
            copied(state, self._position)
            if occupations is not None and last == self._ends[layer]:
                self._starts.append([group.copy() for group in state])

    def _march(
        self, layer: int, begin: int, count: int, records: list[Records] | None, occupation: Groups | None
    ) -> Groups:
        """``count`` steps within a layer from step ``begin`` on, with what their stages cost."""
        dt, left = self._dt(layer), self._time_left(layer, begin)
        charge = None if occupation is None else self._charge
        if charge is None and not self._powers:
            return self._steps(self._position, dt, count, records, occupation, left)
        state, chunk = self._position, self._chunk
        weights = np.asarray(self.steppers[0].scheme.weights) * dt
        for first in range(0, count, chunk):
            n = min(chunk, count - first)
            used = self._spare(n) if records is None else records[first : first + n]
            after = self._steps(state, dt, n, used, occupation, self._time_left(layer, begin + first))
            if charge is not None:
                for each in charge.values(self._moments(state, used)).reshape(n, self._stages, -1):
                    self.charged += weights @ each  # step by step: the bits do not depend on where the sweep stops
            state = [group.copy() for group in after] if records is None else after
        return state

    def _spare(self, count: int) -> list[Records]:
        """Records for steps that are charged, or looked at by powers, but not kept."""
        while len(self._charging) < count:
            self._charging.append([stepper.new_record() for stepper in self._all])
        return self._charging[:count]

    def _steps(
        self,
        state: Groups,
        dt: float,
        count: int,
        records: list[Records] | None = None,
        occupation: Groups | None = None,
        left: TimeLeft | None = None,
    ) -> Groups:
        """Steps of the densities, and of powers where they are given too; these need the records."""
        mine = [None if records is None else [groups[g] for groups in records] for g in range(len(state))]
        return [
            stepper.step_forward(
                start,
                dt,
                count,
                mine[g],
                None if occupation is None else occupation[g],
                left,
                self._source(g, state, mine),
            )
            for g, (stepper, start) in enumerate(zip(self._all, state, strict=False))
        ]

    def _source(self, g: int, starts: Groups, records: Sequence[Records | list[StepRecord] | None]) -> Source | None:
        """What a power takes from its densities; None for densities."""
        group = self._group[g]
        if g == group:
            return None
        of_group = records[group]
        assert of_group is not None, "powers need the records of their densities"
        return starts[group], of_group

    def _step_adjoint(self, begin: int, end: int, back: "_Adjoint") -> None:
        """Reverse of steps ``begin`` to ``end``, whose records are there."""
        for layer, first, last in reversed(list(self._pieces(begin, end))):
            self.assemble(layer)
            if last == self._ends[layer]:
                self._sums = [stepper.operator.accumulator() for stepper in self._all]
            records = self._records[first - begin : last - begin]
            start = self._unit_start if first == begin else [r.states[-1] for r in self._records[first - begin - 1]]
            self._adjoint_piece(layer, first, start, records, back)
            if first == self._ends[layer] - self.steps[layer]:
                found = [stepper.operator.contract(sums) for stepper, sums in zip(self._all, self._sums, strict=True)]
                for group, gradient in zip(self._group[len(self.steppers) :], found[len(self.steppers) :], strict=True):
                    found[group] += gradient
                back.gradients[layer] = found[: len(self.steppers)]

    def _adjoint_piece(self, layer: int, begin: int, start: Groups, records: list[Records], back: "_Adjoint") -> None:
        dt, chunk = self._dt(layer), self._chunk if self._charge is not None or self._powers else len(records)
        running, tilted = self._shared(back.running[layer]), list[Floats | None]([None] * len(self._all))
        if back.tilted is not None:
            tilted[: len(self.steppers)] = self._shared(back.tilted[layer])
        for first in reversed(range(0, len(records), chunk)):
            part = records[first : first + chunk]
            before = [record.states[-1] for record in records[first - 1]] if first else start
            left, handed = self._time_left(layer, begin + first), self._adjoint_powers(before, dt, part, running, back)
            for g, stepper in enumerate(self.steppers):
                costs = [running[g]]
                if self._charge is not None:
                    costs = self._charge.slopes(self._moments(before, part), running[g], g)
                mine = [groups[g] for groups in part]
                stepper.step_adjoint(
                    back.cotangents[g],
                    before[g],
                    dt,
                    mine,
                    costs,
                    self._sums[g],
                    tilted[g],
                    left,
                    handed=handed.get(g),
                )

    def _adjoint_powers(
        self, before: Groups, dt: float, records: list[Records], running: Groups, back: "_Adjoint"
    ) -> dict[int, Floats]:
        """Reverse of the powers' steps; what they hand on to their densities, by group."""
        handed: dict[int, Floats] = {}
        mine = [[groups[g] for groups in records] for g in range(len(self._all))]
        for g in range(len(self.steppers), len(self._all)):
            stepper, group = self._all[g], self._group[g]
            owed, source = stepper.new_handed(len(records)), self._source(g, before, mine)
            stepper.step_adjoint(
                back.cotangents[g], before[g], dt, mine[g], [running[g]], self._sums[g], source=source, handed=owed
            )
            handed[group] = handed[group] + owed if group in handed else owed
        return handed

    def _shared(self, derivatives: Groups) -> Groups:
        """Derivatives (n_owned, nd) that all columns of a group have, in batches."""
        return [s.layout.pack_shared(each) for s, each in zip(self._all, derivatives, strict=False)]

    def _totals(self, occupations: list[Groups], order: int) -> list[Groups]:
        """One order of the integrals over time, by layer and group, (n_owned, nd)."""
        return [
            [s.layout.unpack_totals(o[order]) for s, o in zip(self._all, groups, strict=True)] for groups in occupations
        ]

    def _moments(self, before: Groups, records: list[Records]) -> list[Groups]:
        """The densities of all groups at every stage of the steps that start from ``before``."""
        stages = [[state for groups in records for state in groups[g].states] for g in range(len(self.steppers))]
        return [
            list(each)
            for each in zip(*([first, *rest[:-1]] for first, rest in zip(before, stages, strict=False)), strict=True)
        ]

    def assemble(self, layer: int) -> None:
        """Set the operators to a layer's velocities."""
        self._assembled(layer)

    def _rate(self, layer: int) -> float:
        """This rank's largest rate, +∞ where that is no number: MPI's maximum with NaN is any rank's guess."""
        rate = self._assembled(layer)
        return rate if math.isfinite(rate) else math.inf

    def _assembled(self, layer: int) -> float:
        """Set the operators to a layer's velocities; this rank's largest rate."""
        return max(
            stepper.operator.rate if stepper.operator.velocity is velocity else stepper.operator.set_velocity(velocity)
            for stepper, velocity in zip(self._all, (self.velocities[layer][g] for g in self._group), strict=True)
        )

    @property
    def _powers(self) -> bool:
        """Whether there are any."""
        return len(self._all) > len(self.steppers)

    def _dt(self, layer: int) -> float:
        return self.grid.layer_time / self.steps[layer]

    def _time_left(self, layer: int, step: int) -> TimeLeft:
        """What is left of the time before a step of a layer."""
        done = step - self._ends[layer] + self.steps[layer]
        return TimeLeft(self.grid.layer_time * (self.grid.layers - layer), done)

    @property
    def _ends(self) -> list[int]:
        """The number of steps up to the end of each layer."""
        return list(accumulate(self.steps))

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(layer, first, last) of the parts of steps ``begin`` to ``end`` in each layer."""
        for layer, (count, stop) in enumerate(zip(self.steps, self._ends, strict=True)):
            first, last = max(begin, stop - count), min(end, stop)
            if first < last:
                yield layer, first, last

    def _unpacked(self, stepper: Stepper, group: Floats) -> Floats:
        """Modal coefficients with ghosts. Collective."""
        rho = stepper.layout.unpack(group)
        self._space.update_ghosts(rho)
        return rho


@final
@dataclass(frozen=True)
class _Adjoint:
    """What the adjoint sweep carries.

    Attributes:
        cotangents: by group and power, in batches.
        running: by layer, group and power, in modes.
        tilted: by layer and group, what counts (T − t) times; or none.
        gradients: by layer and group, as they come.
    """

    cotangents: Groups
    running: list[Groups]
    tilted: list[Groups] | None
    gradients: list[Groups]
