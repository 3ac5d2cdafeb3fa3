"""Terminal costs that are functionals of the density as a whole: distances from a target, interactions."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from eulerian.app.config.density import Terms, check_gaps, label_count
from eulerian.app.config.interactions import Kernels
from eulerian.app.config.values import Length, NonNegative, Section
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.objective.distances import Distance, FixedDensity, KullbackLeibler, SquaredDistance
from eulerian.objective.interactions import InteractionEnergy, MaximumMeanDiscrepancy
from eulerian.objective.point_loss import are_labels

if TYPE_CHECKING:
    from eulerian.app.config.objective import Objective

KEY = "objective.terminal"

type Lengths = Iterator[tuple[str, int, object, str]]


class FunctionalTerminal(Section):
    """What functionals of the density share that are no losses at points.

    Attributes:
        kind: which functional.
    """

    formulas: ClassVar[tuple[tuple[str, str], ...]] = ()
    trains_readout: ClassVar[bool] = False
    mixture: ClassVar[Terms] = ()
    particles_cannot: ClassVar[tuple[str, str] | tuple[()]] = ()
    of_squares: ClassVar[bool] = False
    of_logarithms: ClassVar[bool] = False

    kind: str  # first, so that it also comes first where a configuration is written out

    def loss(self) -> None:
        """There is none at points."""

    def readout_size(self, key: str, n_labels: int, columns: int) -> int:  # noqa: ARG002 - of those that are trained
        """There are no trained parameters."""
        return 0

    def started_at(self, readout: Floats, n_labels: int) -> Self:  # noqa: ARG002 - of those that are trained
        """The same."""
        return self

    def check_labels(self, n_labels: int, key: str = KEY) -> None:
        """Any number of labels will do."""

    def lengths(self) -> Lengths:
        """Nothing has one entry per axis."""
        yield from ()


class InteractionTerminal(FunctionalTerminal):
    """½∬W(x - y) ρ(T, x) ρ(T, y), ρ the density of all labels together.

    Attributes:
        kernel: W, one table or a list of them, which are added.
    """

    kind: Literal["interaction"] = "interaction"
    kernel: Kernels = Field(
        description='a table like { kind = "gaussian", weight = 1.0, width = 0.3 }, or several',
        examples=[{"kind": "gaussian", "weight": 1.0, "width": 0.3}],
    )

    def cost(self, objective: "Objective", target: Callable[..., Any]) -> InteractionEnergy:  # noqa: ARG002 - of others
        """What a problem is given."""
        return InteractionEnergy(*(each.kernel() for each in self.kernel))


class TargetTerminal(FunctionalTerminal):
    """What the functionals of a target density ρ* share.

    Attributes:
        target: the terms of ρ*, as in ``density.initial``; scaled to total mass 1.
    """

    distance: ClassVar[type[Distance]]

    target: Terms = Field(
        description="a list of at least one density term, like those of density.initial",
        examples=[[{"kind": "gaussian", "mean": [0.5, 0.0], "std": 0.2}]],
    )

    @property
    def n_labels(self) -> int | None:
        """K of the target, or None while only a file of samples can tell."""
        return label_count(self.target)

    @property
    def mixture(self) -> Terms:  # type: ignore[override]
        """The terms of ρ*."""
        return self.target

    @property
    def particles_cannot(self) -> tuple[str, str] | tuple[()]:  # type: ignore[override]
        """Why particles cannot have it, and what can be done."""
        return self.distance.particles_cannot

    @property
    def of_squares(self) -> bool:  # type: ignore[override]
        """Whether ∫ρ(T)² is a part of it."""
        return self.distance.of_squares

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_gaps(self.target, "target")
        return self

    def cost(self, objective: "Objective", target: Callable[[Terms], Any]) -> Distance:  # noqa: ARG002 - of some
        """What a problem is given, ``target`` being what makes a density of the terms."""
        return self.distance(target(self.target))

    def check_labels(self, n_labels: int, key: str = KEY) -> None:
        """Raise InputError if the target has other labels, as far as that is known without its files."""
        if self.n_labels is not None:
            check_target_labels(self.n_labels, n_labels, f"{key}.target")


class FixedTerminal(TargetTerminal):
    """ρ(T) = ρ*: dynamic optimal transport (Benamou & Brenier 2000)."""

    distance = FixedDensity

    kind: Literal["fixed"] = "fixed"


class KlTerminal(TargetTerminal):
    """KL(ρ(T) | ρ*) = ∫ ρ(T) log(ρ(T)/ρ*), summed over the labels."""

    distance = KullbackLeibler
    of_logarithms = True

    kind: Literal["kl"] = "kl"

    def cost(self, objective: "Objective", target: Callable[[Terms], Any]) -> KullbackLeibler:
        """What a problem is given."""
        return KullbackLeibler(target(self.target), objective.entropy_form)


class L2Terminal(TargetTerminal):
    """½‖ρ(T) − ρ*‖² in L², summed over the labels."""

    distance = SquaredDistance

    kind: Literal["l2"] = "l2"

    def cost(self, objective: "Objective", target: Callable[[Terms], Any]) -> SquaredDistance:
        """What a problem is given."""
        return SquaredDistance(target(self.target), objective.power_form)


class MmdTerminal(TargetTerminal):
    """weight/2 ∬k(x - y) (ρ(T) - ρ*)(x) (ρ(T) - ρ*)(y), k = exp(-|x - y|²/(2 width²)), summed over the labels.

    Attributes:
        width: the width of the kernel, in the units of the domain: how fine differences are seen.
    """

    distance = MaximumMeanDiscrepancy

    kind: Literal["mmd"] = "mmd"
    width: Length = Field(description="the width of the kernel, a number > 0", examples=[0.3])
    weight: NonNegative = Field(default=1.0, description="the weight of the distance, a number >= 0", examples=[10.0])

    def cost(self, objective: "Objective", target: Callable[..., Any]) -> MaximumMeanDiscrepancy:  # noqa: ARG002
        """What a problem is given."""
        return MaximumMeanDiscrepancy(target(self.target, projected=True), self.width, self.weight)


DensityTerminal = FixedTerminal | KlTerminal | L2Terminal | MmdTerminal | InteractionTerminal


def check_target_labels(n_target: int, n_labels: int, key: str = f"{KEY}.target") -> None:
    """Check the number of labels of a target density against that of the initial one.

    Args:
        n_target: of the target.
        n_labels: of the initial density.
        key: what the target is called in messages.

    Raises:
        InputError: they differ.
    """
    if n_target != n_labels:
        what = (
            f"has {n_target} label{'' if n_target == 1 else 's'}, but in density.initial there {are_labels(n_labels)}"
        )
        raise InputError(what, key=key, remedy="Give the target terms for the same labels.")
