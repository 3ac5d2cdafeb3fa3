"""Hold a problem against the laws that it must obey: Taylor remainder, transpose, mass, positivity."""

import itertools
import math
from dataclasses import dataclass

from eulerian import parallel
from eulerian.arrays import Floats
from eulerian.control import ControlProblem
from eulerian.errors import RejectedEvaluation

# isort: split
import numpy as np
from numpy.typing import ArrayLike

# Steps and random directions of the Taylor test.
HALVINGS = 4
DIRECTIONS = 4


@dataclass(frozen=True)
class Verification:
    """The outcome of ``verify``.

    Attributes:
        taylor_rates: orders of J(θ + h d) − J(θ) − h ∇J·d between successive halvings of h; 2 for an exact gradient.
        taylor_remainders: those remainders.
        dot_error: largest relative error of ⟨λ, Bρ⟩ = ⟨Bᵀλ, ρ⟩ over the layers.
        mass_error: largest relative change of a label's mass.
        min_density: smallest value at the limiter's points, over the ends of the layers.
    """

    taylor_rates: list[float]
    taylor_remainders: list[float]
    dot_error: float
    mass_error: float
    min_density: float


def verify(problem: ControlProblem, theta: ArrayLike, rng: np.random.Generator) -> Verification:
    """Check the problem at θ. Collective.

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
    remainders = taylor_remainders(problem, theta, rng)
    problem.value(theta)
    statistics = problem.statistics
    return Verification(
        taylor_rates=taylor_rates(remainders),
        taylor_remainders=remainders,
        dot_error=dot_error(problem, rng),
        mass_error=statistics.mass_error,
        min_density=statistics.density_min,
    )


def taylor_remainders(
    problem: ControlProblem, theta: Floats, rng: np.random.Generator, *, halvings: int = HALVINGS
) -> list[float]:
    """Root mean square of J(θ + h d) − J(θ) − h ∇J·d over random directions d, for h, h/2, …, h/2^halvings. Collective.

    The step counts are held at those of θ: the gradient is that of J with its counts held, and J jumps by the (small)
    time error where one changes. Several directions, because the limiter has kinks: each direction crosses some.
    """
    value, gradient = problem.value_and_gradient(theta)
    steps = problem.steps
    squares = np.zeros(halvings + 1)
    for _ in range(DIRECTIONS):
        direction = rng.standard_normal(theta.shape)
        direction *= _first_step(problem, theta, direction)
        slope = float(np.vdot(gradient, direction))
        for i, h in enumerate(0.5 ** np.arange(halvings + 1)):
            squares[i] += (problem.value_at_steps(theta + h * direction, steps) - value - h * slope) ** 2
    return [float(r) for r in np.sqrt(squares / DIRECTIONS)]


def taylor_rates(remainders: list[float]) -> list[float]:
    """Base-2 logarithms of the ratios of successive remainders; 2 where a remainder vanishes (J is affine there)."""
    pairs = itertools.pairwise(remainders)
    return [math.log2(a / b) if a > 0.0 and b > 0.0 else 2.0 for a, b in pairs]


def dot_error(problem: ControlProblem, rng: np.random.Generator) -> float:
    """Largest relative error of the transpose over the layers of the last evaluation. Collective."""
    return max(_dot_error(problem, layer, rng) for layer in range(problem.n_layers))


def _dot_error(problem: ControlProblem, layer: int, rng: np.random.Generator) -> float:
    space, trajectory = problem.density_space, problem.trajectories[0]
    operator = trajectory.operator
    trajectory.assemble(layer)
    seed = int(rng.integers(2**31))
    fields = []
    for offset in range(2):
        local = np.random.default_rng([seed, offset, space.comm.rank])
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
    """The step h at which h d moves the velocity by a hundredth of its size, or by the flux smoothing δ. Collective.

    Where v vanishes, |v·n| is replaced by a smooth function that bends on the scale δ: with longer steps the remainder
    would show the kink. Elsewhere longer steps cross many kinks of the limiter, whose sum is of second order, rather
    than a few, which is noise.
    """
    probe = 1e-6
    change = problem.velocity_change(theta, probe * direction) / probe
    speed = problem.velocity_change(np.zeros_like(theta), theta)
    return max(problem.smoothing, 0.01 * speed) / change if change > 0.0 else 1e-3
