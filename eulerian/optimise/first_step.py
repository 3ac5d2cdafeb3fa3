"""The unit in which the first step of a descent, the unit step downhill, is a sensible one."""

import math

from eulerian.base.arrays import Floats
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.lbfgs_pairs import Curvature
from eulerian.optimise.metric import Metric


def in_sensible_unit(problem: ReducedProblem, metric: Metric, theta: Floats, value: float, gradient: Floats) -> Metric:
    """The metric in a unit in which a gradient is a step. Collective.

    σ² = |∇J|²/(2|J|): the step would halve a quadratic of minimum zero. Near a minimum that is far too long, so it is
    bounded by a change of the velocity that crosses the domain once. A wild first step may throw all mass into one
    cell, where the gradient says little and nothing leads back.

    Args:
        problem: J.
        metric: in any unit.
        theta: where the descent starts.
        value: J there.
        gradient: dJ/dθ there, in the shape of θ.
    """
    norm = metric.norm(gradient.ravel())
    if norm <= 0.0 or not abs(value) > 1e-12 * norm:
        return metric.times(max(norm, 1.0))
    unit = norm / math.sqrt(2.0 * abs(value))
    scaled = metric.times(unit)
    step = scaled.theta(scaled.gradient(gradient.ravel()))
    crossing = problem.extent / problem.horizon
    crossings = problem.velocity_change(theta, step) / crossing
    return metric.times(unit * math.sqrt(crossings)) if 1.0 < crossings < math.inf else scaled


def in_initial_hessian(metric: Metric, curvature: Curvature) -> Metric:
    """The metric in the unit in which the curvature of J along the last step is one."""
    step, slope = curvature.steps[-1], curvature.slopes[-1]
    return metric.times(metric.norm(slope) / math.sqrt(float(step @ slope)))
