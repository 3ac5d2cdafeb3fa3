"""The cost of the parameters' size."""

from dataclasses import dataclass

import numpy as np

from eulerian.base.arrays import Floats


@dataclass(frozen=True)
class ParameterCost:
    """ε/2 ∫|θ_t|² dt + ε₁/2 ∫|θ̇_t|² dt for θ constant in layers of length ``layer_time``.

    The time derivative is the difference quotient between layers; a trained readout r counts as a parameter that is
    constant in time, ε/2 T |r|².

    Attributes:
        l2: ε.
        h1: ε₁.
        layer_time: T/L.
    """

    l2: float
    h1: float
    layer_time: float

    def value(self, theta: Floats, readout: Floats) -> float:
        """The cost of θ (L, p) and readout (r,)."""
        time = self.layer_time * len(theta)
        total = 0.5 * self.l2 * (self.layer_time * np.sum(theta**2) + time * np.sum(readout**2))
        return float(total + 0.5 * self.h1 / self.layer_time * np.sum(np.diff(theta, axis=0) ** 2))

    def gradient(self, theta: Floats, readout: Floats) -> tuple[Floats, Floats]:
        """Derivatives (L, p) and (r,)."""
        layers = self.l2 * self.layer_time * theta
        slope = self.h1 / self.layer_time * np.diff(theta, axis=0)
        layers[1:] += slope
        layers[:-1] -= slope
        return layers, self.l2 * self.layer_time * len(theta) * readout
