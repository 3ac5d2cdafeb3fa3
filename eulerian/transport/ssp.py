"""Strong-stability-preserving Runge–Kutta schemes."""

from dataclasses import dataclass

import numpy as np

from eulerian.base.arrays import Floats


@dataclass(frozen=True)
class SSPScheme:
    """u⁰ = u,  uⁱ⁺¹ = limit( αᵢ u⁰ + (1 − αᵢ)(uⁱ + Δt B uⁱ) ),  last uⁱ = next u;  ∫ f(u) dt ≈ Δt Σ wᵢ f(uⁱ).

    All coefficients are convex, so a stage keeps what an Euler step keeps (Gottlieb, Shu & Tadmor 2001,
    doi:10.1137/S003614450036757X). The weights are those of the same method for the running cost as an extra unknown.
    """

    alpha: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.alpha)

    @property
    def split_weights(self) -> tuple[Floats, Floats]:
        """The weights by the stage that has uⁱ, and u⁰ beside it, at hand: (of uⁱ, of u⁰), each (stages,).

        The first stage adds nothing where a second one follows, so an integral over time is touched once less.
        """
        current, start = np.array(self.weights), np.zeros(self.stages)
        if self.stages > 1:
            start[1], current[0] = current[0], 0.0
        return current, start


# SSPRK of order degree + 1, by polynomial degree.
SCHEMES = (
    SSPScheme((0.0,), (1.0,)),
    SSPScheme((0.0, 0.5), (0.5, 0.5)),
    SSPScheme((0.0, 0.75, 1.0 / 3.0), (1.0 / 6.0, 1.0 / 6.0, 2.0 / 3.0)),
)
