"""Densities on a mesh against particles, in two and three dimensions: error against cost.

A Gaussian flows with a random network towards a point, in a box so large that next to nothing reaches its walls (which
particles do not feel). Meshes of degree 1 and 2 and random and Sobol particles climb ladders of resolutions; J and ∇J
are held against the finest of both methods, densities at the end against the density along characteristics. In two
dimensions these are the numbers of docs/results/accuracy.md.
"""

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from study import Table, print_table, read_options, save_figure, write_csv

from eulerian import build
from eulerian.analysis.convergence import ERRORS, ladders, observed_rate
from eulerian.app.config import parse_config
from eulerian.app.figures.study import draw_frontier
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.study_table import study_rows
from eulerian.app.tasks.study import Study, StudyPlan, run_study

# Of the box along each axis in either direction, and where the Gaussian is and where it is called.
HALF = {2: 4.0, 3: 2.5}
MEAN, TARGET, STD = (-0.5, 0.3, 0.0), (1.0, -0.5, 0.2), {2: 0.5, 3: 0.4}


@dataclass(frozen=True)
class Sizes:
    """Cells along each axis of the mesh that is halved and doubled, layers, and what is tried."""

    cells: dict[int, int]
    layers: int
    plan: dict[int, StudyPlan]


FULL = Sizes({2: 64, 3: 16}, 8, {2: StudyPlan((1, 2)), 3: StudyPlan((1, 2))})
QUICK = Sizes(
    {2: 12, 3: 6},
    2,
    {
        dim: StudyPlan((1, 2), (-1, 0), (64, 256), replicates=2, reference_count=512, reference_replicates=2)
        for dim in (2, 3)
    },
)


def configuration(dim: int, cells: int, field: Table) -> Table:
    """The Gaussian that ``field`` carries towards a point, on a mesh with so many cells along each axis."""
    return {
        "domain": {"box": {"lower": [-HALF[dim]] * dim, "upper": [HALF[dim]] * dim, "cells": [cells] * dim}},
        "density": {"initial": [{"kind": "gaussian", "mean": list(MEAN[:dim]), "std": STD[dim]}]},
        "field": field,
        "objective": {
            "kinetic": 0.5,
            "parameters": 1e-6,
            "terminal": {"kind": "quadratic", "target": list(TARGET[:dim])},
        },
    }


def study(dim: int, sizes: Sizes) -> Study:
    """All ladders in one dimension."""
    field = {"kind": "mlp", "hidden": [16], "layers": sizes.layers, "zero_init": False, "output_scale": 0.5}
    config = parse_config(configuration(dim, sizes.cells[dim], field), ".")
    problem = build(config)
    return run_study(config, problem, problem.initial_theta, sizes.plan[dim], Progress(speaks=True))


def table(found: Study) -> list[Table]:
    """The rows of docs/results/accuracy.md: resolutions, errors, times, and the observed rates where a ladder ends."""
    rows = []
    for name, own in ladders(found.rungs).items():
        for rung in own:
            what, cost = rung.resolution, rung.trial.cost
            size = f"N = {what.particles}" if what.degree is None else f"h = {what.h:.3g}, {what.cells} cells"
            errors = (rung.objective_error, rung.gradient_error, rung.density_error)
            rows.append(
                {
                    "method": name,
                    "resolution": size,
                    "error of J": _short(errors[0]),
                    "cosine of ∇J": "–" if math.isnan(rung.gradient_cosine) else f"{rung.gradient_cosine:.8f}",
                    "error of ∇J": _short(errors[1]),
                    "L¹ of ρ(T)": _short(errors[2]),
                    "CPU s, J": f"{cost.value.cpu:.2g}",
                    "CPU s, J and ∇J": f"{cost.gradient.cpu:.2g}",
                }
            )
        base = "N^-" if own[0].resolution.degree is None else "h^"
        rates = [f"{base}{observed_rate(own, error):.2f}" for error in ERRORS]
        rows.append(
            dict.fromkeys(rows[0], "")
            | {"method": name, "resolution": "observed"}
            | dict(zip(("error of J", "error of ∇J", "L¹ of ρ(T)"), rates, strict=True))
        )
    return rows


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1e}"


def figure(rows: list[Table]) -> Figure:
    """One row of panels per dimension."""
    result = Figure(figsize=(10.0, 6.6), layout="constrained")
    panels: Any = result.subplots(2, 3)
    for line, dim in zip(panels, (2, 3), strict=True):
        draw_frontier(list(line), [row for row in rows if row["dimension"] == dim])
        line[0].set_ylabel(f"$d = {dim}$", fontsize=11)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    result.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return result


def main() -> None:
    options = read_options("densities_and_particles", __doc__)
    sizes = QUICK if options.quick else FULL
    rows: list[Table] = []
    for dim in (2, 3):
        print(f"d = {dim}:", flush=True)
        found = study(dim, sizes)
        print_table(table(found))
        print(
            f"J and ∇J are held against {found.reference.name}, whose ∇J has an estimated relative error of "
            f"{found.reference.error:.1e}; the finest mesh and the finest Sobol points differ by "
            f"{found.disagreement:.1e} in ∇J."
        )
        unknown = {None: math.nan}
        rows += [
            {"dimension": dim} | {name: unknown.get(value, value) for name, value in row.items()}
            for row in study_rows(found.rungs)
        ]
    write_csv(options.output / "results.csv", rows)
    save_figure(options.output / "densities_and_particles.png", lambda: figure(rows))


if __name__ == "__main__":
    main()
