"""Functionals of densities, distances from a target among them, as users hand them over: nothing here knows a mesh."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from eulerian.base.errors import InputError
from eulerian.objective.losses import as_loss
from eulerian.objective.point_loss import PointLoss

BLIND = "particles know where they are, not how dense they are"


class DensityFunctional:
    """A functional of ρ(T) that is no ∫ℓρ(T).

    Attributes:
        kind: what it is called in a configuration.
        particles_cannot: why particles cannot have it, and what can be done; empty where they can.
        network_cannot: likewise of networks.
        ideal_cannot: why the idealised problem cannot have it; empty where it can.
        of_squares: whether ∫ρ(T)² is a part of it.
        needs_entropy: whether it starts from ∫ρ₀ log ρ₀ and follows its balance.
        needs_squares: whether it is computed from squares that move beside the densities.
    """

    kind: ClassVar[str]
    particles_cannot: ClassVar[tuple[str, str] | tuple[()]] = ()
    network_cannot: ClassVar[tuple[str, str] | tuple[()]] = ()
    ideal_cannot: ClassVar[str] = ""
    of_squares: ClassVar[bool] = False

    @property
    def needs_entropy(self) -> bool:
        """See above."""
        return False

    @property
    def needs_squares(self) -> bool:
        """See above."""
        return False

    def refuse_network(self, key: str = "terminal") -> None:
        """Raise InputError where no network can have it."""
        if self.network_cannot:
            reason, remedy = self.network_cannot
            raise InputError(reason, key=f"{key}.kind", value=self.kind, remedy=remedy)


@dataclass(frozen=True)
class Distance(DensityFunctional):
    """A functional of ρ(T) and a target density ρ*.

    Attributes:
        target: ρ*, whatever ``DensitySpace.project`` takes.
    """

    target: Any


class UserFunctional(DensityFunctional, ABC):
    """A functional of a user's own, which makes what it is on a mesh itself."""

    particles_cannot = (BLIND, "Use a loss at points, or kl.")
    ideal_cannot = "the convex solver has to know its conjugate, as it does of losses at points, kl and l2"

    @abstractmethod
    def on_mesh(self, space: Any, key: str) -> Any:
        """As a ``Terminal`` on densities of a ``DensitySpace``; ``key``: its name in messages. **Collective**.

        Raises:
            InputError: it does not fit the space; the same on all ranks.
        """


@final
@dataclass(frozen=True)
class KullbackLeibler(Distance):
    """KL(ρ(T) | ρ*) = ∫ ρ(T) log(ρ(T)/ρ*), summed over the labels.

    Attributes:
        form: ∫ρ log ρ by its "balance" along the flow, or of the mesh's "density", which numerical diffusion lowers.
    """

    kind = "kl"

    form: Literal["balance", "density"] = "balance"

    def __post_init__(self) -> None:
        check_form(self.form, ("balance", "density"))

    @property
    def needs_entropy(self) -> bool:
        """By its balance."""
        return self.form == "balance"


@final
@dataclass(frozen=True)
class SquaredDistance(Distance):
    """½‖ρ(T) − ρ*‖² in L², summed over the labels.

    Attributes:
        form: ∫ρ² by a "companion", squares that move beside the densities, or of the mesh's "density", whose square
            numerical diffusion lowers.
    """

    kind = "l2"
    of_squares = True
    particles_cannot = (f"{BLIND}: ∫ρ² cannot be told from their mean", "Use kl.")

    form: Literal["companion", "density"] = "companion"

    def __post_init__(self) -> None:
        check_form(self.form, ("companion", "density"))

    @property
    def needs_squares(self) -> bool:
        """By companions."""
        return self.form == "companion"


@final
@dataclass(frozen=True)
class FixedDensity(Distance):
    """ρ(T) = ρ* exactly: dynamic optimal transport (Benamou & Brenier 2000, doi:10.1007/s002110050002)."""

    kind = "fixed"
    _CANNOT = "a network cannot be held to a final density exactly"
    network_cannot = (_CANNOT, "Use `eulerian ideal`, or kind = kl or l2")
    particles_cannot = (_CANNOT, "Use kl.")


def as_terminal_cost(what: Any, key: str = "terminal") -> DensityFunctional | PointLoss:
    """A functional or a loss as it is, a formula or a function of points as a loss; ``key``: its name in messages.

    Raises:
        InputError: it is nothing of this.
    """
    return what if isinstance(what, DensityFunctional) else as_loss(what, key)


def check_form(form: str, forms: tuple[str, str], key: str = "form") -> None:
    """Raise InputError unless a form is one of those that there are."""
    if form not in forms:
        raise InputError("is not known", key=key, value=form, remedy=f'Use "{forms[0]}" or "{forms[1]}".')
