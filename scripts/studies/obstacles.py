"""What an obstacle costs: the best of all flows around walls, against the best one without them.

    python scripts/studies/obstacles.py

A Gaussian in a square with a hole and one in the left room of a dumbbell (``meshes/``) are called to a point by a
quadratic loss. For each, the value of

* the best flow that walls do not stop: Hopf and Lax on the convex hull;
* the best flow around them: Hopf and Lax with the lengths of shortest paths inside, exact;
* the convex solver, which knows only the mesh, on that mesh and on finer ones: primal, dual and the certified gap;
* a trained network on the mesh, from above.

Shortest paths meet at the corners that they turn around, so the best flow concentrates mass there on curves: no mesh
resolves that, and the solver comes down to the exact value at about first order.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI  # noqa: F401 - starts MPI before anything else

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from study import BLACK, BLUE, GREEN, GREY, VERMILION, Table, print_table, read_options, save_figure, train, write_csv

from eulerian import build
from eulerian.app.build.network import build_ideal
from eulerian.app.config import parse_config
from eulerian.app.figures.trajectories import draw_transport
from eulerian.app.runs.cell_nodes import CellNodes, Gathering
from eulerian.app.runs.snapshots import Snapshots
from eulerian.bounds.hopf_lax import hopf_lax
from eulerian.bounds.paths import flow_paths
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.problem import IdealProblem, PathBundle
from eulerian.transport.velocity_space import VelocitySpace

MESHES = Path(__file__).resolve().parents[2] / "meshes"
KINETIC, HORIZON, WEIGHT = 1.0, 1.0, 3.0  # λ, T and κ: without walls everything goes κ/(κ + λ/T) of its way


@dataclass(frozen=True)
class Place:
    """A domain with walls, what is there first and where it is called."""

    name: str
    title: str
    mesh: str
    mean: tuple[float, float]
    std: float
    target: tuple[float, float]
    finest: int  # how often the mesh is refined


PLACES = (
    Place("hole", "square with a hole", "square_with_hole.msh", (-1.3, 0.0), 0.25, (1.5, 0.0), 2),
    Place("dumbbell", "two rooms and a corridor", "dumbbell.msh", (-1.8, 0.6), 0.25, (2.0, 0.8), 1),
)


@dataclass(frozen=True)
class Sizes:
    """How much work is done."""

    finest: int = 9  # at most as often are meshes refined
    slabs: int = 24
    gap: float = 3e-3
    most: int = 1500  # iterations of the convex solver
    network: int = 60  # iterations of the network
    layers: int = 8
    width: int = 32


QUICK = Sizes(finest=0, slabs=8, gap=2e-2, most=300, network=6, layers=2, width=8)


@dataclass(frozen=True)
class Shown:
    """What the figure shows of a place."""

    snapshots: Snapshots
    paths: PathBundle


# -- problems --------------------------------------------------------------------------------------------------------


def configuration(place: Place, refine: int, field: Table, slabs: int | None = None) -> Table:
    """The problem in the domain with its walls."""
    return {
        "domain": {"file": place.mesh, "refine": refine},
        "density": {"initial": [{"kind": "gaussian", "mean": list(place.mean), "std": place.std}]},
        "field": {**field, "horizon": HORIZON},
        "objective": {
            "kinetic": KINETIC,
            "parameters": 1e-6,
            "terminal": {"kind": "quadratic", "target": list(place.target), "weight": WEIGHT},
        },
        "solver": {"max_steps_per_layer": 400},
        "ideal": {} if slabs is None else {"layers": slabs},
    }


def exact_values(place: Place) -> tuple[float, float]:
    """∫φ₀ dμ₀ of the Gaussian itself, cut off at the walls: on the convex hull, and with shortest paths inside."""
    problem = build_ideal(parse_config(configuration(place, 0, {"kind": "free"}), MESHES))
    around = hopf_lax(problem)
    lower, upper = problem.space.bounding_box
    box = {"lower": lower.tolist(), "upper": upper.tolist(), "cells": [20, 20]}
    hull = build_ideal(parse_config({**configuration(place, 0, {"kind": "free"}), "domain": {"box": box}}, "."))
    straight = hopf_lax(hull).potential(around.points)
    return float(np.vdot(around.masses, straight)), around.value


def shown(flow: ConvexFlow) -> Shown:
    """The flow's densities at both ends, and paths between them."""
    velocity_space = VelocitySpace(flow.linear_space)
    nodes = CellNodes(flow.linear_space, velocity_space)
    times = (0.0, HORIZON)
    gathering = Gathering(nodes)
    for t in times:
        gathering.add(t, flow.density_at(t), flow.velocity_at(t, velocity_space)[0])
    snapshots = gathering.gathered()
    assert snapshots is not None
    return Shown(snapshots, flow_paths(flow))


# -- the study -------------------------------------------------------------------------------------------------------


def study(place: Place, sizes: Sizes) -> tuple[list[Table], Shown]:
    """Every number of one place, as rows of a table, and what the figure shows of it."""
    rows: list[Table] = []
    hull, exact = exact_values(place)
    for refine in range(1 + min(place.finest, sizes.finest)):
        problem = build_ideal(parse_config(configuration(place, refine, {"kind": "free"}, sizes.slabs), MESHES))
        solution = solve_convex(problem, gap_tolerance=sizes.gap, residual_tolerance=1e-4, max_iterations=sizes.most)
        rows.append(_row(place, refine, problem, solution, exact, hull))
    rows[0] |= network(place, sizes, rows[0])
    return rows, shown(solution.flow)


def _row(
    place: Place, refine: int, problem: IdealProblem, solution: ConvexSolution, exact: float, hull: float
) -> Table:
    return {
        "domain": place.name,
        "refine": refine,
        "cells": problem.space.n_owned,
        "slabs": problem.slabs,
        "without_walls": hull,
        "around_walls": exact,
        "walls_cost": exact / hull - 1.0,
        "primal": solution.primal,
        "dual": solution.dual,
        "relative_gap": solution.relative_gap,
        "above_exact": solution.primal / exact - 1.0,
        "iterations": solution.iterations,
        "seconds": round(solution.history[-1].seconds, 1),
        "network": "",
        "network_above_dual": "",
        "network_above_exact": "",
        "network_seconds": "",
    }


def network(place: Place, sizes: Sizes, row: Table) -> Table:
    """A network trained on the coarsest mesh: terminal loss + kinetic energy, and how far that is from the bounds."""
    field = {"kind": "mlp", "hidden": [sizes.width], "layers": sizes.layers}
    problem = build(parse_config(configuration(place, 0, field), MESHES))
    end = train(problem, None, sizes.network)
    return {
        "network": end.flow,
        "network_above_dual": end.flow - row["dual"],
        "network_above_exact": end.flow / row["around_walls"] - 1.0,
        "network_seconds": round(end.seconds, 1),
    }


# -- the figure ------------------------------------------------------------------------------------------------------


def figure(results: list[tuple[Place, list[Table], Shown]]) -> Figure:
    """Flows around walls on top, their values below, relative to the exact one."""
    sizes = [np.ptp(view.snapshots.points, axis=(0, 1)) for *_, view in results]
    widths = [float(width / height) for width, height in sizes]
    result = Figure(figsize=(2.6 * sum(widths) + 0.3, 4.7), layout="constrained")
    above, below = result.subfigures(2, 1, height_ratios=(2.2, 1.0))
    maps = above.subplots(1, len(results), width_ratios=widths)
    values = below.subplots(1, len(results), sharex=True, sharey=True)
    for axes, panel, (place, rows, view) in zip(maps, values, results, strict=True):
        draw_transport(axes, view.snapshots, view.paths, whole=True)
        axes.plot(*place.target, marker="+", color=BLACK, ms=7, mew=1.2, zorder=5)
        axes.set(xticks=[], yticks=[], title=place.title)
        axes.spines[:].set_visible(False)
        _draw_values(panel, rows)
        panel.set_title(f"{place.title}: $J^* = {rows[0]['around_walls']:.4f}$")
    low, high = values[0].get_xlim()
    values[0].set_xlim(low, high + 0.2 * (high - low))  # for the words beside the last mark
    handles = [
        Patch(color=BLUE, alpha=0.7, lw=0, label="initial density"),
        Patch(color=VERMILION, alpha=0.7, lw=0, label="final density"),
        Line2D([], [], color=BLACK, marker="+", ls="", ms=6, mew=1.2, label="where the loss is 0"),
    ]
    above.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.0, handleheight=1.0)
    return result


def _draw_values(axes: Axes, rows: list[Table]) -> None:
    """J against the exact value J* around walls: without walls, of the convex solver, of the network."""
    exact = rows[0]["around_walls"]
    solver = [100.0 * (row["primal"] / exact - 1.0) for row in rows]
    hull, network = (100.0 * (rows[0][key] / exact - 1.0) for key in ("without_walls", "network"))
    axes.axvline(0.0, color=BLACK, lw=0.8, zorder=0)
    axes.annotate("", (0.0, 2), (hull, 2), arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.9, "shrinkA": 5})
    axes.plot(hull, 2, "o", color=GREY, ms=5)
    axes.annotate(
        f"walls: {-hull:.1f} % of $J^*$",
        (hull, 2),
        (0, 4),
        textcoords="offset points",
        color=GREY,
        va="bottom",
        fontsize=8,
    )
    for i, value in enumerate(solver):
        axes.plot(value, 1, "o", color=BLUE, ms=5, alpha=0.35 + 0.65 * i / max(1, len(solver) - 1), mew=0)
    _say(axes, max(solver), 1, " → ".join(f"+{value:.1f} %" for value in solver), BLUE)
    axes.plot(network, 0, "s", color=GREEN, ms=5)
    _say(axes, network, 0, f"+{network:.1f} %", GREEN)
    axes.set(yticks=range(3), ylim=(-0.5, 2.8), xlabel="above the exact value $J^*$ around the walls")
    axes.set_yticklabels(["network", "convex solver, finer meshes", "without walls"])
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _say(axes: Axes, x: float, line: int, text: str, colour: str) -> None:
    """Words beside a mark."""
    axes.annotate(text, (x, line), (6, 0), textcoords="offset points", color=colour, va="center", fontsize=8)


def main() -> None:
    options = read_options("obstacles", __doc__)
    sizes = QUICK if options.quick else Sizes()
    started = time.perf_counter()
    results = [(place, *study(place, sizes)) for place in PLACES]
    rows = [row for _, found, _ in results for row in found]
    print_table(rows)
    print(f"{time.perf_counter() - started:.0f} s")
    write_csv(options.output / "results.csv", rows)
    save_figure(options.output / "obstacles.png", lambda: figure(results))


if __name__ == "__main__":
    main()
