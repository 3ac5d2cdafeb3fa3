"""A forward sweep of the control problem: what its adjoint needs of it, and what the costs on the way add up to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import RejectedEvaluation
from eulerian.density.space import DensitySpace
from eulerian.objective.parts import part_names
from eulerian.objective.running import RunningCosts
from eulerian.objective.squares import SquareColumns, integral
from eulerian.objective.terminal import TerminalValue
from eulerian.transport.group_stepper import Groups
from eulerian.transport.sweep import Sweep
from eulerian.transport.time_grid import TimeSteps


@final
@dataclass(frozen=True)
class Velocities:
    """The velocities of a θ and their derivatives, by layer and group of labels.

    Attributes:
        values: (n_nodes, dim) at the nodes.
        vjps: w ↦ gradient (p,) of Σ w · velocity by the layer's θ.
    """

    values: list[Groups]
    vjps: list[list[Callable[[Floats], Floats]]]


@final
@dataclass(frozen=True)
class ForwardSweep:
    """What an adjoint sweep starts from; lists by layer and group of labels.

    Attributes:
        velocities: that moved the densities.
        densities: what their transport has left for its adjoint.
        linear: by part, what the velocity costs (see ``RunningCosts.linear``).
        rates: d/dt ∫ρ log ρ (see ``EntropyBalance.rate``); empty unless that is charged.
        ends: the costs at ends of layers, in the problem's order.
        parts: the parts of J that depend on the flow.
        readout: (r,) that they were taken with.
    """

    velocities: Velocities
    densities: Sweep
    linear: list[list[dict[str, Floats]]]
    rates: list[Groups]
    ends: list[TerminalValue]
    parts: dict[str, float]
    readout: Floats


@final
@dataclass(frozen=True)
class Derivatives:
    """What an adjoint sweep leaves, this rank's part.

    Attributes:
        velocities: by layer and group, (n_nodes, dim).
        densities: by group, (n_cells, nd, columns) by ρ₀, on owned cells; of the costs that the sweep has seen.
        squares: by their columns, likewise by the squares that start beside it.
    """

    velocities: list[Groups]
    densities: Groups
    squares: Groups


@final
@dataclass(frozen=True)
class SweepCosts:
    """Sums up the running costs of a forward sweep, and starts its adjoint.

    Attributes:
        space: of the densities.
        running: the costs.
        squares: that move beside the densities.
        horizon: T.
    """

    space: DensitySpace
    running: RunningCosts
    squares: list[SquareColumns]
    horizon: float

    def linear(self, velocities: Velocities, readout: Floats) -> list[list[dict[str, Floats]]]:
        """By layer and group, what the velocity and the place cost (see ``RunningCosts.linear``). Collective."""
        potential = None if self.running.potential is None else self.running.potential.vector(readout)
        return [[self.running.linear(v, potential) for v in groups] for groups in velocities.values]

    def readout_slope(self, sweep: ForwardSweep) -> Floats:
        """The derivative (r,) by the parameters of the potential, the same on all ranks. Collective."""
        potential = self.running.potential
        if potential is None or not potential.potential.n_readout:
            return np.zeros(0)
        occupation = sum(each for groups in sweep.densities.occupations for each in groups)
        return potential.readout_slope(sweep.readout, np.asarray(occupation))

    def rates(self, velocities: Velocities) -> list[Groups]:
        """By layer and group, d/dt ∫ρ log ρ; empty where that is not charged."""
        entropy = self.running.entropy
        return [] if entropy is None else [[entropy.balance.rate(v) for v in groups] for groups in velocities.values]

    def of_layer(self, sweep: Sweep, linear: list[dict[str, Floats]], layer: int) -> dict[str, float]:
        """This rank's share of the costs that are linear in the density, over one layer."""
        found: dict[str, float] = {}
        for costs, occupation in zip(linear, sweep.occupations[layer], strict=True):
            for name, vector in costs.items():
                # Groups of labels share the parts of J.
                found[name] = found.get(name, 0.0) + float(np.vdot(vector, occupation))
        return found

    def parts(self, sweep: Sweep, linear: list[list[dict[str, Floats]]], rates: list[Groups]) -> dict[str, float]:
        """The parts of J that arise along the way, among them what the terminal cost leaves to it. **Collective**."""
        # The running costs are linear in ρ, so ∫ρ dt of each layer determines them: nothing is added up step by step.
        layers = [self.of_layer(sweep, costs, layer) for layer, costs in enumerate(linear)]
        local = {name: sum(costs[name] for costs in layers) for name in layers[0]}
        if self.running.nonlinear is not None:
            local |= dict(zip(part_names("density"), sweep.charged.tolist(), strict=False))
        first = len(sweep.charged) - len(self.running.functionals)
        local |= dict(zip(self.running.functionals, sweep.charged[first:].tolist(), strict=True))
        changes = [*self._entropy_changes(sweep, rates).items(), *self._squares(sweep).items()]
        # One reduction of everything: the sums have the same bits whatever else is charged.
        total = parallel.sum_all(self.space.comm, np.array([*local.values(), *(change for _, change in changes)]))
        parts = dict(zip(local, total.tolist(), strict=False))
        for (name, _), change in zip(changes, total[len(local) :].tolist(), strict=True):
            parts[name] = parts.get(name, 0.0) + change
        entropy = self.running.entropy
        if entropy is not None and entropy.running > 0.0:
            parts["entropy"] += entropy.running * self.horizon * entropy.initial
        return parts

    def _entropy_changes(self, sweep: Sweep, rates: list[Groups]) -> dict[str, float]:
        """This rank's share of what the flow does to the costs of ∫ρ log ρ, by part of J."""
        entropy = self.running.entropy
        changes: dict[str, float] = {}
        if entropy is None:
            return changes
        layers = [_inner(*pair) for pair in zip(rates, sweep.occupations, strict=True)]
        for part in dict.fromkeys(end.part for end in entropy.ends):
            changes[part] = sum(entropy.weight(layer, part) * change for layer, change in enumerate(layers))
        if entropy.running > 0.0:
            changes["entropy"] = entropy.running * sum(_inner(*p) for p in zip(rates, sweep.moments, strict=True))
        return changes

    def _squares(self, sweep: Sweep) -> dict[str, float]:
        """This rank's share of the costs of ∫ρ² by squares, by part of J. Collective."""
        space, costs = self.space, dict[str, float]()
        if not self.squares:
            return costs
        layers = {end.layer for columns in self.squares for end in columns.ends}
        powers = {layer: sweep.powers_at(layer) for layer in sorted(layers)}  # collective, so in one order
        for g, columns in enumerate(self.squares):
            if columns.congestion > 0.0:
                occupation = sum(groups[g] for groups in sweep.power_occupations)
                charged = float(np.vdot(columns.running(space), occupation))
                costs["congestion"] = costs.get("congestion", 0.0) + charged
            for end in columns.ends:
                of_all = powers[end.layer][g][: space.n_owned].sum(axis=2)
                left = 0.5 * end.weight * float(np.vdot(integral(space), of_all))
                costs[end.part] = costs.get(end.part, 0.0) + left
        return costs

    def adjoint(self, sweep: ForwardSweep, ends: Mapping[int, Groups]) -> Derivatives:
        """The adjoint sweep. **Collective**; once per sweep.

        Args:
            sweep: to be consumed.
            ends: by layer, the derivatives (n_owned, nd, columns) by the densities of every group of what is charged
                where so many layers have passed.
        """
        densities, velocities = sweep.densities, sweep.velocities.values
        running, tilted = self._per_time(sweep)
        jumps = self._jumps(densities.steps, ends)
        # At T nothing has been charged yet: the terminal cost is the first one that the way back comes to.
        by_density = [np.zeros((*self._shape, group.shape[2])) for group in next(iter(ends.values()))]
        by_square = [np.zeros_like(columns.initial) for columns in self.squares]
        squares = by_square, [columns.running(self.space) for columns in self.squares]
        # The velocity acts twice: through the densities that it moves, and by what it costs itself.
        gradients = densities.adjoint(by_density, running, tilted, squares, jumps)
        for layer, occupations in enumerate(densities.occupations):
            for g, occupation in enumerate(occupations):
                moment = densities.moments[layer][g] if densities.moments else None
                gradients[layer][g] += self.running.velocity_gradient(velocities[layer][g], layer, occupation, moment)
        return Derivatives(gradients, by_density, by_square)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.space.n_cells, self.space.nd

    def _jumps(self, steps: TimeSteps, ends: Mapping[int, Groups]) -> dict[int, Groups]:
        """By time step, the derivatives by densities and squares of what is charged at the ends of layers."""
        # Squares count only where a functional of the densities leaves them to the transport: in one of these layers.
        return {
            steps.ends[layer - 1]: [*groups, *(columns.at_end(self.space, layer) for columns in self.squares)]
            for layer, groups in ends.items()
        }

    def _per_time(self, sweep: ForwardSweep) -> tuple[list[Groups], list[Groups] | None]:
        """Derivatives (n_owned, nd) by ρ of the linear costs per time, and of those that count the time left."""
        zero = np.zeros((self.space.n_owned, self.space.nd))
        running = [[sum(costs.values(), start=zero) for costs in layer] for layer in sweep.linear]
        entropy = self.running.entropy
        if entropy is None:
            return running, None
        for layer, (sums, rates) in enumerate(zip(running, sweep.rates, strict=True)):
            sums[:] = [s + entropy.weight(layer) * rate for s, rate in zip(sums, rates, strict=True)]
        if entropy.running == 0.0:
            return running, None
        return running, [[entropy.running * rate for rate in rates] for rates in sweep.rates]


def _inner(rates: Groups, integrals: Groups) -> float:
    """Σ of the products of vectors by group."""
    return float(sum(np.vdot(rate, integral) for rate, integral in zip(rates, integrals, strict=True)))


def check_velocity(velocity: Floats, x: Floats, where: str) -> None:
    """Look at the numbers of a velocity at the nodes x, both (n, dim).

    Raises:
        RejectedEvaluation: one of them is not finite.
    """
    if not np.isfinite(velocity).all():
        broken = np.flatnonzero(~np.isfinite(velocity).all(axis=1))
        raise RejectedEvaluation(
            f"the velocity is not finite in {where}, at {len(broken)} of {len(x)} nodes, "
            f"first at {x[broken[0]].tolist()}"
        )


def largest_speed(velocities: Sequence[Groups]) -> float:
    """Largest |v| on this rank, over nodes, layers and groups."""
    return max(float(np.max(np.linalg.norm(v, axis=1), initial=0.0)) for groups in velocities for v in groups)
