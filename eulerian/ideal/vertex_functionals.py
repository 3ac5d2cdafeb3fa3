"""Functionals of the final density on the discrete space-time and their conjugates, for densities at vertices.

With F(ρ) = Σ M_i f_i(ρ_i) over the vertices also F*(w) = Σ M_i f_i*(w_i), and the splitting method needs its proximal
map only.
"""

from abc import ABC, abstractmethod
from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.ideal.space_time import SpaceTime
from eulerian.objective.floored_entropy import entropy


class VertexFunctional(ABC):
    """F of the final density of one label, ρ ≥ 0 at the vertices; arrays (n_nodes,).

    Attributes:
        loss: ℓ where F is ΣM_i ℓ_i ρ_i, else None.
        fixed: ∫φ_i dρ_T where F is finite for that density alone, else None.
    """

    loss: Floats | None = None
    fixed: Floats | None = None

    @abstractmethod
    def value(self, rho: Floats) -> float:
        """F(ρ), +∞ where it is not finite. Collective."""

    @abstractmethod
    def conjugate(self, w: Floats) -> float:
        """F*(w) = sup over ρ ≥ 0 of ΣM_i w_i ρ_i − F(ρ), for w that the best ``shift`` is taken off. Collective."""

    @abstractmethod
    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """Where f*(w) + weight/2 (w − z)² is smallest, vertex by vertex."""

    @abstractmethod
    def shift(self, w: Floats, mass: float) -> float:
        """The c for which −c·mass − F*(w − c) is largest: the best constant to take off a potential. Collective."""


@final
class LinearAtVertices(VertexFunctional):
    """ΣM_i ℓ_i ρ_i. F* is 0 where w ≤ ℓ and +∞ elsewhere."""

    loss: Floats

    def __init__(self, grid: SpaceTime, loss: Floats) -> None:
        self._grid, self.loss = grid, loss

    def value(self, rho: Floats) -> float:
        """ΣM_i ℓ_i ρ_i. Collective."""
        return self._grid.integrate(self.loss * rho)

    def conjugate(self, w: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """0."""
        return 0.0

    def proximal(self, z: Floats, weight: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """min(z, ℓ)."""
        return np.minimum(z, self.loss)

    def shift(self, w: Floats, mass: float) -> float:  # noqa: ARG002 - the protocol's argument
        """max(w − ℓ). Collective."""
        return self._grid.max(w - self.loss)


@final
class KullbackLeiblerAtVertices(VertexFunctional):
    """ΣM_i ((ρ+δ) log((ρ+δ)/(ρ*+δ)) − ρ + ρ*) with the floor δ > 0 of the space of densities: finite for every ρ ≥ 0.

    F*(w) = ΣM_i ((ρ*+δ)(eᵘ − 1) − δu) with u = max(w, log(δ/(ρ*+δ))): below that w not even the first mass pays.
    """

    def __init__(self, grid: SpaceTime, target: Floats) -> None:
        """Collective."""
        self._grid, self._target, self._floor = grid, target, grid.space.floor
        self._raised = target + self._floor
        self._least = np.log(self._floor / self._raised)

    def value(self, rho: Floats) -> float:
        """The divergence. Collective."""
        logarithm = entropy(rho, self._floor) - (rho + self._floor) * np.log(self._raised)
        return self._grid.integrate(logarithm - rho + self._target)

    def conjugate(self, w: Floats) -> float:
        """F*(w). Collective."""
        u = np.maximum(w, self._least)
        return self._grid.integrate(self._raised * np.expm1(u) - self._floor * u)

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """The w with w + ((ρ*+δ) eʷ − δ)/weight = z, by Wright's omega function, or z where it is below u."""
        moved = z + self._floor / weight
        from scipy.special import wrightomega  # takes its time to load: only where it is wanted

        solved = moved - wrightomega(moved + np.log(self._raised / weight))
        return np.asarray(np.where(z > self._least, solved, z))

    def shift(self, w: Floats, mass: float) -> float:
        """The c with ΣM_i max((ρ*+δ) eʷ⁻ᶜ − δ, 0) = mass: Newton's method for e⁻ᶜ (convex). Collective."""
        grid = self._grid
        top = grid.max(w)
        # Relative to the largest w: no exponential overflows.
        slope = self._raised * np.exp(w - top)
        scale = (mass + self._floor * grid.volume) / grid.integrate(slope)  # above the root
        for _ in range(100):
            # Vertices where not even the first mass pays have none, and no part in the derivative.
            above = slope * scale > self._floor
            found = grid.integrate(np.where(above, slope * scale - self._floor, 0.0))
            step = (found - mass) / grid.integrate(np.where(above, slope, 0.0))
            scale -= step
            if abs(step) <= 1e-14 * scale:
                break
        return top - float(np.log(scale))


@final
class SquaredDistanceAtVertices(VertexFunctional):
    """ΣM_i ½(ρ − ρ*)². F*(w) = ΣM_i ½(max(w + ρ*, 0)² − ρ*²)."""

    def __init__(self, grid: SpaceTime, target: Floats) -> None:
        self._grid, self._target = grid, target

    def value(self, rho: Floats) -> float:
        """½‖ρ − ρ*‖². Collective."""
        return self._grid.integrate(0.5 * (rho - self._target) ** 2)

    def conjugate(self, w: Floats) -> float:
        """ΣM_i ½(max(w + ρ*, 0)² − ρ*²). Collective."""
        return self._grid.integrate(0.5 * (np.maximum(w + self._target, 0.0) ** 2 - self._target**2))

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """(weight z − ρ*)/(1 + weight) where z + ρ* > 0, else z."""
        return np.where(z + self._target > 0.0, (weight * z - self._target) / (1.0 + weight), z)

    def shift(self, w: Floats, mass: float) -> float:
        """The c with ΣM_i max(w + ρ* − c, 0) = mass: Newton's method, convex and decreasing. Collective."""
        grid, height = self._grid, w + self._target
        c = -grid.max(-height) - mass / grid.volume  # below the root
        for _ in range(100):
            above = height > c
            step = (grid.integrate(np.where(above, height - c, 0.0)) - mass) / grid.integrate(above.astype(float))
            c += step
            if abs(step) <= 1e-14 * (abs(c) + mass / grid.volume):
                break
        return c


@final
class FixedAtVertices(VertexFunctional):
    """0 for one density, whose loads are ``fixed``, and +∞ for all others. F*(w) = ∫w dρ_T."""

    fixed: Floats

    def __init__(self, grid: SpaceTime, fixed: Floats) -> None:
        self._grid, self.fixed = grid, fixed

    def value(self, rho: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """0: no other density is ever priced."""
        return 0.0

    def conjugate(self, w: Floats) -> float:  # noqa: ARG002 - the protocol's argument
        """0, which the shift has made of ∫w dρ_T."""
        return 0.0

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """The w = z − ρ_T/weight."""
        return np.asarray(z - self.fixed / (self._grid.masses * weight))

    def shift(self, w: Floats, mass: float) -> float:
        """The mean of w over ρ_T: any constant is as good, because ρ_T has the mass. Collective."""
        return self._grid.total(self.fixed * w) / mass
