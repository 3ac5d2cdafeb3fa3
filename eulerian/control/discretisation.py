"""From what a user has in hand to what J is made of on a mesh."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import warn
from eulerian.control.end_costs import EndCosts
from eulerian.control.functional_costs import most_moments
from eulerian.density.density import Density
from eulerian.density.exact_density import ExactDensity
from eulerian.density.space import EMPTY, DensitySpace
from eulerian.objective.continuous import ContinuousData
from eulerian.objective.cost_at import LayerEndCost
from eulerian.objective.costs import INTERACTION, RUNNING, Costs
from eulerian.objective.distances import check_form
from eulerian.objective.entropy import EntropyBalance
from eulerian.objective.mean_field import QuadraticTerminal
from eulerian.objective.running import EntropyCosts, PotentialCost, RunningCosts, VelocityCost
from eulerian.objective.squares import SquareColumns, SquareCosts
from eulerian.objective.terminal import Terminal, exact_density
from eulerian.transport.density_cost import DensityCost
from eulerian.transport.operator import TransportOperator, flux_smoothing
from eulerian.transport.power import Power
from eulerian.transport.stepper import Stepper
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.trajectory import Trajectory
from eulerian.transport.velocity_space import VelocitySpace

# Cells with less than this share of the mean density are set to zero, and left alone while nothing flows in: so little
# that all of it together, over all steps, is lost in the rounding of the mass.
_NEXT_TO_NOTHING = 1e-16

_NO_BALANCE = (
    "objective.entropy is taken from the mesh's density, which numerical diffusion lowers: the entropy of all labels "
    "together has a balance along the flow only where they share one velocity (label_dependent = false)"
)


@final
@dataclass(frozen=True)
class Objective:
    """What J is made of, as a user says it.

    Attributes:
        ends: the costs at ends of layers, that of ρ(T) first.
        costs: the weights of all others.
        label_dependent: every label has a velocity of its own.
        entropy_form: how ∫∫ρ log ρ is taken, by its "balance" along the flow or of the mesh's "density".
        power_form: how ∫∫ρ² is taken, by a "companion" or of the mesh's "density".
    """

    ends: tuple[LayerEndCost, ...]
    costs: Costs
    label_dependent: bool = False
    entropy_form: str = "balance"
    power_form: str = "companion"

    @classmethod
    def of(cls, ends: tuple[LayerEndCost, ...], costs: Costs, **more: Any) -> "Objective":
        """Checked, by what every rank knows.

        Raises:
            InputError: something is of another kind.
        """
        if not isinstance(costs, Costs):
            names = ", ".join(each.name for each in fields(Costs))
            raise InputError("must be Costs(…)", key="costs", value=costs, remedy=f"They have {names}.")
        objective = cls(ends, costs, **more)
        check_form(objective.entropy_form, ("balance", "density"), "entropy_form")
        check_form(objective.power_form, ("companion", "density"), "power_form")
        return objective

    @property
    def by_balance(self) -> tuple[LayerEndCost, ...]:
        """Those that start from ∫ρ₀ log ρ₀ and follow its balance."""
        return tuple(end for end in self.ends if end.cost.needs_entropy and end.weight > 0.0)

    @property
    def by_squares(self) -> tuple[LayerEndCost, ...]:
        """Those that are computed from squares that move beside the densities."""
        return tuple(end for end in self.ends if end.cost.needs_squares and end.weight > 0.0)


@final
@dataclass(frozen=True)
class Discretisation:
    """What J is made of on a mesh.

    Attributes:
        velocity_space: where the field is evaluated.
        initial: ρ₀.
        ends: the functionals at ends of layers.
        running: the costs along the way.
        smoothing: δ of the upwind flux, in units of velocity.
        continuous: what ρ₀, target and costs are before they are discretised.
    """

    velocity_space: VelocitySpace
    initial: Density
    ends: EndCosts
    running: RunningCosts
    smoothing: float
    continuous: ContinuousData

    @classmethod
    def of(
        cls, velocity_space: VelocitySpace, initial: Density, objective: Objective, grid: TimeGrid, flux: float
    ) -> "Discretisation":
        """**Collective**.

        Args:
            velocity_space: where the field is evaluated.
            initial: ρ₀.
            objective: what J is made of.
            grid: how time is cut.
            flux: δ of the upwind flux, in units of the domain's extent per horizon.

        Raises:
            InputError: a cost does not fit the space, its labels or its dimension; the same on all ranks.
        """
        space, costs = velocity_space.density_space, objective.costs
        # Entropies and squares are those of ρ₀ itself: its projection has lost some of both.
        exact = exact_density(initial)
        smoothing = flux_smoothing(space, grid.horizon, flux)
        by_label, together = _initial_entropies(objective, space, exact)
        squares = _square_costs(objective, space, exact, grid.layers)
        # A distance without weight is never evaluated on the mesh, and needs no start.
        ends = EndCosts.of(objective.ends, grid.layers, space, 0.0 if by_label is None else by_label)
        potential = costs.potential_in(space.dim)
        continuous = ContinuousData(exact, ends.terminal.exact, potential, costs.density_weights)
        charged = None
        if by_label is not None or together is not None:
            # One balance for both costs: its rate is the same functional of a velocity.
            charged = EntropyCosts(
                EntropyBalance(velocity_space, smoothing),
                tuple(end.end(grid.layers) for end in objective.by_balance),
                0.0 if together is None else costs.entropy,
                0.0 if together is None else together,
                0.0 if by_label is None else by_label,
            )
        running = RunningCosts(
            VelocityCost(velocity_space, costs.velocity_terms),
            None if potential is None else PotentialCost(space, potential),
            _mesh_costs(objective, space, of_mesh=together is None),
            charged,
            squares,
            _functionals(costs, space),
        )
        return cls(velocity_space, initial, ends, running, smoothing, continuous)


def _initial_entropies(
    objective: Objective, space: DensitySpace, exact: ExactDensity
) -> tuple[float | None, float | None]:
    """∫ρ₀ log ρ₀, summed over the labels and of all together, each where a cost takes it by its balance. Collective."""
    running = objective.costs.entropy > 0.0 and objective.entropy_form == "balance"
    # d/dt ∫ρ log ρ of a sum needs one velocity for all that is summed.
    if running and objective.label_dependent and space.n_labels > 1:
        running = False
        warn(space.comm, _NO_BALANCE)
    if not (objective.by_balance or running):
        return None, None
    by_label, together = exact.entropies(space)
    return float(by_label.sum()) if objective.by_balance else None, together if running else None


def _square_costs(objective: Objective, space: DensitySpace, exact: ExactDensity, n_layers: int) -> SquareCosts | None:
    """The costs of ∫ρ² by squares that move beside the densities. Collective."""
    congestion = objective.costs.congestion if objective.power_form == "companion" else 0.0
    ends = [end.end(n_layers) for end in objective.by_squares]
    return SquareCosts.of(space, exact, congestion, ends) if ends or congestion > 0.0 else None


def _mesh_costs(objective: Objective, space: DensitySpace, *, of_mesh: bool) -> DensityCost | None:
    """What is charged of the mesh's own density; ``of_mesh``: the entropy, which has no balance here, too."""
    costs, by_squares = objective.costs, objective.power_form == "companion"
    entropy = costs.entropy if of_mesh else 0.0
    # The square of a sum of labels with velocities of their own moves with none: products are the mesh's.
    products = by_squares and objective.label_dependent and space.n_labels > 1
    congestion = costs.congestion if products or not by_squares else 0.0
    if congestion == 0.0 and entropy == 0.0:
        return None
    return DensityCost(congestion, entropy, space.floor, products)


def _functionals(costs: Costs, space: DensitySpace) -> dict[str, Terminal]:
    """The running costs of the density as a whole, by part of J. Collective."""
    found: dict[str, Terminal] = {}
    energy = costs.interaction_energy
    if energy is not None:
        found["interaction"] = QuadraticTerminal(space, energy, INTERACTION)
    if costs.running is not None:
        found["running"] = costs.running.on_mesh(space, RUNNING)
        if found["running"].initial_readout().size:
            what = "has parameters of its own, which only costs at given times and potentials can have"
            raise InputError(what, key=RUNNING, remedy="Fix them in the function.")
    return found


def check_time(time: TimeGrid) -> TimeGrid:
    """Raise InputError unless time is cut."""
    if not isinstance(time, TimeGrid):
        raise InputError("must be a TimeGrid(horizon, layers)", key="time", value=time)
    return time


def new_trajectory(
    found: Discretisation,
    groups: list[list[int]],
    squares: list[SquareColumns],
    grid: TimeGrid,
    memory: float,
    disk: tuple[float, Path | None],
    *,
    limited: bool,
) -> Trajectory:
    """What moves the densities of all groups of labels, and their squares beside them. **Collective**.

    Args:
        found: the problem on its mesh.
        groups: the labels that have one velocity.
        squares: of their densities.
        grid: how time is cut.
        memory: bytes for the adjoint, over all ranks.
        disk: bytes on disk, and the folder for them.
        limited: keep densities non-negative.

    Raises:
        InputError: the memory is too small for any adjoint sweep.
    """
    velocity_space, running = found.velocity_space, found.running

    def stepper(initial: Floats, power: Power | None = None) -> Stepper:
        space = velocity_space.density_space
        empty = max(EMPTY, _NEXT_TO_NOTHING * _least_mean(space, initial))
        columns = initial.shape[2]
        operator = TransportOperator(space, velocity_space, columns, found.smoothing, power=power, empty=empty)
        return Stepper(operator, limited=limited)

    steppers = [stepper(found.initial.coefficients[..., group]) for group in groups]
    # With operators of their own, for the source of a power is a part of its matrix.
    powers = [(each.group, each.initial, each.power(steppers[each.group].layout)) for each in squares]
    return Trajectory(
        steppers,
        grid,
        memory,
        running.nonlinear,
        powers=[(group, stepper(initial, power)) for group, initial, power in powers],
        moments=running.counts_time_left,
        derivatives=most_moments(grid.layers) if running.functionals else 0,
        disk=disk[0],
        disk_directory=disk[1],
    )


def _least_mean(space: DensitySpace, rho: Floats) -> float:
    """The least mean density over the domain of the columns that have mass. Collective."""
    masses = space.mass(rho)
    return float(np.min(masses, where=masses > 0.0, initial=masses.sum())) / space.volume
