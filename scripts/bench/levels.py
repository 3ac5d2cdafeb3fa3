"""Training on one mesh against training from coarse meshes to fine ones (`optimiser.levels`), to the same J.

    python scripts/bench/levels.py

Both are `eulerian train` with the same finest mesh and the same limit of iterations. J is that of the finest mesh. The
one mesh is there when it first comes within 10⁻³ or 10⁻⁴ (relative) of the lowest J that it finds, the levels when they
first come as low on the finest mesh. Seconds are those of ``history.csv``, all levels counted, and those that it took
to set up the problem of the finest mesh, on both sides.
"""

import csv
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path

from suite import Benchmark, BenchmarkError, Report, Runner, Table, at_least, main

GOAL = at_least(3.0)
CLOSE = (1e-3, 1e-4)

PROBLEM = """
[domain]
box = {{ lower = [-3.0, -3.0], upper = [3.0, 3.0], cells = [{cells}, {cells}] }}
[density]
degree = {degree}
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
checkpoint_every = 0
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


def work() -> Table:
    """Nothing: the trainings are started as a user starts them."""
    return {}


def trained(runner: Runner, text: str, levels: int) -> list[dict[str, float]]:
    """The rows of ``history.csv``, with the seconds of setting up.

    Raises:
        BenchmarkError: the training failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config, folder = Path(scratch) / "problem.toml", Path(scratch) / "run"
        config.write_text(text, encoding="utf-8")
        more = [] if levels == 1 else ["--set", f"optimiser.levels={levels}"]
        runner.call([sys.executable, "-m", "eulerian", "train", str(config), "--quiet", "--output", str(folder), *more])
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            rows = [{name: number(value) for name, value in row.items()} for row in csv.DictReader(file)]
        setup = json.loads((folder / "result.json").read_text(encoding="utf-8"))["seconds"]["setup"]
    return [{**row, "seconds": row["seconds"] + setup} for row in rows]


def number(text: str) -> float:
    """NaN where there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def on_finest(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows of the last level."""
    return [row for row in rows if row["level"] == rows[-1]["level"]]


def seconds_to(rows: list[dict[str, float]], value: float) -> float | None:
    """When J was first as low as that, on the finest mesh."""
    return next((row["seconds"] for row in on_finest(rows) if row["total"] <= value), None)


def compare(runner: Runner, report: Report, name: str, text: str, levels: int) -> None:
    """One problem, both ways, in turns."""
    found = []
    try:
        for _ in range(1 if runner.quick else 3):
            found.append((trained(runner, text, 1), trained(runner, text, levels)))
    except BenchmarkError as error:
        report.add(f"one mesh / {levels} levels, {name}", None, GOAL, note=error.sentence)
        return
    report.data[name] = {"single": found[0][0], "levels": found[0][1]}
    for close in CLOSE:
        times = []
        for single, multi in found:
            lowest = min(row["total"] for row in single)
            goal = lowest + close * abs(lowest)
            times.append((seconds_to(single, goal), seconds_to(multi, goal)))
        figure = f"one mesh / {levels} levels, {name}, within {close:g}"
        single, multi = found[0]
        ends = f"J {min(row['total'] for row in single):.6g} and {min(row['total'] for row in on_finest(multi)):.6g}"
        pairs = [(one, many) for one, many in times if one is not None and many is not None]
        if len(pairs) < len(times):
            report.add(figure, None, GOAL, note=f"the levels did not come as low: {ends}", missed=True)
            continue
        one, many = (statistics.median(side) for side in zip(*pairs, strict=True))
        note = f"{one:.2f} s and {many:.2f} s to the same J; lowest {ends}"
        report.add(figure, [a / b for a, b in pairs], GOAL, note=note)


def measure(runner: Runner) -> Report:
    """A smooth loss, and the distance to a density with congestion."""
    report = Report()
    iterations, levels = (6, 2) if runner.quick else (60, 3)
    for name, size, terminal in (("Gaussian to a point", 128, QUADRATIC), ("congestion and kl", 64, TO_A_DENSITY)):
        cells = 16 if runner.quick else size
        text = PROBLEM.format(cells=cells, degree=1, iterations=iterations, terminal=terminal)
        compare(runner, report, f"{name}, {cells}² × 2", text, levels)
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
