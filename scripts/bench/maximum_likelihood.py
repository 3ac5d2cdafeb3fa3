"""Flows of others, trained by maximum likelihood with Adam: a neural spline flow and a continuous normalising flow.

The spline flow is flowjax's (Durkan et al. 2019, arXiv:1906.04032): coupling layers of rational quadratic splines. The
continuous flow (Chen et al. 2018, arXiv:1806.07366) is a network of (x, t) that diffrax integrates; in the plane its
divergence is exact. Both are compiled, run on one core in float32 as is usual for them, and are timed in seconds of the
processor; compiling is told apart.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from point_sets import Floats

STEPS_PER_CALL = 10
INSTALL = "pip install --no-deps --target rivals flowjax diffrax lineax optimistix paramax"


@dataclass(frozen=True)
class Setting:
    """How to train.

    Attributes:
        kind: ``spline`` or ``cnf``.
        rate: of Adam; it falls to a tenth over the training, exponentially.
        batch: points for a step; all of them where there are no more.
        decay: of the weights (AdamW).
        width: of the hidden layers.
        depth: how many of them; in every coupling layer of a spline flow.
        layers: coupling layers of a spline flow.
        knots: of a spline.
        steps: Runge-Kutta steps (Tsitouras's, order 5) of a continuous flow while it is trained; 0 for error control by
            Dormand's and Prince's pair with a tolerance of 1e-5, as is usual, with which likelihoods are told.
        kinetic: weight of ∫|v|² dt in the loss of a continuous flow (Finlay et al. 2020, arXiv:2002.02798).
    """

    kind: str
    rate: float
    batch: int = 256
    decay: float = 0.0
    width: int = 64
    depth: int = 2
    layers: int = 6
    knots: int = 8
    steps: int = 5
    kinetic: float = 0.0

    @property
    def words(self) -> str:
        """For tables."""
        network = f"{self.depth} × {self.width}"
        if self.kind == "spline":
            decay = f", decay {self.decay:g}" if self.decay else ""
            return f"{self.layers} layers, {self.knots} knots, {network}, rate {self.rate:g}{decay}"
        solver = f"{self.steps} steps" if self.steps else "Dormand–Prince 1e-5"
        energy = f", λ = {self.kinetic:g}" if self.kinetic else ""
        return f"{network}, {solver}, rate {self.rate:g}{energy}"


@dataclass(frozen=True)
class LoadedRun:
    """What a training left.

    Attributes:
        compiling: seconds before the first step.
        seconds: of the processor after which each of ``parameters`` was there.
        parameters: of the flow, whatever they are.
        log_density: of parameters and points (n, 2), (n,).
    """

    compiling: float
    seconds: list[float]
    parameters: list[Any]
    log_density: Callable[[Any, Floats], Floats]


def train(setting: Setting, points: Floats, seconds: float, snapshots: int) -> LoadedRun:
    """Train for that long.

    Args:
        setting: how.
        points: (n, 2).
        seconds: of the processor, compiling not counted.
        snapshots: how often parameters are kept, at times that grow geometrically.
    """
    check_packages(setting.kind)
    import equinox as eqx
    import jax
    import optax

    model, loss, exact = {"spline": spline_flow, "cnf": continuous_flow}[setting.kind](setting)
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    optimiser = optax.inject_hyperparams(optax.adamw)(learning_rate=setting.rate, weight_decay=setting.decay)
    data = jax.numpy.array(points, dtype="float32")
    batch = min(setting.batch, len(points))

    @jax.jit
    def several(parameters: Any, state: Any, key: Any) -> Any:
        def one(carry: Any, key: Any) -> Any:
            parameters, state = carry
            chosen = data if batch == len(data) else data[jax.random.choice(key, len(data), (batch,), replace=False)]
            slope = jax.grad(lambda free: loss(eqx.combine(free, static), chosen))(parameters)
            updates, state = optimiser.update(slope, state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        key, *keys = jax.random.split(key, STEPS_PER_CALL + 1)
        return *jax.lax.scan(one, (parameters, state), jax.numpy.array(keys))[0], key

    state, key = optimiser.init(parameters), jax.random.key(1)
    started = time.process_time()
    state.hyperparams["learning_rate"] = jax.numpy.array(setting.rate, dtype="float32")
    compiled = several.lower(parameters, state, key).compile()
    compiling = time.process_time() - started
    marks = iter([*np.geomspace(seconds / 100.0, seconds, snapshots), np.inf])
    kept: list[tuple[float, Any]] = []
    started, mark, spent = time.process_time(), next(marks), 0.0
    while spent < seconds:
        rate = setting.rate * 0.1 ** (spent / seconds)
        state.hyperparams["learning_rate"] = jax.numpy.array(rate, dtype="float32")
        parameters, state, key = jax.block_until_ready(compiled(parameters, state, key))
        spent = time.process_time() - started
        if spent >= mark:
            kept.append((spent, parameters))
            while spent >= mark:
                mark = next(marks)
    density = jax.jit(lambda free, x: exact(eqx.combine(free, static), x))

    def log_density(free: Any, x: Floats) -> Floats:
        return np.asarray(density(free, jax.numpy.array(x, dtype="float32")), dtype=np.float64)

    return LoadedRun(compiling, [when for when, _ in kept], [free for _, free in kept], log_density)


def check_packages(kind: str) -> None:
    """That those of others are there.

    Raises:
        ImportError: with what to install.
    """
    for name in ("equinox", "jax", "optax", {"spline": "flowjax", "cnf": "diffrax"}[kind]):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"there is no {name}: pip install '.[jax]'; {INSTALL}, and --rivals rivals")


def spline_flow(setting: Setting) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """The flow, its loss for points, and its log-density at points."""
    import jax
    import paramax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow

    flow = coupling_flow(
        jax.random.key(0),
        base_dist=Normal(jax.numpy.zeros(2)),
        transformer=RationalQuadraticSpline(knots=setting.knots, interval=4.0),
        flow_layers=setting.layers,
        nn_width=setting.width,
        nn_depth=setting.depth,
    )

    def log_density(flow: Any, x: Any) -> Any:
        return paramax.unwrap(flow).log_prob(x)

    return flow, lambda flow, x: -log_density(flow, x).mean(), log_density


def continuous_flow(setting: Setting) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """The flow, its loss for points, and its log-density at points, by error control."""
    import diffrax
    import equinox as eqx
    import jax

    network = eqx.nn.MLP(3, 2, setting.width, setting.depth, jax.numpy.tanh, key=jax.random.key(0))
    controlled = diffrax.PIDController(rtol=1e-5, atol=1e-5)

    def rates(t: Any, state: Any, network: Any) -> Any:
        """Velocity, divergence and |v|² at states (n, 4)."""

        def velocity(x: Any) -> Any:
            v = network(jax.numpy.append(x, t))
            return v, v

        def each(x: Any) -> Any:
            jacobian, v = jax.jacfwd(velocity, has_aux=True)(x)
            return jax.numpy.concatenate([v, jax.numpy.trace(jacobian)[None], (v @ v)[None]])

        return jax.vmap(each)(state[:, :2])

    def carried(network: Any, x: Any, *, controlling: bool) -> Any:
        solver = diffrax.Dopri5() if controlling else diffrax.Tsit5()
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            solver,
            0.0,
            1.0,
            None if controlling else 1.0 / setting.steps,
            jax.numpy.pad(x, ((0, 0), (0, 2))),
            network,
            stepsize_controller=controlled if controlling else diffrax.ConstantStepSize(),
            max_steps=256 if controlling else setting.steps,
        )
        end = solution.ys[-1]
        log_density = end[:, 2] - 0.5 * (end[:, :2] ** 2).sum(axis=1) - np.log(2.0 * np.pi)
        return log_density, end[:, 3]

    def loss(network: Any, x: Any) -> Any:
        log_density, energy = carried(network, x, controlling=not setting.steps)
        return (0.5 * setting.kinetic * energy - log_density).mean()

    return network, loss, lambda network, x: carried(network, x, controlling=True)[0]
