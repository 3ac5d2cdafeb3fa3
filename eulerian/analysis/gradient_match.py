"""How far two gradients are from one another."""

from dataclasses import dataclass
from typing import final

import numpy as np

from eulerian.base.arrays import Floats


@final
@dataclass(frozen=True)
class GradientMatch:
    """Two gradients as functions of time, in L²(0, T).

    Attributes:
        cosine: of the angle between them; NaN where one vanishes.
        relative_error: norm of their difference over the norm of the reference; NaN where that vanishes.
        distance: norm of their difference.
    """

    cosine: float
    relative_error: float
    distance: float

    @classmethod
    def of(cls, gradient: Floats, reference: Floats, scaling: Floats) -> "GradientMatch":
        """Compare derivatives by θ, flat or not; ``scaling`` (n_params,) is that of ``ReducedProblem``."""
        g, h = (np.ravel(each) / scaling for each in (gradient, reference))
        length, other = float(np.linalg.norm(g)), float(np.linalg.norm(h))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.float64(g @ h) / (length * other)  # NumPy's numbers: Python's would raise where one vanishes
            distance = np.linalg.norm(g - h)
            return cls(float(cosine), float(np.float64(distance) / other), float(distance))


def gradient_length(gradient: Floats, scaling: Floats) -> float:
    """The norm in L²(0, T) of derivatives by θ, as in ``GradientMatch``."""
    return float(np.linalg.norm(np.ravel(gradient) / scaling))
