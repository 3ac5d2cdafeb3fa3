"""The state equation, θ ↦ densities on their way, with what they cost on the way, and its adjoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.control.discretisation import Discretisation, new_trajectory
from eulerian.control.functional_costs import FunctionalCosts
from eulerian.control.initial import Start
from eulerian.control.sweep import ForwardSweep, SweepCosts, Velocities, check_velocity
from eulerian.fields.piecewise import PiecewiseField
from eulerian.transport.group_stepper import Groups
from eulerian.transport.observer import SweepObserver
from eulerian.transport.sweep import Sweep
from eulerian.transport.time_grid import TimeGrid


@final
@dataclass(frozen=True)
class Gradients:
    """Derivatives of the parts of J that depend on the flow, the same on all ranks but for the last two.

    Attributes:
        theta: (L, p).
        readout: (r,).
        initial: (n_cells, nd, K) by the coefficients of ρ₀ as it is transported, on owned cells.
        squares: by their columns, (n_cells, nd, columns) likewise by the squares that start beside it.
    """

    theta: Floats
    readout: Floats
    initial: Floats
    squares: Groups


@final
class StateEquation:
    """∂_tρ + div(v_θ ρ) = 0 on a mesh, from ρ₀ to the costs along the way, and back. All methods are **collective**.

    Args:
        found: the problem on its mesh.
        layered: the field as the layers use it.
        groups: the labels that move with one velocity each.
        grid: how time is cut.
        budget: bytes for the adjoint in memory and on disk, over all ranks, and the folder for those on disk.
        limited: keep densities non-negative.

    Attributes:
        layered: as given.
        trajectory: what moves the densities.
        start: the problem's own ρ₀.
        sweep: the last forward sweep, or None.

    Raises:
        InputError: the memory is too small for any adjoint sweep.
    """

    def __init__(
        self,
        found: Discretisation,
        layered: PiecewiseField,
        groups: list[list[int]],
        grid: TimeGrid,
        budget: tuple[float, float, Path | None],
        *,
        limited: bool,
    ) -> None:
        running, self.space = found.running, found.velocity_space.density_space
        self._velocity_space, self.layered, self._ends = found.velocity_space, layered, found.ends
        self.groups = groups
        self._squares = [] if running.squares is None else running.squares.columns(groups)
        self.start = Start(found.initial.coefficients, self._squares)
        self.costs = SweepCosts(self.space, running, self._squares, grid.horizon)
        self.trajectory = new_trajectory(found, groups, self._squares, grid, budget[0], budget[1:], limited=limited)
        # One rank tells what all ranks know.
        first = self.space.comm.rank == 0
        self._functionals = (
            FunctionalCosts(running.functionals, self.joined, self.parted, count_values=first)
            if running.functionals
            else None
        )
        self.sweep: Sweep | None = None

    # -- forward -----------------------------------------------------------------------------------------------------

    def velocities(self, theta: Floats, *, repeats: int = 1) -> Velocities:
        """Those of θ (L, p) and their derivatives; a field that fails on one rank fails on all.

        Args:
            theta: by layer.
            repeats: L, where all layers have one and the same velocity; else 1.

        Raises:
            RejectedEvaluation: they are not finite somewhere.
        """
        x = self._velocity_space.x
        with parallel.agreed(self.space.comm, "the field"), np.errstate(all="ignore"):
            found = [
                [self.layered.value_and_vjp(layer, row, x, labels[0]) for labels in self.groups]
                for layer, row in enumerate(theta[: len(theta) // repeats])
            ]
            velocities = [[np.ascontiguousarray(v) for v, _ in groups] for groups in found] * repeats
            for layer, groups in enumerate(velocities[: len(found)]):
                for velocity in groups:
                    check_velocity(velocity, x, "every layer" if repeats > 1 else f"layer {layer}")
        return Velocities(velocities, [[vjp for _, vjp in groups] for groups in found] * repeats)

    def prepare(self, velocities: Velocities, steps: tuple[int, ...] | None = None) -> Sweep:
        """A sweep that begins, instead of the last one, which is dropped first: it holds densities.

        Args:
            velocities: of the layers.
            steps: of each layer; by default as many as the CFL condition asks for.

        Raises:
            RejectedEvaluation: they are too many.
        """
        self.sweep = None
        self.sweep = self.trajectory.prepare(velocities.values, steps)
        return self.sweep

    def solve(
        self,
        start: Start,
        velocities: Velocities,
        readout: Floats,
        steps: tuple[int, ...] | None = None,
        observer: SweepObserver | None = None,
    ) -> ForwardSweep:
        """From ρ₀ to T, with all costs on the way.

        Args:
            start: ρ₀, and the squares beside it.
            velocities: of the layers.
            readout: (r,).
            steps: as for ``prepare``.
            observer: of the sweep, which then leaves nothing for an adjoint.

        Raises:
            RejectedEvaluation: too many time steps.
        """
        sweep = self.prepare(velocities, steps)
        powers = [each.initial for each in start.squares]
        sweep.forward(self.parted(start.rho), powers, observer, self._functionals)
        with np.errstate(over="ignore", invalid="ignore"):  # a far-off θ shows in a J that is not finite
            linear, rates = self.costs.linear(velocities, readout), self.costs.rates(velocities)
            parts = self.costs.parts(sweep, linear, rates)
            ends = self._ends.evaluate(lambda layer: self.joined(sweep.start(layer)), readout)
            for cost, found in zip(self._ends.charged, ends, strict=True):
                parts[cost.at.part] = found.value + parts.get(cost.at.part, 0.0)
            for part, change in start.changes().items():
                parts[part] += change
        return ForwardSweep(velocities, sweep, linear, rates, ends, parts, readout)

    def carry(self, rho: Floats, velocities: Velocities) -> Floats:
        """Another initial density (n_cells, nd, K) at T.

        Raises:
            RejectedEvaluation: too many time steps.
        """
        # The squares of ρ₀ go along, though nobody asks for them: the time steps are to be those of an evaluation.
        sweep = self.prepare(velocities)
        sweep.forward(self.parted(rho), [columns.initial for columns in self._squares])
        return self.joined(sweep.end)

    # -- adjoint -----------------------------------------------------------------------------------------------------

    def adjoint(self, forward: ForwardSweep, *, repeats: int = 1) -> Gradients:
        """The derivatives of the parts of a forward solve; once.

        Args:
            forward: to be consumed.
            repeats: as for ``velocities``.
        """
        potential = self.costs.readout_slope(forward)  # first: the adjoint sweep consumes what it is made of
        found = self.costs.adjoint(forward, self._by_layer(forward))
        by_velocity = found.velocities
        if repeats > 1:  # one pull-back instead of L: the layers' θ is one row
            by_velocity = [[np.sum(layers, axis=0) for layers in zip(*by_velocity, strict=True)]]
        theta = self._pulled_back(forward, by_velocity)
        readout = np.zeros(self._ends.n_readout)
        for cost, each in zip(self._ends.charged, forward.ends, strict=True):
            readout[cost.readout] = each.readout
        readout = np.concatenate([readout, potential])
        return Gradients(theta, readout, self.joined(found.densities), found.squares)

    def _by_layer(self, forward: ForwardSweep) -> dict[int, Groups]:
        """The derivatives of the costs at ends of layers by the densities there, by layer."""
        sums: dict[int, Floats] = {}
        for cost, found in zip(self._ends.charged, forward.ends, strict=True):
            layer = cost.at.layer
            sums[layer] = sums[layer] + found.density if layer in sums else found.density
        return {layer: self.parted(each) for layer, each in sums.items()}

    def _pulled_back(self, forward: ForwardSweep, by_velocity: list[Groups]) -> Floats:
        """Derivatives by the velocities as those by θ, (L, p), the same on all ranks."""
        vjps = forward.velocities.vjps
        with parallel.agreed(self.space.comm, "the field"), np.errstate(all="ignore"):
            rows = [
                np.sum([vjp(w) for w, vjp in zip(groups, vjps[layer], strict=True)], axis=0)
                for layer, groups in enumerate(by_velocity)
            ]
        # The field's VJP is linear: every rank pulls its share back, and one sum of θ's size is all that is sent.
        gradient = np.zeros((len(vjps), len(rows[0])))
        gradient[: len(rows)] = rows
        return parallel.sum_all(self.space.comm, gradient)

    # -- labels and groups -------------------------------------------------------------------------------------------

    def parted(self, rho: Floats) -> Groups:
        """Labels (…, K) by group."""
        return [np.ascontiguousarray(rho[..., group]) for group in self.groups]  # as C reads them

    def joined(self, groups: Groups) -> Floats:
        """Groups as labels (…, K)."""
        return np.concatenate(groups, axis=2)
