"""Training on densities against training on particles where the density itself enters, or walls do.

    python scripts/bench/density_costs.py

All train the same network (one hidden layer of tanh for each layer of time, float64) on one core. What a θ is worth is
J of its flow on a mesh finer than any that was trained on, or of higher degree. The gap is what is left of the way from
J at rest down to the lowest J that anybody found, or to the exact optimum where it is known. The figure is how much
longer particles take to the same gap, the fastest settings of both sides; where they do not come as close it is a bound
from the time that they had.

Particles know the density by kernels (N² pairs at every step), or by following log ρ along their paths, which needs one
flow for all of them: two crowds do not have that. They pay for their depth behind walls. See ``jax_particles.py``.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import training
from jax_particles import Run, Setting, Task, one_core
from jax_particles import train as train_with_jax
from scipy.optimize import minimize
from suite import Benchmark, Report, Runner, Table, at_least, main
from training import box, configuration

from eulerian import build
from eulerian.app.config import parse_config

TENFOLD = at_least(10.0)
GAPS = (0.02, 0.005)
MESHES = Path(__file__).resolve().parent.parent.parent / "meshes"

# Two rooms and the corridor between them, as in meshes/dumbbell.geo.
A, B, C, W = 0.6, 3.0, 1.2, 0.25
ROOMS = (
    (-B, -C), (-A, -C), (-A, -W), (A, -W), (A, -C), (B, -C), (B, C), (A, C), (A, W), (-A, W), (-A, C), (-B, C),
)  # fmt: skip

FIVE = tuple(((float(np.cos(angle)), float(np.sin(angle))), (0.2, 0.2)) for angle in 0.4 * np.pi * np.arange(5))

TASKS = {
    "KL to a Gaussian": Task(means=((-0.8, 0.0),), std=0.4, kl=(((0.8, 0.3), (0.6, 0.25)),)),
    "KL to five modes": Task(means=((0.0, 0.0),), std=0.4, kinetic=0.05, hidden=32, kl=FIVE),
    "L² to five modes": Task(means=((0.0, 0.0),), std=0.4, kinetic=0.01, hidden=32, l2=FIVE),
    "congestion": Task(means=((-1.0, 0.0),), std=0.3, targets=((1.0, 0.0),), congestion=0.5),
    "walls": Task(means=((-1.8, 0.2),), std=0.25, targets=((1.8, 0.2),), kinetic=0.5, walls=(ROOMS,), layers=6),
    "two crowds in a corridor": Task(
        means=((-1.8, 0.0), (1.8, 0.0)),
        std=0.3,
        targets=((1.8, 0.0), (-1.8, 0.0)),
        kinetic=0.1,
        congestion=0.3,
        walls=(ROOMS,),
        layers=6,
        hidden=32,
    ),
}
BOX = partial(box, (-2.7, -1.8), (2.7, 1.8))
KERNELS = (
    Setting("kernels, L-BFGS, 256 points", "lbfgs", 256, density="kernels"),
    Setting("kernels, Adam, 512 fresh samples", "adam", 512, 2e-2, density="kernels"),
)
PATHS = (
    Setting("along paths, L-BFGS, 512 points", "lbfgs", 512),
    Setting("along paths, L-BFGS, 2048 points", "lbfgs", 2048),
)
WALLS = (
    Setting("penalty, L-BFGS, 512 points", "lbfgs", 512, wall_weight=1e4, steps=24),
    Setting("penalty, Adam, 500 fresh samples", "adam", 500, 2e-2, wall_weight=1e4, steps=24),
)


def work(kind: str, task: str, **case: Any) -> Table:
    """One training on one core, and J on the fine mesh along it."""
    one_core()
    return {"eulerian": on_mesh, "jax": with_jax}[kind](task, **case)


def domain(task: Task, cells: int) -> Table:
    """The mesh with that many cells along its shorter side; of the rooms, that many refinements."""
    return {"file": "dumbbell.msh", "refine": cells} if task.walls else BOX(cells)


def on_mesh(name: str, cells: int, degree: int, levels: int, iterations: int, fine: int) -> Table:
    """`eulerian train`."""
    task = TASKS[name]
    config = configuration(task, domain(task, cells), degree, task.layers, levels, iterations)
    once = {**config["optimiser"], "max_iterations": 1}
    training.train({**config, "optimiser": once}, folder=MESHES)  # compiles
    return values(name, training.train(config, folder=MESHES), fine, plain=False)


def with_jax(name: str, setting: Table, seconds: float, fine: int) -> Table:
    """JAX."""
    return values(name, train_with_jax(TASKS[name], Setting(**setting), seconds), fine, plain=True)


def values(name: str, run: Run, fine: int, *, plain: bool) -> Table:
    """Set-up, and (seconds, J on the fine mesh) at two dozen times, ever further apart; θ is plain or in the box."""
    task = TASKS[name]
    config = configuration(task, domain(task, fine), 2 if fine and not task.walls else 1, task.layers)
    problem = build(parse_config({**config, "solver": {"max_steps_per_layer": 4000, "memory": "256 MiB"}}, MESHES))
    frame = training.frame_of(task, *problem.density_space.bounding_box)
    times = np.array([seconds for seconds, _ in run.trace])
    wanted = np.geomspace(max(times[0], 1e-3), max(times[-1], 2e-3), 24)
    chosen = np.unique(np.append(np.searchsorted(times, wanted).clip(max=len(times) - 1), len(times) - 1))
    found = []
    for index in chosen:
        seconds, theta = run.trace[index]
        rows = training.in_frame(task, theta, frame) if plain else theta
        found.append((seconds, problem.value(rows)))
    finite = [(seconds, value) for seconds, value in found if np.isfinite(value)]
    rest = problem.value(np.zeros((task.layers, run.trace[0][1].shape[1])))
    return {"setup": run.compiling, "values": finite, "had": float(times[-1]), "rest": rest}


def exact(task: Task) -> float | None:
    """J* where it is known: KL from a Gaussian to one with the same axes is attained by Gaussians.

    min over (m, s) of λ/2T (|m − m₀|² + |s − s₀|²) + KL, axis by axis: a step of Jordan, Kinderlehrer & Otto (1998),
    doi:10.1137/S0036141096303359, for a quadratic potential keeps Gaussians.
    """
    if len(task.kl) != 1 or task.congestion:
        return None
    total = 0.0
    for start, target, width in zip(task.means[0], *task.kl[0], strict=True):

        def cost(z: np.ndarray, start: float = start, target: float = target, width: float = width) -> float:
            m, s = z[0], np.exp(z[1])
            moved = 0.5 * task.kinetic / task.horizon * ((m - start) ** 2 + (s - task.std) ** 2)
            return float(moved + np.log(width / s) + (s**2 + (m - target) ** 2) / (2.0 * width**2) - 0.5)

        total += minimize(cost, [target, np.log(width)], tol=1e-12).fun
    return total


def contestants(runner: Runner, name: str) -> list[tuple[str, str, Table]]:
    """Method, setting and case of every training."""
    task, quick = TASKS[name], runner.quick
    fine = (0 if quick else 1) if task.walls else (16 if quick else 24)
    listed: list[tuple[str, str, Table]] = []
    shapes = ((0, 1, 1),) if task.walls else ((12, 1, 1),) if quick else ((12, 1, 1), (16, 1, 2), (24, 1, 3))
    for cells, degree, levels in shapes:
        label = f"{'mesh of the file' if task.walls else f'{cells} cells'}, DG{degree}"
        label += f", {levels} levels" if levels > 1 else ""
        shape = {
            "cells": cells,
            "degree": degree,
            "levels": levels,
            "iterations": 4 if quick else 80 if task.walls else 150,
        }
        listed.append(("eulerian", label, {"kind": "eulerian", **shape, "fine": fine}))
    families = {"particles, kernels": KERNELS}
    if task.walls:
        families = {"particles": tuple(replace(setting, density="kernels") for setting in WALLS)}
    elif task.labels == 1:
        families["particles, along paths"] = PATHS
    for method, settings in families.items():
        for setting in settings[: 1 if quick else None]:
            seconds = 1.0 if quick else 60.0 if len(task.means) > 1 else 8.0  # crowds: ten times what a mesh takes
            case = {"kind": "jax", "setting": vars(setting), "seconds": seconds, "fine": fine}
            listed.append((method, setting.name, case))
    return listed


def measure(runner: Runner) -> Report:
    """Every task by every method."""
    report = Report()
    for name in list(TASKS)[:1] if runner.quick else TASKS:
        results: dict[str, list[Table]] = {}
        for method, label, case in contestants(runner, name):
            found = runner.attempt(report, f"{name}: {method}, {label}", {"task": name, **case})
            if found:
                results.setdefault(method, []).append({"setting": label, **found})
        race = Race(results, exact(TASKS[name]))
        for gap in GAPS:
            for rival in results:
                if rival != "eulerian":
                    compare(report, name, gap, rival, race)
        report.data[name] = {"best": race.best, "rest": race.rest, "results": results}
    return report


@dataclass(frozen=True)
class Race:
    """All trainings of one task.

    Attributes:
        results: by method, one for each setting.
        exact: J* if it is known.
    """

    results: dict[str, list[Table]]
    exact: float | None

    @property
    def best(self) -> float:
        """J where the gap is zero."""
        if self.exact is not None:
            return self.exact
        return min((value for each in self.results.values() for run in each for _, value in run["values"]), default=0.0)

    @property
    def rest(self) -> float:
        """J where the gap is one."""
        return max((float(run["rest"]) for each in self.results.values() for run in each), default=1.0)

    def gap(self, value: float) -> float:
        """Of a J."""
        return (value - self.best) / (self.rest - self.best)

    def closest(self, method: str) -> str:
        """The smallest gap of a method, in words."""
        values = [value for each in self.results.get(method, []) for _, value in each["values"]]
        return f"{self.gap(min(values)):.2%}" if values else "nothing"

    def fastest(self, method: str, gap: float) -> tuple[float, float, str] | None:
        """Seconds without and with set-up, and the setting, of the first to come as close."""
        reached = []
        for each in self.results.get(method, []):
            seconds = next((seconds for seconds, value in each["values"] if self.gap(value) <= gap), None)
            if seconds is not None:
                reached.append((seconds, seconds + each["setup"], each["setting"]))
        return min(reached, default=None)


def compare(report: Report, name: str, gap: float, rival: str, race: Race) -> None:
    """Another method over eulerian, the fastest settings of both."""
    figure = f"{name}, gap {gap:.1%}: {rival} / eulerian"
    mine, theirs = race.fastest("eulerian", gap), race.fastest(rival, gap)
    if mine is None:
        note = f"eulerian does not come as close: {race.closest('eulerian')}"
        report.add(figure, None, TENFOLD, note=note, missed=True)
        return
    note = f"{mine[0]:.2g} s ({mine[2]}; with set-up {mine[1]:.2g} s); "
    if theirs is None:
        longest = max(each["had"] for each in race.results[rival])
        note += f"they come to {race.closest(rival)} in {longest:.0f} s: at least this"
        report.add(figure, longest / mine[0], TENFOLD, note=note)
        return
    note += f"{theirs[0]:.2g} s ({theirs[2]}; with set-up {theirs[1]:.2g} s)"
    report.add(figure, theirs[0] / mine[0], TENFOLD, note=note)


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
