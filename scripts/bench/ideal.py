"""The convex solver against its size: dynamic optimal transport between two Gaussians on finer and finer meshes.

    python scripts/bench/ideal.py

A Gaussian of standard deviation 0.1 in the unit square moves by 0.4 in 31 time slabs, until a certified relative gap of
1e-3 and residuals of 1e-4, on one rank and on two; and once with running costs of the density, for which no exact value
is known. The file of results tells for every problem where its seconds went.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.stats import truncnorm
from suite import Benchmark, Report, Runner, Table, main, slope

from eulerian.app.build.network import build_ideal
from eulerian.app.config import parse_config
from eulerian.ideal.advection import Advection
from eulerian.ideal.continuity import MomentumProblem
from eulerian.ideal.dynamic_ot import GapRecord, solve_convex
from eulerian.ideal.label_solution import LabelSolution
from eulerian.ideal.poisson import GatheredMesh, SpaceTimePoisson
from eulerian.ideal.splitting import Splitting

MEANS, STD = ((0.3, 0.5), (0.7, 0.5)), 0.1
EXACT = 0.5 * 0.4**2  # λ/(2T) W² of two Gaussians of the same covariance, in the whole plane

# Times inside one another: the rest of a step is compiled loops, the rest of a check is that of a certificate.
SECTIONS = {
    "iterations": (Splitting, "step"),
    "of these, linear solves": (SpaceTimePoisson, "solve"),
    "factorisations": (SpaceTimePoisson, "__init__"),
    "mesh on every rank": (GatheredMesh, "__init__"),
    "potential made feasible": (Splitting, "feasible_potential"),
    "certificate: potential lowered": (LabelSolution, "lower"),
    "certificate: densities carried": (Advection, "carry"),
    "certificate: momenta": (MomentumProblem, "cheapest"),
}


def exact_value(n: int = 20_000) -> float:
    """½W² of the two densities: products of cut off normal densities, of which only those in x differ."""
    levels = (np.arange(n) + 0.5) / n
    quantiles = [truncnorm.ppf(levels, -mean / STD, (1.0 - mean) / STD, mean, STD) for (mean, _) in MEANS]
    return float(0.5 * np.mean((quantiles[1] - quantiles[0]) ** 2))


def configuration(vertices: int, slabs: int, costs: dict[str, float]) -> Table:
    """The problem on vertices² vertices, with weights of running costs."""

    def gaussian(mean: tuple[float, float]) -> Table:
        return {"kind": "gaussian", "mean": list(mean), "std": STD}

    return {
        "domain": {"box": {"lower": [0.0, 0.0], "upper": [1.0, 1.0], "cells": [vertices - 1] * 2}},
        "density": {"initial": [gaussian(MEANS[0])]},
        "field": {"kind": "free", "layers": slabs},
        "objective": {"kinetic": 1.0, **costs, "terminal": {"kind": "fixed", "target": [gaussian(MEANS[1])]}},
        "ideal": {"layers": slabs},
    }


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds in every section while the block runs, on this rank."""
    spent = dict.fromkeys(SECTIONS, 0.0)
    originals = {name: getattr(owner, method) for name, (owner, method) in SECTIONS.items()}

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started

        return run

    try:
        for name, (owner, method) in SECTIONS.items():
            setattr(owner, method, watched(name, originals[name]))
        yield spent
    finally:
        for name, (owner, method) in SECTIONS.items():
            setattr(owner, method, originals[name])


def run(vertices: int, slabs: int, costs: dict[str, float]) -> Table:
    """One solution, and what it took. Collective."""
    comm = MPI.COMM_WORLD
    comm.barrier()
    started = time.perf_counter()
    problem = build_ideal(parse_config(configuration(vertices, slabs, costs), "."))
    comm.barrier()
    built = time.perf_counter()
    records: list[GapRecord] = []
    with timed() as spent:
        solution = solve_convex(problem, callback=records.append)
    seconds = comm.bcast(time.perf_counter() - built, 0)
    pace = [
        (after.seconds - before.seconds) / (after.iteration - before.iteration)
        for before, after in itertools.pairwise(records)
    ]
    iteration = statistics.median(pace) if pace else records[0].seconds / records[0].iteration
    return {
        "vertices": vertices,
        "slabs": slabs,
        "ranks": comm.size,
        "status": solution.status,
        "build": round(built - started, 3),
        "setup": round(max(0.0, records[0].seconds - records[0].iteration * iteration), 3),
        "per_iteration_ms": round(1e3 * iteration, 2),
        "iterations": solution.iterations,
        "seconds": round(seconds, 3),
        "primal": solution.primal,
        "dual": solution.dual,
        "relative_gap": solution.relative_gap,
        "residual": solution.residual,
        **({} if any(costs.values()) else {"above_exact": solution.primal / exact_value() - 1.0}),
        "sections": {name: round(value, 3) for name, value in spent.items()},
    }


def work(vertices: int, slabs: int, repeats: int, congestion: float = 0.0, entropy: float = 0.0) -> Table:
    """The fastest of some solutions, after a small one that compiles what has to be compiled. Collective."""
    costs = {"congestion": congestion, "entropy": entropy}
    run(9, slabs, costs)
    return min((run(vertices, slabs, costs) for _ in range(repeats)), key=lambda row: float(row["seconds"]))


def measure(runner: Runner) -> Report:
    """Growth on one rank and on two, then running costs."""
    report = Report()
    sizes, slabs = ((9, 17), 7) if runner.quick else ((17, 33, 65, 129), 31)
    for ranks, where in ((1, "1 rank"), (2, "2 ranks")):
        found = []
        for vertices in sizes:
            case = {"vertices": vertices, "slabs": slabs, "repeats": 3 if vertices < 65 else 1}
            figure = f"ideal, {vertices}² vertices, {where}"
            if row := runner.attempt(report, figure, case, ranks=ranks):
                found.append(row)
                report.add(figure, row["seconds"], unit="s", note=told(row))
        if len(found) > 1:
            grown = slope([row["vertices"] ** 2 for row in found], [row["per_iteration_ms"] for row in found])
            report.add(f"  growth of an iteration with the vertices, {where}", grown, note="exponent")
        report.data[where] = found
    case = {"vertices": sizes[-2], "slabs": slabs, "repeats": 1, "congestion": 0.01, "entropy": 0.01}
    figure = f"ideal with congestion and entropy, {sizes[-2]}² vertices"
    if row := runner.attempt(report, figure, case):
        report.add(figure, row["seconds"], unit="s", note=told(row))
        report.data["running costs"] = row
    return report


def told(row: Table) -> str:
    """One solution in words."""
    words = f"{row['iterations']} iterations of {row['per_iteration_ms']:.3g} ms, {row['status']}; "
    words += f"primal {row['primal']:.6g}, dual {row['dual']:.6g}"
    return words + (f", {row['above_exact']:+.2%} from the exact value" if "above_exact" in row else "")


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
