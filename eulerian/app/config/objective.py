"""`[objective]`: what is to be small."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from eulerian.app.config.code import Potential, PythonPotential, TrainedCode, renamed
from eulerian.app.config.costs_at import at_times
from eulerian.app.config.density import Terms
from eulerian.app.config.functionals import (
    KEY,
    FixedTerminal,
    FunctionalTerminal,
    InteractionTerminal,
    KlTerminal,
    L2Terminal,
    Lengths,
    MmdTerminal,
)
from eulerian.app.config.interactions import Kernels
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
from eulerian.objective.cost_at import CostAt
from eulerian.objective.costs import Costs
from eulerian.objective.distances import DensityFunctional, as_terminal_cost
from eulerian.objective.losses import CrossEntropyLoss, FormulaLoss, LogisticLoss, QuadraticLoss
from eulerian.objective.point_loss import PointLoss

AT, POTENTIAL = "objective.at", "objective.potential"


class LossSection(Section):
    """What the losses share."""

    mixture: ClassVar[Terms] = ()
    particles_cannot: ClassVar[tuple[str, str] | tuple[()]] = ()
    of_squares: ClassVar[bool] = False
    of_logarithms: ClassVar[bool] = False

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

    def check_labels(self, n_labels: int, key: str = KEY) -> None:
        """Raise InputError unless the loss is for so many labels."""
        self.loss().check_labels(n_labels, key)

    def readout_size(self, key: str, n_labels: int, columns: int) -> int:  # noqa: ARG002 - of those that are trained
        """Number of its trained parameters.

        Args:
            key: its own.
            n_labels: K.
            columns: of the matrix of an affine readout.
        """
        return 0

    def started_at(self, readout: Floats, n_labels: int) -> Self:  # noqa: ARG002 - of those that are trained
        """The same with trained parameters (r,), as many as it has, to start from."""
        return self

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

    def readout_size(self, key: str, n_labels: int, columns: int) -> int:  # noqa: ARG002 - its own
        """Of W and b."""
        return n_labels * (columns + 1) if self.trainable else 0

    def started_at(self, readout: Floats, n_labels: int) -> Self:
        """With W row by row and b."""
        if not self.trainable:
            return self
        rows, bias = np.split(readout, [readout.size - n_labels])
        weights = tuple(map(tuple, rows.reshape(n_labels, -1).tolist()))
        return self.model_copy(update={"weights": weights, "bias": tuple(bias.tolist())})

    def loss(self) -> CrossEntropyLoss:
        """ℓ."""
        weights, bias = (None if each is None else np.array(each, dtype=float) for each in (self.weights, self.bias))
        return CrossEntropyLoss(weights, bias, self.trainable)


class PythonTerminal(TrainedCode, LossSection):
    """A cost of the user's own: a function ℓ(x) or ℓ(x, label), a loss, or a functional of the density."""

    kind: Literal["python"] = "python"

    def check_labels(self, n_labels: int, key: str = KEY) -> None:
        """Not known: the code is not run for that."""

    def cost(
        self,
        objective: "Objective",  # noqa: ARG002 - of distances
        target: Callable[..., Any],  # noqa: ARG002
    ) -> DensityFunctional | PointLoss:
        """What a problem is given."""
        return as_terminal_cost(self.started(KEY), f"{KEY}.object")


type Terminal = LossSection | FunctionalTerminal

if TYPE_CHECKING:
    TerminalsAt = tuple[Any, ...]
else:  # `fixed` among them only to be told why not
    TerminalsAt = at_times(
        QuadraticTerminal,
        ExpressionTerminal,
        LogisticTerminal,
        CrossEntropyTerminal,
        FixedTerminal,
        KlTerminal,
        L2Terminal,
        MmdTerminal,
        InteractionTerminal,
        PythonTerminal,
    )


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
        interaction: W in ½∫∬W(x - y) ρ(x) ρ(y), of all labels together, a kernel or the sum of several.
        entropy_form: how networks are charged for ∫ρ log ρ, in kl and entropy: by its balance along the flow, or by the
            mesh's density, which numerical diffusion lowers.
        power_form: how networks are charged for ∫ρ², in congestion and l2: by squares that move beside the densities,
            or by the mesh's density, whose square numerical diffusion lowers.
        terminal: the loss at the final time.
        at: costs at given times, the ends of layers.
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
    interaction: Kernels | None = Field(
        default=None, description='a table like { kind = "gaussian", weight = 1.0, width = 0.3 }, or several'
    )
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
        | MmdTerminal
        | InteractionTerminal
        | PythonTerminal,
        Field(discriminator="kind"),
    ] = Field(description="a table [objective.terminal] with the loss at the final time")
    at: TerminalsAt = Field(default=(), description="a list of tables [[objective.at]], each with a time and a kind")

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        for index, cost in enumerate(self.at):
            if cost.kind == "fixed":
                what = "neither a network nor the convex solver can be held to a density exactly on its way"
                raise problem(what, key=f"at.{index}.kind", value=cost.kind, remedy="Use kl or l2.")
        return self

    @property
    def potential_formula(self) -> str | None:
        """V, where it is a formula."""
        return self.potential if isinstance(self.potential, str) else None

    def potential_function(self) -> Any:
        """V as a problem takes it; code of the user's is loaded for it."""
        given = self.potential
        return given.started(POTENTIAL) if isinstance(given, PythonPotential) else given

    def costs(self) -> Costs:
        """The weights of the costs along the way. Code of the user's is loaded for the potential."""
        given = {
            each.name: getattr(self, each.name) for each in fields(Costs) if each.name != "running"
        }  # of Python only
        kernels = None if self.interaction is None else [each.kernel() for each in self.interaction]
        return Costs(**{**given, "potential": self.potential_function(), "interaction": kernels})

    @property
    def end_costs(self) -> Iterator[tuple[str, Any]]:
        """The terminal cost and those at given times, each with its key."""
        yield KEY, self.terminal
        for index, cost in enumerate(self.at):
            yield f"{AT}.{index}", cost

    def costs_at(self, target: Callable[..., Any]) -> list[CostAt]:
        """What a problem is given, ``target`` being what makes a density of the terms, whose ``key`` it is told."""
        found = []
        for index, each in enumerate(self.at):
            # Charged with the weight: a loss that has one of its own is not to count it again.
            bare = each.model_copy(update={"weight": 1.0})
            with renamed(KEY, f"{AT}.{index}"):
                cost = bare.cost(self, partial(target, key=f"{AT}.{index}.target"))
            found.append(CostAt(each.time, cost, each.weight))
        return found
