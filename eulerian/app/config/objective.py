"""`[objective]`: what is to be small."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from eulerian.app.config.code import CodeSection, Potential, PythonPotential
from eulerian.app.config.density import Terms, check_gaps, label_count
from eulerian.app.config.values import (
    Flag,
    LabelledFormula,
    Matrix,
    NonNegative,
    Real,
    Section,
    Vector,
    problem,
)
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.objective.costs import Costs
from eulerian.objective.distances import (
    DensityFunctional,
    Distance,
    FixedDensity,
    KullbackLeibler,
    SquaredDistance,
    as_terminal_cost,
)
from eulerian.objective.framework import started_at
from eulerian.objective.losses import CrossEntropyLoss, FormulaLoss, LogisticLoss, QuadraticLoss
from eulerian.objective.point_loss import PointLoss, are_labels

KEY = "objective.terminal"

type Lengths = Iterator[tuple[str, int, object, str]]


class LossSection(Section):
    """What the losses share."""

    mixture: ClassVar[Terms] = ()
    particles_cannot: ClassVar[tuple[str, str] | tuple[()]] = ()
    of_squares: ClassVar[bool] = False

    @property
    def formulas(self) -> tuple[tuple[str, str], ...]:
        """Name and text of every formula."""
        return ()

    @property
    def trains_readout(self) -> bool:
        """Whether the loss has parameters of its own."""
        return False

    kind: str  # first, so that it also comes first where a configuration is written out

    def loss(self) -> PointLoss:
        """ℓ, not bound to a dimension and labels yet."""
        raise NotImplementedError

    def cost(
        self,
        objective: "Objective",  # noqa: ARG002 - of distances
        target: Callable[[Terms], Any],  # noqa: ARG002
    ) -> DensityFunctional | PointLoss:
        """What a problem is given."""
        return self.loss()

    def check_labels(self, n_labels: int) -> None:
        """Raise InputError unless the loss is for so many labels."""
        self.loss().check_labels(n_labels, KEY)

    def started_at(self, readout: Floats, n_labels: int) -> Self | None:  # noqa: ARG002 - of those that are trained
        """The same with trained parameters (r,) to start from; None where it has none, or others."""
        return None

    def lengths(self) -> Lengths:
        """Everything that has one entry per axis: name, length, value, and what the entries are."""
        for name in ("target", "direction"):
            if (value := getattr(self, name, None)) is not None:
                yield name, len(value), value, "entry"
        for name in ("targets", "weights"):
            if (value := getattr(self, name, None)) is not None:
                yield name, len(value[0]), value, "column"


class QuadraticTerminal(LossSection):
    """ℓ(x, y) = weight/2 |x - target_y|².

    Attributes:
        target: (d,) one target for all labels.
        targets: (K, d) one target per label.
        weight: dimensionless.
    """

    kind: Literal["quadratic"] = "quadratic"
    target: Vector | None = Field(default=None, description="the target of all labels, one number per axis")
    targets: Matrix | None = Field(default=None, description="one target per label, like [[1.0, 0.0], [-1.0, 0.0]]")
    weight: NonNegative = Field(default=1.0, description="the weight of the loss, a number >= 0")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.target is None) == (self.targets is None):
            given = "both are given" if self.target else "neither is given"
            raise problem(f"needs exactly one of `target` and `targets`; {given}", remedy="Keep one of the two.")
        return self

    def loss(self) -> QuadraticLoss:
        """ℓ."""
        return QuadraticLoss(np.array(self.targets or self.target, dtype=float), self.weight)


class ExpressionTerminal(LossSection):
    """ℓ(x, y) as a formula in x, y, z and label."""

    kind: Literal["expression"] = "expression"
    value: LabelledFormula = Field(description='a formula in quotes, like "(x**2 - 1)**2/4"')

    @property
    def formulas(self) -> tuple[tuple[str, str], ...]:
        """Name and text of its formula."""
        return (("value", self.value),)

    def loss(self) -> FormulaLoss:
        """ℓ."""
        return FormulaLoss(self.value)


class LogisticTerminal(LossSection):
    """ℓ(x, y) = log(1 + exp(-s (direction·x + offset))), s = -1 for label 0 and +1 for label 1."""

    kind: Literal["logistic"] = "logistic"
    direction: Vector = Field(description="the normal of the separating plane, one number per axis")
    offset: Real = Field(default=0.0, description="the offset of the separating plane, a number")

    def loss(self) -> LogisticLoss:
        """ℓ."""
        return LogisticLoss(np.array(self.direction, dtype=float), self.offset)


class CrossEntropyTerminal(LossSection):
    """ℓ(x, y) = -log softmax(W x + b)_y, a linear readout of the end points.

    Attributes:
        weights: W, (K, d); needed unless trainable.
        bias: b, (K,); zero where it is missing.
        trainable: W and b are part of the parameters.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    weights: Matrix | None = Field(
        default=None, description="the readout matrix, one row per label, one column per axis"
    )
    bias: Annotated[tuple[Real, ...], Field(min_length=1)] | None = Field(
        default=None, description="the readout bias, one number per label"
    )
    trainable: Flag = Field(default=False, description="whether the readout is trained too: true or false")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is None and not self.trainable:
            raise problem("is missing", key="weights", remedy="Give the readout matrix, or set trainable = true.")
        if self.weights is not None and self.bias is not None and len(self.weights) != len(self.bias):
            raise problem(
                f"{len(self.bias)} entries, but weights has {len(self.weights)} rows", key="bias", value=list(self.bias)
            )
        return self

    @property
    def trains_readout(self) -> bool:
        """Whether W and b are part of the parameters."""
        return self.trainable

    def started_at(self, readout: Floats, n_labels: int) -> Self | None:
        """With W row by row and b."""
        columns = readout.size // n_labels - 1 if self.trainable else 0
        if columns < 1 or readout.size % n_labels:
            return None
        rows, bias = np.split(readout, [n_labels * columns])
        weights = tuple(map(tuple, rows.reshape(n_labels, columns).tolist()))
        return self.model_copy(update={"weights": weights, "bias": tuple(bias.tolist())})

    def loss(self) -> CrossEntropyLoss:
        """ℓ."""
        weights, bias = (None if each is None else np.array(each, dtype=float) for each in (self.weights, self.bias))
        return CrossEntropyLoss(weights, bias, self.trainable)


class PythonTerminal(CodeSection, LossSection):
    """A cost of the user's own: a function ℓ(x) or ℓ(x, label), a loss, or a functional of the density.

    Attributes:
        readout: where its own parameters start, if it has any; by default where it starts them itself.
    """

    kind: Literal["python"] = "python"
    readout: Annotated[tuple[Real, ...], Field(min_length=1)] | None = Field(
        default=None, description="numbers that the parameters of the loss itself start from"
    )

    def check_labels(self, n_labels: int) -> None:
        """Not known: the code is not run for that."""

    def started_at(self, readout: Floats, n_labels: int) -> Self:  # noqa: ARG002 - the same for all
        """With these."""
        return self.model_copy(update={"readout": tuple(readout.tolist())})

    def cost(
        self,
        objective: "Objective",  # noqa: ARG002 - of distances
        target: Callable[[Terms], Any],  # noqa: ARG002
    ) -> DensityFunctional | PointLoss:
        """What a problem is given."""
        found = as_terminal_cost(self.load(KEY), f"{KEY}.object")
        return found if self.readout is None else started_at(found, self.readout, f"{KEY}.readout")


class TargetTerminal(Section):
    """What the functionals of a target density ρ* share.

    Attributes:
        kind: which functional.
        target: the terms of ρ*, as in ``density.initial``; scaled to total mass 1.
    """

    formulas: ClassVar[tuple[tuple[str, str], ...]] = ()
    trains_readout: ClassVar[bool] = False
    distance: ClassVar[type[Distance]]

    kind: str  # first, so that it also comes first where a configuration is written out
    target: Terms = Field(description="a list of at least one density term, like those of density.initial")

    @property
    def n_labels(self) -> int | None:
        """K of the target, or None while only a file of samples can tell."""
        return label_count(self.target)

    @property
    def mixture(self) -> Terms:
        """The terms of ρ*."""
        return self.target

    def started_at(self, readout: Floats, n_labels: int) -> None:
        """There are no parameters."""

    @property
    def particles_cannot(self) -> tuple[str, str] | tuple[()]:
        """Why particles cannot have it, and what can be done."""
        return self.distance.particles_cannot

    @property
    def of_squares(self) -> bool:
        """Whether ∫ρ(T)² is a part of it."""
        return self.distance.of_squares

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_gaps(self.target, "target")
        return self

    def cost(self, objective: "Objective", target: Callable[[Terms], Any]) -> Distance:  # noqa: ARG002 - of some
        """What a problem is given, ``target`` being what makes a density of the terms."""
        return self.distance(target(self.target))

    def check_labels(self, n_labels: int) -> None:
        """Raise InputError if the target has other labels, as far as that is known without its files."""
        if self.n_labels is not None:
            check_target_labels(self.n_labels, n_labels)

    def lengths(self) -> Lengths:
        """Nothing: its target is a mixture, not a point."""
        yield from ()


class FixedTerminal(TargetTerminal):
    """ρ(T) = ρ*: dynamic optimal transport (Benamou & Brenier 2000)."""

    distance = FixedDensity

    kind: Literal["fixed"] = "fixed"


class KlTerminal(TargetTerminal):
    """KL(ρ(T) | ρ*) = ∫ ρ(T) log(ρ(T)/ρ*), summed over the labels."""

    distance = KullbackLeibler

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


type Terminal = LossSection | TargetTerminal


def check_target_labels(n_target: int, n_labels: int) -> None:
    """Check the number of labels of a target density against that of the initial one.

    Raises:
        InputError: they differ.
    """
    if n_target != n_labels:
        what = (
            f"has {n_target} label{'' if n_target == 1 else 's'}, but in density.initial there {are_labels(n_labels)}"
        )
        raise InputError(what, key=f"{KEY}.target", remedy="Give the target terms for the same labels.")


class Objective(Section):
    """The weights of the running costs, and the terminal loss.

    Attributes:
        kinetic: λ in λ/2 ∫∫|v|²ρ.
        jacobian: η in η/2 ∫∫|∇v|²ρ.
        parameters: ε in ε/2 ∫|θ|² dt.
        parameters_h1: ε₁ in ε₁/2 ∫|dθ/dt|² dt.
        potential: V in ∫∫Vρ, a formula, or code of the user's.
        congestion: γ in γ/2 ∫∫ρ², ρ = Σ_y ρ_y the density of all labels together.
        entropy: σ in σ ∫∫ρ log ρ, of all labels together.
        entropy_form: how networks are charged for ∫ρ log ρ, in kl and entropy: by its balance along the flow, or by the
            mesh's density, which numerical diffusion lowers.
        power_form: how networks are charged for ∫ρ², in congestion and l2: by squares that move beside the densities,
            or by the mesh's density, whose square numerical diffusion lowers.
        terminal: the loss at the final time.
    """

    kinetic: NonNegative = Field(default=0.0, description="the weight λ of the kinetic energy, a number >= 0")
    jacobian: NonNegative = Field(default=0.0, description="the weight η of |∇v|², a number >= 0")
    parameters: NonNegative = Field(default=0.0, description="the weight ε of |θ|², a number >= 0")
    parameters_h1: NonNegative = Field(default=0.0, description="the weight ε₁ of |dθ/dt|², a number >= 0")
    potential: Potential | None = Field(
        default=None, description='a formula in quotes, like "x**2/2", or a table with kind = "python"'
    )
    congestion: NonNegative = Field(default=0.0, description="the weight γ of ρ²/2, a number >= 0")
    entropy: NonNegative = Field(default=0.0, description="the weight σ of ρ log ρ, a number >= 0")
    entropy_form: Literal["balance", "density"] = Field(
        default="balance", description='how ∫ρ log ρ is taken, in kl and entropy: "balance" or "density"'
    )
    power_form: Literal["companion", "density"] = Field(
        default="companion", description='how ∫ρ² is taken, in congestion and l2: "companion" or "density"'
    )
    terminal: Annotated[
        QuadraticTerminal
        | ExpressionTerminal
        | LogisticTerminal
        | CrossEntropyTerminal
        | FixedTerminal
        | KlTerminal
        | L2Terminal
        | PythonTerminal,
        Field(discriminator="kind"),
    ] = Field(description="a table [objective.terminal] with the loss at the final time")

    @property
    def potential_formula(self) -> str | None:
        """V, where it is a formula."""
        return self.potential if isinstance(self.potential, str) else None

    def potential_function(self) -> Any:
        """V as a problem takes it; code of the user's is loaded for it."""
        given = self.potential
        return given.load("objective.potential") if isinstance(given, PythonPotential) else given

    def costs(self) -> Costs:
        """The weights of the costs along the way. Code of the user's is loaded for the potential."""
        weights = {each.name: getattr(self, each.name) for each in fields(Costs)}
        return Costs(**weights | {"potential": self.potential_function()})
