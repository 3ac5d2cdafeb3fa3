"""What J is made of before a mesh comes into play: ρ₀ and the target as functions, and the costs of the density."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, final

from eulerian.base.arrays import Floats
from eulerian.objective.point_functions import PointFunction


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
        weights: of the running costs of the density, by part of J.
    """

    initial: FunctionDensity
    target: FunctionDensity | None = None
    potential: PointFunction | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
