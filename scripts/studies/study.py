"""What the studies in this folder share: options, problems on a line, exact values, training, tables and figures.

A study is one file with one command; it prints a table and leaves ``results.csv`` and a figure in its folder.
"""

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from eulerian import ControlProblem, build, minimise
from eulerian.app.config import parse_config

type Floats = NDArray[np.float64]
type Table = dict[str, Any]
type Box = tuple[float, float]  # the ends of an interval

# Okabe and Ito's palette, told apart by colour-blind readers.
BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, ORANGE, GREY = "#CC79A7", "#56B4E9", "#E69F00", "#777777"

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
}


@dataclass(frozen=True)
class Options:
    """What every study is told: smaller sizes for a quick look, and where results go."""

    quick: bool
    output: Path


def read_options(name: str, description: str | None, arguments: Sequence[str] | None = None) -> Options:
    """The command line of the study ``name``; its folder is made if it is missing."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: a look in seconds, not the result")
    parser.add_argument("--output", type=Path, default=Path("runs") / name, help=f"folder (default runs/{name})")
    found = parser.parse_args(arguments)
    if MPI.COMM_WORLD.size > 1:
        parser.error("a study is for one process")
    found.output.mkdir(parents=True, exist_ok=True)
    return Options(found.quick, found.output)


# -- problems --------------------------------------------------------------------------------------------------------


def line_configuration(
    box: Box,
    cells: int,
    initial: Sequence[Table],
    field: Table,
    objective: Table,
    *,
    degree: int = 1,
    most_steps: int = 150,
) -> Table:
    """A problem on an interval; a layer that needs more than ``most_steps`` is a trial point given up."""
    return {
        "domain": {"box": {"lower": [box[0]], "upper": [box[1]], "cells": [cells]}},
        "density": {"degree": degree, "initial": list(initial)},
        "field": field,
        "objective": objective,
        "solver": {"max_steps_per_layer": most_steps},
    }


def problem_of(tables: Table) -> ControlProblem:
    """The control problem of a configuration that names no files."""
    return build(parse_config(tables, "."))


def flow_cost(problem: ControlProblem) -> float:
    """Terminal and kinetic part of J at the last evaluation: what the flow costs, without its parameters."""
    return problem.parts["terminal"] + problem.parts["kinetic"] if "kinetic" in problem.parts else np.nan


@dataclass(frozen=True)
class LoadedRun:
    """Where a training ended: θ (L, p), J, its parts, iterations and seconds."""

    theta: Floats
    total: float
    flow: float
    iterations: int
    seconds: float


def train(problem: ControlProblem, start: Floats | None, iterations: int) -> LoadedRun:
    """Minimise J from ``start`` (the problem's own if None)."""
    started = time.perf_counter()
    result = minimise(problem, start, max_iterations=iterations, gradient_tolerance=1e-8)
    problem.value(result.theta)
    seconds = time.perf_counter() - started
    return LoadedRun(result.theta, result.value, flow_cost(problem), result.iterations, seconds)


# -- exact values ----------------------------------------------------------------------------------------------------


def normal_weights(mean: float, std: float, box: Box, n: int = 20_001) -> tuple[Floats, Floats]:
    """Points (n,) of an interval and weights (n,) of sum 1 that integrate against the normal density cut off there."""
    x = np.linspace(*box, n)
    w = np.exp(-0.5 * ((x - mean) / std) ** 2)
    w[[0, -1]] *= 0.5
    return x, w / w.sum()


def least_cost(loss: Callable[[Floats], Floats], alpha: float, x: Floats, box: Box) -> Floats:
    """min over z of ℓ(z) + α/2 (x − z)² at points x (n,), by a search on a grid that zooms in: (n,).

    The Hopf-Lax formula; α = λ/T. An error δ in z costs δ²: zooming to 1e-7 of the interval leaves rounding.
    """
    best = np.full(len(x), np.inf)
    centre, half = np.full(len(x), 0.5 * (box[0] + box[1])), 0.5 * (box[1] - box[0])
    rows = np.arange(len(x))
    for points in (801, 41, 41, 41, 41):
        offsets = np.linspace(-half, half, points)
        z = np.clip(centre[:, None] + offsets, *box)
        cost = loss(z) + 0.5 * alpha * (x[:, None] - z) ** 2
        least = np.argmin(cost, axis=1)
        best, centre = np.minimum(best, cost[rows, least]), z[rows, least]
        half = 2.0 * (offsets[1] - offsets[0])
    return best


def ideal_value(loss: Callable[[Floats], Floats], alpha: float, mean: float, std: float, box: Box) -> float:
    """J* of the best of all flows for a normal density and a loss ℓ: ∫ min_z {ℓ(z) + α/2 (x − z)²} dμ₀(x)."""
    x, w = normal_weights(mean, std, box)
    blocks = np.array_split(np.arange(len(x)), 20)  # the search holds every start at every trial point
    return float(sum(w[rows] @ least_cost(loss, alpha, x[rows], box) for rows in blocks))


# -- two wells -------------------------------------------------------------------------------------------------------

WELL_BOX = (-5.0, 5.0)
WELL_MEAN, WELL_STD = 0.25, 0.8


@dataclass(frozen=True)
class Loss:
    """A terminal loss with the weight λ of the kinetic energy and the horizon T."""

    name: str
    title: str
    formula: str
    function: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    kinetic: float
    horizon: float

    def ideal(self, box: Box = WELL_BOX) -> float:
        """J* of the best of all flows, for the density cut off at the ends of an interval."""
        return ideal_value(self.function, self.kinetic / self.horizon, WELL_MEAN, WELL_STD, box)


SMOOTH = Loss(
    "smooth",
    r"smooth loss $\frac{1}{4}(x^2-1)^2$",
    "(x**2 - 1)**2/4",
    lambda z: 0.25 * (z**2 - 1.0) ** 2,
    lambda z: z * (z**2 - 1.0),
    2.0,
    1.0,
)
KINKED = Loss(
    "kinked",
    r"kinked loss $\frac{3}{2}\,\min|x \mp 1.2|^2$",
    "1.5*(abs(x) - 1.2)**2",
    lambda z: 1.5 * (np.abs(z) - 1.2) ** 2,
    lambda z: 3.0 * (np.abs(z) - 1.2) * np.sign(z),
    0.7,
    1.5,
)
LOSSES = (SMOOTH, KINKED)


def well_configuration(
    loss: Loss,
    field: Table,
    cells: int,
    layers: int,
    epsilon: float,
    *,
    box: Box = WELL_BOX,
    most_steps: int = 150,
) -> Table:
    """A normal density that ``field`` carries into the two wells of ``loss``."""
    return line_configuration(
        box,
        cells,
        [{"kind": "gaussian", "mean": [WELL_MEAN], "std": WELL_STD}],
        {**field, "layers": layers, "horizon": loss.horizon},
        {"kinetic": loss.kinetic, "parameters": epsilon, "terminal": {"kind": "expression", "value": loss.formula}},
        most_steps=most_steps,
    )


def well_problem(
    loss: Loss,
    field: Table,
    cells: int,
    layers: int,
    epsilon: float,
    *,
    box: Box = WELL_BOX,
    most_steps: int = 150,
) -> ControlProblem:
    """The control problem of ``well_configuration``."""
    return problem_of(well_configuration(loss, field, cells, layers, epsilon, box=box, most_steps=most_steps))


# -- particles -------------------------------------------------------------------------------------------------------


def trajectories(problem: ControlProblem, theta: Floats, x: Floats, label: int | None = None, steps: int = 8) -> Floats:
    """Points x (n,) carried by the network itself, not by the mesh: (L·steps + 1, n), classical Runge-Kutta.

    The ends of the interval are walls for points as they are for densities.
    """
    low, high = (float(end[0]) for end in problem.density_space.bounding_box)
    layers, _ = problem.split(theta)
    dt = problem.grid.layer_time / steps
    path = [np.asarray(x, dtype=float)]
    for row in layers:

        def velocity(points: Floats, row: Floats = row) -> Floats:
            if label is None:
                return problem.field.value(row, points[:, None])[:, 0]
            return problem.field.value(row, points[:, None], label=label)[:, 0]

        for _ in range(steps):
            here = path[-1]
            k1 = velocity(here)
            k2 = velocity(here + 0.5 * dt * k1)
            k3 = velocity(here + 0.5 * dt * k2)
            k4 = velocity(here + dt * k3)
            path.append(np.clip(here + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4), low, high))
    return np.array(path)


def particle_cost(
    problem: ControlProblem,
    theta: Floats,
    groups: Sequence[tuple[Floats, Floats, Callable[[Floats], Floats], int | None]],
    kinetic: float,
    steps: int = 16,
) -> float:
    """What the network's flow costs without any mesh: terminal loss plus λ/2 ∫∫|v|² by Runge-Kutta and Simpson's rule.

    Args:
        problem: knows the field and its layers.
        theta: (L, p).
        groups: particles (n,), their weights (n,), the loss and the label that the field is given, for every label.
        kinetic: λ.
        steps: time steps per layer, an even number.
    """
    total = 0.0
    simpson = np.tile([2.0, 4.0], steps // 2)
    simpson = np.append(simpson, 1.0) - np.eye(steps + 1)[0]
    simpson *= problem.grid.layer_time / (3.0 * steps)
    for x, w, loss, label in groups:
        path = trajectories(problem, theta, x, label, steps)
        total += float(w @ loss(path[-1]))
        for layer, row in enumerate(theta):
            points = path[layer * steps : (layer + 1) * steps + 1].reshape(-1, 1)
            known = {} if label is None else {"label": label}
            speeds = problem.field.value(row, points, **known)[:, 0].reshape(steps + 1, -1)
            total += 0.5 * kinetic * float(simpson @ (speeds**2 @ w))
    return total


def well_particles(n: int, box: Box = WELL_BOX) -> tuple[Floats, Floats]:
    """Points (n,) and weights (n,) of the initial density of the two wells."""
    return normal_weights(WELL_MEAN, WELL_STD, box, n)


def cost_without_mesh(problem: ControlProblem, theta: Floats, loss: Loss, box: Box = WELL_BOX) -> float:
    """What the flow into two wells costs by particles: no mesh, so never below J*."""
    return particle_cost(problem, theta, [(*well_particles(2001, box), loss.function, None)], loss.kinetic)


# -- what remains ----------------------------------------------------------------------------------------------------


def distances(ideal: float, end: LoadedRun, particles: float) -> Table:
    """J, the flow's cost on the mesh and by particles, and their distances to J*, as columns of a table."""
    return {
        "ideal": ideal,
        "total": end.total,
        "flow": end.flow,
        "total_gap": end.total / ideal - 1.0,
        "flow_gap": end.flow / ideal - 1.0,
        "particle_gap": particles / ideal - 1.0,
        "iterations": end.iterations,
        "seconds": round(end.seconds, 2),
    }


def powers_of_two(axes: Axes, ticks: Sequence[float], label: str) -> None:
    """A logarithmic axis of sizes, with a number at each."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def percent(axes: Axes) -> None:
    """A logarithmic axis of relative distances; its limits are known."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    short = high < 30.0 * low
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Rows of a table, all with the keys of the first; floats with the digits that tell them apart."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(path)


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """The same as Markdown."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{x:.7g}" if isinstance(x, float) else str(x) for x in row.values()) + " |")


def save_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw in the style of the studies and write a PNG."""
    with matplotlib.rc_context(STYLE):
        draw().savefig(path)
    print(path)
