"""The weights of the costs along the way, as a user hands them to a problem."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import final

from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.objective.point_functions import PointFunction, as_point_function


@final
@dataclass(frozen=True)
class Costs:
    """What a flow and its parameters cost. All weights are dimensionless and ≥ 0.

    Attributes:
        kinetic: λ in λ/2 ∫∫|v|²ρ.
        jacobian: η in η/2 ∫∫|∇v|²ρ.
        parameters: ε in ε/2 ∫|θ|² dt.
        parameters_h1: ε₁ in ε₁/2 ∫|dθ/dt|² dt.
        potential: V in ∫∫Vρ, a formula in x, y, z or a function of points (n, dim); None for 0.
        congestion: γ in γ/2 ∫∫ρ², ρ the density of all labels together.
        entropy: σ in σ ∫∫ρ log ρ, of all labels together.

    Raises:
        InputError: a weight is negative or not finite.
    """

    kinetic: float = 0.0
    jacobian: float = 0.0
    parameters: float = 0.0
    parameters_h1: float = 0.0
    potential: str | Callable[[Floats], ArrayLike] | None = None
    congestion: float = 0.0
    entropy: float = 0.0

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self) if each.name != "potential"):
            weight = getattr(self, name)
            if not (isinstance(weight, Real) and 0.0 <= float(weight) < math.inf):
                raise InputError("must be a number >= 0", key=f"costs.{name}", value=weight, remedy="Use 0 for none.")

    def potential_in(self, dim: int) -> PointFunction | None:
        """V in a space of dimension ``dim``, or None.

        Raises:
            InputError: it is neither a formula in these coordinates nor a function.
        """
        return None if self.potential is None else as_point_function(self.potential, dim, "costs.potential")
