"""Tries many settings of `eulerian train` and of particles with JAX on the tasks of ``particles.py``, for its lists.

    python scripts/bench/tuning.py

Every setting runs once, on one core; about a quarter of an hour. The fastest to each gap are printed, without what
comes before the training. It is no part of ``run.py``.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from jax_particles import Setting
from particles import GAPS, TASKS, jax_case, seconds_to, work
from suite import Benchmark, Report, Runner, Table, main

FASTEST = 5  # that are printed of each method


def on_meshes(name: str) -> Iterator[tuple[str, Table]]:
    """Cells, degree, layers and levels."""
    wide = name == "Gaussian to a point"
    meshes = [(cells, 1) for cells in ((12, 16, 20, 24, 32) if wide else (24, 32, 40, 48))]
    meshes += [(cells, 2) for cells in ((8, 12, 16) if wide else (16, 24))]
    for (cells, degree), layers, levels in itertools.product(meshes, (2, 4, 8) if wide else (8, 16, 24), (1, 2)):
        if levels == 1 or cells >= 16:
            shape = {"cells": cells, "degree": degree, "layers": layers, "levels": levels, "iterations": 120}
            yield f"{cells} cells, DG{degree}, {layers} layers, {levels} levels", {"kind": "eulerian", **shape}


def with_jax() -> Iterator[tuple[str, Table]]:
    """Points, Runge-Kutta steps, layers and rates."""
    for layers, points, steps in itertools.product((0, 2, 4), (64, 128, 256, 512), (4, 8, 12)):
        yield (
            f"L-BFGS, {points} points, {steps} steps, {layers} layers",
            jax_case(layers, Setting("", "lbfgs", points, steps=steps), 2.0),
        )
    for layers, points, rate, steps in itertools.product((0, 4), (64, 250), (1e-2, 3e-2, 6e-2), (4, 8)):
        setting = Setting("", "adam", points, rate, steps=steps)
        yield f"Adam, {points} samples, rate {rate:g}, {steps} steps, {layers} layers", jax_case(layers, setting, 2.0)


def measure(runner: Runner) -> Report:
    """The fastest settings to each gap."""
    report = Report()
    for name in TASKS:
        for method, listed in (("eulerian", on_meshes(name)), ("JAX", with_jax())):
            found = []
            for label, case in itertools.islice(listed, 2 if runner.quick else None):
                if run := runner.attempt(report, f"{name}: {label}", {"task": name, **case}):
                    found.append((label, run))
            report.data[f"{name}: {method}"] = [{"setting": label, **run} for label, run in found]
            for gap in GAPS:
                reached = [(seconds, label) for label, run in found if (seconds := seconds_to(run, gap)) is not None]
                for seconds, label in sorted(reached)[:FASTEST]:
                    report.add(f"{name}, gap {gap:.1%}: {method}, {label}", seconds, unit="s")
    return report


BENCHMARK = Benchmark(str(__doc__), measure, work)

if __name__ == "__main__":
    main(BENCHMARK, str(Path(__file__)))
