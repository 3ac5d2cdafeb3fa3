"""Terminal costs at points: the mean of a loss ℓ(x, y) of where points end, and of their label."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from eulerian.app.config.code import TrainedCode
from eulerian.app.config.density import Terms
from eulerian.app.config.functionals import KEY, Lengths
from eulerian.app.config.values import (
    Flag,
    LabelledFormula,
    Matrix,
    NonNegative,
    Real,
    Section,
    Vector,
    exactly_one,
    problem,
)
from eulerian.base.arrays import Floats
from eulerian.objective.distances import DensityFunctional, as_terminal_cost
from eulerian.objective.losses import CrossEntropyLoss, FormulaLoss, LogisticLoss, QuadraticLoss
from eulerian.objective.point_loss import PointLoss

if TYPE_CHECKING:
    from eulerian.app.config.objective import Objective


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
        target: (d,) where points of all labels are to end.
        targets: (K, d), instead of ``target``: where points of each label are to end.
    """

    model_config = ConfigDict(json_schema_extra=exactly_one("target", "targets"))

    kind: Literal["quadratic"] = "quadratic"
    target: Vector | None = Field(
        default=None, description="the target of all labels, one number per axis", examples=[[1.0, -0.5]]
    )
    targets: Matrix | None = Field(
        default=None,
        description="one target per label, like [[1.0, 0.0], [-1.0, 0.0]]",
        examples=[[[1.0, 0.0], [-1.0, 0.0]]],
    )
    weight: NonNegative = Field(default=1.0, description="the weight of the loss, a number >= 0", examples=[10.0])

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
    """ℓ(x, y) as a formula in x, y, z and label.

    Attributes:
        value: ℓ, with the functions that formulas of densities have; ``label`` is y.
    """

    kind: Literal["expression"] = "expression"
    value: LabelledFormula = Field(
        description='a formula in quotes, like "(x**2 - 1)**2/4"', examples=["(x**2 - 1)**2/4 + y**2"]
    )

    @property
    def formulas(self) -> tuple[tuple[str, str], ...]:
        """Name and text of its formula."""
        return (("value", self.value),)

    def loss(self) -> FormulaLoss:
        """ℓ."""
        return FormulaLoss(self.value)


class LogisticTerminal(LossSection):
    """ℓ(x, y) = log(1 + exp(-s (direction·x + offset))), s = -1 for label 0 and +1 for label 1.

    Attributes:
        direction: (d,) normal of the plane that is to separate the two labels; it points to label 1.
        offset: the plane is where direction·x + offset = 0.
    """

    kind: Literal["logistic"] = "logistic"
    direction: Vector = Field(
        description="the normal of the separating plane, one number per axis", examples=[[1.0, 0.0]]
    )
    offset: Real = Field(default=0.0, description="the offset of the separating plane, a number", examples=[-0.5])

    def loss(self) -> LogisticLoss:
        """ℓ."""
        return LogisticLoss(np.array(self.direction, dtype=float), self.offset)


class CrossEntropyTerminal(LossSection):
    """ℓ(x, y) = -log softmax(W x + b)_y, a linear readout of the end points.

    Attributes:
        weights: W, (K, d); needed unless trainable.
        bias: b, (K,); zero where it is missing.
        trainable: W and b are trained together with θ, from the values that are given, or else from zero.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["weights"]},
                {"required": ["trainable"], "properties": {"trainable": {"const": True}}},
            ]
        }
    )

    kind: Literal["cross_entropy"] = "cross_entropy"
    weights: Matrix | None = Field(
        default=None,
        description="the readout matrix, one row per label, one column per axis",
        examples=[[[1.0, 0.0], [-1.0, 0.0]]],
    )
    bias: Annotated[tuple[Real, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="the readout bias, one number per label",
        examples=[[0.0, 0.0]],
    )
    trainable: Flag = Field(
        default=False, description="whether the readout is trained too: true or false", examples=[True]
    )

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


PointTerminal = QuadraticTerminal | ExpressionTerminal | LogisticTerminal | CrossEntropyTerminal | PythonTerminal
