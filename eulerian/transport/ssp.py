"""Strong-stability-preserving Runge–Kutta schemes."""

from dataclasses import dataclass

import numpy as np

from eulerian.base.arrays import Floats


@dataclass(frozen=True)
class SSPScheme:
    """u⁰ = u,  uⁱ⁺¹ = limit( αᵢ u⁰ + (1 − αᵢ)(uⁱ + Δt/c B uⁱ) ),  last uⁱ = next u;  ∫ f(u) dt ≈ Δt Σ wᵢ f(uⁱ).

    All coefficients are convex, so a stage keeps what an Euler step of length Δt/c keeps (Gottlieb, Shu & Tadmor 2001,
    doi:10.1137/S003614450036757X). The weights are those of the same method for the running cost as an extra unknown.

    Attributes:
        alpha: αᵢ, by stage.
        weights: wᵢ, by stage.
        coefficient: c, the SSP coefficient: how many Euler steps long a step may be.
        stability: the unlimited scheme is stable while step × outflow rate of every cell (∫_∂K (v·n)⁺ / |K|) stays
            below one over this.
    """

    alpha: tuple[float, ...]
    weights: tuple[float, ...]
    coefficient: float
    stability: float

    @classmethod
    def of(cls, dim: int, degree: int) -> "SSPScheme":
        """The scheme for densities of a polynomial degree, from 0 to 2, in a dimension from 1 to 3."""
        return _SCHEMES[dim][degree]

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

    @property
    def cotangents(self) -> tuple[int, ...]:
        """Which array each stage's cotangent, before that of the result, may have: (stages,), counted from 0.

        That of a stage is overwritten by the one before the last that does not wait for u⁰: neighbours in turns.
        """
        waiting = [i for i in range(2, self.stages) if self.alpha[i - 1] != 0.0]  # for the first stage, which adds them
        own = {stage: 2 + k for k, stage in enumerate(waiting)}
        return tuple(own.get(i, i % 2) for i in range(self.stages))


def _four_stages(order: int, stability: float) -> SSPScheme:
    """SSP(4,2) and SSP(4,3)."""
    if order == 2:
        return SSPScheme((0.0, 0.0, 0.0, 0.25), (0.25, 0.25, 0.25, 0.25), 3.0, stability)
    return SSPScheme((0.0, 0.0, 2.0 / 3.0, 0.0), (1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5), 2.0, stability)


_EULER = SSPScheme((0.0,), (1.0,), 1.0, 1.0)

# By dimension, then by the polynomial degree of densities, of order degree + 1.
#
# On triangles and tetrahedra it is positivity that limits a step, not stability: more stages than the order needs allow
# steps that are 3 and 2 times as long (Ketcheson 2008, doi:10.1137/07070485X), for 4 stages instead of 2 and 3, and the
# errors stay those of the mesh. Stability is that of von Neumann's analysis of the operator on lattices, in the worst
# direction of v, rounded up. On a line stability would gain 15 % only, and errors grow by half: there the schemes have
# as many stages as the order, and the usual constant 2 degree + 1 (Cockburn & Shu 2001, doi:10.1023/A:1012873910884).
_SCHEMES = {
    1: (
        _EULER,
        SSPScheme((0.0, 0.5), (0.5, 0.5), 1.0, 3.0),
        SSPScheme((0.0, 0.75, 1.0 / 3.0), (1.0 / 6.0, 1.0 / 6.0, 2.0 / 3.0), 1.0, 5.0),
    ),
    2: (_EULER, _four_stages(2, 1.0), _four_stages(3, 2.2)),
    3: (_EULER, _four_stages(2, 0.85), _four_stages(3, 1.75)),
}
