"""`[domain]`: where the densities live."""

from typing import Annotated, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from eulerian.app.config.values import MAX_DIMENSION, Count, FilePath, Section, Vector, Whole, exactly_one, problem

MAX_CELLS = 2e8
_SIMPLICES_PER_BOX_CELL = (1, 2, 6)


class Box(Section):
    """An interval, rectangle or cuboid, cut into equal boxes and these into simplices.

    Attributes:
        lower: (d,) lower corner, in the user's units; as many numbers as space has dimensions, 1 to 3.
        upper: (d,) upper corner.
        cells: (d,) equal boxes along each axis; each is cut into 1, 2 or 6 simplices.
    """

    lower: Vector = Field(
        description="the lower corner, one number per axis, like [-1.0, -1.0]", examples=[[-1.0, -1.0]]
    )
    upper: Vector = Field(description="the upper corner, one number per axis, like [1.0, 1.0]", examples=[[1.0, 1.0]])
    cells: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_DIMENSION)] = Field(
        description="the number of cells along each axis, whole numbers of at least 1, like [48, 48]",
        examples=[[48, 48]],
    )

    @property
    def dim(self) -> int:
        """Space dimension."""
        return len(self.lower)

    @property
    def n_simplices(self) -> int:
        """Mesh cells after the boxes are cut."""
        return int(_SIMPLICES_PER_BOX_CELL[self.dim - 1] * np.prod([float(n) for n in self.cells]))

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_corners(self.lower, self.upper)
        if len(self.cells) != self.dim:
            raise problem(f"{len(self.cells)} entries for {self.dim} axes", key="cells", value=list(self.cells))
        return self


def check_corners(lower: Vector, upper: Vector) -> None:
    """Raise a ``problem`` at ``upper`` unless two corners (d,) of a box fit each other."""
    if len(lower) != len(upper):
        raise problem(f"{len(upper)} entries, but lower has {len(lower)}", key="upper", value=list(upper))
    for axis, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if not low < high:
            raise problem(f"must be greater than lower ({low}) on axis {axis}", key="upper", value=list(upper))


class Domain(Section):
    """Where the densities live: a box or a mesh file.

    Attributes:
        box: an interval, rectangle or cuboid, which is meshed here.
        file: a mesh of simplices in any format that meshio reads, instead of a box.
        refine: uniform refinements, each of which cuts a cell into 2^d.
    """

    model_config = ConfigDict(json_schema_extra=exactly_one("box", "file"))

    box: Box | None = Field(
        default=None,
        description="a table: { lower = [..], upper = [..], cells = [..] }",
        examples=[{"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "cells": [48, 48]}],
    )
    file: FilePath | None = Field(
        default=None, description="the path of a mesh file, relative to the TOML file", examples=["disk.msh"]
    )
    refine: Annotated[Whole, Field(le=10)] = Field(
        default=0, description="the number of uniform refinements, 0 to 10", examples=[1]
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.box is None) == (self.file is None):
            given = "both are given" if self.box else "neither is given"
            raise problem(f"needs exactly one of `box` and `file`; {given}", remedy="Keep one of the two.")
        if self.box is not None:
            cells = self.box.n_simplices * 2 ** (self.refine * self.box.dim)
            if cells > MAX_CELLS:
                raise problem(
                    f"the mesh would have {cells:.3g} simplices, more than {MAX_CELLS:.3g}",
                    key="box.cells",
                    value=list(self.box.cells),
                    remedy="Use fewer cells or refinements.",
                )
        return self
