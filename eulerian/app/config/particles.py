"""`[particles]`: the particle method, which the densities are compared with."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from eulerian.app.config.values import MAX_DIMENSION, Column, Count, FilePath, Positive, Section, Whole, problem


class Particles(Section):
    """The particle method: which samples, and how they move.

    Attributes:
        count: N, over all labels and ranks.
        sampling: independent draws from ρ₀, or scrambled Sobol points.
        file: a CSV file of samples that takes the place of draws.
        columns: its coordinates, by name or number from 0.
        label_column: its column of classes.
        seed: of the draws.
        method: the classical Runge–Kutta method of order 4, or Dormand and Prince's pair with error control.
        steps_per_layer: of ``rk4``.
        tolerance: relative and absolute, of ``dopri5``.
        replicates: independent sets that the draws consist of; they tell how accurate the means are.
    """

    count: Annotated[Count, Field(le=10**8)] = Field(
        default=10_000, description="the number of particles, a whole number >= 1"
    )
    sampling: Literal["random", "sobol"] = Field(default="random", description='"random" or "sobol"')
    file: FilePath | None = Field(default=None, description="the path of a CSV file, relative to the TOML file")
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=MAX_DIMENSION)] | None = Field(
        default=None, description='one column per axis, by name or by number from 0, like ["a", "b"]'
    )
    label_column: Column | None = Field(default=None, description="the column of classes, by name or number from 0")
    seed: Whole = Field(default=0, description="the seed of the random numbers, a whole number >= 0")
    method: Literal["rk4", "dopri5"] = Field(default="rk4", description='"rk4" or "dopri5"')
    steps_per_layer: Annotated[Count, Field(le=100_000)] = Field(
        default=4, description="the number of time steps of rk4 in each layer, a whole number >= 1"
    )
    tolerance: Annotated[Positive, Field(ge=1e-13, lt=1)] = Field(
        default=1e-8, description="the tolerance of dopri5, a number from 1e-13 to 1"
    )
    replicates: Annotated[Count, Field(ge=2, le=1000)] = Field(
        default=16, description="the number of independent sets of samples, a whole number from 2 to 1000"
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
