"""Convex functionals of the final density and their conjugates, for densities at vertices.

The dual of the idealised problem is sup ∫φ_0 dμ_0 − F*(φ_T). With F(ρ) = Σ M_i f_i(ρ_i) over the vertices also
F*(w) = Σ M_i f_i*(w_i), and the splitting method needs its proximal map only.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from eulerian.app import config
from eulerian.app.build.mixture import count_labels, initial_density
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace
from eulerian.ideal.space_time import SpaceTime
from eulerian.objective.floored_entropy import entropy
from eulerian.objective.terminal import LinearLoss

KEY = "objective.terminal"


class VertexFunctional(Protocol):
    """F of the final density of one label, ρ ≥ 0 at the vertices; arrays (n_nodes,)."""

    def value(self, rho: Floats) -> float:
        """F(ρ), +∞ where it is not finite. Collective."""
        ...

    def conjugate(self, w: Floats) -> float:
        """F*(w) = sup over ρ ≥ 0 of ΣM_i w_i ρ_i − F(ρ), for w at which it is finite. Collective."""
        ...

    def proximal(self, z: Floats, weight: Floats) -> Floats:
        """Where f*(w) + weight/2 (w − z)² is smallest, vertex by vertex."""
        ...

    def shift(self, w: Floats, mass: float) -> float:
        """The c for which −c·mass − F*(w − c) is largest: the best constant to take off a potential. Collective."""
        ...


class LinearAtVertices:
    """ΣM_i ℓ_i ρ_i. F* is 0 where w ≤ ℓ and +∞ elsewhere."""

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


class KullbackLeiblerAtVertices:
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
        slope = self._raised * np.exp(w - top)
        scale = (mass + self._floor * grid.volume) / grid.integrate(slope)  # above the root
        for _ in range(100):
            above = slope * scale > self._floor
            found = grid.integrate(np.where(above, slope * scale - self._floor, 0.0))
            step = (found - mass) / grid.integrate(np.where(above, slope, 0.0))
            scale -= step
            if abs(step) <= 1e-14 * scale:
                break
        return top - float(np.log(scale))


class SquaredDistanceAtVertices:
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


class Linear:
    """∫ℓρ_T.

    Args:
        loss: x (n, dim) ↦ ℓ (n, K), finite in the domain.
    """

    def __init__(self, loss: Callable[[Floats], Floats]) -> None:
        self.loss = loss

    def at_vertices(self, grid: SpaceTime, label: int) -> LinearAtVertices:
        """The functional of one label. Collective.

        Raises:
            InputError: ℓ is not finite at a vertex; the same on all ranks.
        """
        with parallel.agreed(grid.comm), np.errstate(all="ignore"):
            values = self.loss(grid.x)[:, label]
            if not np.all(np.isfinite(values)):
                raise InputError(
                    "the loss is not finite everywhere in the domain",
                    key=KEY,
                    value=f"a non-finite value at {grid.x[~np.isfinite(values)][0].tolist()}",
                    remedy="Use a formula that is defined on the whole domain, its boundary included",
                )
        return LinearAtVertices(grid, grid.of_owners(values))


class _ToTarget:
    """What functionals of a target density share.

    Args:
        target: ρ* (n_cells, nd, K).
    """

    def __init__(self, target: Floats) -> None:
        self.target = target

    def _values(self, grid: SpaceTime, label: int) -> Floats:
        """∫φ_i dρ*/M_i, (n_nodes,). Collective."""
        return grid.load(self.target, label) / grid.masses


class KullbackLeibler(_ToTarget):
    """KL(ρ_T | ρ*), with a floor (see ``KullbackLeiblerAtVertices``)."""

    def at_vertices(self, grid: SpaceTime, label: int) -> KullbackLeiblerAtVertices:
        """The functional of one label. Collective."""
        return KullbackLeiblerAtVertices(grid, self._values(grid, label))


class SquaredDistance(_ToTarget):
    """½‖ρ_T − ρ*‖² in L²."""

    def at_vertices(self, grid: SpaceTime, label: int) -> SquaredDistanceAtVertices:
        """The functional of one label. Collective."""
        return SquaredDistanceAtVertices(grid, self._values(grid, label))


class Fixed(_ToTarget):
    """ρ_T = ρ* exactly. F*(w) = ∫w dρ*."""


type Functional = Linear | KullbackLeibler | SquaredDistance | Fixed


def build_functional(terminal: config.Terminal, space: DensitySpace) -> Functional:
    """The functional that the configuration describes. Collective.

    Raises:
        InputError: the target has other labels than the density or no mass; the loss is not finite or is trained; the
            same on all ranks.
    """
    loss = terminal.loss()
    if loss is None:
        config.check_target_labels(count_labels(terminal.mixture, space.comm, f"{KEY}.target"), space.n_labels)
        target = initial_density(space, terminal.mixture, f"{KEY}.target")
        found = (Fixed, KullbackLeibler, SquaredDistance)
        kinds: dict[type, Callable[[Floats], Functional]]
        kinds = dict(zip((config.FixedTerminal, config.KlTerminal, config.L2Terminal), found, strict=True))
        return kinds[type(terminal)](target)
    bound = loss.bind(space.dim, space.n_labels, KEY)
    LinearLoss(space, bound, KEY)  # which has to be finite
    if bound.n_readout:
        raise InputError(
            "the idealised problem needs a loss that is not trained",
            key=f"{KEY}.trainable",
            value=True,
            remedy="Set trainable = false and give the weights of the readout",
        )
    return Linear(lambda x: bound.value(x, np.zeros(0)))
