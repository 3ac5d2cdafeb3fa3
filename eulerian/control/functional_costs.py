"""∫F(ρ(t)) dt for functionals F of the whole density, by quadrature in time."""

from collections.abc import Callable, Iterable, Mapping
from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.objective.terminal import Terminal
from eulerian.objective.time_rule import INTERVALS, layer_rule
from eulerian.transport.group_stepper import Groups
from eulerian.transport.time_grid import TimeSteps


@final
class FunctionalCosts:
    """Costs of functionals, looked at between some of the time steps (``transport.sweep.MomentCosts``).

    Within a layer the velocity does not change and F(ρ(t)) is a smooth function of time; where layers meet it may have
    kinks. So every layer has a quadrature rule of its own, at time steps near the Chebyshev points.

    Args:
        functionals: F by part of J.
        joined: what makes densities (n_cells, nd, K) of those of the groups.
        parted: the reverse.
        count_values: on this rank: values are the same on all of them, and sums over ranks follow.
    """

    def __init__(
        self,
        functionals: Mapping[str, Terminal],
        joined: Callable[[Groups], Floats],
        parted: Callable[[Floats], Groups],
        *,
        count_values: bool,
    ) -> None:
        self._functionals, self._joined, self._parted = functionals, joined, parted
        self._weights: dict[int, float] = {}
        self._count_values, self.count = count_values, len(functionals)

    def moments(self, steps: TimeSteps) -> Iterable[int]:
        """After how many time steps the functionals are looked at."""
        self._weights = {}
        for layer, count in enumerate(steps.counts):
            for step, weight in layer_rule(count):
                at = steps.begin(layer) + step
                # Neighbouring layers share their ends.
                self._weights[at] = self._weights.get(at, 0.0) + steps.grid.layer_time * weight
        return self._weights

    def charge(self, step: int, densities: Groups) -> tuple[Floats, Groups]:
        """See ``MomentCosts``. Collective."""
        weight, rho = self._weights[step], self._joined(densities)
        found = [functional.evaluate(rho, np.zeros(0)) for functional in self._functionals.values()]
        values = weight * np.array([each.value for each in found])
        derivative = self._parted(weight * np.sum([each.density for each in found], axis=0))
        return values if self._count_values else np.zeros_like(values), derivative


def most_moments(n_layers: int) -> int:
    """How many moments a sweep looks at, at most."""
    return INTERVALS * n_layers + 1
