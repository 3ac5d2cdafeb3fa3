"""Training on one mesh against training from coarse meshes to fine ones (`optimiser.levels`), to the same true J.

    python scripts/bench/levels.py

Both are `eulerian train` with the same finest mesh and the same limit of iterations. J is that of the network itself,
by characteristics, of the θ of every iteration. The one mesh is there when it first comes within 10⁻³ or 10⁻⁴
(relative) of the lowest J that it finds, the levels when they first come as low: on any level, and on the finest.
Seconds are counted from the start of the set-up of all levels, the finest included. Nothing is drawn or written
meanwhile.
"""

import statistics
import tomllib
from pathlib import Path

import training
from suite import Benchmark, Report, Runner, Table, at_least, main

from eulerian import build
from eulerian.analysis.characteristics import TrueObjective
from eulerian.app.config import parse_config

GOAL = at_least(3.0)
CLOSE = (1e-3, 1e-4)

PROBLEM = """
[domain]
box = {{ lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [{cells}, {cells}] }}
[density]
degree = 1
[[density.initial]]
kind = "gaussian"
mean = [-0.5, 0.3]
std = 0.5
[field]
kind = "mlp"
hidden = [16]
layers = 8
[objective]
kinetic = 0.5
parameters = 1e-6
{terminal}
[optimiser]
max_iterations = {iterations}
[ideal]
certificate = "none"
[output]
densities = 0
figures = false
checkpoint_every = 1
"""

QUADRATIC = """
[objective.terminal]
kind = "quadratic"
target = [1.0, -0.5]
"""
TO_A_DENSITY = """
congestion = 0.05
[objective.terminal]
kind = "kl"
[[objective.terminal.target]]
kind = "gaussian"
mean = [0.6, -0.3]
covariance = [[0.3, 0.1], [0.1, 0.15]]
"""

TERMINALS = {"Gaussian to a point": QUADRATIC, "congestion and kl": TO_A_DENSITY}


def work(problem: str, cells: int, iterations: int, levels: int) -> Table:
    """The true J of every θ, with its level and the seconds until then."""
    text = PROBLEM.format(cells=cells, iterations=iterations, terminal=TERMINALS[problem])
    config = tomllib.loads(text)
    # Compiles on a mesh so small that it leaves no memory behind: what is fresh has to be cleared by the system first.
    small = {"box": {**config["domain"]["box"], "cells": [16, 16]}}
    training.train({**config, "domain": small, "optimiser": {"max_iterations": 1, "levels": min(levels, 2)}})
    config["optimiser"]["levels"] = levels
    run, truth = training.train(config), TrueObjective(build(parse_config(config, ".")))
    return {
        "rows": [
            {"level": level, "seconds": seconds + run.compiling, "total": truth.value(theta)[0]}
            for (seconds, theta), level in zip(run.trace, run.levels, strict=True)
        ]
    }


def on_finest(rows: list[Table]) -> list[Table]:
    """The rows of the last level."""
    return [row for row in rows if row["level"] == rows[-1]["level"]]


def seconds_to(rows: list[Table], value: float) -> float | None:
    """When J was first as low as that."""
    return next((row["seconds"] for row in rows if row["total"] <= value), None)


def lowest(rows: list[Table]) -> float:
    """The lowest J."""
    return min(float(row["total"]) for row in rows)


def compare(runner: Runner, report: Report, problem: str, cells: int, iterations: int, levels: int) -> None:
    """One problem, both ways, in turns."""
    name, case = f"{problem}, {cells}² × 2", {"problem": problem, "cells": cells, "iterations": iterations}
    found: list[tuple[list[Table], list[Table]]] = []
    for _ in range(1 if runner.quick else 3):
        one, many = (
            runner.attempt(report, f"one mesh / {levels} levels, {name}", {**case, "levels": count}, GOAL)
            for count in (1, levels)
        )
        if not one or not many:
            return
        found.append((one["rows"], many["rows"]))
    report.data[name] = {"single": found[0][0], "levels": found[0][1]}
    for where, part in (("", list), (" on the finest", on_finest)):
        for close in CLOSE:
            figure = f"one mesh / {levels} levels, {name}, within {close:g}{where}"
            goals = [lowest(one) + close * abs(lowest(one)) for one, _ in found]
            times = [
                (seconds_to(one, goal), seconds_to(part(many), goal))
                for (one, many), goal in zip(found, goals, strict=True)
            ]
            told = f"lowest true J {lowest(found[0][0]):.6g} and {lowest(found[0][1]):.6g}"
            pairs = [(one, many) for one, many in times if one is not None and many is not None]
            if len(pairs) < len(times):
                report.add(figure, None, GOAL, note=f"the levels did not come as low: {told}", missed=True)
                continue
            one, many = (statistics.median(side) for side in zip(*pairs, strict=True))
            note = f"{one:.2f} s and {many:.2f} s to the same J; {told}"
            report.add(figure, [a / b for a, b in pairs], GOAL, note=note)


def measure(runner: Runner) -> Report:
    """A smooth loss, and the distance to a density with congestion."""
    report = Report()
    iterations, levels = (6, 2) if runner.quick else (60, 3)
    for problem, cells in (("Gaussian to a point", 128), ("congestion and kl", 64)):
        compare(runner, report, problem, 16 if runner.quick else cells, iterations, levels)
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
