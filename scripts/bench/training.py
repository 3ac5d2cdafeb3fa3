"""`eulerian train`, on densities or on particles, with θ and the time of every iteration."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from jax_particles import Floats, Run, Task
from suite import Table

from eulerian.app.config import parse_config
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.app.tasks.particles import run_train_particles
from eulerian.app.tasks.train import run_train


def configuration(task: Task, domain: Table, degree: int, layers: int, levels: int = 1, iterations: int = 100) -> Table:
    """The task on a mesh, for `eulerian`."""
    gaussians = [
        {"kind": "gaussian", "mean": list(mean), "std": task.std, "label": label}
        for label, mean in enumerate(task.means)
    ]
    objective: Table = {"kinetic": task.kinetic, "congestion": task.congestion, "parameters": 1e-8}
    if task.kl or task.l2:
        target = [
            {"kind": "gaussian", "mean": list(mean), "covariance": [[a * a, 0.0], [0.0, b * b]]}
            for mean, (a, b) in task.kl or task.l2
        ]
        objective["terminal"] = {"kind": "kl" if task.kl else "l2", "target": target}
    else:
        targets = [list(target) for target in task.targets]
        aim = {"target": targets[0]} if task.labels == 1 else {"targets": targets}
        objective["terminal"] = {"kind": "quadratic", "weight": task.weight, **aim}
    network = {"kind": "mlp", "hidden": [task.hidden], "label_dependent": task.labels > 1}
    return {
        "domain": domain,
        "density": {"degree": degree, "initial": gaussians},
        "field": {**network, "layers": layers, "horizon": task.horizon},
        "objective": objective,
        "optimiser": {"max_iterations": iterations, "levels": levels},
        "solver": {"max_steps_per_layer": 300},  # a trial point that needs more is not worth its time
        "ideal": {"certificate": "none"},
        "output": {"densities": 0, "checkpoint_every": 1},
    }


def box(lower: tuple[float, float], upper: tuple[float, float], cells: int) -> Table:
    """A rectangle, with that many cells along its shorter side."""
    sides = [b - a for a, b in zip(lower, upper, strict=True)]
    return {
        "box": {
            "lower": list(lower),
            "upper": list(upper),
            "cells": [round(cells * side / min(sides)) for side in sides],
        }
    }


def train(config: Table, *, particles: Table | None = None, folder: Path | str = ".") -> Run:
    """Train as the command does; what is counted as compiling is the set-up: mesh, initial density, kernels.

    Args:
        config: the problem.
        particles: the section of that name, to train on particles instead.
        folder: where the files of the configuration are.
    """
    kept: list[tuple[float, Floats]] = []
    original = Checkpoint.write

    def keep(self: Checkpoint, _run: Path) -> None:
        kept.append((time.perf_counter(), self.theta.copy()))

    command = run_train if particles is None else run_train_particles
    section = {} if particles is None else {"particles": particles}
    with tempfile.TemporaryDirectory() as scratch:
        output = {**config["output"], "directory": str(Path(scratch) / "run")}
        parsed = parse_config({**config, **section, "output": output}, folder)
        Checkpoint.write = keep  # type: ignore[method-assign]
        try:
            started = time.perf_counter()
            document = command(parsed)
        finally:
            Checkpoint.write = original  # type: ignore[method-assign]
    setup = document["seconds"]["setup"]
    return Run(setup, [(moment - started - setup, theta) for moment, theta in kept])


def of_layers(task: Task, theta: Floats) -> Task:
    """The task with as many layers as θ (rows, p)."""
    return replace(task, layers=len(theta))
