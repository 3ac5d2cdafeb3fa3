"""`[field]`: what the network is. Every section makes its own field."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationInfo, WithJsonSchema, model_validator

from eulerian.app.config.code import CodeSection
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
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import VectorField
from eulerian.fields.features import Linear
from eulerian.fields.frame import Frame, framed, in_box, in_frame
from eulerian.fields.mlp import Mlp
from eulerian.fields.nodal import Nodal
from eulerian.fields.theta_file import THETA, read_theta
from eulerian.fields.user import load_field

KEY = "field.theta"
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
_NUMBER = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
_SCHEMA = [
    {"type": "string", "pattern": r"[^/]\.npz/*$"},
    {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": _NUMBER}},
]
Theta = Annotated[Rows | Path | Literal["ideal"], PlainValidator(_theta), WithJsonSchema({"anyOf": _SCHEMA})]


# For the JSON schema: tied layers have one row, and a free field may also start from the ideal velocities.
_TIED: dict[str, Any] = {
    "if": {"required": ["tied"], "properties": {"tied": {"const": True}}},
    "then": {"properties": {"theta": {"maxItems": 1}}},
}


def _or_ideal(schema: dict[str, Any]) -> None:
    schema.update(_TIED)
    theta = schema["properties"]["theta"]
    theta["anyOf"] = [{"const": IDEAL}, *theta["anyOf"]]


class _Field(Section):
    """What all fields share.

    Attributes:
        kind: what the other keys are.
        layers: L, equal intervals of time on which θ is constant.
        horizon: T, the time at which the terminal cost is charged, in the user's units.
        label_dependent: the label is an input of the network (conditional ODE-Net).
        seed: what random initial parameters, and frozen ones of features, are drawn from.
        tied: one row of θ serves all layers; with a time-dependent field that is the usual neural ODE.
        zero_init: start from v = 0; otherwise from a random draw.
        theta: initial parameters, (L, p) or (1, p), or an .npz file with the array ``theta``; for a free field also
            "ideal", the solution of the convex problem. Rows of a network are relative to the domain's box and the
            horizon, those in a file to what it names (without: to nothing, as in earlier versions); those of other
            fields are in the user's units.
    """

    model_config = ConfigDict(json_schema_extra=_TIED)

    needs_nodes: ClassVar[bool] = False
    size_key: ClassVar[str] = "kind"
    """The key that makes a row of θ long, besides the dimension and the labels."""
    instead_of_speed: ClassVar[tuple[str, str]] = ("", "")
    """Why there is no ``max_speed``, and what to do; for fields that have the key nothing."""

    kind: str  # first, so that it also comes first where a configuration is written out
    layers: Annotated[Count, Field(le=MAX_LAYERS)] = Field(
        default=8,
        description=f"the number of layers, a whole number from 1 to {MAX_LAYERS}",
        examples=[16],
    )
    horizon: Positive = Field(default=1.0, description="the time horizon, a number > 0", examples=[2.0])
    label_dependent: Flag = Field(
        default=False,
        description="whether the label is an input of the field: true or false",
        examples=[True],
    )
    seed: Whole = Field(default=0, description="the seed of the random numbers, a whole number >= 0", examples=[1])
    tied: Flag = Field(
        default=False, description="whether all layers share one row of parameters: true or false", examples=[True]
    )
    zero_init: Flag = Field(
        default=True, description="whether to start from the zero field: true or false", examples=[False]
    )
    theta: Theta | None = Field(
        default=None,
        description='rows of numbers, one row for all layers or one per layer, or "theta.npz", '
        'or (free fields only) "ideal"',
        examples=["theta.npz"],
    )

    @model_validator(mode="before")
    @classmethod
    def _check_speed(cls, tables: Any) -> Any:
        what, remedy = cls.instead_of_speed
        if what and isinstance(tables, Mapping) and "max_speed" in tables:
            raise problem(what, key="max_speed", value=tables["max_speed"], remedy=remedy)
        return tables

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

    @property
    def code(self) -> str | None:
        """Import path of the user's own code that makes the field; None where this package does."""
        return None

    def build(
        self,
        dim: int,
        n_labels: int,
        lower: Sequence[float],
        upper: Sequence[float],
        nodes: Floats | None = None,
        frame: Frame | None = None,
    ) -> VectorField:
        """The field in a domain. Networks, and others that ask for it, are in the frame of its box.

        Args:
            dim: space dimension.
            n_labels: number of labels of the densities; the field distinguishes them if ``label_dependent``.
            lower: corner (dim,) of the domain's bounding box, the same on all ranks.
            upper: opposite corner.
            nodes: all velocity nodes (N, dim) of the mesh, the same on all ranks, any order, where ``needs_nodes``.
            frame: that a network's given parameters are relative to, if it is another one than that of the domain.

        Raises:
            InputError: the configuration asks for a field that cannot be made.
        """
        if frame is not None and len(frame.centre) != dim:
            what = f"belong to a network of dimension {len(frame.centre)}"
            raise InputError(what, key=KEY, value=f"dimension {dim}")
        box = Frame.of_box(lower, upper, self.horizon)
        field = in_box(self._field(dim, self._labels(n_labels), box, nodes), lower, upper, self.horizon)
        return field if frame is None else in_frame(field, frame)

    def row_size(self, dim: int, n_labels: int, n_nodes: float) -> float | None:  # noqa: ARG002
        """Numbers p in a row of θ, before anything is built; None where nobody knows.

        Args:
            dim: space dimension.
            n_labels: number of labels of the densities.
            n_nodes: number of velocity nodes of the mesh, about.
        """
        return float(self._field(dim, self._labels(n_labels), Frame.raw(dim), None).n_params(dim))

    def earlier_frame(self, lower: Sequence[float], upper: Sequence[float]) -> Frame:  # noqa: ARG002
        """What parameters in a file without a frame are relative to, as in versions that wrote none.

        Networks saw the user's coordinates and velocities were in the user's units.
        """
        return Frame.raw(len(lower))

    def initial_theta(self, field: VectorField, dim: int) -> Floats:
        """Parameters (L, p), or (1, p) of tied layers, to start from: those given, else one draw for all layers.

        The same start in every layer means a θ that is constant in time.

        Raises:
            InputError: the file cannot be read, or sizes do not fit, or a number is not finite.
        """
        p = field.n_params(dim)
        rows: ArrayLike
        if self.theta is None:
            rows = field.init(np.random.default_rng(self.seed))
        elif isinstance(self.theta, Path):
            rows, _ = read_theta(self.theta, KEY, lambda shapes: self._check_shape(shapes[THETA], field, p))
        else:
            rows = self.theta
        theta = np.atleast_2d(_numbers(rows))
        self._check_shape(theta.shape, field, p)
        if not np.all(np.isfinite(theta)):
            raise InputError("holds numbers that are not finite", key=KEY, remedy="Give finite numbers.")
        if self.tied:
            if np.any(theta != theta[0]):
                raise InputError("has rows that differ, but field.tied = true", key=KEY, remedy="Give one row.")
            return theta[:1]
        return np.ascontiguousarray(np.broadcast_to(theta, (self.layers, p)))

    @abstractmethod
    def _field(self, dim: int, labels: int, box: Frame, nodes: Floats | None) -> VectorField:
        """The field, of no domain yet; ``box`` tells where the domain's is, in half sides."""

    def _labels(self, n_labels: int) -> int:
        return n_labels if self.label_dependent else 0

    def _check_shape(self, shape: tuple[int, ...], field: VectorField, p: int) -> None:
        """Raise InputError unless θ has one row for all layers or one for each; a single row may lie alone."""
        if shape in ((p,), (1, p), (self.layers, p)):
            return
        what = f"has shape {shape}, but {self.layers} layers of {p} parameters need ({self.layers}, {p}) or (1, {p})"
        layout = getattr(field, "row_layout", None)
        remedy = "Every row holds the parameters of one layer; one row serves all layers."
        if layout is not None:
            remedy = f"One row is {layout}{'; one such block per label' if self.label_dependent else ''}."
        raise InputError(what, key=KEY, remedy=remedy)


def _numbers(rows: ArrayLike) -> Floats:
    try:
        return np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("must be rows of numbers, all of one length", key=KEY) from error


class LinearField(_Field):
    """A field that is linear in θ: the regime with an existence theorem.

    Attributes:
        features: what v is a combination of: "translation" a constant, "affine" the coordinates and a constant,
            "random" random Fourier features, "rbf" Gaussian bumps, "residual" tanh of random linear functions.
        width: how many there are of "random", "rbf" and "residual"; of no meaning for the others.
    """

    kind: Literal["linear"] = "linear"
    features: Literal["affine", "translation", "random", "rbf", "residual"] = Field(
        description='"affine", "translation", "random", "rbf" or "residual"',
        examples=["rbf"],
    )
    width: Width = Field(
        default=16, description="the number of features of random, rbf and residual, at least 1", examples=[64]
    )
    size_key: ClassVar[str] = "width"
    instead_of_speed: ClassVar[tuple[str, str]] = (
        "a limit of the speed would make a field that is linear in θ another one, without its theorem of existence",
        'Take kind = "mlp", or bound θ with optimiser.bounds.',
    )

    def _field(self, dim: int, labels: int, box: Frame, nodes: Floats | None) -> VectorField:  # noqa: ARG002
        return Linear(dim, self.features, self.width, seed=self.seed, n_labels=labels, zero_init=self.zero_init)

    def earlier_frame(self, lower: Sequence[float], upper: Sequence[float]) -> Frame:
        """As for others, but features were laid out in the domain's box."""
        box = Frame.of_box(lower, upper, 1.0)
        return Frame(box.centre, box.length)


class MlpField(_Field):
    """A multilayer perceptron of x.

    Attributes:
        hidden: the widths of its hidden layers, from the input to the output.
        activation: σ between the layers; with "relu" v has kinks, and ∇v jumps.
        output_scale: scale of the last layer's random start, relative to the usual one, where ``zero_init = false``.
        max_speed: the velocity is mapped to one that is shorter, in the units of the domain per that of the horizon.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=100)] = Field(
        default=(32, 32),
        description="the widths of the hidden layers, whole numbers of at least 1, like [32, 32]",
        examples=[[32, 32]],
    )
    activation: Literal["tanh", "softplus", "relu"] = Field(
        default="tanh", description='"tanh", "softplus" or "relu"', examples=["softplus"]
    )
    output_scale: NonNegative = Field(
        default=1.0,
        description="the scale of the last layer's random start, a number >= 0 (zero_init = false)",
        examples=[0.1],
    )
    max_speed: Positive | None = Field(
        default=None,
        description="the speed that the velocity stays below, a number > 0, or none",
        examples=[2.0],
    )
    size_key: ClassVar[str] = "hidden"

    def _field(self, dim: int, labels: int, box: Frame, nodes: Floats | None) -> VectorField:  # noqa: ARG002
        return Mlp(dim, self.hidden, self.activation, labels, self.zero_init, self.output_scale, self.max_speed)


class FreeField(_Field):
    """The velocities at the nodes of the mesh are the parameters: the idealised problem."""

    model_config = ConfigDict(json_schema_extra=_or_ideal)

    kind: Literal["free"] = "free"
    needs_nodes: ClassVar[bool] = True
    instead_of_speed: ClassVar[tuple[str, str]] = (
        "the parameters of a free field are its velocities, which can be bounded themselves",
        "Set optimiser.bounds = [-V, V], along every axis.",
    )

    def _field(self, dim: int, labels: int, box: Frame, nodes: Floats | None) -> VectorField:  # noqa: ARG002
        if nodes is None:
            raise InputError("a free field needs the nodes of a mesh", key="field.kind", value="free")
        return Nodal(nodes, n_labels=labels, zero_init=self.zero_init)

    def row_size(self, dim: int, n_labels: int, n_nodes: float) -> float:
        """One velocity for every node and label."""
        return dim * max(self._labels(n_labels), 1) * n_nodes


class PythonField(CodeSection, _Field):
    """A field of the user's own: ``object`` is the field or a function that makes it."""

    kind: Literal["python"] = "python"
    instead_of_speed: ClassVar[tuple[str, str]] = (
        "the code that field.object names says how fast its field may be",
        "Let it be eulerian.SpeedLimit(field, V) there.",
    )

    def _field(self, dim: int, labels: int, box: Frame, nodes: Floats | None) -> VectorField:  # noqa: ARG002
        # Two points of the domain, not symmetric about its centre, where odd fields are zero.
        points = np.array(box.centre) + np.array([[-0.3], [0.2]]) * np.array(box.length)
        field = load_field(self.object, self.folder, dim=dim, n_labels=labels, points=points)
        # Code sees the user's coordinates unless it asks for others, even where it inherits from a network of ours.
        asks = getattr(field, "normalised", False) or not hasattr(field, "in_box")
        return field if asks else framed(field, Frame.raw(dim))

    def row_size(self, dim: int, n_labels: int, n_nodes: float) -> None:
        """Not known: the code is not run for that."""


type AnyField = LinearField | MlpField | FreeField | PythonField
