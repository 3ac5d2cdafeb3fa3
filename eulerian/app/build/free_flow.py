"""What the flow of the convex solver is worth by itself, whatever its mesh says."""

from dataclasses import replace

from eulerian.analysis.characteristics import verify
from eulerian.app.build.network import terminal_cost
from eulerian.app.config import Config
from eulerian.base.errors import EulerianError
from eulerian.bounds.bracket import ContinuousBounds
from eulerian.control.control import ControlProblem
from eulerian.fields.nodal import Nodal
from eulerian.ideal.dynamic_ot import ConvexSolution
from eulerian.ideal.flow import nodal_theta
from eulerian.ideal.problem import IdealProblem
from eulerian.transport.time_grid import TimeGrid
from eulerian.transport.velocity_space import VelocitySpace


def with_flow_cost(
    config: Config, problem: IdealProblem, solution: ConvexSolution, bounds: ContinuousBounds
) -> ContinuousBounds:
    """A bracket that the cost of the convex solver's flow, by characteristics, closes from above. **Collective**.

    Args:
        config: of the problem.
        problem: the idealised one.
        solution: of the convex solver; v = −∇φ/λ is recovered at the nodes of a finite-element space.
        bounds: of its value.
    """
    if problem.functional.is_constraint:  # the flow misses the target, by however little
        return bounds
    try:
        cost, error = _cost(config, problem, solution)
    except EulerianError:  # too fast for the steps that are allowed, or no value at the walls
        return bounds
    upper = cost + error
    return replace(bounds, upper=upper) if upper < bounds.upper else bounds


def _cost(config: Config, problem: IdealProblem, solution: ConvexSolution) -> tuple[float, float]:
    """J of the flow itself, and its error, absolute. Collective."""
    space, objective = problem.space, config.objective
    velocity_space = VelocitySpace(space)
    several = space.n_labels > 1
    field = Nodal(velocity_space.all_nodes(), n_labels=space.n_labels if several else 0)
    control = ControlProblem(
        space,
        field,
        problem.density,
        terminal_cost(config, space),
        replace(objective.costs(), jacobian=0.0, parameters=0.0, parameters_h1=0.0),
        TimeGrid(problem.horizon, problem.slabs),
        label_dependent=several,
        velocity_space=velocity_space,
    )
    found = verify(control, nodal_theta(solution.flow, field, velocity_space, problem.slabs))
    total = found.objective["total"]
    return total, found.own_error * abs(total)
