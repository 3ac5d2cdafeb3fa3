"""Targets of a run, saved in its folder so that figures can show them: points, a density, or where a loss is small."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.files import ArrayRecord
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.app.runs.cell_nodes import CellNodes
    from eulerian.objective.point_loss import PointLoss


@final
@dataclass(frozen=True)
class Targets(ArrayRecord):
    """Targets of the terminal functional at time T; what it has not is empty.

    Attributes:
        points: (q, dim) of quadratic losses; one for each label, or one for all of them.
        nodes: (N, m, dim) of all cells (see ``CellNodes``), for what follows.
        density: (N, m, K) the target ρ*, or no cells.
        losses: (N, m, K) ℓ of other losses, or no cells.
        classes: () whether these are losses of classes, each of whose regions is where its loss is least.
    """

    CONTENTS = "targets"

    points: Floats
    nodes: Floats
    density: Floats
    losses: Floats
    classes: NDArray[np.bool_]

    @classmethod
    def gather(
        cls, cells: "CellNodes", loss: "PointLoss | None", density: Floats | None, readout: Floats
    ) -> Self | None:
        """Those of a loss ℓ or a target density (n_cells, nd, K), on rank 0; None elsewhere. **Collective**.

        Args:
            cells: of the space of the densities.
            loss: or None.
            density: or None.
            readout: (r,) trained parameters of the loss.
        """
        from eulerian.base.parallel import gather_rows  # starts MPI, which no figure needs

        space = cells.density_space
        known = None if loss is None else loss.goals
        points = np.zeros((0, space.dim)) if known is None else known
        if len(points) and np.all(points == points[0]):  # one cross for all labels
            points = points[:1]
        nodes = cells.points()
        target = losses = np.zeros((0, cells.reference.shape[0], space.n_labels))
        if density is not None:
            target = cells.density(density)
        elif loss is not None and not len(points):
            losses = loss.value(nodes.reshape(-1, space.dim), readout).reshape(*nodes.shape[:2], space.n_labels)
        else:
            nodes = nodes[:0]
        classes = loss is not None and loss.of_classes
        rows = [gather_rows(space.comm, own) for own in (nodes, target.astype(np.float32), losses.astype(np.float32))]
        places, densities, values = rows
        if places is None or densities is None or values is None:
            return None
        return cls(points, places, densities, values, np.array(classes))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not len(self.points) and not len(self.nodes)

    def point(self, label: int) -> Floats:
        """Where a label is to go, (1, dim), or (0, dim)."""
        return self.points[label : label + 1] if len(self.points) > 1 else self.points
