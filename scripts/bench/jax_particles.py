"""Particle training with JAX, as fast as we could make it: what densities are held against.

A network with one hidden layer of tanh moves samples by Kutta's Runge-Kutta method of order 3; a gradient step, or
twenty, are one compiled call in float64. Costs of the density need the density at the particles. There are two ways:

* ``divergence``: log ρ along each path, from log ρ₀ and ∫div v. Exact, but only where all particles move in one flow.
* ``kernels``: a Gaussian kernel estimate from the particles themselves (Scott's bandwidth, the particle itself left
  out), at the price of N² pairs at every time step, and with the bias of the bandwidth.

JAX starts threads: whoever compares on one core must pin the process first (``one_core``).
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]
type Mixture = tuple[tuple[tuple[float, float], tuple[float, float]], ...]
type Trace = list[tuple[float, Floats]]  # seconds and θ


def one_core() -> None:
    """Keep this process on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@dataclass(frozen=True)
class Task:
    """A problem in plain numbers; unless said otherwise all lists have one entry per label.

    Attributes:
        means: of the initial Gaussians.
        std: theirs.
        targets: of the loss weight/2 |x − target|², or empty.
        weight: of that loss.
        kinetic: λ.
        horizon: T.
        congestion: γ of γ/2 ∫∫ρ².
        kl: (mean, standard deviations) of Gaussians, of equal weight, for KL(ρ(T) | them); or empty.
        l2: the same for ½‖ρ(T) − them‖².
        walls: closed polygons, or empty: the first is the domain's outline, the others are holes in it.
        hidden: width of the network.
        layers: L, with a network each; 0 for one network that sees the time.
    """

    means: tuple[tuple[float, float], ...]
    std: float
    targets: tuple[tuple[float, float], ...] = ()
    weight: float = 1.0
    kinetic: float = 0.5
    horizon: float = 1.0
    congestion: float = 0.0
    kl: Mixture = ()
    l2: Mixture = ()
    walls: tuple[tuple[tuple[float, float], ...], ...] = ()
    hidden: int = 16
    layers: int = 4

    @property
    def labels(self) -> int:
        """K."""
        return len(self.means)

    @property
    def inputs(self) -> int:
        """Of the network: coordinates, the label's unit vector if there are several, the time if it is seen."""
        return 2 + (self.labels if self.labels > 1 else 0) + (0 if self.layers else 1)

    def start(self, seed: int = 0) -> Floats:
        """Random hidden layers, and nothing behind them: (rows, p), rows laid out as eulerian's networks are."""
        rng = np.random.default_rng(seed)
        rows = []
        for _ in range(max(self.layers, 1)):
            weights = rng.standard_normal((self.hidden, self.inputs)) / np.sqrt(2.0)
            bias = rng.uniform(-1.0, 1.0, self.hidden)
            rows.append(np.concatenate([weights.ravel(), bias, np.zeros(2 * self.hidden + 2)]))
        return np.array(rows)


@dataclass(frozen=True)
class Setting:
    """How to train.

    Attributes:
        name: for the table.
        method: ``adam`` with fresh samples at every step, or ``lbfgs`` on samples that stay.
        samples: N of every label.
        rate: of Adam; it falls to a tenth over the run.
        density: ``divergence`` or ``kernels``.
        steps: Runge-Kutta steps over the horizon, a multiple of the layers.
        wall_weight: of the penalty of depth² behind walls.
    """

    name: str
    method: str
    samples: int
    rate: float = 1e-2
    density: str = "divergence"
    steps: int = 12
    wall_weight: float = 1e3


@dataclass
class Run:
    """What a training left.

    Attributes:
        compiling: seconds of it.
        trace: (seconds, θ) after that.
        levels: the level of each of these, where there are any.
    """

    compiling: float
    trace: Trace = field(default_factory=list)
    levels: list[int] = field(default_factory=list)


def train(task: Task, setting: Setting, seconds: float) -> Run:
    """Train for that long, compiling not counted."""
    import jax

    jax.config.update("jax_enable_x64", True)
    cost = cost_of(task, setting)
    return {"adam": adam, "lbfgs": lbfgs}[setting.method](task, setting, cost, seconds)


# -- the flow and its cost -------------------------------------------------------------------------------------------


def cost_of(task: Task, setting: Setting) -> Callable[[Any, Any], Any]:
    """J(θ, z) for normal samples z (K, N, 2)."""
    import jax
    import jax.numpy as jnp

    h, per_layer = task.horizon / setting.steps, setting.steps // max(task.layers, 1)
    means, one_hot = jnp.array(task.means), jnp.eye(task.labels)
    knows_density = task.congestion > 0.0 or bool(task.kl) or bool(task.l2)
    follows = knows_density and setting.density == "divergence"
    if follows and task.labels > 1:
        raise ValueError("the density of several flows cannot be followed along one")

    def speed(theta: Any, step: Any, t: Any, x: Any, label: Any) -> Any:
        row = theta[step // per_layer] if task.layers else theta[0]
        parts = [x] + ([label] if task.labels > 1 else []) + ([] if task.layers else [t[None]])
        n, m = task.hidden, task.inputs
        w1, b1 = row[: n * m].reshape(n, m), row[n * m : n * m + n]
        w2, b2 = row[n * m + n : -2].reshape(2, n), row[-2:]
        return w2 @ jnp.tanh(w1 @ jnp.concatenate(parts) + b1) + b2

    def rates(theta: Any, step: Any, t: Any, x: Any, label: Any) -> Any:
        """Velocity, divergence, and kinetic energy per mass."""
        v = speed(theta, step, t, x, label)
        if not follows:
            return v, 0.0, 0.5 * task.kinetic * v @ v
        jacobian = jax.jacfwd(lambda y: speed(theta, step, t, y, label))(x)
        return v, jnp.trace(jacobian), 0.5 * task.kinetic * v @ v

    each = jax.vmap(rates, in_axes=(None, None, None, 0, None))  # over particles
    every = jax.vmap(each, in_axes=(None, None, None, 0, 0))  # over labels

    def total_density(x: Any, log_rho: Any) -> Any:
        return jnp.exp(log_rho) if follows else kernel_density(x)

    def cost(theta: Any, z: Any) -> Any:
        x = means[:, None, :] + task.std * z
        log_rho = -0.5 * (z**2).sum(axis=2) - jnp.log(2.0 * jnp.pi * task.std**2)

        def advance(state: Any, step: Any) -> Any:
            x, log_rho, energy = state
            t = step * h
            a, da, ea = every(theta, step, t, x, one_hot)
            b, db, eb = every(theta, step, t + 0.5 * h, x + 0.5 * h * a, one_hot)
            c, dc, ec = every(theta, step, t + h, x + h * (2.0 * b - a), one_hot)
            charge = jnp.mean(h * (ea + 4.0 * eb + ec) / 6.0)
            if task.congestion:
                charge += h * 0.5 * task.congestion * jnp.mean(total_density(x, log_rho))
            if task.walls:
                charge += h * setting.wall_weight * jnp.mean(depth(x, task.walls) ** 2)
            x = x + h * (a + 4.0 * b + c) / 6.0
            return (x, log_rho - h * (da + 4.0 * db + dc) / 6.0, energy + charge), None

        (x, log_rho, charged), _ = jax.lax.scan(advance, (x, log_rho, 0.0), jnp.arange(setting.steps))
        return charged + terminal(task, setting, x, total_density(x, log_rho) if knows_density else None)

    return cost


def kernel_density(x: Any) -> Any:
    """The density of all particles (K, N, 2) at each of them, which is left out itself: (K, N)."""
    import jax.numpy as jnp

    k, n, _ = x.shape
    points = x.reshape(k * n, 2)
    spread = jnp.sqrt(jnp.mean(jnp.var(x, axis=1)))
    h2 = (spread * n ** (-1.0 / 6.0)) ** 2
    square = (points**2).sum(axis=1)
    distance = square[:, None] + square[None, :] - 2.0 * points @ points.T
    values = jnp.exp(-0.5 * distance / h2)
    return ((values.sum(axis=1) - 1.0) / (k * n - 1) / (2.0 * jnp.pi * h2)).reshape(k, n)


def terminal(task: Task, setting: Setting, x: Any, rho: Any) -> Any:
    """The loss of where the particles end."""
    import jax.numpy as jnp

    total = 0.0
    if task.targets:
        total += 0.5 * task.weight * jnp.mean(((x - jnp.array(task.targets)[:, None, :]) ** 2).sum(axis=2))
    if task.walls:
        total += setting.wall_weight * task.horizon * jnp.mean(depth(x, task.walls) ** 2)
    if task.kl:
        total += jnp.mean(jnp.log(rho + 1e-12) - log_density(x, task.kl))
    if task.l2:  # ½E ρ(X) − E ρ*(X), and ½∫ρ*², which is a number
        square = np.mean([overlap(a, b) for a in task.l2 for b in task.l2])
        total += 0.5 * jnp.mean(rho) - jnp.mean(jnp.exp(log_density(x, task.l2))) + 0.5 * square
    return total


def log_density(x: Any, mixture: Mixture) -> Any:
    """Of Gaussians with standard deviations along the axes."""
    import jax

    parts = []
    for mean, std in mixture:
        scaled = (x - np.array(mean)) / np.array(std)
        parts.append(-0.5 * (scaled**2).sum(axis=-1) - np.log(2.0 * np.pi * std[0] * std[1]))
    return jax.nn.logsumexp(jax.numpy.stack(parts), axis=0) - np.log(len(mixture))


def overlap(a: tuple[tuple[float, float], ...], b: tuple[tuple[float, float], ...]) -> float:
    """∫ of the product of two Gaussians."""
    variance = np.array(a[1]) ** 2 + np.array(b[1]) ** 2
    distance = np.array(a[0]) - np.array(b[0])
    return float(np.exp(-0.5 * np.sum(distance**2 / variance)) / (2.0 * np.pi * np.sqrt(np.prod(variance))))


def depth(x: Any, walls: Sequence[Sequence[tuple[float, float]]]) -> Any:
    """How far points (…, 2) are behind walls; 0 inside the domain."""
    import jax.numpy as jnp

    nearest, crossings = jnp.inf, 0
    for polygon in walls:
        corners = np.array(polygon)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            edge = b - a
            along = jnp.clip(((x - a) @ edge) / (edge @ edge), 0.0, 1.0)
            offset = x - a - along[..., None] * edge
            nearest = jnp.minimum(nearest, (offset**2).sum(axis=-1))
            if edge[1] != 0.0:  # a ray to the right crosses the edge
                between = (a[1] > x[..., 1]) != (b[1] > x[..., 1])
                crossings += between & (x[..., 0] < a[0] + (x[..., 1] - a[1]) / edge[1] * edge[0])
    outside = crossings % 2 == 0
    return jnp.where(outside, jnp.sqrt(jnp.where(outside, nearest, 1.0) + 1e-30), 0.0)


# -- training --------------------------------------------------------------------------------------------------------


def adam(task: Task, setting: Setting, cost: Callable[[Any, Any], Any], seconds: float) -> Run:
    """Adam on fresh samples, twenty steps to a call, until the time is over; the rate falls as the time passes."""
    import jax
    import optax

    optimiser = optax.inject_hyperparams(optax.adam)(learning_rate=setting.rate)
    shape = (task.labels, setting.samples, 2)
    slope = jax.grad(cost)

    @jax.jit
    def twenty(theta: Any, state: Any, key: Any) -> Any:
        def step(carry: Any, one: Any) -> Any:
            theta, state = carry
            updates, state = optimiser.update(slope(theta, jax.random.normal(one, shape)), state)
            return (optax.apply_updates(theta, updates), state), None

        key, *keys = jax.random.split(key, 21)
        return *jax.lax.scan(step, (theta, state), jax.numpy.array(keys))[0], key

    theta, key = jax.numpy.array(task.start()), jax.random.key(1)
    state = optimiser.init(theta)
    state.hyperparams["learning_rate"] = jax.numpy.array(setting.rate)
    started = time.perf_counter()
    compiled = twenty.lower(theta, state, key).compile()
    run = Run(time.perf_counter() - started)
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        state.hyperparams["learning_rate"] = jax.numpy.array(setting.rate * 0.1 ** (spent / seconds))
        theta, state, key = compiled(theta, state, key)
        found = np.asarray(theta)  # waits for the result
        run.trace.append((time.perf_counter() - started, found))
    return run


def lbfgs(task: Task, setting: Setting, cost: Callable[[Any, Any], Any], seconds: float) -> Run:
    """SciPy's L-BFGS-B on Sobol samples that stay the same, until the time is over."""
    import jax
    from scipy.optimize import minimize

    z = jax.numpy.array([normal_points(setting.samples, seed) for seed in range(task.labels)])
    start = task.start()
    both = jax.jit(jax.value_and_grad(cost))
    started = time.perf_counter()
    jax.block_until_ready(both(jax.numpy.array(start), z))
    run = Run(time.perf_counter() - started)
    started = time.perf_counter()

    def evaluate(flat: Floats) -> tuple[float, Floats]:
        value, gradient = both(jax.numpy.array(flat.reshape(start.shape)), z)
        return float(value), np.asarray(gradient, dtype=float).ravel()

    def follow(flat: Floats) -> None:
        spent = time.perf_counter() - started
        run.trace.append((spent, flat.reshape(start.shape).copy()))
        if spent > seconds:
            raise StopIteration

    minimize(
        evaluate,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=follow,
        options={"maxiter": 100_000, "maxfun": 10**6, "maxcor": 20},
    )
    return run


def normal_points(n: int, seed: int) -> Floats:
    """Scrambled Sobol points, normally distributed: (n, 2)."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    uniform = qmc.Sobol(2, seed=seed).random_base2(int(np.ceil(np.log2(n))))[:n]
    return np.asarray(ndtri(np.clip(uniform, 1e-12, 1.0 - 1e-12)))
