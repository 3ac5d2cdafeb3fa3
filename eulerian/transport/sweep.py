"""A forward sweep through all layers, and what its adjoint needs of it."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.transport.adjoint import AdjointSweep
from eulerian.transport.checkpointing import Plan
from eulerian.transport.group_stepper import Groups, GroupStepper, Integrals
from eulerian.transport.observer import SweepObserver, SweepState
from eulerian.transport.storage import SweepStorage, copy_groups
from eulerian.transport.time_grid import TimeMark, TimeSteps, cut

# Congestion and entropy, which every step is charged for.
_OF_STEPS = 2


class MomentCosts(Protocol):
    """Costs of the densities at some moments of a sweep. All methods are collective.

    Attributes:
        count: how many costs there are.
    """

    count: int

    def moments(self, steps: TimeSteps) -> Iterable[int]:
        """The time steps are known; after how many of them something is charged."""
        ...

    def charge(self, step: int, densities: Groups) -> tuple[Floats, Groups]:
        """What the densities (n_cells, nd, columns) of the groups cost after so many steps.

        Returns:
            This rank's share of every cost (count,), and the derivative (n_owned, nd, columns) of their sum by every
            group.
        """
        ...


@final
class Sweep:
    """ρ₀ ↦ ρ(T) for given velocities: made by ``Trajectory``, consumed by ``adjoint``.

    Recomputation repeats the same operations, so the gradient does not depend on the memory budget, to the last bit.

    Args:
        stepper: of all densities and powers.
        storage: which belongs to this sweep until the next one begins.
        steps: the time steps.
        velocities: (n_nodes, dim) by layer and group, ghosts up to date.
        plan: what is stored for the adjoint.

    Attributes:
        velocities, steps, plan: as given.
        occupations: by layer and group, ∫ρ dt (n_owned, nd) of all its columns together.
        moments: likewise ∫(T − t)ρ dt; empty where no cost needs them.
        power_occupations: by layer and power, ∫q dt (n_owned, nd) of all its columns together.
        charged: this rank's share of congestion and entropy over all time, and of the costs at moments, (2 + count,).
        jumps: by time step, the derivatives of the costs at moments by the densities of every group.
        recomputed: steps that the adjoint has computed again.
    """

    def __init__(
        self, stepper: GroupStepper, storage: SweepStorage, steps: TimeSteps, velocities: list[Groups], plan: Plan
    ) -> None:
        self._stepper, self._storage = stepper, storage
        self.steps, self.velocities, self.plan = steps, velocities, plan
        self._starts: list[Groups] = []
        self._pending: Iterator[Any] | None = None
        self._number = 0  # of the sweeps in this storage
        self.recomputed = 0
        self.occupations: list[Groups] = []
        self.moments: list[Groups] = []
        self.power_occupations: list[Groups] = []
        self.charged: Floats = np.zeros(_OF_STEPS)
        self.jumps: dict[int, Groups] = {}
        self._costs: MomentCosts | None = None
        self._moments: frozenset[int] = frozenset()

    def forward(
        self,
        rho: Groups,
        powers: Sequence[Floats] = (),
        observer: SweepObserver | None = None,
        costs: MomentCosts | None = None,
    ) -> None:
        """Transport ρ₀; the result has the same bits with and without an observer. Collective.

        Args:
            rho: initial density (n_cells, nd, columns) of every group, ghosts up to date.
            powers: of the initial density, likewise.
            observer: is shown the sweep's states, and may restore those of an earlier one; with it nothing is stored
                for an adjoint.
            costs: of the densities at some moments.
        """
        if costs is not None:
            self._costs, self._moments = costs, frozenset(costs.moments(self.steps))
            self.charged = np.zeros(_OF_STEPS + costs.count)
        self._number = self._storage.begin_sweep()
        self._starts = [self._stepper.pack([*rho, *powers])]
        self._storage.move_to(self._starts[0])
        # Per layer, because velocities differ: the derivative by each needs its own ∫ρ dt.
        charged = self.charged[:_OF_STEPS]
        integrals = [Integrals(self._stepper.zero_occupation(), charged) for _ in self.velocities]
        if observer is None:
            self._charge_moment(0)
            self._pending = self.plan.actions()
            self._play("EndForward", integrals)
        else:
            self._follow(observer, integrals)
        n, unpack = len(self._stepper.densities), self._stepper.unpack_occupation
        totals = [[unpack(each.occupation, order) for each in integrals] for order in range(self._stepper.orders)]
        self.occupations, *more = [[groups[:n] for groups in layers] for layers in totals]
        self.moments = more[0] if more else []
        self.power_occupations = [groups[n:] for groups in totals[0]]

    def adjoint(
        self,
        cotangents: Groups,
        running: list[Groups],
        tilted: list[Groups] | None = None,
        powers: tuple[Groups, Groups] = ([], []),
        jumps: Mapping[int, Groups] | None = None,
    ) -> list[Groups]:
        """Pull the derivative by ρ(T) back to the velocities. Collective. Once, before another sweep begins.

        Args:
            cotangents: (n_cells, nd, columns) per group, of the terminal cost; overwritten by those of ρ₀ on owned
                cells.
            running: by layer and group, (n_owned, nd) derivative of the linear running costs per time by ρ, the same
                for all columns.
            tilted: likewise of costs that are (T − t) times this per time; None if there are none.
            powers: by power, the derivative by it at T, overwritten likewise, and (n_owned, nd) that of the running
                costs per time, the same in all layers.
            jumps: by time step, derivatives (n_owned, nd, columns) of costs of the densities there, by group and then,
                where it matters, by power; those of the sweep's own ``jumps`` are added.

        Returns:
            By layer and group, this rank's contribution (n_nodes, dim) to the derivative by the velocity, through the
            density.
        """
        assert self._storage.sweeps == self._number, "another sweep has overwritten the records"
        cotangents = [*cotangents, *powers[0]]
        packed = [s.layout.pack_derivative(c) for s, c in zip(self._stepper.all, cotangents, strict=True)]
        running = [[*groups, *powers[1]] for groups in running]
        all_jumps = [self.jumps, {} if jumps is None else jumps]
        back = AdjointSweep(self._stepper, self.steps, self.velocities, packed, running, tilted, all_jumps)
        self._play("EndReverse", back=back)
        back.jump(0)
        self._pending = None
        for stepper, cotangent, result in zip(self._stepper.all, cotangents, packed, strict=True):
            cotangent[:] = stepper.layout.unpack_derivative(result)
        return back.gradients

    # -- densities on the way ----------------------------------------------------------------------------------------

    def start(self, layer: int) -> Groups:
        """Densities (n_cells, nd, columns) of the groups at the start of a layer, or at the end for L. Collective."""
        return self._stepper.unpack(self._starts[layer][: len(self._stepper.densities)])

    def powers_at(self, layer: int) -> Groups:
        """Powers, as ``start``. Collective."""
        return self._stepper.unpack(self._starts[layer], len(self._stepper.densities))

    @property
    def end(self) -> Groups:
        """ρ(T) of every group, with ghosts. Collective."""
        return self.start(len(self.velocities))

    def at_times(self, times: Floats) -> Iterator[Groups]:
        """Densities at ascending times, linear between time steps (which keeps mass and sign). Collective.

        They are computed one by one, on demand; nothing else may be done with the trajectory meanwhile.
        """
        n = len(self._stepper.densities)
        layer, done, state = -1, 0, self._starts[0][:n]
        for mark in map(self.steps.mark, times.tolist()):
            if mark.layer != layer:
                layer, state = mark.layer, self._starts[mark.layer][:n]  # only read: steps write elsewhere
                done = 0 if layer == 0 else self.steps.ends[layer - 1]
            if mark.step > done:
                self.assemble(layer)
                after = self._stepper.step(state, self.steps.dt(layer), mark.step - done)
                state, done = [group.copy() for group in after], mark.step
            yield self.between(state, mark)

    def between(self, state: Groups, mark: TimeMark) -> Groups:
        """Densities (n_cells, nd, columns) at a mark, from those in batches after its number of steps. Collective.

        Powers may follow them, and are left out.
        """
        state = state[: len(self._stepper.densities)]
        if mark.fraction > 0.0:
            self.assemble(mark.layer)
            after, f = self._stepper.step(state, self.steps.dt(mark.layer), 1), mark.fraction
            # A convex combination keeps mass and sign.
            state = [(1.0 - f) * a + f * b for a, b in zip(state, after, strict=True)]
        return self._stepper.unpack(state)

    def assemble(self, layer: int) -> None:
        """Set the operators to a layer's velocities."""
        self._stepper.set_velocities(self.velocities[layer])

    # -- the plan ----------------------------------------------------------------------------------------------------

    def _play(self, end: str, integrals: list[Integrals] | None = None, back: AdjointSweep | None = None) -> None:
        """Carry out the plan's actions up to one of a given name; unit n begins with step n·unit."""
        assert self._pending is not None, "there is a forward sweep for every adjoint, and nobody observes it"
        unit, last = self.plan.unit, self.plan.steps
        for action in self._pending:  # which the adjoint takes up where the forward sweep has left it
            match type(action).__name__:
                case name if name == end:
                    return
                case "Forward":
                    if action.write_ics:
                        self._storage.keep(action.n0, on_disk=action.storage.name == "DISK")
                    steps = action.n0 * unit, min(action.n1 * unit, last)
                    self._advance(*steps, integrals, record=action.write_adj_deps)
                case "Reverse":
                    assert back is not None
                    back.unit(action.n0 * unit, min(action.n1 * unit, last), self._storage)
                case "Copy" | "Move" as name:
                    on_disk = action.from_storage.name == "DISK"
                    self._storage.go_back(action.n, on_disk=on_disk, drop=name == "Move")

    def _follow(self, observer: SweepObserver, integrals: list[Integrals]) -> None:
        """All steps, with stops where an observer is shown the state or restores a later one. Collective."""
        done, ends, state = 0, self.steps.ends, self._storage.state
        for stop in sorted({0, *observer.begin(self.steps), *ends}):
            layer = bisect_left(ends, stop)
            restored = observer.restore(stop)
            if restored is not None:
                self._restore(restored, integrals[layer])
            elif stop > 0:
                self._advance(done, stop, integrals, record=False)
            else:
                self._charge_moment(0)
            done = stop
            observer.at(SweepState(stop, state, integrals[layer].occupation, self.charged))

    def _restore(self, known: SweepState, integrals: Integrals) -> None:
        """Go on from where an earlier sweep was."""
        self._storage.move_to(known.densities)
        copy_groups(known.occupation, integrals.occupation)
        self.charged[:] = known.charged
        if known.step == 0:
            copy_groups(known.densities, self._starts[0])
        elif known.step in self.steps.ends:
            # An end of a layer, which ``start`` is to find as if it had been computed.
            self._starts.append([group.copy() for group in known.densities])

    def _advance(self, begin: int, end: int, integrals: list[Integrals] | None, *, record: bool) -> None:
        """Steps ``begin`` to ``end`` from the storage's state; the first time with their occupations and costs."""
        if record:
            self._storage.begin_unit(end - begin)
        if integrals is None:
            self.recomputed += end - begin
        # Costs at moments are taken the first time only.
        for layer, first, last in cut(self.steps.segments(begin, end), () if integrals is None else self._moments):
            self.assemble(layer)
            records = self._storage.records(first - begin, last - begin) if record else None
            of_layer, segment = None if integrals is None else integrals[layer], (layer, first, last)
            state = self._stepper.step_forward(self._storage.state, self.steps, segment, records, of_layer)
            self._storage.move_to(state)
            if integrals is not None:
                if last == self.steps.ends[layer]:
                    # A copy: the state is a view into the last record, which another unit overwrites.
                    self._starts.append([group.copy() for group in state])
                self._charge_moment(last)

    def _charge_moment(self, step: int) -> None:
        """Add what the storage's state costs after so many steps, where something is charged there."""
        if self._costs is None or step not in self._moments:
            return
        n = len(self._stepper.densities)
        found, self.jumps[step] = self._costs.charge(step, self._stepper.unpack(self._storage.state[:n]))
        self.charged[_OF_STEPS:] += found
