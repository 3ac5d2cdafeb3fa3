"""Rectangles of the plane, and the centres of their pixels. Quick to load: it stands on NumPy alone."""

from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.base.arrays import Floats


@final
@dataclass(frozen=True)
class Box:
    """A rectangle, ``lower`` (2,) and ``upper`` (2,)."""

    lower: Floats
    upper: Floats

    @property
    def size(self) -> Floats:
        """Edge lengths (2,)."""
        return self.upper - self.lower

    def grown(self, length: float, limits: "Box") -> "Box":
        """Moved outwards by ``length`` on every side, within ``limits``."""
        return Box(np.maximum(self.lower - length, limits.lower), np.minimum(self.upper + length, limits.upper))

    def lattice(self, n: int) -> Floats:
        """Centres of square pixels, n along the longer side: (n_x, n_y, 2)."""
        counts = np.maximum(1, np.round(n * self.size / self.size.max())).astype(int)
        return pixel_centres(self.lower, self.upper, tuple(counts.tolist()))


def pixel_centres(lower: Floats, upper: Floats, counts: tuple[int, ...]) -> Floats:
    """Centres of equal pixels, (n_x, 1) or (n_x, n_y, 2)."""
    axes = [low + (np.arange(n) + 0.5) * (high - low) / n for low, high, n in zip(lower, upper, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
