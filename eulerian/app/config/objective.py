"""`[objective]`: what is to be small."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from eulerian.app.config.density import Terms, check_gaps, label_count
from eulerian.app.config.values import (
    Flag,
    Formula,
    LabelledFormula,
    Matrix,
    NonNegative,
    Real,
    Section,
    Vector,
    problem,
)


class QuadraticTerminal(Section):
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


class ExpressionTerminal(Section):
    """ℓ(x, y) as a formula in x, y, z and label."""

    kind: Literal["expression"] = "expression"
    value: LabelledFormula = Field(description='a formula in quotes, like "(x**2 - 1)**2/4"')


class LogisticTerminal(Section):
    """ℓ(x, y) = log(1 + exp(-s (direction·x + offset))), s = -1 for label 0 and +1 for label 1."""

    kind: Literal["logistic"] = "logistic"
    direction: Vector = Field(description="the normal of the separating plane, one number per axis")
    offset: Real = Field(default=0.0, description="the offset of the separating plane, a number")


class CrossEntropyTerminal(Section):
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


class TargetTerminal(Section):
    """What the functionals of a target density ρ* share.

    Attributes:
        kind: which functional.
        target: the terms of ρ*, as in ``density.initial``; scaled to total mass 1.
    """

    kind: str  # first, so that it also comes first where a configuration is written out
    target: Terms = Field(description="a list of at least one density term, like those of density.initial")

    @property
    def n_labels(self) -> int | None:
        """K of the target, or None while only a file of samples can tell."""
        return label_count(self.target)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_gaps(self.target, "target")
        return self


class FixedTerminal(TargetTerminal):
    """ρ(T) = ρ*: dynamic optimal transport (Benamou & Brenier 2000)."""

    kind: Literal["fixed"] = "fixed"


class KlTerminal(TargetTerminal):
    """KL(ρ(T) | ρ*) = ∫ ρ(T) log(ρ(T)/ρ*), summed over the labels."""

    kind: Literal["kl"] = "kl"


class L2Terminal(TargetTerminal):
    """½‖ρ(T) − ρ*‖² in L², summed over the labels."""

    kind: Literal["l2"] = "l2"


type LossTerminal = QuadraticTerminal | ExpressionTerminal | LogisticTerminal | CrossEntropyTerminal
type Terminal = LossTerminal | FixedTerminal | KlTerminal | L2Terminal


class Objective(Section):
    """The weights of the running costs, and the terminal loss.

    Attributes:
        kinetic: λ in λ/2 ∫∫|v|²ρ.
        jacobian: η in η/2 ∫∫|∇v|²ρ.
        parameters: ε in ε/2 ∫|θ|² dt.
        parameters_h1: ε₁ in ε₁/2 ∫|dθ/dt|² dt.
        potential: V in ∫∫Vρ, a formula.
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
    potential: Formula | None = Field(default=None, description='a formula in quotes, like "x**2/2"')
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
        | L2Terminal,
        Field(discriminator="kind"),
    ] = Field(description="a table [objective.terminal] with the loss at the final time")
