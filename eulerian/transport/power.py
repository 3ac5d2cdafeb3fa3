"""What a power of densities is a power of."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.transport.simd_layout import NodalLayout


@final
@dataclass(frozen=True)
class Power:
    """The m-th powers of sums of densities that move with one velocity, as columns that move beside them.

    Attributes:
        density: how the loops hold the densities.
        summed: (columns, columns of the density) whether a power is that of a sum with this density in it.
        exponent: m, at least 2.
    """

    density: NodalLayout
    summed: NDArray[np.bool_]
    exponent: int = 2

    @classmethod
    def of_total(cls, density: NodalLayout) -> "Power":
        """The square of the sum of all columns."""
        return cls(density, np.ones((1, density.columns), dtype=bool))

    @classmethod
    def of_each(cls, density: NodalLayout) -> "Power":
        """The squares of all columns."""
        return cls(density, np.eye(density.columns, dtype=bool))

    @property
    def columns(self) -> int:
        """How many powers there are."""
        return len(self.summed)
