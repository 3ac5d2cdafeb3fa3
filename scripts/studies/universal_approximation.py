"""Universal approximation: as it grows and its weights get free, a network comes down to the best of all flows.

    python scripts/studies/universal_approximation.py

Two losses on a line, a smooth double well and two parabolas that meet in a kink. For each, J of a network with one
hidden layer against its width (2 … 64) and against the weight ε of its parameters, beside J* of the best of all
flows (Hopf-Lax, exact) and the best flow that the mesh and the layers allow (``field.kind = "free"``). What separates
the widest network from J* is the discretisation: the last column refines mesh and layers together.

J is not convex in the network's parameters. Every width therefore starts where the last one ended, with the new
neurons switched off (the set of networks grows, so its infimum falls); the narrowest starts from several seeds. The
ladder in ε starts at its lower end, for from the upper one it may never leave v = 0, and is gone up and down.
"""

from dataclasses import asdict, dataclass

from mpi4py import MPI  # noqa: F401 - starts MPI before anything else

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study import (
    BLACK,
    BLUE,
    LOSSES,
    VERMILION,
    Floats,
    LoadedRun,
    Loss,
    Table,
    cost_without_mesh,
    distances,
    percent,
    powers_of_two,
    print_table,
    read_options,
    save_figure,
    train,
    well_problem,
    write_csv,
)


@dataclass(frozen=True)
class Sizes:
    """How much work is done."""

    cells: int = 240
    layers: int = 12
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    ladder_width: int = 16
    epsilon: float = 1e-8  # of the width ladder
    epsilons: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    seeds: int = 4
    trial: int = 120  # iterations of every seed
    first: int = 400  # iterations of the narrowest network
    each: int = 140  # iterations of every wider one
    rung: int = 80  # iterations at every ε, up and down
    free: int = 200


QUICK = Sizes(60, 4, (2, 4, 8), 4, epsilons=(1e-6, 1e-3, 1e-1), seeds=2, trial=15, first=30, each=25, rung=15, free=60)


def network(width: int, seed: int = 0) -> Table:
    """One hidden layer."""
    return {"kind": "mlp", "hidden": [width], "seed": seed}


def widened(theta: Floats, fresh: Floats) -> Floats:
    """The network θ (L, 3w + 1) inside a wider one (L, 3w' + 1): the new neurons are those of ``fresh``, switched off.

    A row is (inner weights, inner biases, outer weights, outer bias).
    """
    old, new = theta.shape[1] // 3, fresh.shape[1] // 3
    result = fresh.copy()
    result[:, 2 * new :] = 0.0
    for block in range(3):
        result[:, block * new : block * new + old] = theta[:, block * old : (block + 1) * old]
    result[:, -1] = theta[:, -1]
    return result


def best_of_seeds(loss: Loss, width: int, sizes: Sizes) -> Floats:
    """θ of the best of several short trainings."""
    trials = []
    for seed in range(sizes.seeds):
        problem = well_problem(loss, network(width, seed), sizes.cells, sizes.layers, sizes.epsilon)
        trials.append(train(problem, None, sizes.trial))
    return min(trials, key=lambda trial: trial.total).theta


def width_ladder(loss: Loss, sizes: Sizes) -> dict[int, LoadedRun]:
    """The trained network of every width, at the ε of that ladder."""
    found: dict[int, LoadedRun] = {}
    for width in sizes.widths:
        problem = well_problem(loss, network(width), sizes.cells, sizes.layers, sizes.epsilon)
        if found:
            start = widened(list(found.values())[-1].theta, problem.initial_theta)
        else:
            start = best_of_seeds(loss, width, sizes)
        found[width] = train(problem, start, sizes.each if found else sizes.first)
    return found


def epsilon_ladder(loss: Loss, start: LoadedRun, sizes: Sizes) -> dict[float, LoadedRun]:
    """The best trained network of one width for every ε: up the ladder from ``start``, and down again."""
    found: dict[float, LoadedRun] = {}
    theta = start.theta
    up = sorted(sizes.epsilons)
    for epsilon in up + up[-2::-1]:
        problem = well_problem(loss, network(sizes.ladder_width), sizes.cells, sizes.layers, epsilon)
        ends = [train(problem, theta, sizes.rung), train(problem, np.zeros_like(theta), 0)]
        if epsilon in found:
            ends.append(found[epsilon])
        found[epsilon] = min(ends, key=lambda end: end.total)
        theta = found[epsilon].theta
    return found


def free_ladder(loss: Loss, sizes: Sizes) -> dict[int, LoadedRun]:
    """The best flow on every mesh (keys: cells), each started from the one before; layers refine with the cells."""
    found: dict[int, LoadedRun] = {}
    before: tuple[Floats, Floats] | None = None
    for level in (-1, 0, 1):
        cells, layers = refined(sizes, level)
        problem = well_problem(loss, {"kind": "free"}, cells, layers, 0.0)
        nodes = problem.velocity_space.all_nodes()[:, 0]
        nodes = np.sort(nodes)
        start = None
        if before is not None:
            # Nodes that see no mass may have run away; nothing in these problems is faster than 4.
            rows = np.array([np.interp(nodes, before[0], row) for row in np.clip(before[1], -4.0, 4.0)])
            start = np.repeat(rows, layers // len(rows), axis=0)
        found[cells] = train(problem, start, sizes.free)
        before = nodes, found[cells].theta
    return found


def refined(sizes: Sizes, level: int) -> tuple[int, int]:
    """Cells and layers ``level`` times finer by a factor of two."""
    return round(sizes.cells * 2.0**level), max(1, round(sizes.layers * 2.0**level))


def finer_network(loss: Loss, coarse: LoadedRun, width: int, sizes: Sizes) -> LoadedRun:
    """The widest network, trained on with half the cell and half the layer."""
    cells, layers = refined(sizes, 1)
    problem = well_problem(loss, network(width), cells, layers, sizes.epsilon)
    return train(problem, np.repeat(coarse.theta, layers // len(coarse.theta), axis=0), sizes.each // 2)


@dataclass(frozen=True)
class Row:
    """What one training is called in the table."""

    series: str
    width: int | str
    epsilon: float
    cells: int
    layers: int


def study(loss: Loss, sizes: Sizes) -> list[Table]:
    """Every number of one loss, as rows of a table."""
    cells, layers, widest = sizes.cells, sizes.layers, max(sizes.widths)
    flows = free_ladder(loss, sizes)
    by_width = width_ladder(loss, sizes)
    by_epsilon = epsilon_ladder(loss, by_width[sizes.ladder_width], sizes)
    found = [(Row("width", width, sizes.epsilon, cells, layers), end) for width, end in by_width.items()]
    found += [(Row("epsilon", sizes.ladder_width, eps, cells, layers), end) for eps, end in by_epsilon.items()]
    finer = finer_network(loss, by_width[widest], widest, sizes)
    found.append((Row("finer", widest, sizes.epsilon, *refined(sizes, 1)), finer))
    ideal = loss.ideal()
    free = [(Row("free", "", 0.0, mesh, layers * mesh // cells), end) for mesh, end in flows.items()]
    return [
        {"loss": loss.name, **asdict(row), **distances(ideal, end, _without_mesh(loss, row, end))}
        for row, end in free + found
    ]


def _without_mesh(loss: Loss, row: Row, end: LoadedRun) -> float:
    if row.series == "free":  # known at the nodes of its mesh only
        return float("nan")
    problem = well_problem(loss, network(int(row.width)), row.cells, row.layers, row.epsilon)
    return cost_without_mesh(problem, end.theta, loss)


def figure(rows: list[Table], sizes: Sizes) -> Figure:
    """For each loss: the gap to J* against the width, against ε, and against the mesh."""
    result = Figure(figsize=(10.0, 5.4), layout="constrained")
    panels = result.subplots(2, 3, width_ratios=(1.1, 1.1, 0.8))
    for loss, (by_width, by_epsilon, by_mesh) in zip(LOSSES, panels, strict=True):
        own = [row for row in rows if row["loss"] == loss.name]
        floor = next(row for row in own if row["series"] == "free" and row["cells"] == sizes.cells)["flow_gap"]
        for axes, series, key in ((by_width, "width", "width"), (by_epsilon, "epsilon", "epsilon")):
            _draw_gaps(axes, [row for row in own if row["series"] == series], key, floor)
        _draw_meshes(by_mesh, own, sizes)
        powers_of_two(by_width, sizes.widths, "width of the network")
        by_width.set(ylabel="$J/J^* - 1$")
        by_width.set_title(f"{loss.title}, $J^* = {own[0]['ideal']:.6f}$", loc="left")
        by_epsilon.set(xlabel=rf"$\varepsilon$ (width {sizes.ladder_width})", xscale="log")
        by_epsilon.invert_xaxis()
        by_epsilon.set_title("weights get free", loc="left")
        by_mesh.set_title("the rest is discretisation", loc="left")
        for axes in (by_width, by_epsilon, by_mesh):
            axes.set_yscale("log")
        for axes, highest in ((by_width, "width"), (by_epsilon, "epsilon")):
            top = max(row["total_gap"] for row in own if row["series"] == highest)
            axes.set_ylim(0.6 * floor, 2.0 * top)
        for axes in (by_width, by_epsilon, by_mesh):
            percent(axes)
    panels[0, 0].legend(loc="upper right")
    panels[0, 2].legend(loc="upper right")
    return result


def _draw_gaps(axes: Axes, rows: list[Table], key: str, floor: float) -> None:
    """Filled: all of J. Open: what the flow costs. Below the dashed line no field can come on this mesh."""
    axes.axhspan(1e-9, floor, color="0.93", lw=0)
    axes.axhline(floor, color=BLACK, lw=1.2, ls="--", label="best flow on this mesh (free)")
    at = [row[key] for row in rows]
    axes.plot(at, [row["total_gap"] for row in rows], "o-", color=VERMILION, ms=5, lw=1.3, label="all of $J$")
    axes.plot(
        at, [row["flow_gap"] for row in rows], "s-", color=BLUE, ms=4, lw=1.3, label="flow only: terminal + kinetic"
    )


def _draw_meshes(axes: Axes, own: list[Table], sizes: Sizes) -> None:
    """The best flow and the widest network when cells and layers are refined together."""
    free = [row for row in own if row["series"] == "free"]
    widest = [row for row in own if row["series"] in ("width", "finer") and row["width"] == max(sizes.widths)]
    for rows, style, colour, name in (
        (free, "^--", BLACK, "best flow (free)"),
        (widest, "s-", BLUE, f"network, width {max(sizes.widths)}"),
    ):
        axes.plot(
            [row["cells"] for row in rows],
            [row["flow_gap"] for row in rows],
            style,
            color=colour,
            ms=5,
            lw=1.3,
            label=name,
        )
    powers_of_two(axes, [row["cells"] for row in free], f"cells (layers = cells/{sizes.cells // sizes.layers})")


def main() -> None:
    options = read_options("universal_approximation", __doc__)
    sizes = QUICK if options.quick else Sizes()
    rows = [row for loss in LOSSES for row in study(loss, sizes)]
    print_table(rows)
    write_csv(options.output / "results.csv", rows)
    save_figure(options.output / "universal_approximation.png", lambda: figure(rows, sizes))


if __name__ == "__main__":
    main()
