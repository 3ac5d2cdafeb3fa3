"""A density through all layers and back, within a memory budget."""

import math
from dataclasses import dataclass

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


class Tape:
    """Step records by layer. When it is full the earliest recorded layer goes: the reverse sweep starts at the last."""

    def __init__(self, stepper: Stepper, capacity: int) -> None:
        self._stepper, self.capacity = stepper, capacity
        self._free: list[StepRecord] = []
        self._used: dict[int, list[StepRecord]] = {}
        self._allocated = 0

    def record(self, layer: int, count: int) -> list[StepRecord]:
        """``count`` records for a layer, at most ``capacity``."""
        self.release(layer)
        while count > len(self._free) + self.capacity - self._allocated:
            self.release(min(self._used))
        while len(self._free) < count:
            self._free.append(self._stepper.new_record())
            self._allocated += 1
        self._used[layer] = [self._free.pop() for _ in range(count)]
        return self._used[layer]

    def of(self, layer: int) -> list[StepRecord] | None:
        """The records of a layer, if they are still there."""
        return self._used.get(layer)

    def release(self, layer: int) -> None:
        """Give a layer's records back."""
        self._free.extend(self._used.pop(layer, []))


class Trajectory:
    """ρ₀ ↦ ρ(T) for a velocity that is constant in each layer, with the exact reverse.

    The forward sweep keeps the density at the start of every layer and as many step records as the budget allows. The
    reverse sweep recomputes what is missing, layer by layer, in segments if even one layer does not fit; recomputation
    repeats the same operations, so the gradient does not depend on the budget.

    Args:
        stepper: one step and its reverse.
        grid: horizon, layers, CFL number and step cap.
        memory: bytes for the records on all ranks together.
        sharers: how many trajectories share that memory.
    """

    def __init__(self, stepper: Stepper, grid: TimeGrid, memory: float, sharers: int = 1) -> None:
        """Collective.

        Raises:
            InputError: the budget is too small for any reverse sweep.
        """
        self.stepper, self.grid = stepper, grid
        self.operator = stepper.operator
        space = self.operator.density_space
        cells = space.mesh.topology.index_map(space.dim).size_global
        layers_bytes = 2 * grid.layers * cells * space.nd * self.operator.columns * 8
        record_bytes = cells * stepper.bytes_per_cell
        capacity = int((memory / sharers - layers_bytes) // record_bytes)
        if capacity < MINIMAL_RECORDS:
            least = sharers * (layers_bytes + MINIMAL_RECORDS * record_bytes) / 2**20
            raise InputError(
                "too small for the adjoint of this problem",
                key="solver.memory",
                value=f"{memory / 2**20:.1f} MiB",
                remedy=f"Give at least {math.ceil(1.05 * least)} MiB, or use a coarser mesh or fewer layers",
            )
        self._tape = Tape(stepper, capacity)
        self._scratch = stepper.new_record()
        self._sink = np.zeros((space.n_owned, space.nd, self.operator.columns))
        self.velocities: list[Floats] = []
        self.steps: tuple[int, ...] = ()
        self.starts: list[Floats] = []
        self.occupations: list[Floats] = []

    def forward(self, rho: Floats, velocities: list[Floats], steps: tuple[int, ...] | None = None) -> Floats:
        """Transport ρ₀ (n_cells, nd, columns) by one velocity (n_nodes, dim) per layer. Collective.

        Afterwards ``starts[l]`` is the density at the start of layer l (and ``starts[L]`` the last one), ``steps[l]``
        the number of steps and ``occupations[l]`` (n_owned, nd, columns) the integral of ρ over the layer.

        Args:
            rho: initial density, ghosts up to date.
            velocities: one per layer, ghosts up to date.
            steps: step counts to use instead of the CFL condition's (to look at J with the counts held fixed).

        Returns:
            ρ(T).

        Raises:
            RejectedEvaluation: too many steps, or the velocity is not finite; the same on all ranks.
        """
        self.velocities = velocities
        self.starts, self.occupations, counts = [rho.copy()], [], []
        for layer in range(self.grid.layers):
            rate = self.assemble(layer)
            count = self.grid.steps(rate) if steps is None else steps[layer]
            dt = self.grid.layer_time / count
            recorded = self._tape.record(layer, count) if count <= self._tape.capacity else None
            occupation = np.zeros_like(self._sink)
            state = self._march(self.starts[-1], dt, count, recorded, occupation)
            counts.append(count)
            self.starts.append(state.copy())
            self.occupations.append(occupation)
        self.steps = tuple(counts)
        return self.starts[-1]

    def reverse(self, cotangent: Floats, running: list[Floats]) -> list[Floats]:
        """Pull the derivative by ρ(T) back to the velocities. Collective. ``forward`` comes first.

        Args:
            cotangent: (n_cells, nd, columns) derivative of the terminal cost; overwritten by that of ρ₀.
            running: per layer, (n_owned, nd, columns) derivative by ρ of the running cost per time.

        Returns:
            Per layer, this rank's contribution (n_nodes, dim) to the derivative by the velocity, through the density.
        """
        gradients: list[Floats] = []
        for layer in reversed(range(self.grid.layers)):
            self.assemble(layer)
            sums = self.operator.accumulator()
            recorded, start = self._tape.of(layer), self.starts[layer]
            if recorded is not None:
                self._unwind(layer, start, recorded, cotangent, running[layer], sums)
            else:
                self._recompute(layer, start, self.steps[layer], self._tape.capacity, cotangent, running[layer], sums)
            self._tape.release(layer)
            gradients.append(self.operator.contract(sums))
        return gradients[::-1]

    def at_times(self, times: Floats) -> list[Floats]:
        """Densities at ascending times, linear between time steps (which keeps mass and sign). Collective."""
        result: list[Floats] = []
        for layer, count in enumerate(self.steps):
            self.assemble(layer)
            dt = self.grid.layer_time / count
            state = self.starts[layer].copy()
            for step in range(count):
                t = layer * self.grid.layer_time + step * dt
                after = self.stepper.step(state, dt, self._scratch, self._sink)
                last = layer == len(self.steps) - 1 and step == count - 1
                while len(result) < len(times) and (times[len(result)] <= t + dt or last):
                    fraction = min(max((times[len(result)] - t) / dt, 0.0), 1.0)
                    result.append((1.0 - fraction) * state + fraction * after)
                state[:] = after
        return result

    @property
    def recorded_bytes(self) -> int:
        """Size of the step records that this rank holds now."""
        record = self._scratch
        each = record.states.nbytes + record.factors.nbytes + record.lowest_at.nbytes
        return self._tape._allocated * each

    # -- inner workings ----------------------------------------------------------------------------------------------

    def assemble(self, layer: int) -> float:
        """Set the operator, which trajectories may share, to a layer's velocity. Collective.

        Returns:
            The rate of ``TransportOperator.assemble``.
        """
        velocity = self.velocities[layer]
        return self.operator.rate if self.operator.velocity is velocity else self.operator.assemble(velocity)

    def _march(
        self, state: Floats, dt: float, count: int, recorded: list[StepRecord] | None, occupation: Floats
    ) -> Floats:
        """``count`` steps; with no records to keep, two scratch states take turns."""
        if recorded is not None:
            for record in recorded:
                state = self.stepper.step(state, dt, record, occupation)
            return state
        state = state.copy()
        for _ in range(count):
            state[:] = self.stepper.step(state, dt, self._scratch, occupation)
        return state

    def _unwind(
        self, layer: int, start: Floats, recorded: list[StepRecord], cotangent: Floats, running: Floats, sums: Floats
    ) -> None:
        dt = self.grid.layer_time / self.steps[layer]
        for i in reversed(range(len(recorded))):
            before = recorded[i - 1].states[-1] if i else start
            self.stepper.step_vjp(cotangent, before, dt, recorded[i], running, sums)

    def _recompute(
        self, layer: int, start: Floats, count: int, room: int, cotangent: Floats, running: Floats, sums: Floats
    ) -> None:
        """Reverse ``count`` steps from ``start`` with room for that many records, in segments if they do not fit.

        A quarter of the room holds densities at the segments' starts; a record is as large as one density per stage.
        """
        dt = self.grid.layer_time / self.steps[layer]
        if count <= room:
            recorded = self._tape.record(layer, count)
            self._march(start, dt, count, recorded, self._sink)
            self._unwind(layer, start, recorded, cotangent, running, sums)
            self._tape.release(layer)
            return
        kept = max(1, room // 4)
        length = math.ceil(count / (kept * self.stepper.scheme.stages + 1)) if room > 1 else 1
        starts = [start]
        for _ in range(length, count, length):
            starts.append(self._march(starts[-1], dt, length, None, self._sink))
        for index in reversed(range(len(starts))):
            part = min(length, count - index * length)
            self._recompute(layer, starts.pop(), part, max(room - kept, 1), cotangent, running, sums)
