"""The whole configuration as one frozen tree; attribute names are the keys of the TOML file."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from eulerian.app.config.density import Density
from eulerian.app.config.domain import Domain
from eulerian.app.config.field import MAX_LAYERS, FreeField, LinearField, MlpField, PythonField
from eulerian.app.config.objective import AT, Objective
from eulerian.app.config.optimiser import Optimiser
from eulerian.app.config.particles import Particles
from eulerian.app.config.tables import plain_tables, set_key
from eulerian.app.config.toml import dump_toml
from eulerian.app.config.values import (
    Count,
    Flag,
    Interval,
    Memory,
    Positive,
    Section,
    TextPath,
    Whole,
    bytes_of,
    problem,
    seconds_of,
)
from eulerian.base.errors import InputError
from eulerian.objective.cost_at import layers_until


class Adapt(Section):
    """How well the flow's densities and J are to be resolved, and at what cost.

    Attributes:
        density: the L¹ error of ρ(T), of each label and relative to its mass, that is to be reached.
        objective: the error of J, relative to J, that is to be reached.
        max_cells: a mesh with more cells is not made; the run stays on the last one, with a warning.
        rounds: refinements of one mesh, at most; each halves the edges of some cells.
    """

    density: Annotated[Positive, Field(lt=2)] = Field(
        default=0.05,
        description="the largest L1 error of the final density, a number > 0 and < 2",
        examples=[0.1],
    )
    objective: Positive = Field(
        default=1e-3, description="the largest relative error of J, a number > 0", examples=[1e-2]
    )
    max_cells: Count = Field(
        default=200_000, description="the largest number of cells, a whole number >= 1", examples=[50_000]
    )
    rounds: Count = Field(default=8, description="the largest number of refinements, a whole number >= 1", examples=[4])


_LEAST_SLABS = 16


class Solver(Section):
    """How densities are transported.

    Attributes:
        cfl: the size of time steps, as a fraction of the scheme's limit of stability and positivity.
        max_steps_per_layer: an evaluation that would need more is rejected: the line search takes a shorter step.
        limiter: keep densities non-negative; without it an optimiser finds negative ones, which lower J.
        memory: what the adjoint may keep of the forward sweep, all ranks together; the rest it computes again.
        disk: what the adjoint may keep on disk besides, all ranks together; nothing by default.
        disk_directory: where ``disk`` is; the system's folder for temporary files by default.
        flux_smoothing: δ in √(s² + δ²), which stands for |s| in the upwind flux; relative to a speed that crosses the
            domain once.
    """

    cfl: Annotated[Positive, Field(le=1)] = Field(
        default=0.9, description="the CFL fraction, 0 < cfl <= 1", examples=[0.5]
    )
    max_steps_per_layer: Count = Field(
        default=2000, description="the largest number of steps, a whole number >= 1", examples=[5000]
    )
    limiter: Flag = Field(
        default=True, description="whether densities are kept non-negative: true or false", examples=[False]
    )
    memory: Memory = Field(
        default="4 GiB", description='an amount of memory in quotes, like "4 GiB" or "500 MB"', examples=["500 MB"]
    )
    disk: Memory | None = Field(
        default=None, description='an amount of memory in quotes, like "20 GiB"', examples=["20 GiB"]
    )
    disk_directory: TextPath | None = Field(
        default=None, description="a folder for temporary files, in quotes", examples=["/var/tmp"]
    )
    flux_smoothing: Positive = Field(
        default=1e-3, description="the smoothing δ of the upwind flux, a number > 0", examples=[1e-4]
    )

    @property
    def memory_bytes(self) -> int:
        """The budget in bytes."""
        return bytes_of(self.memory)

    @property
    def disk_bytes(self) -> int:
        """The budget on disk in bytes."""
        return 0 if self.disk is None else bytes_of(self.disk)


class Ideal(Section):
    """How the idealised problem is solved, and what a trained network is compared with.

    Attributes:
        layers: time slabs of the convex problem; by default as many as ``field.layers``, and at least 16.
        gap_tolerance: the duality gap, relative to the primal value, that the convex solver is to reach.
        residual_tolerance: the residual of the optimality conditions that the convex solver is to reach, too.
        max_iterations: at most this many iterations of the convex solver.
        certificate: the lower bound that ``train`` ends with: "auto" takes what is known of the continuous problem,
            where there is something, and else the convex solver's estimate; "none" saves its time.
    """

    layers: Annotated[Count, Field(le=MAX_LAYERS)] | None = Field(
        default=None,
        description="the number of time slabs, a whole number >= 1",
        examples=[32],
    )
    gap_tolerance: Positive = Field(
        default=1e-3, description="the relative duality gap to reach, a number > 0", examples=[1e-4]
    )
    residual_tolerance: Positive = Field(
        default=1e-4, description="the residual to reach, a number > 0", examples=[1e-5]
    )
    max_iterations: Count = Field(
        default=5000, description="the largest number of iterations, a whole number >= 1", examples=[20_000]
    )
    certificate: Literal["auto", "hopf_lax", "convex", "none"] = Field(
        default="auto",
        description='"auto", "hopf_lax", "convex" or "none"',
        examples=["hopf_lax"],
    )

    @property
    def solver_options(self) -> dict[str, Any]:
        """Arguments of ``solve_convex``."""
        return {name: getattr(self, name) for name in ("gap_tolerance", "residual_tolerance", "max_iterations")}

    def slabs(self, field_layers: int) -> int:
        """Number of time slabs for a field of so many layers: the error in time wants more than few fields need."""
        return self.layers or max(field_layers, _LEAST_SLABS)


class Output(Section):
    """What remains of a run.

    Attributes:
        directory: the run folder, relative to the working directory.
        densities: snapshots in time for ParaView, 0 for none.
        figures: whether figures are drawn, and what they are drawn from is saved.
        checkpoint_every: iterations of a training between checkpoints, or the time between them, like ``60 s``; 0 for
            none. Unless it is 0 a forward solve saves its densities at the end of every layer and at every snapshot.
    """

    directory: TextPath = Field(
        default=Path("runs/run"), description="the folder of the run, in quotes", examples=["runs/first"]
    )
    densities: Annotated[Whole, Field(le=100_000)] = Field(
        default=11,
        description="the number of snapshots of the densities, a whole number >= 0",
        examples=[0],
    )
    figures: Flag = Field(default=True, description="whether figures are drawn: true or false", examples=[False])
    checkpoint_every: Interval = Field(
        default=10,
        description='iterations between checkpoints, a whole number >= 0, or a time in quotes like "60 s"',
        examples=[50, "60 s"],
    )

    @property
    def checkpoint_iterations(self) -> int:
        """Iterations between checkpoints; 0 where time decides, or where there are none."""
        return self.checkpoint_every if isinstance(self.checkpoint_every, int) else 0

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds between checkpoints; infinite where iterations decide, or where there are none."""
        return math.inf if isinstance(self.checkpoint_every, int) else seconds_of(self.checkpoint_every)


class Config(Section):
    """Everything that a run needs to know.

    Attributes:
        domain: where the densities live.
        density: how densities are represented, and how they start.
        field: what the network is.
        objective: what is to be small.
        optimiser: how J is minimised.
        solver: how densities are transported.
        adapt: with it meshes are adapted to the densities until J and ρ(T) are as exact as it says.
        ideal: how the idealised problem is solved, and what a trained network is compared with.
        particles: the particle method, which the densities are compared with.
        output: what remains of a run.
    """

    model_config = ConfigDict(
        title="Configuration",
        json_schema_extra={
            "dependentSchemas": {
                "adapt": {
                    "properties": {
                        "optimiser": {"properties": {"levels": {"const": 1}}},
                        "field": {"properties": {"kind": {"not": {"const": "free"}}}},
                    }
                }
            }
        },
    )

    domain: Domain = Field(description="a table [domain] with a box or a mesh file")
    density: Density = Field(description="a table [density] with at least one [[density.initial]]")
    field: Annotated[LinearField | MlpField | FreeField | PythonField, Field(discriminator="kind")] = Field(
        description="a table [field] with the network"
    )
    objective: Objective = Field(description="a table [objective] with an [objective.terminal]")
    optimiser: Optimiser = Field(default_factory=Optimiser, description="a table [optimiser]")
    solver: Solver = Field(default_factory=Solver, description="a table [solver]")
    adapt: Adapt | None = Field(default=None, description="a table [adapt], or none for a fixed mesh")
    ideal: Ideal = Field(default_factory=Ideal, description="a table [ideal]")
    particles: Particles = Field(default_factory=Particles, description="a table [particles]")
    output: Output = Field(default_factory=Output, description="a table [output]")

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        for index, cost in enumerate(self.objective.at):
            try:
                layers_until(cost.time, self.field.horizon, self.field.layers, f"{AT}.{index}.time")
            except InputError as error:
                raise problem(error.what, key=error.key or "", value=error.value, remedy=error.remedy or "") from None
        return self

    @model_validator(mode="after")
    def _check_meshes(self) -> Self:
        levels, refine = self.optimiser.levels, self.domain.refine
        if self.adapt is not None and levels > 1:
            what = "[adapt] makes meshes of its own, from a coarse one up, and has no use for levels"
            raise problem(what, key="optimiser.levels", value=levels, remedy="Set it to 1, or leave [adapt] out.")
        if self.adapt is not None and isinstance(self.field, FreeField):
            what = "its parameters are velocities at the nodes of one mesh, and [adapt] makes others"
            raise problem(what, key="field.kind", value="free", remedy="Take another field, or leave [adapt] out.")
        if self.domain.file is not None and refine < levels - 1:
            raise problem(
                f"needs meshes that are coarser than the one of domain.file with domain.refine = {refine}",
                key="optimiser.levels",
                value=levels,
                remedy=f"Give a coarser file and domain.refine >= {levels - 1}, or at most {refine + 1} levels.",
            )
        return self

    @property
    def n_labels(self) -> int | None:
        """K, or None while only a file of samples can tell."""
        return self.density.n_labels

    @property
    def in_order_of_readouts(self) -> list[tuple[str, Any]]:
        """The terminal cost and those at given times with their keys, in the order of their trained readouts."""
        terminal, *others = self.objective.end_costs
        return [terminal, *sorted(others, key=self._layers_until)]

    def _layers_until(self, cost: tuple[str, Any]) -> int:
        return layers_until(cost[1].time, self.field.horizon, self.field.layers, cost[0])

    def replace(self, changes: Mapping[str, Any]) -> "Config":
        """A copy with other values under some dotted keys, checked as a whole like any other. Not collective.

        Args:
            changes: values by key, as in ``{"objective.kinetic": 0.1, "density.initial.0.mean": [0.5, 0.0]}``; None
                takes a key out, which leaves its default.

        Raises:
            InputError: as for ``parse_config``.
        """
        from eulerian.app.config.read import parse_config  # which is made of this class

        tables = plain_tables(self.model_dump(exclude_none=True))
        for key, value in plain_tables(changes).items():
            set_key(tables, key, value)
        return parse_config(tables)

    def with_values(self, section: str, **values: Any) -> Self:
        """A copy with other values in one section; unlike ``replace`` it checks nothing. Not collective."""
        return self.model_copy(update={section: getattr(self, section).model_copy(update=values)})

    def to_toml(self) -> str:
        """The resolved configuration, every default written out; ``read_config`` gives it back."""
        return dump_toml(self.model_dump(exclude_none=True))
