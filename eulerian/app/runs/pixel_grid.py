"""Rectangles of the plane, and the centres of their pixels. Quick to load: it needs NumPy only."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np

from eulerian.base.arrays import Floats


@final
@dataclass(frozen=True)
class Box:
    """A rectangle, ``lower`` (2,) and ``upper`` (2,)."""

    lower: Floats
    upper: Floats

    @classmethod
    def around(cls, points: Floats) -> Self:
        """The bounding box of points (..., 2)."""
        flat = points.reshape(-1, 2)
        return cls(flat.min(axis=0), flat.max(axis=0))

    @property
    def size(self) -> Floats:
        """Edge lengths (2,)."""
        return self.upper - self.lower

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top, as Matplotlib wants the place of a picture."""
        return float(self.lower[0]), float(self.upper[0]), float(self.lower[1]), float(self.upper[1])

    def grown(self, length: float, limits: "Box") -> "Box":
        """Moved outwards by ``length`` on every side, within ``limits``."""
        return Box(np.maximum(self.lower - length, limits.lower), np.minimum(self.upper + length, limits.upper))

    def pixels(self, n: int) -> Floats:
        """Centres of square pixels, n along the longer side: (n_x, n_y, 2)."""
        return pixel_centres(self.lower, self.upper, pixel_counts(self.lower, self.upper, n))


def pixel_counts(lower: Floats, upper: Floats, n: int) -> tuple[int, ...]:
    """How many square pixels a box has along each axis, n of them along the longest."""
    size = upper - lower
    return tuple(int(count) for count in np.maximum(1, np.rint(n * size / size.max())))


def pixel_centres(lower: Floats, upper: Floats, counts: tuple[int, ...]) -> Floats:
    """Centres of equal pixels, (n_x, 1) or (n_x, n_y, 2)."""
    axes = [low + (np.arange(n) + 0.5) * (high - low) / n for low, high, n in zip(lower, upper, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
