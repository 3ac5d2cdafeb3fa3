"""What the figures of `eulerian compare` are drawn from: ρ(T) on the mesh, along characteristics, and the particles."""

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
class MethodPair:
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

    def save(self, path: Path) -> None:
        """Write all arrays to an ``.npz`` file."""
        write_arrays(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it is missing or not such a file.
        """
        return cls(**read_arrays(path, [field.name for field in fields(cls)], "comparison"))
