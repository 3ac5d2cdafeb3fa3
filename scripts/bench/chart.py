"""The figure of the benchmarks: goals at a glance, growth with the mesh, and densities against particles."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from suite import Row, Table

BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
}
COLOURS = {
    "eulerian": BLUE,
    "eulerian, particles": GREEN,
    "JAX": VERMILION,
    "JAX, usual": ORANGE,
    "particles": VERMILION,
    "particles, kernels": VERMILION,
    "particles, along paths": PURPLE,
}
SHORT = 26  # letters of names that have room side by side above a panel
FURTHEST = 100.0  # ratios to a goal beyond this are drawn here

type Panel = Callable[[Axes], None]


def draw(results: Table, path: Path) -> Path:
    """Everything that there is, as a PNG."""
    with mpl.rc_context(STYLE):
        rows = [Row.of(row) for each in results["benchmarks"] for row in each["rows"]]
        goals = [row for row in rows if row.verdict in ("met", "not met")]
        data = {each["benchmark"]: each["data"] for each in results["benchmarks"]}
        panels = list(all_panels(data))
        columns, lines = 3, max(1, -(-len(panels) // 3))
        height = max(2.3 * lines, 0.15 * len(goals) + 0.8)
        figure = Figure(figsize=(14, height), layout="constrained")
        grid = figure.add_gridspec(lines, columns + 2, width_ratios=[0.9, 0.9, 1, 1, 1])
        against_goals(figure.add_subplot(grid[:, :2]), goals)
        for index, panel in enumerate(panels):
            panel(figure.add_subplot(grid[index // columns, 2 + index % columns]))
        figure.savefig(path)
    return path


def against_goals(axes: Axes, rows: list[Row]) -> None:
    """How many times better than its goal every figure is; a cross where it was out of reach."""
    if not rows:
        axes.set_axis_off()
        return
    for index, row in enumerate(rows):
        met = row.verdict == "met"
        colour, ratio = BLUE if met else VERMILION, better(row)
        if ratio is None:
            axes.plot(1.0 / FURTHEST, index, "x", color=colour, ms=4)
        else:
            axes.plot([1.0, ratio], [index, index], color=colour, lw=2.5, solid_capstyle="butt")
            axes.plot(ratio, index, "o", color=colour, ms=3.5)
    axes.axvline(1.0, color=GREY, lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(0.8 / FURTHEST, 1.25 * FURTHEST)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [row.figure.strip() for row in rows], fontsize=6.5)
    axes.set_xlabel("better than the goal by this factor")
    axes.set_title("goals (blue: met)", loc="left")
    axes.grid(axis="x", color=GREY, alpha=0.2)


def better(row: Row) -> float | None:
    """The factor, cut off; 1 or a tenth where numbers are counted and none is wanted."""
    assert row.goal is not None
    if row.value is None:
        return None
    if row.goal.bound == 0.0 or row.value == 0.0:
        return 1.0 if row.goal.met(row.value) else 0.1
    ratio = row.value / row.goal.bound if row.goal.at_least else row.goal.bound / row.value
    return min(max(ratio, 1.0 / FURTHEST), FURTHEST)


def all_panels(data: Table) -> Iterator[Panel]:
    """What there is to draw."""
    if data.get("gradient", {}).get("sizes"):
        yield lambda axes: growth(axes, data["gradient"]["sizes"])
    if data.get("product", {}).get("kinds"):
        yield lambda axes: shares(axes, data["product"]["kinds"])
    if data.get("ideal"):
        yield lambda axes: convex(axes, data["ideal"])
    if data.get("weak_scaling"):
        yield lambda axes: model(axes, data["weak_scaling"])
    for name, found in data.get("levels", {}).items():
        yield lambda axes, name=name, found=found: levels(axes, name, found)  # type: ignore[misc]
    for name, found in data.get("particles", {}).items():
        yield lambda axes, name=name, found=found: races(axes, name, found["results"], "gaps")  # type: ignore[misc]
    for name, found in data.get("density_costs", {}).items():
        ends = found["best"], found["rest"]
        yield lambda axes, name=name, found=found, ends=ends: races(axes, name, found["results"], "values", ends)  # type: ignore[misc]


def name_panel(axes: Axes, title: str) -> None:
    """The title of a panel, and below it, above the curves, what they are."""
    names = axes.get_legend_handles_labels()[1]
    columns = len(names) if sum(map(len, names)) <= SHORT else 2
    rows = -(-len(names) // max(columns, 1))
    if names:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.0}
        axes.legend(ncols=columns, handlelength=1.4, columnspacing=1.0, **place)
    axes.set_title(title, loc="left", pad=4.0 + 12.0 * rows)


def growth(axes: Axes, sizes: Table) -> None:
    """Nanoseconds per step and unknown."""
    for colour, (name, found) in zip((BLUE, VERMILION, GREEN), sizes.items(), strict=False):
        x = [each["dofs"] for each in found]
        for key, line in (("forward", "--"), ("gradient", "-")):
            y = [1e9 * each[key] / each["steps"] / each["dofs"] for each in found]
            axes.loglog(x, y, "o" + line, color=colour, ms=3, lw=1.2, label=name if key == "gradient" else None)
    axes.set_xlabel("unknowns")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    name_panel(axes, "ns per step and unknown (dashed: J)")


def shares(axes: Axes, kinds: list[Table]) -> None:
    """Parts of the bandwidth of the triad."""
    names = ("stage", "AIJ", "BAIJ")
    for offset, (name, colour) in enumerate(zip(names, (BLUE, GREY, ORANGE), strict=True)):
        at = [index + 0.27 * (offset - 1) for index in range(len(kinds))]
        axes.bar(at, [100.0 * kind["shares"][name] for kind in kinds], 0.25, color=colour, label=name)
    axes.set_xticks(range(len(kinds)), [kind["name"] for kind in kinds])
    name_panel(axes, "% of the memory bandwidth")


def convex(axes: Axes, data: Table) -> None:
    """Seconds of the convex solver."""
    for (name, found), colour in zip(data.items(), (BLUE, VERMILION), strict=False):
        if isinstance(found, list) and found:
            x, y = [row["vertices"] ** 2 for row in found], [row["seconds"] for row in found]
            axes.loglog(x, y, "o-", color=colour, label=name)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("vertices")
    name_panel(axes, "convex solver: seconds")


def model(axes: Axes, data: Table) -> None:
    """Efficiency on most ranks by cells per rank."""
    for name, colour in (("2-D", BLUE), ("3-D", VERMILION)):
        if name in data:
            table = data[name]["efficiency"]
            x, y = [row["cells per rank"] for row in table], [list(row.values())[-1] for row in table]
            axes.semilogx(x, y, "o-", color=colour, label=name)
    axes.set_ylim(0.0, 1.05)
    axes.set_xlabel("cells per rank")
    name_panel(axes, "weak scaling to 10⁴ ranks (model)")


def levels(axes: Axes, name: str, found: Table) -> None:
    """J over the lowest against seconds."""
    lowest = min(row["total"] for rows in found.values() for row in rows)
    for (way, rows), colour in zip(found.items(), (VERMILION, BLUE), strict=True):
        last = [row for row in rows if row.get("level") == rows[-1].get("level")]
        x, y = [row["seconds"] for row in last], [row["total"] / lowest - 1.0 for row in last]
        label = {"single": "one mesh"}.get(way, way)
        axes.loglog([max(each, 1e-2) for each in x], [max(each, 1e-6) for each in y], color=colour, label=label)
    axes.set_xlabel("seconds")
    axes.set_ylabel("J over the lowest, − 1")
    name_panel(axes, name)


def races(axes: Axes, name: str, results: Table, key: str, ends: tuple[float, float] = (0.0, 1.0)) -> None:
    """Gap against seconds, every setting of every method; what is behind its own best is left out."""
    for method, found in results.items():
        for index, each in enumerate(found):
            x, y, low = [], [], float("inf")
            for seconds, value in each[key]:
                gap = (value - ends[0]) / (ends[1] - ends[0])
                if gap < low:
                    low = gap
                    x.append(max(seconds, 1e-3))
                    y.append(max(gap, 1e-4))
            if x:  # the end of the training, too
                x, y = [*x, max(x[-1], each[key][-1][0])], [*y, y[-1]]
                axes.loglog(x, y, color=COLOURS.get(method, GREY), lw=1, label=None if index else method)
    axes.set_xlabel("seconds of training")
    name_panel(axes, f"{name}: gap")
