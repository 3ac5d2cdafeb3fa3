"""Training on densities against tuned training on particles, where particles are at home: smooth losses at points.

    python scripts/bench/particles.py

All train networks with one hidden layer of 16 on one core, in float64, towards the best of all flows, whose J* is exact
(Hopf and Lax). The gap is that of the true flow: J of points that nobody trained on, with small steps, over J*. Several
settings of every method are tried, the best of those that ``tuning.py`` tries, and the fastest is run until there are
ten runs of it; that is what tuning costs, and it is not charged to anybody. There are two clocks: training alone, and
with what comes before: compiling for JAX; mesh, density and kernels from the cache for eulerian. Importing is not
counted.

* eulerian: `eulerian train`, densities on a mesh.
* eulerian, particles: `eulerian train --method particles`, Sobol points.
* JAX: Adam with fresh samples at every step, and L-BFGS on Sobol points that stay the same; a network for each layer,
  or one that sees the time. JAX, usual: Adam with the rate 1e-2, 500 fresh samples at every step, a network that sees
  the time, ten Runge-Kutta steps.
"""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import training
from jax_particles import Run, Setting, Task, one_core
from jax_particles import train as train_with_jax
from suite import Benchmark, Report, Runner, Table, at_most, main
from training import box, configuration, of_layers
from true_cost import ideal_cost, true_cost

# Rival, and whether set-up and compiling count. A small network on a hundred points is compiled into next to nothing:
# once that is done, no mesh is as fast.
GOALS = {("JAX", True): at_most(2.0), ("JAX, usual", False): at_most(2.0)}
GAPS = (0.01, 0.005)

TASKS = {
    "Gaussian to a point": Task(means=((-0.5, 0.3),), std=0.5, targets=((1.0, -0.5),), kinetic=0.5),
    "narrow Gaussian, translated": Task(means=((0.3, 0.5),), std=0.1, targets=((0.7, 0.5),), weight=2.0, kinetic=0.1),
}
# Cells along the shorter side, degree, layers, levels.
MESHES = {
    "Gaussian to a point": ((-2.4, -2.4), (2.4, 2.4), ((12, 1, 8, 1), (16, 1, 8, 1), (20, 1, 8, 1), (24, 1, 4, 1))),
    "narrow Gaussian, translated": ((-0.2, 0.1), (1.2, 0.9), ((40, 1, 16, 1), (40, 1, 16, 2), (48, 1, 24, 2))),
}
USUAL = Setting("Adam, 500 fresh samples, rate 1e-2", "adam", 500, 1e-2, steps=10)
OTHERS = (
    (0, Setting("L-BFGS, 64 points, 4 steps", "lbfgs", 64, steps=4)),
    (4, Setting("L-BFGS, 64 points, 4 steps", "lbfgs", 64, steps=4)),
    (0, Setting("L-BFGS, 128 points, 8 steps", "lbfgs", 128, steps=8)),
    (4, Setting("L-BFGS, 256 points, 12 steps", "lbfgs", 256)),
    (0, Setting("L-BFGS, 512 points, 12 steps", "lbfgs", 512)),
    (0, Setting("Adam, 64 fresh samples, rate 6e-2, 4 steps", "adam", 64, 6e-2, steps=4)),
)
QUICK = ((4, Setting("L-BFGS, 256 points", "lbfgs", 256)),)


def work(kind: str, task: str, **case: Any) -> Table:
    """One training on one core, and the gap along it."""
    one_core()
    return {"eulerian": on_mesh, "own": on_particles, "jax": with_jax}[kind](task, **case)


def on_mesh(name: str, cells: int, degree: int, layers: int, levels: int, iterations: int) -> Table:
    """`eulerian train`."""
    lower, upper, _ = MESHES[name]
    config = configuration(TASKS[name], box(lower, upper, cells), degree, layers, levels, iterations)
    training.train({**config, "optimiser": {**config["optimiser"], "max_iterations": 1}})  # compiles
    return gaps(TASKS[name], in_plain_coordinates(TASKS[name], training.train(config), lower, upper))


def on_particles(name: str, count: int, layers: int, iterations: int) -> Table:
    """`eulerian train --method particles`."""
    lower, upper, _ = MESHES[name]
    config = configuration(TASKS[name], box(lower, upper, 24), 2, layers, 1, iterations)
    section = {"count": count, "sampling": "sobol", "replicates": 2, "steps_per_layer": 2}
    run = training.train(config, particles=section)
    return gaps(TASKS[name], in_plain_coordinates(TASKS[name], run, lower, upper))


def in_plain_coordinates(task: Task, run: Run, lower: tuple[float, ...], upper: tuple[float, ...]) -> Run:
    """A run of eulerian's, whose networks see where in a box a point is, as JAX would have found it."""
    frame = training.frame_of(task, lower, upper)
    plain = [(seconds, training.in_plain_coordinates(task, theta, frame)) for seconds, theta in run.trace]
    return replace(run, trace=plain)


def with_jax(name: str, layers: int, setting: Table, seconds: float) -> Table:
    """JAX."""
    task = replace(TASKS[name], layers=layers)
    return gaps(task, train_with_jax(task, Setting(**setting), seconds))


def gaps(task: Task, run: Run) -> Table:
    """Set-up, and (seconds, gap) along the training, at most some sixty times; below 0.1 % nobody asks."""
    best, found = ideal_cost(task), []
    every = max(1, len(run.trace) // 60)
    for seconds, theta in [*run.trace[: 4 * every], *run.trace[4 * every :: every], run.trace[-1]]:
        seen = task if task.layers == 0 else of_layers(task, theta)
        found.append((seconds, true_cost(seen, theta, points=2**11) / best - 1.0))
        if found[-1][1] < 1e-3:
            break
    return {"setup": run.compiling, "gaps": found, "lowest": min(gap for _, gap in found)}


def seconds_to(found: Table, gap: float) -> float | None:
    """When the gap was first as small."""
    return next((seconds for seconds, value in found["gaps"] if value <= gap), None)


def contestants(runner: Runner, name: str) -> list[tuple[str, str, Table]]:
    """Method, setting and case of every training."""
    listed: list[tuple[str, str, Table]] = []
    iterations = 12 if runner.quick else 80
    for cells, degree, layers, levels in MESHES[name][2][: 1 if runner.quick else None]:
        label = f"{cells} cells, DG{degree}, {layers} layers" + (f", {levels} levels" if levels > 1 else "")
        shape = {"cells": cells, "degree": degree, "layers": layers, "levels": levels, "iterations": iterations}
        listed.append(("eulerian", label, {"kind": "eulerian", **shape}))
    for count in (256,) if runner.quick else (512, 2048):
        shape = {"count": count, "layers": 4, "iterations": iterations}
        listed.append(("eulerian, particles", f"{count} Sobol points", {"kind": "own", **shape}))
    for layers, setting in QUICK if runner.quick else OTHERS:
        label = f"{setting.name}, {f'{layers} layers' if layers else 'sees the time'}"
        listed.append(("JAX", label, jax_case(layers, setting, 1.0 if runner.quick else 4.0)))
    if not runner.quick:
        listed.append(("JAX, usual", USUAL.name, jax_case(0, USUAL, 8.0)))
    return listed


def jax_case(layers: int, setting: Setting, seconds: float) -> Table:
    """Of a worker."""
    return {"kind": "jax", "layers": layers, "setting": vars(setting), "seconds": seconds}


def measure(runner: Runner) -> Report:
    """The fastest setting of every method, for every gap and both clocks."""
    report = Report()
    for name in TASKS:
        entries: list[Entry] = []
        for method, label, case in contestants(runner, name):
            found = runner.attempt(report, f"{name}: {method}, {label}", {"task": name, **case})
            if found:
                entries.append(Entry(method, label, {"task": name, **case}, [found]))
        for gap in GAPS:
            for rival in dict.fromkeys(entry.method for entry in entries):
                for whole in (False, True) if rival != "eulerian" else ():
                    compare(runner, report, f"{name}, gap {gap:.1%}", gap, rival, entries, whole=whole)
        results: dict[str, list[Table]] = {}
        for entry in entries:
            results.setdefault(entry.method, []).append({"setting": entry.label, **entry.runs[0]})
        report.data[name] = {"ideal": ideal_cost(TASKS[name]), "results": results}
    return report


@dataclass
class Entry:
    """A setting of a method, and its runs so far.

    Attributes:
        method: whose.
        label: the setting in words.
        case: of the worker.
        runs: what it found.
    """

    method: str
    label: str
    case: Table
    runs: list[Table]

    def seconds(self, gap: float, *, whole: bool) -> list[float]:
        """Until the gap, with the set-up or without, of every run that came as close."""
        reached = [(seconds_to(run, gap), run["setup"]) for run in self.runs]
        return [seconds + whole * setup for seconds, setup in reached if seconds is not None]


def fastest(runner: Runner, entries: list[Entry], gap: float, *, whole: bool) -> tuple[list[float], str] | None:
    """Seconds of all runs, and the setting, of the first to come as close."""
    reached = [entry for entry in entries if entry.seconds(gap, whole=whole)]
    if not reached:
        return None
    best = min(reached, key=lambda entry: statistics.median(entry.seconds(gap, whole=whole)))
    while len(best.runs) < runner.runs:
        best.runs.append(runner.run(best.case))
    return best.seconds(gap, whole=whole), best.label


def compare(
    runner: Runner, report: Report, what: str, gap: float, rival: str, entries: list[Entry], *, whole: bool
) -> None:
    """eulerian over another method, the fastest settings of both."""
    figure = f"{what}: eulerian / {rival}" + (", with set-up" if whole else "")
    goal = GOALS.get((rival, whole))
    ours, others = ([entry for entry in entries if entry.method == method] for method in ("eulerian", rival))
    mine, theirs = (fastest(runner, side, gap, whole=whole) for side in (ours, others))
    if mine is None:
        lowest = min((run["lowest"] for entry in ours for run in entry.runs), default=float("nan"))
        report.add(figure, None, goal, note=f"eulerian does not come as close: {lowest:.2%}", missed=True)
        return
    note = f"{seconds_and_range(mine[0])} ({mine[1]}); "
    if theirs is None:
        lowest = min(run["lowest"] for entry in others for run in entry.runs)
        longest = max(run["gaps"][-1][0] for entry in others for run in entry.runs)
        note = f"at most this: {note}they do not come as close in {longest:.1f} s: {lowest:.2%}"
        report.add(figure, statistics.median(mine[0]) / longest, goal, note=note)
        return
    ratio = statistics.median(mine[0]) / statistics.median(theirs[0])
    report.add(figure, ratio, goal, note=f"{note}{seconds_and_range(theirs[0])} ({theirs[1]})")


def seconds_and_range(seconds: list[float]) -> str:
    """The median, and the range in brackets."""
    middle = f"{statistics.median(seconds):.3g}"
    return f"{middle} ({min(seconds):.3g} … {max(seconds):.3g}) s" if len(seconds) > 1 else f"{middle} s"


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
