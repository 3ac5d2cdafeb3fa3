"""`eulerian train`, on densities or on particles, with θ and the time of every iteration."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jax_particles import Floats, Run, Task
from suite import Table

from eulerian.app.config import parse_config
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.app.tasks.particles import run_train_particles
from eulerian.app.tasks.train import run_train
from eulerian.fields.frame import Frame
from eulerian.fields.mlp import Mlp


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
    kept: list[tuple[float, Floats, int]] = []
    original = Checkpoint.write

    def keep(self: Checkpoint, _run: Path) -> None:
        kept.append((time.perf_counter(), self.theta.copy(), self.state.level))

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
    trace = [(moment - started - setup, theta) for moment, theta, _ in kept]
    return Run(setup, trace, [level for *_, level in kept])


def frame_of(task: Task, lower: Any, upper: Any) -> Frame:
    """In which a network sees a domain with that box."""
    return Mlp(2, hidden=(task.hidden,)).in_box(lower, upper, task.horizon).frame


def in_plain_coordinates(task: Task, theta: Floats, frame: Frame) -> Floats:
    """θ (rows, p) of the same velocity for points that are not relative to a frame, as JAX's particles have it."""
    return rescaled(task, theta, np.array(frame.centre), np.array(frame.length), frame.velocity)


def in_frame(task: Task, theta: Floats, frame: Frame) -> Floats:
    """The other way round: θ as eulerian has it in a domain with that frame."""
    centre, length = np.array(frame.centre), np.array(frame.length)
    return rescaled(task, theta, -centre / length, 1.0 / length, 1.0 / frame.velocity)


def rescaled(task: Task, theta: Floats, centre: Any, length: Any, velocity: float) -> Floats:
    """θ of x ↦ velocity · v((x − centre)/length), where v is that of the given one."""
    n, m = task.hidden, task.inputs
    found = theta.copy()
    weights = found[:, : n * m].reshape(len(theta), n, m)  # a view
    weights[:, :, :2] /= length
    found[:, n * m : n * m + n] -= weights[:, :, :2] @ centre
    found[:, n * m + n :] *= velocity
    return found


def of_layers(task: Task, theta: Floats) -> Task:
    """The task with as many layers as θ (rows, p)."""
    return replace(task, layers=len(theta))
