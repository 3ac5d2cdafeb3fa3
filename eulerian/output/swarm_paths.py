"""Paths of particles, kept in the run folder so that their figures can be drawn again."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.array_file import read_arrays
from eulerian.arrays import Floats
from eulerian.output.files import write_arrays


@final
@dataclass(frozen=True)
class SwarmPaths:
    """Where some of the particles are over time.

    Attributes:
        times: (n_times,) equally spaced from 0 to T.
        positions: (n_times, n, dim).
        labels: (n,).
        weights: (n,).
        box: (2, dim) corners of the domain's bounding box.
        outline: (m, 2, 2) edges of the domain's boundary; empty unless it is two-dimensional.
    """

    times: Floats
    positions: Floats
    labels: NDArray[np.integer]
    weights: Floats
    box: Floats
    outline: Floats

    def save(self, path: Path) -> None:
        """Write all arrays to an ``.npz`` file."""
        write_arrays(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it is missing or not such a file.
        """
        return cls(**read_arrays(path, [field.name for field in fields(cls)], "particles"))
