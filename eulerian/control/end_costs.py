"""Functionals of the density at the ends of layers, the terminal cost among them, and the readouts that they train."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.objective.cost_at import LayerEnd, LayerEndCost
from eulerian.objective.terminal import Terminal, TerminalValue, on_mesh


@final
@dataclass(frozen=True)
class EndCost:
    """A functional of the density where a number of layers has passed.

    Attributes:
        at: where, and what it counts.
        functional: of the density there.
        readout: its own part of the trained parameters of all.
    """

    at: LayerEnd
    functional: Terminal
    readout: slice


@final
@dataclass(frozen=True)
class EndCosts:
    """All functionals at ends of layers; the first one is the terminal cost. Where a cost is at T they add up."""

    costs: tuple[EndCost, ...]

    @classmethod
    def of(
        cls, costs: Sequence[LayerEndCost], n_layers: int, space: DensitySpace, initial_entropy: float | None
    ) -> Self:
        """On a mesh. **Collective**.

        Args:
            costs: as a user gives them.
            n_layers: L.
            space: of the densities.
            initial_entropy: Σ_y ∫ρ₀ log ρ₀, where one of them starts from it.

        Raises:
            InputError: a cost does not fit the space; the same on all ranks.
        """
        found: list[EndCost] = []
        first = 0
        for cost in costs:
            functional = on_mesh(cost.cost, space, initial_entropy, cost.key)
            last = first + functional.initial_readout().size
            found.append(EndCost(cost.end(n_layers), functional, slice(first, last)))
            first = last
        return cls(tuple(found))

    @property
    def terminal(self) -> Terminal:
        """The functional of ρ(T)."""
        return self.costs[0].functional

    @property
    def charged(self) -> tuple[EndCost, ...]:
        """Those that are parts of J: the others have no weight, and are there to be verified."""
        return tuple(cost for cost in self.costs if cost.at.weight > 0.0)

    @property
    def later(self) -> tuple[EndCost, ...]:
        """All but the terminal cost."""
        return self.costs[1:]

    @property
    def logarithmic(self) -> bool:
        """Whether J holds logarithms of densities where layers end, so that its errors are measured in nats."""
        return any(cost.functional.logarithmic for cost in self.charged)

    @property
    def n_readout(self) -> int:
        """Number of trained parameters of all."""
        return int(self.costs[-1].readout.stop)

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        return np.concatenate([cost.functional.initial_readout() for cost in self.costs])

    @property
    def affine_readout(self) -> bool:
        """Whether all that is trained is (W row by row, b) of one affine map of points."""
        trained = [cost.functional for cost in self.costs if cost.functional.initial_readout().size]
        return len(trained) == 1 and trained[0].affine_readout

    def evaluate(self, density_at: Callable[[int], Floats], readout: Floats) -> list[TerminalValue]:
        """Weighted values and derivatives, in the order of ``charged``. **Collective**.

        Args:
            density_at: ρ (n_cells, nd, K) where a number of layers has passed; collective.
            readout: (r,) of all.
        """
        found, layer, rho = [], -1, np.zeros(0)
        for cost in self.charged:
            if cost.at.layer != layer:
                layer, rho = cost.at.layer, density_at(cost.at.layer)
            found.append(_weighted(cost.functional.evaluate(rho, readout[cost.readout]), cost.at.weight))
        return found


def _weighted(value: TerminalValue, weight: float) -> TerminalValue:
    if weight == 1.0:
        return value
    return replace(value, value=weight * value.value, density=weight * value.density, readout=weight * value.readout)
