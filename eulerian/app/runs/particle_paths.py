"""Paths of particles, kept in the run folder so that their figures can be drawn again."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.array_record import ArrayRecord
from eulerian.base.arrays import Floats


@final
@dataclass(frozen=True)
class ParticlePaths(ArrayRecord):
    """Where some of the particles are over time.

    Attributes:
        times: (n_times,) equally spaced from 0 to T.
        positions: (n_times, n, dim).
        labels: (n,).
        weights: (n,).
        box: (2, dim) corners of the domain's bounding box.
        outline: (m, 2, 2) edges of the domain's boundary; empty unless it is two-dimensional.
    """

    CONTENTS = "particles"

    times: Floats
    positions: Floats
    labels: NDArray[np.integer]
    weights: Floats
    box: Floats
    outline: Floats
