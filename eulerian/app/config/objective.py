"""`[objective]`: what is to be small."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from eulerian.app.config.code import Potential, PythonPotential, renamed
from eulerian.app.config.costs_at import at_times
from eulerian.app.config.functionals import KEY, DensityTerminal, FunctionalTerminal
from eulerian.app.config.interactions import Kernels
from eulerian.app.config.losses import LossSection, PointTerminal
from eulerian.app.config.values import (
    NonNegative,
    Section,
    problem,
)
from eulerian.objective.cost_at import CostAt
from eulerian.objective.costs import Costs

AT, POTENTIAL = "objective.at", "objective.potential"


type Terminal = LossSection | FunctionalTerminal

if TYPE_CHECKING:
    TerminalsAt = tuple[Any, ...]
else:  # `fixed` among them only to be told why not
    TerminalsAt = at_times(*get_args(PointTerminal), *get_args(DensityTerminal))


class Objective(Section):
    """The weights of the running costs, and the terminal loss.

    Attributes:
        kinetic: λ in λ/2 ∫∫|v|²ρ, what it costs to move mass.
        jacobian: η in η/2 ∫∫|∇v|²ρ, what it costs to deform it.
        parameters: ε in ε/2 ∫|θ|² dt.
        parameters_h1: ε₁ in ε₁/2 ∫|dθ/dt|² dt, for layers that differ little from one another.
        potential: V in ∫∫Vρ, what it costs to be somewhere; a formula in x, y, z, or code of the user's.
        congestion: γ in γ/2 ∫∫ρ², ρ = Σ_y ρ_y the density of all labels together: what it costs to be dense.
        entropy: σ in σ ∫∫ρ log ρ, of all labels together.
        interaction: W in ½∫∬W(x - y) ρ(x) ρ(y), of all labels together, a kernel or a list of them, which are added.
        entropy_form: how networks are charged for ∫ρ log ρ, in kl and entropy: by its balance along the flow, or by the
            mesh's density, which numerical diffusion lowers.
        power_form: how networks are charged for ∫ρ², in congestion and l2: by squares that move beside the densities,
            or by the mesh's density, whose square numerical diffusion lowers.
        terminal: the cost at the final time, of one of the kinds below.
        at: costs at given times, the ends of layers; with the keys of any kind of terminal cost but "fixed".
    """

    kinetic: NonNegative = Field(
        default=0.0, description="the weight λ of the kinetic energy, a number >= 0", examples=[0.5]
    )
    jacobian: NonNegative = Field(default=0.0, description="the weight η of |∇v|², a number >= 0", examples=[0.01])
    parameters: NonNegative = Field(default=0.0, description="the weight ε of |θ|², a number >= 0", examples=[1e-6])
    parameters_h1: NonNegative = Field(
        default=0.0, description="the weight ε₁ of |dθ/dt|², a number >= 0", examples=[1e-6]
    )
    potential: Potential | None = Field(
        default=None,
        description='a formula in quotes, like "x**2/2", or a table with kind = "python"',
        examples=["x**2/2", {"kind": "python", "object": "mymodule:V"}],
    )
    congestion: NonNegative = Field(default=0.0, description="the weight γ of ρ²/2, a number >= 0", examples=[0.1])
    entropy: NonNegative = Field(default=0.0, description="the weight σ of ρ log ρ, a number >= 0", examples=[0.01])
    interaction: Kernels | None = Field(
        default=None,
        description='a table like { kind = "gaussian", weight = 1.0, width = 0.3 }, or several',
        examples=[{"kind": "gaussian", "weight": 1.0, "width": 0.3}],
    )
    entropy_form: Literal["balance", "density"] = Field(
        default="balance",
        description='how ∫ρ log ρ is taken, in kl and entropy: "balance" or "density"',
        examples=["density"],
    )
    power_form: Literal["companion", "density"] = Field(
        default="companion",
        description='how ∫ρ² is taken, in congestion and l2: "companion" or "density"',
        examples=["density"],
    )
    terminal: Annotated[PointTerminal | DensityTerminal, Field(discriminator="kind")] = Field(
        description="a table [objective.terminal] with the loss at the final time",
        examples=[{"kind": "quadratic", "target": [1.0, -0.5]}],
    )
    at: TerminalsAt = Field(
        default=(),
        description="a list of tables [[objective.at]], each with a time and a kind",
        examples=[[{"kind": "quadratic", "target": [0.5, 0.0], "time": 0.5}]],
    )

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
