"""Running costs of the density, ∫∫ g(x, ρ) dx dt with g = Vρ + γ/2 ρ² + σ((ρ+δ) log(ρ+δ) − δ log δ).

They are convex in ρ, so the idealised problem stays convex. Its dual knows them by g*(s) = sup over ρ ≥ 0 of sρ − g(ρ)
at s = −∂_tφ + |∇φ|²/(2λ): with γ = σ = 0 that is the constraint s ≤ V, else it is finite, and its derivative is the
density that the potential asks for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base import parallel
from eulerian.base.arrays import Floats, require_finite
from eulerian.base.errors import InputError
from eulerian.ideal.space_time import SpaceTime
from eulerian.objective.floored_entropy import entropy as floored_entropy
from eulerian.objective.parts import part_names
from eulerian.objective.point_functions import PointFunction, as_point_function

KEY = "potential"
_MAX_NEWTON = 60
_SHIFT_TOLERANCE = 1e-6  # relative error of a slab's mass; the bound depends on its square

type Potential = str | Callable[[Floats], ArrayLike] | PointFunction
"""A formula in x, y, z, or a function: points (n, dim) ↦ V (n,)."""


@dataclass(frozen=True)
class RunningCost:
    """∫∫ Vρ + γ/2 ρ² + σ((ρ+δ) log(ρ+δ) − δ log δ), of one label's density.

    Attributes:
        potential: V, x (n, dim) ↦ (n,), finite in the domain; None for 0.
        congestion: γ ≥ 0.
        entropy: σ ≥ 0. δ is the floor of the space of densities.
    """

    potential: Callable[[Floats], Floats] | None = None
    congestion: float = 0.0
    entropy: float = 0.0

    @property
    def couples_labels(self) -> bool:
        """Whether the cost of the total density is more than that of the labels one by one."""
        return self.congestion > 0.0 or self.entropy > 0.0

    def at_vertices(self, grid: SpaceTime) -> "RunningAtVertices":
        """The cost on a space-time. Collective.

        Raises:
            InputError: V is not finite at a vertex; the same on all ranks.
        """
        potential = np.zeros(grid.n_nodes)
        if self.potential is not None:
            with parallel.agreed(grid.comm), np.errstate(all="ignore"):
                potential = np.asarray(self.potential(grid.x), dtype=float)
                require_finite(potential, grid.x, "the potential", KEY, "the whole domain, its boundary included")
            potential = grid.of_owners(potential)
        return RunningAtVertices(grid, potential, self.congestion, self.entropy)


def running_cost(
    dim: int, potential: Potential | None, congestion: float = 0.0, entropy: float = 0.0
) -> RunningCost | None:
    """The cost of numbers and a potential, None if there is nothing to pay.

    Args:
        dim: of space.
        potential: V, a formula in the coordinates or a function.
        congestion: γ.
        entropy: σ.

    Raises:
        InputError: a number is negative; the formula has other variables than the dimension's.
    """
    for name, weight in (("congestion", congestion), ("entropy", entropy)):
        if not (weight >= 0.0 and np.isfinite(weight)):
            raise InputError("must be a number ≥ 0", key=name, value=weight)
    if potential is None and congestion == 0.0 and entropy == 0.0:
        return None
    function = None if potential is None else as_point_function(potential, dim, KEY)
    if function is not None and function.n_readout:
        remedy = "Say trained=False where it is made."
        raise InputError("the idealised problem needs a potential that is not trained", key=KEY, remedy=remedy)
    return RunningCost(None if function is None else function.value, congestion, entropy)


class RunningAtVertices:
    """τ Σ over slabs and vertices of M_i g_i(ρ_i); arrays (n_nodes, L).

    Args:
        grid: the space-time.
        potential: V at the vertices, (n_nodes,).
        congestion: γ.
        entropy: σ.

    Attributes:
        grid, potential, congestion, entropy: as given.
        floor: δ > 0, of the space of densities.
    """

    def __init__(self, grid: SpaceTime, potential: Floats, congestion: float, entropy: float) -> None:
        """Collective."""
        self.grid, self.congestion, self.entropy = grid, congestion, entropy
        self.potential: Floats = np.ascontiguousarray(potential)
        self.floor = grid.space.floor

    def parts(self, rho: Floats) -> dict[str, float]:
        """The costs of ρ ≥ 0 by name. Collective."""
        grid, delta = self.grid, self.floor
        entropy = np.zeros_like(rho)
        if self.entropy > 0.0:
            entropy = self.entropy * (floored_entropy(rho, delta) - delta * np.log(delta))
        columns = [self.potential[:, None] * rho, 0.5 * self.congestion * rho**2, entropy]
        sums = parallel.sum_all(grid.comm, np.array([(grid.own_masses @ column).sum() for column in columns]))
        return dict(zip(part_names("potential", "density"), (grid.tau * sums).tolist(), strict=True))

    def wanted(self, s: Floats) -> Floats:
        """ρ = g*′(s) ≥ 0, the maximiser of sρ − g(ρ); not for γ = σ = 0, where it is not determined."""
        gamma, sigma, delta = self.congestion, self.entropy, self.floor
        above = s - self.potential[:, None]
        if sigma == 0.0:
            return np.maximum(above, 0.0) / gamma
        exponent = (above + gamma * delta) / sigma - 1.0  # of y = ρ + δ: γ/σ y + log y
        if gamma == 0.0:
            return np.maximum(np.exp(exponent) - delta, 0.0)
        ratio = gamma / sigma
        from scipy.special import wrightomega  # takes its time to load: only where it is wanted

        return np.asarray(np.maximum(wrightomega(exponent + np.log(ratio)) / ratio - delta, 0.0))

    def conjugate(self, s: Floats) -> float:
        """τ Σ M_i g_i*(s_i), for s at which it is finite. Collective."""
        if self.congestion == 0.0 and self.entropy == 0.0:
            return 0.0
        grid, rho = self.grid, self.wanted(s)
        gained = grid.tau * float(parallel.sum_all(grid.comm, np.array([(grid.own_masses @ (s * rho)).sum()]))[0])
        return gained - sum(self.parts(rho).values())

    def shift(self, s: Floats, mass: float, guess: Floats | None = None) -> Floats:
        """The c (L,) for which −c·mass − Σ M_i g_i*(s_i − c) is largest: a slab's wanted mass is right. Collective.

        By Newton's method for a convex, decreasing function, between bounds, from a guess if there is one.
        """
        grid = self.grid
        if self.congestion == 0.0 and self.entropy == 0.0:
            return grid.max_columns(s - self.potential[:, None])
        # One vertex alone wants the mass at c = low; none wants more than the mean at c = high.
        low = grid.max_columns(s - self.marginal(mass / grid.masses[:, None]))
        high = grid.max_columns(s - self.marginal(np.full((grid.n_nodes, 1), mass / grid.volume)))
        c = 0.5 * (low + high) if guess is None else np.clip(guess, low, high)
        for _ in range(_MAX_NEWTON):
            rho = self.wanted(s - c)
            found, rise = parallel.sum_all(grid.comm, np.stack([grid.own_masses @ f for f in (rho, self._rise(rho))]))
            low, high = np.where(found >= mass, c, low), np.where(found <= mass, c, high)
            if np.all(np.abs(found - mass) <= _SHIFT_TOLERANCE * mass):
                break
            with np.errstate(divide="ignore", invalid="ignore"):
                step = c + (found - mass) / rise
            # Bisection where Newton leaves the bounds.
            c = np.where((step > low) & (step < high), step, 0.5 * (low + high))
        return c

    def marginal(self, rho: Floats) -> Floats:
        """g′(ρ)."""
        logarithm = self.entropy * (np.log(rho + self.floor) + 1.0) if self.entropy > 0.0 else 0.0
        return np.asarray(self.potential[:, None] + self.congestion * rho + logarithm)

    def _rise(self, rho: Floats) -> Floats:
        """g*″ where ρ = g*′, and 0 where ρ = 0."""
        return np.where(rho > 0.0, 1.0 / (self.congestion + self.entropy / (rho + self.floor)), 0.0)
