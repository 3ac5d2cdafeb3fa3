"""Hold a problem against the laws that it must obey: Taylor remainder, transpose, mass, positivity."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import RejectedEvaluation
from eulerian.control.control import ControlProblem
from eulerian.transport.operator import TransportOperator
from eulerian.transport.sweep import Sweep

# Steps and random directions of the Taylor test; an odd number has a median.
HALVINGS = 3
DIRECTIONS = 5

# Of the search for a θ that moves something: how far relative to the domain, and trials.
WAY, MOST_HALVINGS = 0.1, 60


@dataclass(frozen=True)
class Nearby:
    """The laws of the gradient at a θ that moves something, near one that does not.

    Attributes:
        taylor_rates: as in ``Verification``.
        taylor_remainders: likewise.
        dot_error: likewise.
        speed: largest |v| there.
    """

    taylor_rates: list[float]
    taylor_remainders: list[float]
    dot_error: float
    speed: float


@dataclass(frozen=True)
class Verification:
    """The outcome of ``verify``.

    Attributes:
        taylor_rates: orders of J(θ + h d) − J(θ) − h ∇J·d between successive halvings of h; 2 for an exact gradient.
        taylor_remainders: those remainders; like the rates the median over random directions.
        dot_error: largest relative error of ⟨λ, Bρ⟩ = ⟨Bᵀλ, ρ⟩ over the layers.
        mass_error: largest relative change of a label's mass.
        min_density: smallest value at the limiter's points, over the ends of the layers.
        nearby: the gradient where something moves; None if that is so at θ, or nowhere near it.
    """

    taylor_rates: list[float]
    taylor_remainders: list[float]
    dot_error: float
    mass_error: float
    min_density: float
    nearby: Nearby | None = None


def verify(problem: ControlProblem, theta: ArrayLike, rng: np.random.Generator) -> Verification:
    """Check the problem at θ. Collective.

    Where nothing moves, the dot product is trivial and the gradient of a network vanishes but for its last layer: an
    error in any other derivative would not be seen. So there the gradient is checked at a random θ near it, too.

    Args:
        problem: J.
        theta: where; afterwards the problem's last evaluation is at θ again.
        rng: seeds the random directions; the same on all ranks.

    Raises:
        RejectedEvaluation: J cannot be evaluated at θ.
    """
    theta = np.asarray(theta, dtype=np.float64)
    if not math.isfinite(problem.value(theta)):
        raise RejectedEvaluation(problem.rejection or "J cannot be evaluated at θ")
    moving = _moving(problem, theta, np.random.default_rng(rng.integers(2**31))) if problem.at_rest else None
    remainders = taylor_remainders(problem, theta, rng)
    nearby = None if moving is None else _nearby(problem, moving, rng)
    problem.value(theta)
    statistics = problem.statistics
    return Verification(
        taylor_rates=taylor_rates(remainders),
        taylor_remainders=[float(r) for r in np.median(remainders, axis=0)],
        dot_error=dot_error(problem, rng),
        mass_error=statistics.mass_error,
        min_density=statistics.density_min,
        nearby=nearby,
    )


def _moving(problem: ControlProblem, theta: Floats, rng: np.random.Generator) -> Floats | None:
    """A random θ near one that moves nothing, with ways of at most ``WAY`` of the domain, or None. Collective."""
    change = rng.standard_normal(theta.shape)
    for _ in range(MOST_HALVINGS):
        speed = problem.velocity_change(theta, change)
        if speed == 0.0:
            return None
        if speed * problem.horizon <= WAY * problem.extent and math.isfinite(problem.value(theta + change)):
            return theta + change
        change *= 0.5
    return None


def _nearby(problem: ControlProblem, theta: Floats, rng: np.random.Generator) -> Nearby:
    """Collective."""
    remainders = taylor_remainders(problem, theta, rng)
    problem.value(theta)
    median = [float(r) for r in np.median(remainders, axis=0)]
    return Nearby(taylor_rates(remainders), median, dot_error(problem, rng), problem.speed)


def taylor_remainders(
    problem: ControlProblem, theta: Floats, rng: np.random.Generator, *, halvings: int = HALVINGS
) -> Floats:
    """|J(θ + h d) − J(θ) − h ∇J·d| for random directions d (rows) and h, h/2, …, h/2^halvings (columns). Collective.

    The step counts are held at those of θ: the gradient is that of J with its counts held, and J jumps by the (small)
    time error where one changes.
    """
    value, gradient = problem.value_and_gradient(theta)
    steps = problem.steps
    remainders = np.empty((DIRECTIONS, halvings + 1))
    for row in remainders:
        direction = rng.standard_normal(theta.shape)
        direction *= _first_step(problem, theta, direction)
        slope = float(np.vdot(gradient, direction))
        for i, h in enumerate(0.5 ** np.arange(halvings + 1)):
            row[i] = abs(problem.value_at_steps(theta + h * direction, steps) - value - h * slope)
    return remainders


def taylor_rates(remainders: Floats) -> list[float]:
    """Orders between successive remainders, (directions, steps): base-2 logarithms of their ratios.

    The median over the directions: the limiter has kinks, thousands of them, and a direction that crosses one says
    nothing about the gradient. Where a remainder vanishes J is affine, and the order is 2.
    """
    before, after = remainders[:, :-1], remainders[:, 1:]
    smooth = (before > 0.0) & (after > 0.0)
    rates = np.log2(np.where(smooth, before, 4.0) / np.where(smooth, after, 1.0))
    return [float(rate) for rate in np.median(rates, axis=0)]


def dot_error(problem: ControlProblem, rng: np.random.Generator) -> float:
    """Largest relative error of the transpose over the layers and velocities of the last evaluation. Collective."""
    return max(
        _dot_error(problem.sweep, layer, stepper.operator, rng)
        for stepper in problem.trajectory.steppers
        for layer in range(problem.n_layers)
    )


def _dot_error(sweep: Sweep, layer: int, operator: TransportOperator, rng: np.random.Generator) -> float:
    space = operator.density_space
    sweep.assemble(layer)
    seed = int(rng.integers(2**31))
    fields = []
    for offset in range(2):
        local = np.random.default_rng([seed, offset, space.comm.rank])  # ghosts get their owners' numbers below
        field = local.standard_normal((space.n_cells, space.nd, operator.columns))
        space.update_ghosts(field)
        fields.append(field)
    rho, lam = fields
    forward, backward = operator.apply(rho), operator.apply_transpose(lam)
    n = space.n_owned
    sums = np.array(
        [np.vdot(lam[:n], forward[:n]), np.vdot(backward[:n], rho[:n]), np.sum(forward**2), np.sum(lam[:n] ** 2)]
    )
    left, right, image, test = parallel.sum_all(space.comm, sums)
    scale = math.sqrt(image * test)
    return float(abs(left - right) / scale) if scale > 0.0 else 0.0


def _first_step(problem: ControlProblem, theta: Floats, direction: Floats) -> float:
    """The step h at which h d moves the velocity by a small part of its size, or of the smoothing δ. Collective.

    Where v vanishes, |v·n| is replaced by a smooth function that bends on the scale δ. Short steps cross few kinks of
    the limiter; the shortest one leaves a remainder of some 1e-12 J, well above rounding.
    """
    probe = 1e-6
    change = problem.velocity_change(theta, probe * direction) / probe
    speed = problem.velocity_change(np.zeros_like(theta), theta)
    return max(0.01 * problem.smoothing, 1e-5 * speed) / change if change > 0.0 else 1e-3
