"""What the figures of `eulerian compare` are drawn from: ρ(T) on the mesh, along characteristics, and the particles."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.array_record import ArrayRecord
from eulerian.base.arrays import Floats


@final
@dataclass(frozen=True)
class ComparisonData(ArrayRecord):
    """Both methods at T, in single precision.

    Attributes:
        points: (N, m, dim) nodes of all cells (see ``CellNodes``); no cells in three dimensions.
        density: (N, m, K) on the mesh.
        pushed: (N, m, K) along characteristics.
        x: (n, dim) particles.
        labels: (n,) theirs.
        weights: (n,) theirs.
        names: (q,) of J and its parts that are not zero throughout.
        mesh: (q,) their values on the mesh.
        particles: (q,) by particles.
        interval: (q,) half widths of confidence intervals of the latter; NaN if unknown.
    """

    CONTENTS = "comparison"

    points: Floats
    density: Floats
    pushed: Floats
    x: Floats
    labels: NDArray[np.integer]
    weights: Floats
    names: NDArray[np.str_]
    mesh: Floats
    particles: Floats
    interval: Floats

    @property
    def n_labels(self) -> int:
        """Number K of labels."""
        return int(self.density.shape[2])
