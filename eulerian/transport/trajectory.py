"""Densities through all layers and back, within a memory budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eulerian.arrays import Floats
from eulerian.errors import InputError, RejectedEvaluation
from eulerian.transport.stepper import Stepper, StepRecord

# Fewer records than this would make the reverse sweep recompute without end.
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

    horizon: float
    layers: int
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
            raise RejectedEvaluation(f"{count} time steps in one layer; solver.max_steps_per_layer is {self.max_steps}")
        return max(1, math.ceil(wanted))


class DensityCost(Protocol):
    """Running costs that are not linear in the density: functions of the total of all labels."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the costs."""
        ...

    def values(self, total: Floats) -> Floats:
        """This rank's share of the costs per time, one per name, at Σ_y ρ_y (n_owned, nd)."""
        ...

    def gradient(self, total: Floats) -> Floats:
        """Derivative (n_owned, nd) of their sum by the coefficients."""
        ...


type Groups = list[Floats]
type Records = list[StepRecord]


class Tape:
    """Step records by layer. When it is full the earliest recorded layer goes: the reverse sweep starts at the last.

    One entry records one time step of every group.
    """

    def __init__(self, steppers: Sequence[Stepper], capacity: int) -> None:
        self._steppers, self.capacity = steppers, capacity
        self._free: list[Records] = []
        self._used: dict[int, list[Records]] = {}
        self.allocated = 0

    def record(self, layer: int, count: int) -> list[Records]:
        """``count`` entries for a layer, at most ``capacity``."""
        self.release(layer)
        while count > len(self._free) + self.capacity - self.allocated:
            self.release(min(self._used))
        while len(self._free) < count:
            self._free.append([stepper.new_record() for stepper in self._steppers])
            self.allocated += 1
        self._used[layer] = [self._free.pop() for _ in range(count)]
        return self._used[layer]

    def of(self, layer: int) -> list[Records] | None:
        """The entries of a layer, if they are still there."""
        return self._used.get(layer)

    def release(self, layer: int) -> None:
        """Give a layer's entries back."""
        self._free.extend(self._used.pop(layer, []))


class Trajectory:
    """ρ₀ ↦ ρ(T) for velocities that are constant in each layer, with the exact reverse.

    Densities that move with one velocity are a group, the columns of one array (n_cells, nd, columns). All groups take
    the same time steps, so that a cost of their sum has a meaning at every stage.

    The forward sweep keeps the densities at the start of every layer and as many step records as the budget allows. The
    reverse sweep recomputes what is missing, layer by layer, in segments if even one layer does not fit; recomputation
    repeats the same operations, so the gradient does not depend on the budget.

    Args:
        steppers: one step and its reverse, for every group; each has an operator of its own.
        grid: horizon, layers, CFL number and step cap.
        memory: bytes for the records on all ranks together.
        density_cost: running costs that are not linear in the densities.

    Attributes:
        velocities: by layer and group, as given.
        steps: time steps of each layer.
        starts: by layer, then at the end: the density of every group.
        occupations: by layer and group, ∫ρ dt (n_owned, nd, columns).
        charged: this rank's share of the costs of ``density_cost`` over all time.
    """

    def __init__(
        self, steppers: Sequence[Stepper], grid: TimeGrid, memory: float, density_cost: DensityCost | None = None
    ) -> None:
        """Collective.

        Raises:
            InputError: the budget is too small for any reverse sweep.
        """
        self.steppers, self.grid = tuple(steppers), grid
        space = self.steppers[0].operator.density_space
        cells = space.mesh.topology.index_map(space.dim).size_global
        columns = sum(stepper.operator.columns for stepper in self.steppers)
        layers_bytes = 2 * grid.layers * cells * space.nd * columns * 8
        record_bytes = cells * sum(stepper.bytes_per_cell for stepper in self.steppers)
        capacity = int((memory - layers_bytes) // record_bytes)
        if capacity < MINIMAL_RECORDS:
            least = (layers_bytes + MINIMAL_RECORDS * record_bytes) / 2**20
            raise InputError(
                "too small for the adjoint of this problem",
                key="solver.memory",
                value=f"{memory / 2**20:.1f} MiB",
                remedy=f"Give at least {math.ceil(1.05 * least)} MiB, or use a coarser mesh or fewer layers",
            )
        self._tape = Tape(self.steppers, capacity)
        self._scratch = [stepper.new_record() for stepper in self.steppers]
        self._sink = [np.zeros((space.n_owned, space.nd, stepper.operator.columns)) for stepper in self.steppers]
        self._n_owned, self._density_cost = space.n_owned, density_cost
        self.velocities: list[Groups] = []
        self.steps: tuple[int, ...] = ()
        self.starts: list[Groups] = []
        self.occupations: list[Groups] = []
        self.charged: Floats = np.zeros(0)

    def forward(self, rho: Groups, velocities: list[Groups], steps: tuple[int, ...] | None = None) -> Groups:
        """Transport ρ₀ by one velocity (n_nodes, dim) per layer and group. Collective.

        Args:
            rho: initial density (n_cells, nd, columns) of every group, ghosts up to date.
            velocities: by layer and group, ghosts up to date.
            steps: step counts to use instead of the CFL condition's (to look at J with the counts held fixed).

        Returns:
            ρ(T) of every group.

        Raises:
            RejectedEvaluation: too many steps, or a velocity is not finite; the same on all ranks.
        """
        self.velocities = velocities
        self.starts, self.occupations, counts = [[group.copy() for group in rho]], [], []
        self.charged = np.zeros(len(self._density_cost.names) if self._density_cost else 0)
        for layer in range(self.grid.layers):
            rate = self.assemble(layer)
            count = self.grid.steps(rate) if steps is None else steps[layer]
            dt = self.grid.layer_time / count
            recorded = self._tape.record(layer, count) if count <= self._tape.capacity else None
            occupation = [np.zeros_like(sink) for sink in self._sink]
            state = self._march(self.starts[-1], dt, count, recorded, occupation, charge=True)
            counts.append(count)
            self.starts.append([group.copy() for group in state])
            self.occupations.append(occupation)
        self.steps = tuple(counts)
        return self.starts[-1]

    def reverse(self, cotangents: Groups, running: list[Groups]) -> list[Groups]:
        """Pull the derivative by ρ(T) back to the velocities. Collective. ``forward`` comes first.

        Args:
            cotangents: (n_cells, nd, columns) per group, of the terminal cost; overwritten by those of ρ₀.
            running: by layer and group, (n_owned, nd, columns) derivative by ρ of the linear running costs per time.

        Returns:
            By layer and group, this rank's contribution (n_nodes, dim) to the derivative by the velocity, through the
            density.
        """
        gradients: list[Groups] = []
        for layer in reversed(range(self.grid.layers)):
            self.assemble(layer)
            back = _Reverse(layer, cotangents, running[layer], [s.operator.accumulator() for s in self.steppers])
            recorded, start = self._tape.of(layer), self.starts[layer]
            if recorded is not None:
                self._unwind(start, recorded, back)
            else:
                self._recompute(start, self.steps[layer], self._tape.capacity, back)
            self._tape.release(layer)
            gradients.append([s.operator.contract(sums) for s, sums in zip(self.steppers, back.sums, strict=True)])
        return gradients[::-1]

    def at_times(self, times: Floats) -> list[Groups]:
        """Densities at ascending times, linear between time steps (which keeps mass and sign). Collective."""
        result: list[Groups] = []
        for layer, count in enumerate(self.steps):
            self.assemble(layer)
            dt = self.grid.layer_time / count
            state = [group.copy() for group in self.starts[layer]]
            for step in range(count):
                t = layer * self.grid.layer_time + step * dt
                after = self._step(state, dt, self._scratch, self._sink)
                last = layer == len(self.steps) - 1 and step == count - 1
                while len(result) < len(times) and (times[len(result)] <= t + dt or last):
                    fraction = min(max((times[len(result)] - t) / dt, 0.0), 1.0)
                    result.append([(1.0 - fraction) * a + fraction * b for a, b in zip(state, after, strict=True)])
                _copy(after, state)
        return result

    @property
    def recorded_bytes(self) -> int:
        """Size of the step records that this rank holds now."""
        each = sum(r.states.nbytes + r.factors.nbytes + r.lowest_at.nbytes for r in self._scratch)
        return self._tape.allocated * each

    # -- inner workings ----------------------------------------------------------------------------------------------

    def assemble(self, layer: int) -> float:
        """Set the operators to a layer's velocities. Collective.

        Returns:
            The largest rate of ``TransportOperator.assemble``.
        """
        rates = [
            stepper.operator.rate if stepper.operator.velocity is velocity else stepper.operator.assemble(velocity)
            for stepper, velocity in zip(self.steppers, self.velocities[layer], strict=True)
        ]
        return max(rates)

    def _step(self, state: Groups, dt: float, records: Records, occupation: Groups) -> Groups:
        parts = zip(self.steppers, state, records, occupation, strict=True)
        return [stepper.step(group, dt, record, total) for stepper, group, record, total in parts]

    def _march(
        self,
        state: Groups,
        dt: float,
        count: int,
        recorded: list[Records] | None,
        occupation: Groups,
        *,
        charge: bool = False,
    ) -> Groups:
        """``count`` steps; with no records to keep, two scratch states take turns."""
        if recorded is None:
            state = [group.copy() for group in state]
        for step in range(count):
            records = self._scratch if recorded is None else recorded[step]
            after = self._step(state, dt, records, occupation)
            if charge and self._density_cost is not None:
                for stage, weight in enumerate(self.steppers[0].scheme.weights):
                    self.charged += weight * dt * self._density_cost.values(self._total(state, records, stage))
            if recorded is None:
                _copy(after, state)
            else:
                state = after
        return state

    def _total(self, before: Groups, records: Records, stage: int) -> Floats:
        """Σ_y ρ_y (n_owned, nd) at a stage of the step that starts from ``before``."""
        groups = before if stage == 0 else [record.states[stage - 1] for record in records]
        return np.asarray(sum(group[: self._n_owned].sum(axis=2) for group in groups))

    def _unwind(self, start: Groups, recorded: list[Records], back: "_Reverse") -> None:
        dt = self.grid.layer_time / self.steps[back.layer]
        stages = self.steppers[0].scheme.stages
        for i in reversed(range(len(recorded))):
            before = [record.states[-1] for record in recorded[i - 1]] if i else start
            slopes = [
                None if self._density_cost is None else self._density_cost.gradient(self._total(before, recorded[i], n))
                for n in range(stages)
            ]
            for g, stepper in enumerate(self.steppers):
                running = [back.running[g] if s is None else back.running[g] + s[:, :, None] for s in slopes]
                stepper.step_vjp(back.cotangents[g], before[g], dt, recorded[i][g], running, back.sums[g])

    def _recompute(self, start: Groups, count: int, room: int, back: "_Reverse") -> None:
        """Reverse ``count`` steps from ``start`` with room for that many records, in segments if they do not fit.

        A quarter of the room holds densities at the segments' starts; a record is as large as one density per stage.
        """
        dt = self.grid.layer_time / self.steps[back.layer]
        if count <= room:
            recorded = self._tape.record(back.layer, count)
            self._march(start, dt, count, recorded, self._sink)
            self._unwind(start, recorded, back)
            self._tape.release(back.layer)
            return
        kept = max(1, room // 4)
        length = math.ceil(count / (kept * self.steppers[0].scheme.stages + 1)) if room > 1 else 1
        starts = [start]
        for _ in range(length, count, length):
            starts.append(self._march(starts[-1], dt, length, None, self._sink))
        for index in reversed(range(len(starts))):
            part = min(length, count - index * length)
            self._recompute(starts.pop(), part, max(room - kept, 1), back)


@dataclass(frozen=True)
class _Reverse:
    """What the reverse sweep through a layer carries; lists by group."""

    layer: int
    cotangents: Groups
    running: Groups
    sums: Groups


def _copy(source: Groups, target: Groups) -> None:
    for a, b in zip(source, target, strict=True):
        b[:] = a
