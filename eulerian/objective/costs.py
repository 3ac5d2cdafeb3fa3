"""The weights of the costs along the way, as a user hands them to a problem, and the cost of the parameters' size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.objective.distances import UserFunctional
from eulerian.objective.interactions import InteractionEnergy
from eulerian.objective.kernels import Interaction, as_kernels
from eulerian.objective.parts import part_names
from eulerian.objective.point_functions import PointFunction, as_point_function

INTERACTION, RUNNING = "costs.interaction", "costs.running"


@final
@dataclass(frozen=True)
class VelocityTerm:
    """A cost of the velocity per mass and time: meshes integrate it, particles take means of it.

    Attributes:
        name: of the part of J, and of its weight in ``Costs``.
        of_gradient: whether it is a function of ∇v (…, dim, dim), else of v (…, dim).
        value: (…) of that.
        slope: its derivative by that, of the same shape.
    """

    name: str
    of_gradient: bool
    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


type VelocityTerms = tuple[tuple[VelocityTerm, float], ...]

VELOCITY_TERMS = (
    VelocityTerm("kinetic", False, lambda v: 0.5 * np.sum(v**2, axis=-1), lambda v: v),
    VelocityTerm("jacobian", True, lambda g: 0.5 * np.sum(g**2, axis=(-2, -1)), lambda g: g),
)


@final
@dataclass(frozen=True)
class Costs:
    """What a flow and its parameters cost. All weights are ≥ 0.

    The parts of J are added, so that the units of a weight are those of J over those of its integral: of λ time/length²
    times those of J, of γ length^dim/time times those of J.

    Attributes:
        kinetic: λ in λ/2 ∫∫|v|²ρ.
        jacobian: η in η/2 ∫∫|∇v|²ρ.
        parameters: ε in ε/2 ∫|θ|² dt.
        parameters_h1: ε₁ in ε₁/2 ∫|dθ/dt|² dt.
        potential: V in ∫∫Vρ, a formula in x, y, z, a function of points (n, dim), or ``potential(f)`` of
            ``eulerian.jax`` or ``eulerian.torch``; None for 0.
        congestion: γ in γ/2 ∫∫ρ², ρ the density of all labels together.
        entropy: σ in σ ∫∫ρ log ρ, of all labels together.
        interaction: W in ½∫∬W(x − y) ρ(x) ρ(y) dt, ρ the density of all labels together: ``QuadraticInteraction``,
            ``GaussianInteraction``, or a list of them, whose sum is W; None for 0.
        running: F in ∫F(ρ(t)) dt, a functional of the user's own: ``density_loss(f)`` or ``sensor_loss(f, points)`` of
            ``eulerian.jax`` or ``eulerian.torch``, or ``FormLoss``, without parameters; None for 0.

    Raises:
        InputError: a weight is negative or not finite, the interaction is no kernel, or F no functional.
    """

    kinetic: float = 0.0
    jacobian: float = 0.0
    parameters: float = 0.0
    parameters_h1: float = 0.0
    potential: str | Callable[[Floats], ArrayLike] | PointFunction | None = None
    congestion: float = 0.0
    entropy: float = 0.0
    interaction: Interaction | Sequence[Interaction] | None = None
    running: UserFunctional | None = None

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self) if each.default is not None):  # the weights
            weight = getattr(self, name)
            if not (isinstance(weight, Real) and 0.0 <= float(weight) < math.inf):
                raise InputError("must be a number >= 0", key=f"costs.{name}", value=weight, remedy="Use 0 for none.")
        if self.interaction is not None:
            as_kernels(self.interaction, INTERACTION)
        if self.running is not None and not hasattr(self.running, "on_mesh"):
            libraries = "density_loss(f) or sensor_loss(f, points) of eulerian.jax or eulerian.torch"
            remedy = f"Give {libraries}, or eu.FormLoss(lambda rho: f * rho * ufl.dx)."
            given = type(self.running).__name__
            raise InputError("is no functional of densities", key=RUNNING, value=given, remedy=remedy)

    @property
    def velocity_terms(self) -> "VelocityTerms":
        """The costs of the velocity that have a weight, with it."""
        return tuple((term, weight) for term in VELOCITY_TERMS if (weight := float(getattr(self, term.name))) > 0.0)

    @property
    def density_weights(self) -> dict[str, float]:
        """The weights > 0 of the costs of the density's values, by part of J."""
        weights = {name: float(getattr(self, name)) for name in part_names("density")}
        return {name: weight for name, weight in weights.items() if weight > 0.0}

    @property
    def interaction_energy(self) -> InteractionEnergy | None:
        """½∬Wρρ, or None."""
        return None if self.interaction is None else InteractionEnergy(*as_kernels(self.interaction, INTERACTION))

    def potential_in(self, dim: int) -> PointFunction | None:
        """V in a space of dimension ``dim``, or None.

        Raises:
            InputError: it is neither a formula in these coordinates nor a function.
        """
        return None if self.potential is None else as_point_function(self.potential, dim, "costs.potential")


@final
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
        # The readout is constant in time: its square counts for all of T.
        time = self.layer_time * len(theta)
        total = 0.5 * self.l2 * (self.layer_time * np.sum(theta**2) + time * np.sum(readout**2))
        return float(total + 0.5 * self.h1 / self.layer_time * np.sum(np.diff(theta, axis=0) ** 2))

    def gradient(self, theta: Floats, readout: Floats) -> tuple[Floats, Floats]:
        """Derivatives (L, p) and (r,)."""
        layers = self.l2 * self.layer_time * theta
        # Differences of neighbours: each layer is pushed by both, the first and the last by one.
        slope = self.h1 / self.layer_time * np.diff(theta, axis=0)
        layers[1:] += slope
        layers[:-1] -= slope
        return layers, self.l2 * self.layer_time * len(theta) * readout
