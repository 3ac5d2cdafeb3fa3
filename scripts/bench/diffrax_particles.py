"""J and ∇J of particles by diffrax beside the fixed steps that ``particles.py`` calls tuned: what the latter stand for.

    pip install --no-deps --target rivals diffrax equinox lineax optimistix jaxtyping
    python scripts/bench/diffrax_particles.py --rivals rivals

The Gaussian of ``particles.py`` that is called to a point, and its network with 16 neurons that sees the time, at
random θ; 64 particles and 4 steps, 500 and 10, 4096 and 12, in float64. Ours are Kutta's steps of order 3, written out.
diffrax takes as many of Bogacki and Shampine's, also of order 3, and adaptive ones of Tsitouras to 1e-6. It
differentiates through its steps, as it does where nothing is said (``RecursiveCheckpointAdjoint``). All are compiled
before. Processor seconds of one core, in turns, of a hundred gradients each; medians of five runs and their range.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax_particles import Setting, Task, cost_of, normal_points, one_core, terminal
from suite import Benchmark, Report, Runner, Table, main, ratios

TASK = Task(means=((-0.5, 0.3),), std=0.5, targets=((1.0, -0.5),), kinetic=0.5, layers=0)
SIZES = ((64, 4), (500, 10), (4096, 12))
RUNS = 5


def by_diffrax(setting: Setting, *, adaptive: bool) -> Callable[[Any, Any], Any]:
    """J(θ, z) as ``cost_of``, integrated by diffrax."""
    import diffrax
    import jax.numpy as jnp

    n, m = TASK.hidden, TASK.inputs

    def rates(t: Any, state: Any, theta: Any) -> Any:
        x, row = state[0], theta[0]
        w1, b1 = row[: n * m].reshape(n, m), row[n * m : n * m + n]
        w2, b2 = row[n * m + n : -2].reshape(2, n), row[-2:]
        seen = jnp.concatenate([x, jnp.full((len(x), 1), t)], axis=1)
        v = jnp.tanh(seen @ w1.T + b1) @ w2.T + b2
        return v, 0.5 * TASK.kinetic * jnp.mean((v**2).sum(axis=1))

    def cost(theta: Any, z: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            diffrax.Tsit5() if adaptive else diffrax.Bosh3(),
            0.0,
            TASK.horizon,
            None if adaptive else TASK.horizon / setting.steps,
            (jnp.array(TASK.means)[0] + TASK.std * z[0], jnp.array(0.0)),
            theta,
            stepsize_controller=diffrax.PIDController(1e-6, 1e-6) if adaptive else diffrax.ConstantStepSize(),
            max_steps=256 if adaptive else setting.steps,
        )
        x, energy = solution.ys
        return energy[-1] + terminal(TASK, setting, x[-1][None], None)

    return cost


def work(samples: int, steps: int, repeats: int, runs: int) -> Table:
    """Seconds of every method, and how far its J and ∇J are from those of many steps."""
    one_core()
    import jax

    jax.config.update("jax_enable_x64", True)
    setting = Setting("", "lbfgs", samples, steps=steps)
    costs = {
        "ours": cost_of(TASK, setting),
        "diffrax, fixed": by_diffrax(setting, adaptive=False),
        "diffrax, adaptive": by_diffrax(setting, adaptive=True),
    }
    start = TASK.start()
    theta = jax.numpy.array(start + 0.3 * np.random.default_rng(1).normal(size=start.shape))
    z = jax.numpy.array(normal_points(samples, 0))[None]
    exact = jax.value_and_grad(cost_of(TASK, Setting("", "lbfgs", samples, steps=200)))(theta, z)
    found: dict[str, Table] = {}
    compiled = {}
    for name, cost in costs.items():
        began = time.process_time()
        compiled[name] = jax.jit(jax.value_and_grad(cost))
        J, slope = jax.block_until_ready(compiled[name](theta, z))
        error = float(np.linalg.norm(slope - exact[1]) / np.linalg.norm(exact[1]))
        found[name] = {"compiling": time.process_time() - began, "gradient_error": error, "seconds": []}
        found[name]["value_error"] = float(abs(J / exact[0] - 1.0))
    for _ in range(1 + runs):
        for name, function in compiled.items():
            began = time.process_time()
            for _ in range(repeats):
                jax.block_until_ready(function(theta, z))
            found[name]["seconds"].append((time.process_time() - began) / repeats)
    for row in found.values():
        del row["seconds"][0]
    return found


def measure(runner: Runner) -> Report:
    """diffrax over ours, for every size."""
    report = Report()
    for samples, steps in SIZES[: 1 if runner.quick else None]:
        case = {"samples": samples, "steps": steps, "repeats": 10 if runner.quick else 100, "runs": RUNS}
        figure = f"{samples} particles, {steps} steps"
        found = runner.attempt(report, figure, case)
        for name, row in found.items():
            if name != "peak_memory":
                note = f"error of ∇J {row['gradient_error']:.1e}; compiling {row['compiling']:.2g} s"
                report.add(f"{figure}: {name}", [1e3 * s for s in row["seconds"]], unit="ms", note=note)
                if name != "ours":
                    report.add("  over ours", ratios(row["seconds"], found["ours"]["seconds"]))
        report.data[figure] = found
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
