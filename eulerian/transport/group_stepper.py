"""Time steps of all densities and powers together, with what their stages cost, and the adjoint of these steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.transport.density_cost import DensityCharge, DensityCost
from eulerian.transport.operator import Accumulated
from eulerian.transport.stepper import Source, Stepper, StepRecord
from eulerian.transport.time_grid import Segment, TimeLeft, TimeSteps

# Numbers in densities that are charged together by costs that are not linear in them: they should stay in the cache.
_CHARGED_TOGETHER = 1 << 19

type Groups = list[Floats]
type Records = list[StepRecord]


@final
@dataclass(frozen=True)
class Integrals:
    """What a forward sweep adds up over a layer.

    Attributes:
        occupation: by group and then by power, as ``NodalLayout.zero_totals`` with orders.
        charged: this rank's share of congestion and entropy over all time, (2,); all layers share it.
    """

    occupation: Groups
    charged: Floats


@final
@dataclass(frozen=True)
class LayerCosts:
    """Derivatives of the linear running costs per time in a layer, as ``NodalLayout.pack_shared`` makes them.

    Attributes:
        running: by group and then by power.
        tilted: by group, of what costs (T − t) times that; None where nothing does.
    """

    running: Groups
    tilted: Sequence[Floats | None]


@final
class GroupStepper:
    """Steps of all groups of densities, each with a velocity of its own, and of the powers that move beside them.

    All take the same time steps, so that a cost of their sum has a meaning at every stage. Lists of arrays are by group
    and then by power.

    Args:
        densities: the stepper of every group; each has an operator of its own.
        powers: the group of each power, and its stepper.
        cost: running costs that are not linear in the densities.
        orders: 2 if ∫(T − t)ρ dt is wanted besides ∫ρ dt, else 1.
    """

    def __init__(
        self,
        densities: Sequence[Stepper],
        powers: Sequence[tuple[int, Stepper]] = (),
        cost: DensityCost | None = None,
        orders: int = 1,
    ) -> None:
        """Collective."""
        self.densities, self.powers, self.orders = tuple(densities), tuple(stepper for _, stepper in powers), orders
        self.all = (*self.densities, *self.powers)
        self.space = self.all[0].operator.density_space
        self._groups = (*range(len(self.densities)), *(group for group, _ in powers))
        self._charge = None if cost is None else DensityCharge(self.all[0].layout, cost)
        self._stages = self.all[0].scheme.stages
        # Steps whose stages are charged together: as many on all ranks, so that all exchange ghosts in one order.
        numbers = self._stages * sum(math.prod(stepper.layout.shape) for stepper in self.all)
        self._chunk = max(1, _CHARGED_TOGETHER // self.space.comm.allreduce(max(numbers, 1), MPI.MAX))
        self._spare: list[Records] = []

    # -- arrays ------------------------------------------------------------------------------------------------------

    @property
    def record_bytes(self) -> int:
        """Size of the records of one step on this rank."""
        return sum(stepper.record_bytes for stepper in self.all)

    @property
    def state_bytes(self) -> int:
        """Size of all densities and powers on this rank."""
        return sum(stepper.state_bytes for stepper in self.all)

    def new_records(self) -> Records:
        """Empty records of one step."""
        return [stepper.new_record() for stepper in self.all]

    def zeros(self) -> Groups:
        """Densities and powers in batches, all zero."""
        return [stepper.layout.zeros() for stepper in self.all]

    def zero_occupation(self) -> Groups:
        """Integrals over time that are zero."""
        return [stepper.layout.zero_totals(self.orders) for stepper in self.all]

    def pack(self, rho: Groups) -> Groups:
        """Batches of modal coefficients (n_cells, nd, columns)."""
        return [s.layout.pack(r, fill=1.0) for s, r in zip(self.all, rho, strict=True)]

    def unpack(self, state: Groups, first: int = 0) -> Groups:
        """Modal coefficients (n_cells, nd, columns), with ghosts, of a state from number ``first`` on. Collective."""
        found = [stepper.layout.unpack(group) for stepper, group in zip(self.all[first:], state[first:], strict=False)]
        # Steps exchange only nodes on facets between ranks: whole ghost cells come from their owners.
        for rho in found:
            self.space.update_ghosts(rho)
        return found

    def unpack_occupation(self, occupation: Groups, order: int) -> Groups:
        """One order of the integrals over time, (n_owned, nd) for all columns together."""
        return [s.layout.unpack_totals(each[order]) for s, each in zip(self.all, occupation, strict=True)]

    def pack_costs(self, running: Groups, tilted: Groups | None) -> LayerCosts:
        """Costs of a layer from their derivatives (n_owned, nd) per time, the same for all columns."""
        running = [s.layout.pack_shared(each) for s, each in zip(self.all, running, strict=True)]
        if tilted is None:
            return LayerCosts(running, [None] * len(self.densities))
        return LayerCosts(running, [s.layout.pack_shared(e) for s, e in zip(self.densities, tilted, strict=True)])

    # -- the operators -----------------------------------------------------------------------------------------------

    def set_velocities(self, velocities: Groups) -> float:
        """Set all operators to the velocities of a layer, by group; this rank's largest rate, ∞ if that is no number.

        An operator that has its velocity already is left alone.
        """
        rate = max(
            s.operator.rate if s.operator.velocity is velocity else s.operator.set_velocity(velocity)
            for s, velocity in zip(self.all, (velocities[group] for group in self._groups), strict=True)
        )
        return rate if math.isfinite(rate) else math.inf  # MPI's maximum with NaN is any rank's guess

    def accumulators(self) -> list[Accumulated]:
        """Zero derivatives by the operators' coefficients."""
        return [stepper.operator.accumulator() for stepper in self.all]

    def contract(self, sums: list[Accumulated]) -> Groups:
        """This rank's contribution (n_nodes, dim) to the derivative by the velocity of every group."""
        found = [s.operator.contract(each) for s, each in zip(self.all, sums, strict=True)]
        n = len(self.densities)
        # Powers move with the velocity of their densities.
        for group, gradient in zip(self._groups[n:], found[n:], strict=True):
            found[group] += gradient
        return found[:n]

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(
        self,
        state: Groups,
        dt: float,
        count: int,
        records: list[Records] | None = None,
        occupation: Groups | None = None,
        left: TimeLeft | None = None,
    ) -> Groups:
        """``count`` steps of the densities, and of the powers if they are given; these need the records. Collective."""
        mine = None if records is None else self._by_member(records)
        found = []
        for g, start in enumerate(state):
            kept, totals = None if mine is None else mine[g], None if occupation is None else occupation[g]
            # Powers come last in the list: the records of their densities are filled by now.
            source = self._source(g, state, mine)
            found.append(self.all[g].step_forward(start, dt, count, kept, totals, left, source))
        return found

    def step_forward(
        self,
        state: Groups,
        steps: TimeSteps,
        segment: Segment,
        records: list[Records] | None,
        integrals: Integrals | None,
    ) -> Groups:
        """The steps of a segment, with what their stages cost if integrals are wanted. Collective.

        Returns:
            The new densities and powers; views into memory that the next call overwrites.
        """
        layer, begin, end = segment
        dt, occupation = steps.dt(layer), None if integrals is None else integrals.occupation
        charge = None if integrals is None else self._charge
        if charge is None and not self.powers:
            return self.step(state, dt, end - begin, records, occupation, steps.left(layer, begin))
        # Stages that are looked at have to be recorded: few steps at a time, so that they are still in the cache.
        for first in range(begin, end, self._chunk):
            n = min(self._chunk, end - first)
            used = self._spare_records(n) if records is None else records[first - begin : first - begin + n]
            after = self.step(state, dt, n, used, occupation, steps.left(layer, first))
            if charge is not None and integrals is not None:
                self._add_charges(charge, state, dt, used, integrals.charged)
            # The next chunk overwrites spare records, and the state is a view into them.
            state = [group.copy() for group in after] if records is None else after
        return state

    def step_adjoint(
        self,
        cotangents: Groups,
        start: Groups,
        steps: TimeSteps,
        segment: Segment,
        records: list[Records],
        costs: LayerCosts,
        sums: list[Accumulated],
    ) -> None:
        """Adjoint of the steps of a segment, from the records that they filled. Collective.

        Args:
            cotangents: of the result; overwritten by those of ``start``.
            start: what the steps started from.
            steps: all time steps.
            segment: whose steps.
            records: of these steps.
            costs: of the layer.
            sums: to which the derivatives by the operators' coefficients are added.
        """
        layer, begin, end = segment
        chunk = end - begin if self._charge is None and not self.powers else self._chunk
        for first in reversed(range(begin, end, chunk)):
            part = records[first - begin : first - begin + chunk]
            before = start if first == begin else _ends(records[first - begin - 1])
            mine, dt, left = self._by_member(part), steps.dt(layer), steps.left(layer, first)
            # Powers first: the densities' adjoint takes up what they hand on, stage by stage.
            handed = self._adjoint_of_powers(cotangents, before, dt, mine, costs.running, sums)
            for g, stepper in enumerate(self.densities):
                running, tilt = [costs.running[g]], costs.tilted[g]
                if self._charge is not None:
                    running = self._charge.slopes(self._stage_starts(before, part), costs.running[g], g)
                stepper.step_adjoint(
                    cotangents[g], before[g], dt, mine[g], running, sums[g], tilt, left, handed=handed.get(g)
                )

    def _adjoint_of_powers(
        self,
        cotangents: Groups,
        before: Groups,
        dt: float,
        records: list[Records],
        running: Groups,
        sums: list[Accumulated],
    ) -> dict[int, Floats]:
        """Adjoint of the powers' steps; what they hand on to their densities, by group."""
        handed: dict[int, Floats] = {}
        for g, stepper in enumerate(self.powers, len(self.densities)):
            owed, source = stepper.new_handed(len(records[g])), self._source(g, before, records)
            stepper.step_adjoint(
                cotangents[g], before[g], dt, records[g], [running[g]], sums[g], source=source, handed=owed
            )
            group = self._groups[g]
            handed[group] = handed[group] + owed if group in handed else owed  # a group may have two powers
        return handed

    def _add_charges(
        self, charge: DensityCharge, before: Groups, dt: float, records: list[Records], charged: Floats
    ) -> None:
        """Add the costs of the steps from ``before`` that left these records."""
        weights = np.asarray(self.all[0].scheme.weights) * dt
        for each in charge.values(self._stage_starts(before, records)).reshape(len(records), self._stages, -1):
            charged += weights @ each  # step by step: the bits do not depend on where the sweep stops

    def _stage_starts(self, before: Groups, records: list[Records]) -> list[Groups]:
        """What every stage of the steps from ``before`` starts from, of the densities."""
        found = []
        for g, _ in enumerate(self.densities):
            ends = [state for step in records for state in step[g].states]
            found.append([before[g], *ends[:-1]])
        return [list(each) for each in zip(*found, strict=True)]

    def _spare_records(self, count: int) -> list[Records]:
        """Records for steps whose stages are looked at, but not kept."""
        while len(self._spare) < count:
            self._spare.append(self.new_records())
        return self._spare[:count]

    def _by_member(self, records: list[Records]) -> list[Records]:
        """Records of several steps, by group and power."""
        return [[step[g] for step in records] for g in range(len(self.all))]

    def _source(self, g: int, starts: Groups, records: list[Records] | None) -> Source | None:
        """What a power takes from its densities; None for densities."""
        group = self._groups[g]
        if g == group:
            return None
        assert records is not None, "powers need the records of their densities"
        return starts[group], records[group]


def _ends(records: Records) -> Groups:
    """What a step has led to."""
    return [record.states[-1] for record in records]
