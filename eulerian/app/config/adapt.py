"""`[adapt]`: meshes that follow the densities, to a tolerance."""

from typing import Annotated

from pydantic import Field

from eulerian.app.config.values import Count, Positive, Section


class Adapt(Section):
    """How well the flow's densities and J are to be resolved, and at what cost.

    Attributes:
        density: the largest L¹ error of ρ(T), by label and relative to its mass.
        objective: the largest relative error of J.
        max_cells: a mesh with more cells is not made.
        rounds: refinements of one mesh, at most; each halves the edges of some cells.
    """

    density: Annotated[Positive, Field(lt=2)] = Field(
        default=0.05, description="the largest L1 error of the final density, a number > 0 and < 2"
    )
    objective: Positive = Field(default=1e-3, description="the largest relative error of J, a number > 0")
    max_cells: Count = Field(default=200_000, description="the largest number of cells, a whole number >= 1")
    rounds: Count = Field(default=8, description="the largest number of refinements, a whole number >= 1")
