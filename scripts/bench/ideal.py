"""Dynamic optimal transport between two Gaussians on finer and finer meshes: seconds, iterations, certified values.

    python scripts/bench/ideal.py
    mpirun -n 2 python -m mpi4py scripts/bench/ideal.py --vertices 33 65 --json ideal.json
    python scripts/bench/ideal.py --vertices 33 65 --congestion 0.01 --entropy 0.01

A Gaussian of standard deviation 0.1 in the unit square moves by 0.4 in 31 time slabs, until a certified relative gap of
1e-3 and residuals of 1e-4; on request with running costs of the density, for which no exact value is known. Prints a
table, and where the seconds of the largest problem went; ``--json`` keeps them.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.stats import truncnorm

from eulerian.builder import build_ideal
from eulerian.config import parse_config
from eulerian.ideal.advection import Advection
from eulerian.ideal.continuity import MomentumProblem
from eulerian.ideal.dynamic_ot import GapRecord, solve_convex
from eulerian.ideal.poisson import SpaceTimePoisson, WholeMesh
from eulerian.ideal.splitting import Splitting

MEANS, STD = ((0.3, 0.5), (0.7, 0.5)), 0.1
EXACT = 0.5 * 0.4**2  # λ/(2T) W² of two Gaussians of the same covariance, in the whole plane

# Times inside one another: the rest of a step is compiled loops, the rest of a check is that of a certificate.
SECTIONS = {
    "iterations": (Splitting, "step"),
    "of these, linear solves": (SpaceTimePoisson, "solve"),
    "factorisations": (SpaceTimePoisson, "__init__"),
    "mesh on every rank": (WholeMesh, "__init__"),
    "potential made feasible": (Splitting, "feasible_potential"),
    "certificate: densities carried": (Advection, "carry"),
    "certificate: momenta": (MomentumProblem, "cheapest"),
}


def exact_value(n: int = 20_000) -> float:
    """½W² of the two densities: products of cut off normal densities, of which only those in x differ."""
    levels = (np.arange(n) + 0.5) / n
    quantiles = [truncnorm.ppf(levels, -mean / STD, (1.0 - mean) / STD, mean, STD) for (mean, _) in MEANS]
    return float(0.5 * np.mean((quantiles[1] - quantiles[0]) ** 2))


def configuration(vertices: int, slabs: int, costs: dict[str, float]) -> dict[str, Any]:
    """The problem on vertices² vertices, with weights of running costs."""

    def gaussian(mean: tuple[float, float]) -> dict[str, Any]:
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


def run(vertices: int, slabs: int, costs: dict[str, float]) -> dict[str, Any]:
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


def report(results: list[dict[str, Any]]) -> None:
    """A table of everything, growth from row to row, and the sections of the last row."""
    names = [name for name in results[0] if name not in ("sections", "slabs", "ranks", "status")]
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in results:
        print(
            "| "
            + " | ".join(f"{row[name]:.5g}" if isinstance(row[name], float) else str(row[name]) for name in names)
            + " |"
        )
    last = results[-1]
    print(f"\nexact value without running costs {exact_value():.6g}; {last['slabs']} slabs, {last['ranks']} ranks")
    for name, key in (("time per iteration", "per_iteration_ms"), ("iterations", "iterations"), ("seconds", "seconds")):
        values = np.array([row[key] for row in results], dtype=float)
        growth = ", ".join(f"×{factor:.2g}" for factor in values[1:] / values[:-1])
        print(f"{name} from mesh to mesh: {growth}")
    print(f"\n{last['vertices']}² vertices, rank 0, of {last['seconds']:.2f} s:")
    for name, value in last["sections"].items():
        print(f"  {name:34s} {value:8.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vertices", type=int, nargs="+", default=[17, 33, 65, 129], help="per side")
    parser.add_argument("--slabs", type=int, default=31, help="time slabs (default 31)")
    parser.add_argument("--repeats", type=int, default=3, help="of problems of up to 65 per side; the fastest counts")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--congestion", type=float, default=0.0, help="γ of γ/2 ∫∫ρ²")
    parser.add_argument("--entropy", type=float, default=0.0, help="σ of σ ∫∫ρ log ρ")
    options = parser.parse_args()
    costs = {"congestion": options.congestion, "entropy": options.entropy}
    run(9, options.slabs, costs)  # compiles what has to be compiled
    results = []
    for vertices in options.vertices:
        repeats = options.repeats if vertices <= 65 else 1
        results.append(
            min((run(vertices, options.slabs, costs) for _ in range(repeats)), key=lambda row: row["seconds"])
        )
    if MPI.COMM_WORLD.rank == 0:
        report(results)
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
