"""`[density]`: how densities are represented and how they start."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from eulerian.app.config.code import CodeSection
from eulerian.app.config.domain import check_corners
from eulerian.app.config.values import (
    LARGEST,
    SMALLEST,
    Column,
    Columns,
    FilePath,
    Length,
    Matrix,
    Positive,
    Section,
    Vector,
    Whole,
    exactly_one,
    problem,
)
from eulerian.app.config.values import Formula as FormulaText
from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import InputError
from eulerian.base.formula import COORDINATES
from eulerian.density.csv_samples import SampleTable, kernel_estimates, read_samples
from eulerian.density.image import Image, read_darkness
from eulerian.density.shape import DensityShape, LabelledShape
from eulerian.density.shapes import Formula, FunctionShape, Gaussian, Uniform
from eulerian.objective.point_functions import called


class _Term(Section):
    """What the terms of an initial density share.

    Attributes:
        kind: what the other keys are.
        weight: mass of the term before all terms together are scaled to total mass 1.
        label: the label (class) that it belongs to, 0..K-1; terms of one label add up to its density.
        has_log_gradient: whether particles that end where it is small know which way it grows.
    """

    has_log_gradient: ClassVar[bool] = True

    kind: str  # first, so that it also comes first where a configuration is written out
    weight: Positive = Field(default=1.0, description="the share of mass of this term, a number > 0", examples=[2.0])
    label: Whole = Field(default=0, description="the label of this term; labels are 0..K-1 without gaps", examples=[1])

    @property
    def code(self) -> str | None:
        """Import path of the user's own code; None where there is none."""
        return None

    only_dimension: ClassVar[int | None] = None
    """The one dimension of space that the kind exists in; None for any."""

    @property
    def formulas(self) -> tuple[tuple[str, str], ...]:
        """Names and texts of its keys that are formulas."""
        return ()

    def shape(self, dim: int, key: str) -> DensityShape:
        """The shape that it describes; a file is read for it. Not collective.

        Args:
            dim: space dimension, which the term has been checked for.
            key: dotted key of the term, for messages.

        Raises:
            InputError: its file cannot be read, or does not fit.
        """
        raise NotImplementedError

    def labelled_shapes(self, dim: int, key: str) -> list[LabelledShape]:
        """The shapes that it stands for with their labels and shares; arguments and errors as for ``shape``."""
        return [LabelledShape(self.shape(dim, key), self.label, self.weight, key)]

    def classes(self, key: str) -> tuple[str, ...]:  # noqa: ARG002 - for kinds that have classes
        """Names of its classes, which are its labels then; none where the term has one label. A file is read for it."""
        return ()

    def labelled_points(self, key: str) -> tuple[Floats, Ints] | None:  # noqa: ARG002 - for kinds that have points
        """Points (n, dim) that it is an estimate of, and their labels (n,); None without. A file is read for it."""
        return None


class GaussianTerm(_Term):
    """A normal density, given by its standard deviation or its covariance.

    Attributes:
        mean: where it is centred.
        std: the same along every axis; for others give ``covariance`` instead.
        covariance: a symmetric positive definite matrix (d, d), instead of ``std``.
    """

    model_config = ConfigDict(json_schema_extra=exactly_one("std", "covariance"))

    kind: Literal["gaussian"] = "gaussian"
    mean: Vector = Field(description="the mean, one number per axis, like [0.0, 0.0]", examples=[[0.0, 0.0]])
    std: Length | None = Field(
        default=None, description="the standard deviation along every axis, a number > 0", examples=[0.5]
    )
    covariance: Matrix | None = Field(
        default=None,
        description="a symmetric positive definite matrix, like [[0.2, 0.0], [0.0, 0.1]]",
        examples=[[[0.2, 0.0], [0.0, 0.1]]],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.std is None) == (self.covariance is None):
            given = "both are given" if self.std else "neither is given"
            raise problem(f"needs exactly one of `std` and `covariance`; {given}", remedy="Keep one of the two.")
        if self.covariance is not None:
            self._check_covariance(np.array(self.covariance))
        return self

    def shape(self, dim: int, key: str) -> Gaussian:  # noqa: ARG002 - the same for all kinds
        """The normal density."""
        return Gaussian(self.mean, self.covariance, std=self.std)

    def _check_covariance(self, covariance: np.ndarray) -> None:
        dim, what = len(self.mean), None
        if covariance.shape != (dim, dim):
            what = f"is {covariance.shape[0]}×{covariance.shape[1]}, but the mean has {dim} entries"
        elif not np.all(np.diag(covariance) >= LARGEST**-2):
            what = "is not positive definite"
        elif not np.allclose(covariance, covariance.T, rtol=1e-10, atol=0):
            what = "is not symmetric"
        elif not _positive_definite(covariance):
            what = "is not positive definite"
        if what:
            raise problem(what, key="covariance", value=[list(row) for row in self.covariance or ()])


def _positive_definite(matrix: np.ndarray) -> bool:
    # Scaled to unit diagonal first: a covariance may be tiny along one axis and large along another.
    diagonal = np.diag(matrix)
    if np.any(diagonal <= 0):
        return False
    scale = 1 / np.sqrt(diagonal)
    return bool(np.linalg.eigvalsh(matrix * np.outer(scale, scale))[0] > 1e-14)


class UniformTerm(_Term):
    """A constant density on a box."""

    has_log_gradient: ClassVar[bool] = False

    kind: Literal["uniform"] = "uniform"
    lower: Vector = Field(description="the lower corner of the box, one number per axis", examples=[[-0.5, -0.5]])
    upper: Vector = Field(description="the upper corner of the box, one number per axis", examples=[[0.5, 0.5]])

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_corners(self.lower, self.upper)
        return self

    def shape(self, dim: int, key: str) -> Uniform:  # noqa: ARG002 - the same for all kinds
        """The constant density."""
        return Uniform(self.lower, self.upper)


class ExpressionTerm(_Term):
    """A density proportional to a formula in x, y, z.

    Attributes:
        value: the density up to a factor, not negative; it may use + - * / **, comparisons, ``and``, ``or``, ``not``,
            ``where(condition, a, b)`` and functions such as ``exp``, ``sqrt``, ``max`` and ``heaviside``.
    """

    kind: Literal["expression"] = "expression"
    value: FormulaText = Field(
        description='a formula in quotes, like "exp(-x**2 - y**2)"', examples=["exp(-x**2 - y**2)"]
    )

    @property
    def formulas(self) -> tuple[tuple[str, str], ...]:
        """Its value."""
        return (("value", self.value),)

    def shape(self, dim: int, key: str) -> Formula:
        """The formula."""
        return Formula(self.value, COORDINATES[:dim], f"{key}.value")


def _bandwidth(value: object) -> object:
    if value == "scott":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value <= LARGEST:
        raise problem('is neither a number > 0 nor "scott"')
    return float(value)


Bandwidth = Annotated[
    float | Literal["scott"],
    PlainValidator(_bandwidth),
    WithJsonSchema({"anyOf": [{"const": "scott"}, {"type": "number", "minimum": SMALLEST, "maximum": LARGEST}]}),
]


class SamplesTerm(_Term):
    """A kernel density estimate of the rows of a CSV file.

    Attributes:
        file: one row for each sample.
        columns: names or numbers (from 0) of the coordinates.
        label_column: the column of classes, which become the labels 0..K-1 in sorted order.
        bandwidth: isotropic standard deviation of the Gaussian kernel, or Scott's rule.
    """

    model_config = ConfigDict(
        json_schema_extra={"dependentSchemas": {"label_column": {"properties": {"label": {"const": 0}}}}}
    )

    kind: Literal["samples"] = "samples"
    file: FilePath = Field(description="the path of a CSV file, relative to the TOML file", examples=["data.csv"])
    columns: Columns = Field(
        description='one column per axis, by name or by number from 0, like ["a", "b"]',
        examples=[["a", "b"]],
    )
    label_column: Column | None = Field(
        default=None, description="the column of classes, by name or number from 0", examples=["class"]
    )
    bandwidth: Bandwidth = Field(
        default="scott",
        description='the standard deviation of the kernel, a number > 0, or "scott"',
        examples=[0.1, "scott"],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.columns)) < len(self.columns):
            raise problem("names one column twice", key="columns", value=list(self.columns))
        if self.label_column in self.columns:
            raise problem("is also a coordinate", key="label_column", value=self.label_column)
        if self.label_column is not None and self.label:
            raise problem(
                "is given by label_column already", key="label", value=self.label, remedy="Keep one of the two."
            )
        return self

    def read(self, key: str) -> SampleTable:
        """The rows of its file. Not collective.

        Raises:
            InputError: the file cannot be read, or does not hold such columns.
        """
        return read_samples(self.file, self.columns, self.label_column, key=key)

    def classes(self, key: str) -> tuple[str, ...]:
        """Those of its ``label_column``."""
        return () if self.label_column is None else self.read(key).classes

    def labelled_points(self, key: str) -> tuple[Floats, Ints]:
        """The rows of its file."""
        rows = self.read(key)
        one = self.label_column is None
        return rows.points, np.full(len(rows.points), self.label, dtype=np.int32) if one else rows.labels

    def labelled_shapes(self, dim: int, key: str) -> list[LabelledShape]:  # noqa: ARG002 - the same for all kinds
        """A kernel estimate of each class."""
        estimates = kernel_estimates(self.read(key), self.bandwidth, key)
        one = self.label_column is None
        return [replace(e, label=self.label if one else e.label, weight=self.weight * e.weight) for e in estimates]


class ImageTerm(_Term):
    """A picture laid over a rectangle: dark is dense. 2-D only.

    Attributes:
        file: a picture in PNG, JPEG, GIF, TIFF, BMP, PPM or WebP; colours are taken as grey.
        lower: where its lower left corner is put.
        upper: where its upper right corner is put.
    """

    has_log_gradient: ClassVar[bool] = False

    kind: Literal["image"] = "image"
    file: FilePath = Field(description="the path of a picture, relative to the TOML file", examples=["shape.png"])
    only_dimension: ClassVar[int] = 2
    lower: Vector = Field(description="the lower left corner of the picture, like [0.0, 0.0]", examples=[[0.0, 0.0]])
    upper: Vector = Field(description="the upper right corner of the picture, like [1.0, 1.0]", examples=[[1.0, 1.0]])

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_corners(self.lower, self.upper)
        return self

    def shape(self, dim: int, key: str) -> Image:  # noqa: ARG002 - the same for all kinds
        """The picture's darkness."""
        return Image(read_darkness(Path(self.file), f"{key}.file"), self.lower, self.upper)


class PythonTerm(CodeSection, _Term):
    """A density of the user's own: a function of points (n, dim) that returns (n,), or a shape of the library."""

    kind: Literal["python"] = "python"

    def shape(self, dim: int, key: str) -> DensityShape:  # noqa: ARG002 - the same for all kinds
        """The shape, or one of the function."""
        found = self.load(key)
        if hasattr(found, "equal_mass_points"):
            shape: DensityShape = found
            return shape
        if callable(found):
            return FunctionShape(lambda x: called(found, x, (len(x),), f"{key}.object"))
        remedy = "Name a function of points (n, dim) that returns (n,), or a shape like eulerian.Gaussian(...)."
        raise InputError("is nothing that can be a density", key=f"{key}.object", value=self.object, remedy=remedy)


AnyTerm = GaussianTerm | UniformTerm | SamplesTerm | ImageTerm | ExpressionTerm | PythonTerm
type Term = AnyTerm

Terms = Annotated[tuple[Annotated[AnyTerm, Field(discriminator="kind")], ...], Field(min_length=1)]


def label_count(terms: Sequence[Term]) -> int | None:
    """K of a mixture, or None while only a file of samples can tell."""
    if any(isinstance(term, SamplesTerm) and term.label_column is not None for term in terms):
        return None
    return 1 + max(term.label for term in terms)


def check_gaps(terms: Sequence[Term], key: str) -> None:
    """Raise a ``problem`` at ``key`` unless the labels of a mixture are 0..K-1."""
    labels, count = {term.label for term in terms}, label_count(terms)
    if count is not None and len(labels) < count:
        given = ", ".join(str(label) for label in sorted(labels))
        raise problem(
            f"labels must be 0..K-1 without gaps, but the terms have labels {given}",
            key=key,
            remedy="Number the labels from 0.",
        )


class Density(Section):
    """How densities are represented and how they start.

    Attributes:
        degree: polynomial degree of the discontinuous Galerkin space: the error of smooth densities falls like h to
            the power degree + 1.
        initial: the terms of ρ₀, a mixture that is scaled to total mass 1; one table for each.
    """

    degree: Annotated[Whole, Field(le=2)] = Field(
        default=1, description="the polynomial degree: 0, 1 or 2", examples=[2]
    )
    initial: Terms = Field(
        description="at least one table [[density.initial]]",
        examples=[[{"kind": "gaussian", "mean": [0.0, 0.0], "std": 0.5}]],
    )

    @property
    def samples(self) -> SamplesTerm | None:
        """The first samples with classes among the initial densities, else the first samples at all, or None."""
        terms = [term for term in self.initial if isinstance(term, SamplesTerm)]
        return next((term for term in terms if term.label_column is not None), terms[0] if terms else None)

    @property
    def n_labels(self) -> int | None:
        """K, or None while only a file of samples can tell."""
        return label_count(self.initial)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_gaps(self.initial, "initial")
        return self
