"""What a run was told of several times, and where its flow is then: densities and points, for a figure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

import numpy as np

from eulerian.app.runs.files import ArrayRecord
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.app.runs.cell_nodes import CellNodes
    from eulerian.control.control import ControlProblem


@final
@dataclass(frozen=True)
class TimeTargets(ArrayRecord):
    """Densities at the times of a run's costs, beside what they are to be.

    Attributes:
        times: (n,) at which there are costs, T among them.
        weights: (n,) of these costs, all of one time together; 0 where a time is held out.
        nodes: (N, m, dim) of all cells (see ``CellNodes``).
        density: (n, N, m, K) of the flow.
        target: (n, N, m, K) ρ*; NaN at times whose cost is no distance from one.
        points: (n, K, dim) targets of quadratic losses; NaN at other times.
    """

    CONTENTS = "densities at several times"

    times: Floats
    weights: Floats
    nodes: Floats
    density: Floats
    target: Floats
    points: Floats

    @classmethod
    def gather(cls, cells: "CellNodes", problem: "ControlProblem") -> Self | None:
        """Of an evaluated problem, on rank 0; None elsewhere. **Collective**."""
        from eulerian.base.parallel import gather_rows  # starts MPI, which no figure needs

        space, costs = cells.density_space, problem.ends.costs
        layers = sorted({cost.at.layer for cost in costs})
        shape = (space.n_owned, len(cells.reference), space.n_labels)
        target = np.full((len(layers), *shape), np.nan)
        points = np.full((len(layers), space.n_labels, space.dim), np.nan)
        # What counts most at a time is shown of it, the first of equals.
        for cost in sorted(costs, key=lambda cost: cost.at.weight):
            row, functional = layers.index(cost.at.layer), cost.functional
            if functional.target is not None:
                target[row] = cells.density(functional.target)
            elif functional.loss is not None and functional.loss.goals is not None:
                points[row] = functional.loss.goals
        density = np.stack([cells.density(problem.density_at(layer)) for layer in layers])
        nodes = gather_rows(space.comm, cells.points())
        by_cell = (np.ascontiguousarray(np.moveaxis(each, 0, 1), np.float32) for each in (density, target))
        rows = [gather_rows(space.comm, each) for each in by_cell]
        if nodes is None:
            return None
        shown = [np.moveaxis(each, 1, 0) for each in rows if each is not None]
        weights = [sum(cost.at.weight for cost in costs if cost.at.layer == layer) for layer in layers]
        times = np.array(layers) * (problem.horizon / problem.n_layers)
        return cls(times, np.array(weights), nodes, shown[0], shown[1], points)

    @property
    def dim(self) -> int:
        """Of space."""
        return int(self.nodes.shape[2])

    @property
    def titles(self) -> list[str]:
        """What the times are called: which of them are held out is said."""
        words = ("", ", held out")
        return [f"$t = {t:.4g}$" + words[not w] for t, w in zip(self.times, self.weights, strict=True)]
