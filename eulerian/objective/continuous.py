"""What J is made of before a mesh comes into play: ρ₀ and the target as functions, and the costs of the density."""

from dataclasses import dataclass
from typing import Protocol, final

from eulerian.app import config
from eulerian.base.arrays import Floats
from eulerian.base.formula import Expression
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace
from eulerian.objective.losses import COORDINATES


class FunctionDensity(Protocol):
    """Densities ρ_y of all labels as functions on the domain; ``ExactDensity`` is one."""

    @property
    def mass(self) -> Floats:
        """∫ρ_y over the domain, (K,)."""
        ...

    def values(self, x: Floats) -> Floats:
        """ρ_y(x), (n, K), at points x (n, dim)."""
        ...

    def log_values(self, x: Floats) -> Floats:
        """Log ρ_y(x), (n, K)."""
        ...


@final
@dataclass(frozen=True)
class ContinuousData:
    """The data of the continuous problem that its discretisation holds in other forms.

    Attributes:
        initial: ρ₀.
        target: ρ* of the terminal functional, where it has one.
        potential: V(x), or None.
        congestion: γ.
        entropy: σ.
    """

    initial: FunctionDensity
    target: FunctionDensity | None = None
    potential: Expression | None = None
    congestion: float = 0.0
    entropy: float = 0.0


def continuous_data(
    objective: config.Objective, space: DensitySpace, initial: ExactDensity, target: ExactDensity | None
) -> ContinuousData:
    """The data of a configuration.

    Args:
        objective: the section, which has been found to fit.
        space: whose cells cover the domain.
        initial: ρ₀.
        target: ρ* of the terminal functional, where it has one.
    """
    potential = None
    if objective.potential is not None:
        potential = Expression.parse(objective.potential, COORDINATES[: space.dim], "objective.potential")
    return ContinuousData(initial, target, potential, objective.congestion, objective.entropy)
