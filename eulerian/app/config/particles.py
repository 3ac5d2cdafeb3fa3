"""`[particles]`: the particle method, which the densities are compared with."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from eulerian.app.config.values import Column, Columns, Count, FilePath, Positive, Section, Whole, problem


class Particles(Section):
    """The particle method: which samples, and how they move.

    Attributes:
        count: N, over all labels and ranks; without a meaning where ``file`` gives the samples.
        sampling: independent draws from ρ₀, or scrambled Sobol points.
        file: a CSV file of samples that takes the place of draws.
        columns: the coordinates in ``file``, by name or number from 0.
        label_column: the column of classes in ``file``.
        seed: what draws are made from; other seeds give other samples.
        method: the classical Runge–Kutta method of order 4, or Dormand and Prince's pair with error control.
        steps_per_layer: time steps of ``rk4`` in every layer.
        tolerance: bound of the error of a step of ``dopri5``, relative and absolute.
        replicates: independent sets that the draws consist of; they tell how accurate the means are.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"columns": ["file"], "label_column": ["file", "columns"], "file": ["columns"]}
        }
    )

    count: Annotated[Count, Field(le=10**8)] = Field(
        default=10_000,
        description="the number of particles, a whole number >= 1",
        examples=[100_000],
    )
    sampling: Literal["random", "sobol"] = Field(
        default="random", description='"random" or "sobol"', examples=["sobol"]
    )
    file: FilePath | None = Field(
        default=None, description="the path of a CSV file, relative to the TOML file", examples=["samples.csv"]
    )
    columns: Columns | None = Field(
        default=None,
        description='one column per axis, by name or by number from 0, like ["a", "b"]',
        examples=[["a", "b"]],
    )
    label_column: Column | None = Field(
        default=None, description="the column of classes, by name or number from 0", examples=["class"]
    )
    seed: Whole = Field(default=0, description="the seed of the random numbers, a whole number >= 0", examples=[1])
    method: Literal["rk4", "dopri5"] = Field(default="rk4", description='"rk4" or "dopri5"', examples=["dopri5"])
    steps_per_layer: Annotated[Count, Field(le=100_000)] = Field(
        default=4,
        description="the number of time steps of rk4 in each layer, a whole number >= 1",
        examples=[8],
    )
    tolerance: Annotated[Positive, Field(ge=1e-13, lt=1)] = Field(
        default=1e-8,
        description="the tolerance of dopri5, a number from 1e-13 to 1",
        examples=[1e-6],
    )
    replicates: Annotated[Count, Field(ge=2, le=1000)] = Field(
        default=16,
        description="the number of independent sets of samples, a whole number from 2 to 1000",
        examples=[32],
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.file is None and (self.columns is not None or self.label_column is not None):
            key = "columns" if self.columns is not None else "label_column"
            raise problem("is given without a file", key=key, remedy="Give particles.file, or leave it out.")
        if self.file is not None and self.columns is None:
            raise problem("is missing", key="columns", remedy="Name the columns of the coordinates in particles.file.")
        if self.columns is not None and (
            len(set(self.columns)) < len(self.columns) or self.label_column in self.columns
        ):
            raise problem("a column is used twice", key="columns", value=list(self.columns))
        if self.file is None and self.count < self.replicates:
            raise problem(
                f"must be at least the number of replicates, {self.replicates}", key="count", value=self.count
            )
        return self
