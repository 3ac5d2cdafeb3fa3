"""`[field]`: what the network is."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PlainValidator, Strict, StringConstraints, TypeAdapter, ValidationInfo, model_validator

from eulerian.app.config.values import (
    LARGEST,
    Count,
    FilePath,
    Flag,
    Matrix,
    NonNegative,
    Positive,
    Section,
    Whole,
    problem,
)

MAX_LAYERS = 100_000
MAX_WIDTH = 100_000
IDEAL: Final = "ideal"

type Rows = tuple[tuple[float, ...], ...]

_FILE: TypeAdapter[Path] = TypeAdapter(FilePath)
_ROWS: TypeAdapter[Rows] = TypeAdapter(Matrix)


def _theta(value: object, info: ValidationInfo) -> object:
    if value == IDEAL:
        return value
    if isinstance(value, str | Path):
        path = _FILE.validate_python(value, context=info.context)
        if path.suffix != ".npz":
            raise problem(f'is neither the name of an .npz file nor "{IDEAL}"')
        return path
    if not (isinstance(value, list | tuple) and value and all(isinstance(row, list | tuple) for row in value)):
        raise problem("is neither a list of rows nor the name of a file")
    if not all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= LARGEST for row in value for x in row
    ):
        raise problem(f"holds something that is not a finite number of at most {LARGEST:g}")
    return _ROWS.validate_python(value)


Width = Annotated[Count, Field(le=MAX_WIDTH)]
Theta = Annotated[Rows | Path | Literal["ideal"], PlainValidator(_theta)]


class _Field(Section):
    """What all fields share.

    Attributes:
        kind: what the other keys are.
        layers: L, intervals on which θ is constant in time.
        horizon: T, dimensionless.
        label_dependent: the label is an input of the network (conditional ODE-Net).
        seed: of the random numbers of initial and frozen parameters.
        tied: one row of θ serves all layers; with a time-dependent field that is the usual neural ODE.
        zero_init: start from v = 0.
        theta: initial parameters, (L, p) or (1, p), or an .npz file with the array ``theta``; for a free field also
            "ideal", the solution of the convex problem. Rows of a network are relative to the domain's box and the
            horizon, those in a file to what it names (without: to nothing, as in earlier versions); those of other
            fields are in the user's units.
    """

    kind: str  # first, so that it also comes first where a configuration is written out
    layers: Annotated[Count, Field(le=MAX_LAYERS)] = Field(
        default=8, description=f"the number of layers, a whole number from 1 to {MAX_LAYERS}"
    )
    horizon: Positive = Field(default=1.0, description="the time horizon, a number > 0")
    label_dependent: Flag = Field(
        default=False, description="whether the label is an input of the field: true or false"
    )
    seed: Whole = Field(default=0, description="the seed of the random numbers, a whole number >= 0")
    tied: Flag = Field(default=False, description="whether all layers share one row of parameters: true or false")
    zero_init: Flag = Field(default=True, description="whether to start from the zero field: true or false")
    theta: Theta | None = Field(
        default=None,
        description='rows of numbers, one row for all layers or one per layer, or "theta.npz", '
        'or (free fields only) "ideal"',
    )

    @model_validator(mode="after")
    def _check_theta(self) -> Self:
        if self.theta == IDEAL and self.kind != "free":
            raise problem(
                "only a free field can start from the ideal velocities",
                key="theta",
                value=IDEAL,
                remedy='Set field.kind = "free", or give numbers or a file.',
            )
        allowed = (1,) if self.tied else (1, self.layers)
        if isinstance(self.theta, tuple) and len(self.theta) not in allowed:
            raise problem(
                f"has {len(self.theta)} rows for {self.layers} {'tied ' if self.tied else ''}layers",
                key="theta",
                remedy="Give one row." if self.tied else "Give one row for all layers, or one per layer.",
            )
        return self


class LinearField(_Field):
    """A field that is linear in θ: the regime with an existence theorem."""

    kind: Literal["linear"] = "linear"
    features: Literal["affine", "translation", "random", "rbf", "residual"] = Field(
        description='"affine", "translation", "random", "rbf" or "residual"'
    )
    width: Width = Field(default=16, description="the number of features of random, rbf and residual, at least 1")


class MlpField(_Field):
    """A multilayer perceptron of x."""

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=100)] = Field(
        default=(32, 32), description="the widths of the hidden layers, whole numbers of at least 1, like [32, 32]"
    )
    activation: Literal["tanh", "softplus", "relu"] = Field(default="tanh", description='"tanh", "softplus" or "relu"')
    output_scale: NonNegative = Field(
        default=1.0, description="the scale of the last layer's random start, a number >= 0 (zero_init = false)"
    )


class FreeField(_Field):
    """The velocities at the nodes of the mesh are the parameters: the idealised problem."""

    kind: Literal["free"] = "free"


class PythonField(_Field):
    """A field of the user's own.

    Attributes:
        object: import path of the field or of a function that makes it.
        folder: where the module is looked for besides the usual places.
    """

    kind: Literal["python"] = "python"
    object: Annotated[
        str, Strict(), StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    ] = Field(description='an import path like "package.module:name"')
    folder: FilePath = Field(
        default=Path("."), validate_default=True, description="the folder of the module, relative to the TOML file"
    )


type AnyField = LinearField | MlpField | FreeField | PythonField
