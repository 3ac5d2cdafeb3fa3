"""Bounds of the continuous problem, beside what the convex solver certifies on a mesh.

    python scripts/studies/bounds.py
    python scripts/studies/bounds.py --only moons

The templates without costs at several times, and a problem of each study. For each:

* J of the trained network, by its mesh and by characteristics (with the error of the latter);
* the bracket lower ≤ J* ≤ upper of the continuous problem (``continuous_bounds``; ``monotone_bound`` on the line for
  fields that do not see the label), as ``eulerian ideal`` and the certificate of a training have it;
* what the convex solver certifies on the same mesh, dual and primal: bounds of its *discrete* problem, which may lie
  on either side of J*. By how much the dual value is off is between ``dual_over_upper`` and ``dual_over_lower``, (dual
  − upper) and (dual − lower) over the size of the bound, and ``verdict`` says what is proved: "dual above J*", "primal
  below J*", or nothing. (All three are empty where the bracket is that of fields that do not see the label: the solver
  knows only those that do.)

``above`` is what the network costs itself, without the costs of θ, minus the lower bound: never negative, up to
``network_error`` and ``error``. Where a bound is in general not attained (a field in the plane that does not see the
label, costs of all labels' density together), or is no measure, there is no percentage of it. Where the lower bound is
an estimate of the convex solver itself, the distances say what a second mesh makes of it.

What has been trained is kept in the folder of results, and read again: to see what other bounds make of the same
networks is a matter of the bounds alone. ``--again`` trains anew. Every problem keeps its row, and the table and the
figure are of all that are there, so that one problem may be done at a time.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import densities_and_particles
import labels_keep_order
import linear_regime
import mesh_and_network
import no_minimiser
import obstacles
import reference_values
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from study import (
    BLACK,
    BLUE,
    GREEN,
    KINKED,
    SMOOTH,
    Table,
    print_table,
    save_figure,
    well_configuration,
    write_csv,
)

import eulerian as eu
from eulerian.app import templates
from eulerian.app.build.free_flow import with_flow_cost
from eulerian.app.build.network import build_ideal
from eulerian.app.config import Config, parse_config
from eulerian.app.config.read import read_tables
from eulerian.app.config.tables import apply_overrides
from eulerian.app.tasks import run_train
from eulerian.bounds.continuous import ContinuousBounds
from eulerian.bounds.monotone_flows import monotone_bound
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.problem import PARTS, IdealProblem

ROW = "row.json"
USUAL = 60
BOUND, ESTIMATE = "0.72", "0.88"  # greys of brackets
MEASURE = 0.1  # a bound that is smaller than this part of J is no measure of a distance to it


@dataclass(frozen=True)
class Sizes:
    """How much work is done.

    Attributes:
        iterations: of a training, at most; ``USUAL`` where a problem does not say how many.
        gap: relative, of the convex solver.
        most: its iterations.
        cells: along each axis of a box, at most.
    """

    iterations: int = 150
    gap: float = 5e-3
    most: int = 1000
    cells: int = 10_000


QUICK = Sizes(4, 5e-2, 60, 12)
QUICK_NAMES = ("gaussian", "labels, one field")


@dataclass(frozen=True)
class Case:
    """A problem.

    Attributes:
        tables: its configuration, given a folder for what it needs; and the folder that its files are in.
        trained: whether there is a network.
        blind: the field does not see the label although the loss does.
    """

    tables: Callable[[Path], tuple[Table, Path]]
    trained: bool = True
    blind: bool = False


# -- problems --------------------------------------------------------------------------------------------------------


def template(name: str, *overrides: str) -> Callable[[Path], tuple[Table, Path]]:
    """A template, with some values replaced."""

    def tables(folder: Path) -> tuple[Table, Path]:
        file = templates.copy_template(name, folder, overwrite=True)[0]
        return apply_overrides(read_tables(file), overrides), file.parent

    return tables


def tables_of(tables: Table, folder: Path = Path()) -> Callable[[Path], tuple[Table, Path]]:
    """Tables as they are."""
    return lambda _: (tables, folder)


def network(width: int, layers: int) -> Table:
    """One hidden layer."""
    return {"kind": "mlp", "hidden": [width], "layers": layers}


def labels(*, sees_label: bool) -> Table:
    """Groups that must pass one another."""
    return labels_keep_order.configuration(sees_label, labels_keep_order.Sizes(), {"kind": "mlp", "hidden": [16]})


def pulses(layers: int) -> Table:
    """A problem without a minimiser; θ = 0, near which a training would begin, is a local one."""
    tables = no_minimiser.configuration(layers, 100)
    start = no_minimiser.starts(layers, None, 1)[0]
    return {**tables, "field": {**tables["field"], "theta": start.tolist()}}


def _template_case(name: str) -> Case:
    return Case(template(name), trained=name != "transport", blind=name == "wine")


# The convex solver knows no costs at times between, which this template is about.
OF_SEVERAL_TIMES = ("branching",)
AFFINE = reference_values.cases()[0].config
RADIAL = linear_regime.linear_field("rbf", 16)
HOLE = obstacles.configuration(obstacles.PLACES[0], 0, network(32, 8))
SPACE = densities_and_particles.configuration(3, 12, network(16, 8))
CASES: dict[str, Case] = {
    **{name: _template_case(name) for name in templates.available() if name not in OF_SEVERAL_TIMES},
    "thin moons": Case(template("moons", *mesh_and_network.THIN)),
    "thin moons, ρ log ρ": Case(template("moons", *mesh_and_network.THIN, "objective.entropy_form=density")),
    "kinked wells": Case(tables_of(well_configuration(KINKED, {"kind": "mlp", "hidden": [16]}, 240, 12, 1e-8))),
    "smooth wells, rbf": Case(
        tables_of(well_configuration(SMOOTH, RADIAL, 168, 12, 1e-8, box=linear_regime.BOX, most_steps=600))
    ),
    "affine": Case(tables_of(AFFINE)),
    "no minimiser": Case(tables_of(pulses(8))),
    "labels, seen": Case(tables_of(labels(sees_label=True))),
    "labels, one field": Case(tables_of(labels(sees_label=False)), blind=True),
    "hole": Case(tables_of(HOLE, obstacles.MESHES)),
    "gaussian in space": Case(tables_of(SPACE)),
}


def configuration(name: str, folder: Path, sizes: Sizes) -> Config:
    """A problem at some sizes, whose run goes into a folder."""
    tables, base = CASES[name].tables(folder)
    box, optimiser = tables["domain"].get("box"), tables.get("optimiser", {})
    iterations = min(optimiser.get("max_iterations", USUAL), sizes.iterations)
    domain = {"box": {**box, "cells": [min(n, sizes.cells) for n in box["cells"]]}} if box else tables["domain"]
    changed = {
        **tables,
        "domain": domain,
        "optimiser": {**optimiser, "max_iterations": iterations},
        "ideal": {**tables.get("ideal", {}), "certificate": "none", "gap_tolerance": sizes.gap}
        | {"max_iterations": sizes.most},
        "output": {"figures": False, "densities": 0},
    }
    return parse_config(changed, base, output=folder / "run")


# -- one problem -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Solved:
    """What is known of the ideal problem: its bracket, the convex solver's answer, and processor seconds of both."""

    bounds: ContinuousBounds
    solution: ConvexSolution | None
    bound_seconds: float
    solver_seconds: float


def trained(config: Config, *, again: bool) -> dict[str, Any]:
    """The result of a training, the one that is there already unless it is to be made again, or is of other sizes."""
    if not again:
        try:
            return run_train(config, resume=True)
        except eu.InputError as error:
            print(f"trained again: {error}")
    return run_train(config, overwrite=True)


def solved(config: Config, *, blind: bool) -> Solved:
    """The bounds of a problem and what the convex solver has to say, as ``eulerian ideal`` finds them."""
    problem, options = build_ideal(config), config.ideal.solver_options
    started = time.process_time()
    solution = solve_convex(problem, **options) if problem.kinetic > 0.0 else None
    between = time.process_time()
    if blind and problem.space.dim == 1:
        bounds = best_in_order(problem)
    else:
        bounds = eu.continuous_bounds(problem, solution, **options)
    ended = time.process_time()
    if solution is not None and bounds.origin != "monotone":
        bounds = with_flow_cost(config, problem, solution, bounds)
    return Solved(bounds, solution, ended - between, between - started)


def best_in_order(problem: IdealProblem) -> ContinuousBounds:
    """The exact value on the line for fields that do not see the label."""
    best = monotone_bound(problem)
    return ContinuousBounds(best.value, best.value, best.error, "monotone", True, abs(best.value))


def row_of(name: str, folder: Path, sizes: Sizes, *, again: bool = False) -> Table:
    """Every number of one problem."""
    case, config = CASES[name], configuration(name, folder, sizes)
    found = solved(config, blind=case.blind)
    result = trained(config, again=again) if case.trained else None
    attained = found.bounds.origin == "monotone" or not (case.blind or couples(config))
    return {"problem": name, **network_columns(result), **ideal_columns(found), **distances(result, found, attained)}


def couples(config: Config) -> bool:
    """Whether labels share a price of density."""
    costs = config.objective.costs()
    return config.field.label_dependent and (costs.congestion > 0.0 or costs.entropy > 0.0)


def network_columns(result: dict[str, Any] | None) -> Table:
    """J of the trained network by its mesh and by characteristics, with and without the costs of θ."""
    names = ("iterations", "mesh", "network", "network_error", "mesh_flow", "network_flow", "training_seconds")
    if result is None:
        return dict.fromkeys(names)
    mesh, verified = result["objective"], result["verified"]
    true = verified["objective"]
    total = true["total"]
    values = (
        result["iterations"],
        mesh["total"],
        total,
        None if total is None else verified["own_error"] * abs(total),
        flow_cost(mesh),
        flow_cost(true),
        round(result["seconds"]["solve"], 1),
    )
    return dict(zip(names, values, strict=True))


def flow_cost(parts: dict[str, float | None]) -> float | None:
    """What any flow is charged for: J without the costs of θ and of ∇v; None where a part has no value."""
    own = [parts[name] for name in PARTS]
    return None if None in own else math.fsum(own)


def ideal_columns(found: Solved) -> Table:
    """The bracket, and dual and primal of the convex solver."""
    bounds, solution = found.bounds.document, found.solution
    return {
        **{name: bounds[name] for name in ("lower", "upper", "error", "origin", "is_bound")},
        "bound_seconds": round(found.bound_seconds, 2),
        "dual": solution and solution.dual,
        "primal": solution and solution.primal,
        "solver_seconds": round(found.solver_seconds, 2),
    }


def distances(result: dict[str, Any] | None, found: Solved, attained: bool) -> Table:
    """How far the network and the convex solver's bound are from the lower bound; ``size`` is what 100 % are."""
    lower, size = found.bounds.lower, found.bounds.size
    network = flow_cost(result["verified"]["objective"]) if result else None
    above = None if network is None else network - lower
    measures = size > MEASURE * abs(network or 0.0)
    return {
        "above": above,
        "above_share": above / size if above is not None and measures and attained else None,
        **solver_columns(found),
        "size": size if measures else None,
        "attained": attained,
    }


def solver_columns(found: Solved) -> Table:
    """How far the convex solver's dual value is from J*, and what is wrong with its two values for certain."""
    bounds, solution = found.bounds, found.solution
    if solution is None or bounds.origin == "monotone":
        return dict.fromkeys(("dual_over_lower", "dual_over_upper", "verdict"))
    verdict = ""
    if bounds.is_bound:
        verdict = "dual above J*" if solution.dual > bounds.upper + bounds.error else verdict
        verdict = "primal below J*" if solution.primal < bounds.lower - bounds.error else verdict
    upper = (solution.dual - bounds.upper) / bounds.size
    return {
        "dual_over_lower": (solution.dual - bounds.lower) / bounds.size,
        "dual_over_upper": upper if math.isfinite(upper) else None,
        "verdict": verdict,
    }


def broken(row: Table) -> str:
    """What a row says that cannot be, or nothing: a network below the lower bound, by more than the errors of both."""
    if row["above"] is None:
        return ""
    doubt = (row["error"] or 0.0) + row["network_error"]
    return (
        "" if row["above"] >= -doubt else f"{row['problem']}: {-row['above']:.3g} below the bound, errors {doubt:.1g}"
    )


# -- the table and the figure ----------------------------------------------------------------------------------------


def readable(row: Table) -> Table:
    """A row in words, for the printed table."""
    bracket = f"{_number(row['lower'])} … {_number(row['upper']) or 'unknown'}"
    doubt = "unknown" if row["error"] is None else f"{row['error']:.0e}"
    certified = "" if row["dual"] is None else f"{_number(row['dual'])} … {_number(row['primal'])}"
    share = "" if row["above_share"] is None else f" ({_percent(row['above_share'])} %)"
    return {
        "problem": row["problem"],
        "J, mesh": _number(row["mesh"]),
        "J, network": "" if row["network"] is None else f"{_number(row['network'])} ± {row['network_error']:.0e}",
        "lower … upper": f"{bracket} ± {doubt}",
        "from": row["origin"] if row["is_bound"] else f"{row['origin']} (estimate)",
        "above the bound": "" if row["above"] is None else f"{row['above']:.3g}{share}",
        "before: dual … primal": certified,
        "dual off by": off_by(row),
        "s, bounds": f"{row['bound_seconds']:.1f}",
        "s, solver": "" if row["dual"] is None else f"{row['solver_seconds']:.1f}",
    }


def off_by(row: Table) -> str:
    """By how much the convex solver's dual value misses J*, in per cent of the bound."""
    shares = [row[name] for name in ("dual_over_upper", "dual_over_lower") if row[name] is not None]
    words = ["−+"[share >= 0.0] + _percent(abs(share)) for share in shares]
    number = " … ".join(dict.fromkeys(words)) + " %" if words else ""
    return f"{number}, {row['verdict']}" if row["verdict"] else number


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def figure(rows: list[Table]) -> Figure:
    """Intervals of all problems on one scale, relative to the lower bound, which is 0."""
    shown = [row for row in rows if row["size"]][::-1]
    result = Figure(figsize=(9.0, 0.32 * len(shown) + 1.3), layout="constrained")
    axes = result.subplots()
    for at, row in enumerate(shown):
        _draw_row(axes, at, row)
    axes.axvline(0.0, color=BLACK, lw=0.8, zorder=0)
    axes.margins(x=0.03)
    axes.set_xscale("symlog", linthresh=1e-3, linscale=0.8)
    ticks = [sign * 10.0**power for sign in (-1, 1) for power in range(-3, 2)]
    low, high = axes.get_xlim()
    axes.set_xticks(sorted([0.0, *(tick for tick in ticks if low <= tick <= high)]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{100 * x:+g} %".replace("-", "−") if x else "$J^*_{lower}$")
    )
    note = "" if all(row["attained"] for row in shown) else "; *: a bound that such fields do not attain"
    axes.set(yticks=range(len(shown)), ylim=(-0.6, len(shown) - 0.4))
    axes.set_xlabel(f"relative to the lower bound (linear between −0.1 % and +0.1 %){note}")
    axes.set_yticklabels([row["problem"] + ("" if row["attained"] else " *") for row in shown])
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    result.legend(handles=_handles(rows), loc="outside upper center", ncols=3)
    return result


def _draw_row(axes: Axes, at: int, row: Table) -> None:
    def place(value: float) -> float:
        return (value - row["lower"]) / row["size"]

    doubt = row["error"] or 0.0
    upper = row["upper"] if row["upper"] is not None else row["lower"]
    low, high = place(row["lower"] - doubt), place(upper + doubt)
    axes.barh(at, high - low, 0.62, left=low, color=BOUND if row["is_bound"] else ESTIMATE, zorder=1)
    axes.plot([0.0, place(upper)], [at, at], "|", color=BLACK, ms=11, mew=1.4, zorder=2)
    if row["dual"] is not None and row["primal"] is not None:
        ends = [place(row["dual"]), place(row["primal"])]
        axes.plot(ends, [at, at], "-", color=BLUE, lw=2.0, marker="|", ms=7, mew=2.0, zorder=3)
    if row["mesh_flow"] is not None:
        axes.plot(place(row["mesh_flow"]), at, "s", color=GREEN, mfc="white", ms=5, zorder=4)
    if row["network_flow"] is not None:
        error = row["network_error"] / row["size"]
        axes.errorbar(place(row["network_flow"]), at, xerr=error, fmt="s", color=GREEN, ms=5, lw=1.0, zorder=5)


def _handles(rows: list[Table]) -> list[Any]:
    """What the marks mean."""
    handles: list[Any] = [
        Line2D([], [], color=BLACK, marker="|", ls="", ms=9, mew=1.4, label="continuous problem: lower, upper"),
        Patch(color=BOUND, label="… with their error"),
        Line2D([], [], color=BLUE, marker="|", lw=2.0, ms=7, mew=2.0, label="convex solver on the mesh: dual, primal"),
        Line2D([], [], color=GREEN, marker="s", ls="", ms=5, label="network itself"),
        Line2D([], [], color=GREEN, marker="s", mfc="white", ls="", ms=5, label="network by its mesh"),
    ]
    if not all(row["is_bound"] for row in rows):
        handles.insert(2, Patch(color=ESTIMATE, label="… an estimate, and its error"))
    return handles


# -- all of it -------------------------------------------------------------------------------------------------------


def kept_rows(output: Path) -> list[Table]:
    """The rows of all problems that have been done, in the order of the table."""
    files = [output / name / ROW for name in CASES]
    return [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]


def do(names: Iterable[str], output: Path, sizes: Sizes, *, again: bool) -> None:
    """Find the rows of some problems, and keep them."""
    for name in names:
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        row = row_of(name, folder, sizes, again=again)
        (folder / ROW).write_text(json.dumps(row, indent=1), "utf-8")
        print("; ".join(f"{key}: {value}" for key, value in readable(row).items() if value), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"small sizes, of {' and '.join(QUICK_NAMES)} by default")
    parser.add_argument("--only", action="append", choices=list(CASES), help="a problem; may be given several times")
    parser.add_argument("--again", action="store_true", help="train again what has been trained already")
    parser.add_argument("--output", type=Path, help="folder (default runs/bounds, with --quick runs/bounds-quick)")
    options = parser.parse_args(arguments)
    if MPI.COMM_WORLD.size > 1:
        parser.error("a study is for one process")
    output = options.output or Path("runs") / ("bounds-quick" if options.quick else "bounds")
    names = options.only or (QUICK_NAMES if options.quick else CASES)
    do(names, output, QUICK if options.quick else Sizes(), again=options.again)
    rows = kept_rows(output)
    print_table([readable(row) for row in rows])
    write_csv(output / "results.csv", rows)
    save_figure(output / "bounds.png", lambda: figure(rows))
    for complaint in filter(None, map(broken, rows)):
        print(f"BELOW THE BOUND: {complaint}")


if __name__ == "__main__":
    main()
