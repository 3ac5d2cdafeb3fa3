"""The derivative on its way back through the time steps."""

from collections.abc import Mapping, Sequence
from typing import final

from eulerian.transport.group_stepper import Groups, GroupStepper, LayerCosts
from eulerian.transport.operator import Accumulated
from eulerian.transport.storage import SweepStorage
from eulerian.transport.time_grid import TimeSteps, cut


@final
class AdjointSweep:
    """Takes the derivative by ρ(T) back to ρ₀, and leaves that by the velocities on its way.

    Args:
        stepper: of all densities and powers.
        steps: the time steps.
        velocities: by layer and group.
        cotangents: by group and power, in batches: the derivatives by the final ones; overwritten.
        running: by layer, group and power, (n_owned, nd) derivatives of the running costs per time.
        tilted: by layer and group, likewise of what costs (T − t) times that; or None.
        jumps: each by time step, derivatives (n_owned, nd, columns) of costs of the densities there by group and then,
            where it matters, by power.

    Attributes:
        gradients: by layer and group, this rank's contribution (n_nodes, dim), as the sweep comes through the layers.
    """

    def __init__(
        self,
        stepper: GroupStepper,
        steps: TimeSteps,
        velocities: list[Groups],
        cotangents: Groups,
        running: list[Groups],
        tilted: list[Groups] | None,
        jumps: Sequence[Mapping[int, Groups]] = (),
    ) -> None:
        self._stepper, self._steps, self._velocities = stepper, steps, velocities
        self._cotangents, self._running, self._tilted = cotangents, running, tilted
        self._sums: list[Accumulated] = []
        self.gradients: list[Groups] = [[] for _ in velocities]
        self._jumps, self._stops = jumps, {step for each in jumps for step in each}

    def unit(self, begin: int, end: int, storage: SweepStorage) -> None:
        """Adjoint of steps ``begin`` to ``end``, a unit whose records are in the storage. Collective."""
        for layer, first, last in reversed(list(cut(self._steps.segments(begin, end), self._stops))):
            self.jump(last)
            self._stepper.set_velocities(self._velocities[layer])
            # The derivative by a velocity adds up over its layer, which may reach over several units.
            if last == self._steps.ends[layer]:
                self._sums = self._stepper.accumulators()
            before, records = storage.before(first - begin), storage.records(first - begin, last - begin)
            segment, costs = (layer, first, last), self._costs(layer)
            self._stepper.step_adjoint(self._cotangents, before, self._steps, segment, records, costs, self._sums)
            if first == self._steps.begin(layer):
                self.gradients[layer] = self._stepper.contract(self._sums)

    def jump(self, step: int) -> None:
        """Add the derivatives of what the densities cost after so many steps; for 0 it comes last."""
        for groups in (each[step] for each in self._jumps if step in each):
            # Powers come last, and may be left out.
            for stepper, cotangent, more in zip(self._stepper.all, self._cotangents, groups, strict=False):
                cotangent += stepper.layout.pack_derivative(more)

    def _costs(self, layer: int) -> LayerCosts:
        # Packed anew for every unit: for all layers together they would be one more density a layer.
        return self._stepper.pack_costs(self._running[layer], None if self._tilted is None else self._tilted[layer])
