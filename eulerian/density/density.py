"""Densities of all labels on a mesh, as a user holds them."""

from dataclasses import dataclass
from typing import Any, Self, final

from eulerian.base.arrays import Floats
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import DensitySpace


@final
@dataclass(frozen=True, eq=False)
class Density:
    """Shim."""

    space: DensitySpace
    coefficients: Floats
    exact: ExactDensity | None = None

    @classmethod
    def of(cls, space: DensitySpace, what: Any, masses: Any = None, key: str = "density") -> Self:  # noqa: ARG003
        """Shim."""
        return what
