"""Training on densities against tuned training on particles, where particles are at home: smooth losses at points.

    python scripts/bench/particles.py

All train networks with one hidden layer of 16 on one core, in float64, towards the best of all flows, whose J* is exact
(Hopf and Lax). The gap is that of the true flow: J of points that nobody trained on, with small steps, over J*. Several
settings of every method are tried and the fastest counts; that is what tuning costs, and it is not charged to anybody.
There are two clocks: training alone, and with what comes before: compiling for JAX; mesh, density and kernels from the
cache for eulerian. Importing is not counted.

* eulerian: `eulerian train`, densities on a mesh.
* eulerian, particles: `eulerian train --method particles`, Sobol points.
* JAX: Adam with fresh samples at every step, and L-BFGS on Sobol points that stay the same; a network for each layer,
  or one that sees the time. JAX, usual: Adam with the rate 1e-2, 500 fresh samples at every step, a network that sees
  the time, ten Runge-Kutta steps.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import training
from jax_particles import Run, Setting, Task, one_core
from jax_particles import train as train_with_jax
from suite import Benchmark, Report, Runner, Table, at_most, main
from training import box, configuration, of_layers
from true_cost import ideal_cost, true_cost

TWICE = at_most(2.0)
GAPS = (0.01, 0.005)

TASKS = {
    "Gaussian to a point": Task(means=((-0.5, 0.3),), std=0.5, targets=((1.0, -0.5),), kinetic=0.5),
    "narrow Gaussian, translated": Task(means=((0.3, 0.5),), std=0.1, targets=((0.7, 0.5),), weight=2.0, kinetic=0.1),
}
# Cells along the shorter side, degree, layers, levels.
MESHES = {
    "Gaussian to a point": ((-2.4, -2.4), (2.4, 2.4), ((16, 1, 4, 2), (12, 2, 4, 1), (16, 2, 4, 2), (24, 1, 4, 3))),
    "narrow Gaussian, translated": ((-0.2, 0.1), (1.2, 0.9), ((32, 1, 12, 2), (48, 1, 12, 3), (24, 2, 12, 2))),
}
USUAL = Setting("Adam, 500 fresh samples, rate 1e-2", "adam", 500, 1e-2, steps=10)
OTHERS = (
    (0, Setting("Adam, 250 fresh samples, rate 3e-2", "adam", 250, 3e-2)),
    (4, Setting("Adam, 500 fresh samples, rate 3e-2", "adam", 500, 3e-2)),
    (0, Setting("L-BFGS, 512 points", "lbfgs", 512)),
    (4, Setting("L-BFGS, 512 points", "lbfgs", 512)),
    (4, Setting("L-BFGS, 2048 points", "lbfgs", 2048)),
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
        results: dict[str, list[Table]] = {}
        for method, label, case in contestants(runner, name):
            found = runner.attempt(report, f"{name}: {method}, {label}", {"task": name, **case})
            if found:
                results.setdefault(method, []).append({"setting": label, **found})
        for gap in GAPS:
            for rival in results:
                if rival != "eulerian":
                    compare(report, f"{name}, gap {gap:.1%}", gap, rival, results, whole=False)
                    compare(report, f"{name}, gap {gap:.1%}", gap, rival, results, whole=True)
        report.data[name] = {"ideal": ideal_cost(TASKS[name]), "results": results}
    return report


def fastest(found: list[Table], gap: float, *, whole: bool) -> tuple[float, str] | None:
    """Seconds and setting of the first to come as close, with the set-up or without."""
    reached = [
        (seconds + whole * each["setup"], each["setting"])
        for each in found
        if (seconds := seconds_to(each, gap)) is not None
    ]
    return min(reached, default=None)


def compare(report: Report, what: str, gap: float, rival: str, results: dict[str, list[Table]], *, whole: bool) -> None:
    """eulerian over another method, the fastest settings of both."""
    figure = f"{what}: eulerian / {rival}" + (", with set-up" if whole else "")
    goal = None if rival.startswith("eulerian") else TWICE
    mine = fastest(results.get("eulerian", []), gap, whole=whole)
    theirs = fastest(results[rival], gap, whole=whole)
    if mine is None:
        lowest = min((each["lowest"] for each in results.get("eulerian", [])), default=float("nan"))
        report.add(figure, None, goal, note=f"eulerian does not come as close: {lowest:.2%}", missed=True)
        return
    note = f"{mine[0]:.3g} s ({mine[1]}); "
    if theirs is None:
        lowest = min(each["lowest"] for each in results[rival])
        longest = max(each["gaps"][-1][0] for each in results[rival])
        note = f"at most this: {note}they do not come as close in {longest:.1f} s: {lowest:.2%}"
        report.add(figure, mine[0] / longest, goal, note=note)
        return
    report.add(figure, mine[0] / theirs[0], goal, note=f"{note}{theirs[0]:.3g} s ({theirs[1]})")


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
