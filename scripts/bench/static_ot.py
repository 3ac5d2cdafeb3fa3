"""Static optimal transport: ½W² of two Gaussians by eulerian, POT and OTT-JAX, error against seconds of one core.

    pip install --no-deps --target rivals POT ott-jax lineax jaxopt
    python scripts/bench/static_ot.py --rivals rivals

The problem of ``ideal.py``: a Gaussian of standard deviation 0.1, cut off at the unit square, moves by 0.4. Both are
products of densities on the line, so the exact value is known. POT and OTT-JAX are given the masses of n² equal squares
at their centres; 0.4 is no multiple of the width of a square, so that no method gains by points that meet.

* eulerian, convex solver: on n² squares, each cut in two, with 31 time slabs, to a certified relative gap of 1e-3. Its
  primal value is that of a path of densities; both of its values are those of the discrete problem.
* eulerian, bounds: the bracket of the continuous problem (``continuous_bounds``), which no mesh enters but by the box.
* POT, exact: the network simplex (``ot.emd2``) on the n⁴ costs. Its result is that of points, and a plan.
* Sinkhorn's iterations with the weight ε of the entropy, by POT (``ot.sinkhorn2``) on the n⁴ costs, and by OTT-JAX on a
  grid, whose kernel is a product. What they tell is the cost of their plan. "Debiased" is Sinkhorn's divergence, three
  such problems: for two Gaussians of one shape the bias of the entropy falls out altogether.

Seconds are those of the processor, of a process that is bound to one core, after a first run that is not counted (it
compiles). Medians of five runs, and their range. Beside them stand the peak memory of the process, and for JAX the
seconds of the first run. Leaves ``static_ot.json`` in the output folder.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ideal import MEANS, STD, configuration, exact_value
from jax_particles import one_core
from numpy.typing import NDArray
from scipy.stats import truncnorm
from suite import Benchmark, Report, Runner, Table, main

type Floats = NDArray[np.float64]

CONVEX, BRACKET = "eulerian, convex solver", "eulerian, bounds"
SIMPLEX, POT, OTT, DEBIASED = "POT, exact", "POT, Sinkhorn", "OTT-JAX, Sinkhorn", "OTT-JAX, debiased"
SLABS = 31
RUNS = 5
SIDES = {CONVEX: (16, 32, 64, 128), BRACKET: (32,), SIMPLEX: (16, 32, 64), POT: (16, 32, 64), OTT: (16, 32, 64, 128)}
SIDES[DEBIASED] = SIDES[POT]
EPSILONS = (1e-2, 1e-3)


def masses(side: int) -> tuple[Floats, Floats]:
    """Of both densities in side² squares, each (side²,)."""
    edges = np.linspace(0.0, 1.0, side + 1)

    def along(mean: float) -> Floats:
        return np.diff(truncnorm.cdf(edges, -mean / STD, (1.0 - mean) / STD, mean, STD))

    first, second = (np.multiply.outer(along(x), along(y)).ravel() for x, y in MEANS)
    return first, second


def centres(side: int) -> Floats:
    """Of the squares along a side, (side,)."""
    return (np.arange(side) + 0.5) / side


# -- methods: each is a function without arguments that gives a value, or two for a bracket --------------------------


def convex_solver(side: int) -> list[float]:
    """Dual and primal value of the discrete problem."""
    from eulerian.app.build.network import build_ideal
    from eulerian.app.config import parse_config
    from eulerian.ideal.dynamic_ot import solve_convex

    solution = solve_convex(build_ideal(parse_config(configuration(side + 1, SLABS, {}), ".")))
    return [solution.dual, solution.primal]


def bracket(side: int) -> list[float]:
    """Lower and upper bound of the continuous problem, less and plus their error."""
    from eulerian import continuous_bounds
    from eulerian.app.build.network import build_ideal
    from eulerian.app.config import parse_config

    found = continuous_bounds(build_ideal(parse_config(configuration(side + 1, SLABS, {}), ".")))
    assert found.upper is not None
    return [found.lower - found.error, found.upper + found.error]


def of_points(side: int, epsilon: float | None) -> list[float]:
    """By POT: exact without ε."""
    import ot

    first, second = masses(side)
    points = np.stack(np.meshgrid(centres(side), centres(side), indexing="ij"), axis=-1).reshape(-1, 2)
    costs = ot.dist(points, points)
    if epsilon is None:
        return [0.5 * float(ot.emd2(first, second, costs, numItermax=10_000_000))]
    return [0.5 * float(ot.sinkhorn2(first, second, costs, epsilon, stopThr=1e-6, numItermax=20_000))]


def of_grid(side: int, epsilon: float, *, debiased: bool) -> Callable[[], list[float]]:
    """By OTT-JAX, compiled once."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from ott.geometry import costs, grid
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    geometry = grid.Grid(x=[jax.numpy.asarray(centres(side))] * 2, cost_fns=[costs.SqEuclidean()], epsilon=epsilon)
    solver = sinkhorn.Sinkhorn(threshold=1e-4, max_iterations=20_000)

    @jax.jit
    def solve(first: Any, second: Any) -> Any:
        def regularised(a: Any, b: Any) -> Any:
            return solver(linear_problem.LinearProblem(geometry, a, b))

        found = regularised(first, second)
        if not debiased:
            return found.primal_cost
        own = [regularised(each, each).reg_ot_cost for each in (first, second)]
        return found.reg_ot_cost - 0.5 * (own[0] + own[1])

    first, second = masses(side)
    return lambda: [0.5 * float(solve(first, second))]


def method_of(method: str, side: int, epsilon: float | None) -> Callable[[], list[float]]:
    """What is timed."""
    if method == CONVEX:
        return lambda: convex_solver(side)
    if method == BRACKET:
        return lambda: bracket(side)
    if method in {SIMPLEX, POT}:
        return lambda: of_points(side, epsilon)
    assert epsilon is not None
    return of_grid(side, epsilon, debiased=method == DEBIASED)


def work(method: str, side: int, epsilon: float | None = None, runs: int = RUNS) -> Table:
    """Values, and the seconds of the first run and of the others."""
    one_core()
    solve = method_of(method, side, epsilon)
    values: list[float] = []
    seconds = []
    for _ in range(1 + runs):
        started = time.process_time()
        values = solve()
        seconds.append(time.process_time() - started)
    errors = [value / exact_value() - 1.0 for value in values]
    return {"values": values, "errors": errors, "first": seconds[0], "seconds": seconds[1:]}


def measure(runner: Runner) -> Report:
    """A row for each method, size and ε."""
    report = Report(data={"exact": exact_value(), "rows": []})
    for method, sides in SIDES.items():
        entropic = method in {POT, OTT, DEBIASED}
        for epsilon in EPSILONS if entropic else (None,):
            for side in sides[:1] if runner.quick else sides:
                figure = f"{method}{f' ε = {epsilon:g}' if epsilon else ''}, {side}²"
                case = {"method": method, "side": side, "epsilon": epsilon, "runs": 1 if runner.quick else RUNS}
                if row := runner.attempt(report, figure, case):
                    report.add(figure, row["seconds"], unit="s", note=told(row))
                    report.data["rows"].append({**case, **row})
    return report


def told(row: Table) -> str:
    """Errors and memory in words."""
    errors = " … ".join(f"{error:+.3%}" for error in row["errors"])
    return f"error {errors}; {row['peak_memory'] / 2**20:.0f} MiB; the first time {row['first']:.2g} s"


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
