"""Functionals of the density as a whole along characteristics: of all points where they are at one time.

Points come in blocks and by label. What they add to the sums that a functional is quadratic in is kept, not where they
are; the value follows once all have come by.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.objective.interactions import QuadraticForm
from eulerian.objective.time_rule import layer_rule

type Seen = Callable[[int, int, Floats], None]
"""What is told of points on their way: how many steps have passed, the first row, and where they are (n, dim)."""


@final
@dataclass
class Crowd:
    """A functional, and with which weights it counts after so many steps."""

    form: QuadraticForm
    weights: Mapping[int, float]
    sums: dict[int, Floats] = field(default_factory=dict)

    def add(self, step: int, x: Floats, masses: Floats) -> None:
        """Some more points (n, dim) with masses (n, K) of all labels are there."""
        if step in self.weights:
            self.sums[step] = self.sums.get(step, 0.0) + self.form.at(x).sums(masses)

    def value(self, comm: Any) -> float:
        """The weighted sum of what it is at these times. Collective, in the order of the steps."""
        steps = sorted(self.weights)
        total = parallel.sum_all(comm, np.array([self.sums[step] for step in steps]))
        return sum(self.weights[step] * self.form.value(c) for step, c in zip(steps, total, strict=True))


@final
class Crowds:
    """All functionals of a flow, for points that take so many steps in each of L layers.

    Args:
        ends: functionals where a number of layers has passed, by the names of their sums.
        running: those whose integrals over time are charged, by part of J.
        n_labels: K.
        time: the horizon, L, and steps in a layer.
    """

    def __init__(
        self,
        ends: Mapping[str, tuple[int, QuadraticForm]],
        running: Mapping[str, QuadraticForm],
        n_labels: int,
        time: tuple[float, int, int],
    ) -> None:
        horizon, layers, steps = time
        weights: dict[int, float] = {}
        for layer in range(layers):
            for step, weight in layer_rule(steps):
                weights[layer * steps + step] = weights.get(layer * steps + step, 0.0) + weight * horizon / layers
        self._n_labels = n_labels
        self._crowds = {name: Crowd(form, weights) for name, form in running.items()}
        self._crowds |= {name: Crowd(form, {layer * steps: 1.0}) for name, (layer, form) in ends.items()}

    def watch(self, weights: Floats, labels: Sequence[int]) -> Seen | None:
        """To be shown the points of some labels, with weights (n, k); None where nobody wants to see them."""
        if not self._crowds:
            return None
        masses = np.zeros((len(weights), self._n_labels))
        masses[:, labels] = weights

        def seen(step: int, first: int, x: Floats) -> None:
            for crowd in self._crowds.values():
                crowd.add(step, x, masses[first : first + len(x)])

        return seen

    def values(self, comm: Any) -> dict[str, float]:
        """By name, the same on all ranks. **Collective**, once all points have come by."""
        return {name: crowd.value(comm) for name, crowd in self._crowds.items()}
