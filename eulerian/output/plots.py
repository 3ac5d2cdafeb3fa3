"""Figures of a run, drawn from what its folder holds: densities over time, paths, how the minimisation went."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.output.compare_plots import pair_curves, pair_maps, part_errors
from eulerian.output.density_plots import density_curves, density_maps
from eulerian.output.files import (
    FIGURES,
    GAP,
    GAP_COLUMNS,
    HISTORY,
    HISTORY_COLUMNS,
    METHOD_PAIR,
    PARTICLES,
    SNAPSHOTS,
    STUDY,
    TRAJECTORIES,
    write_atomically,
)
from eulerian.output.ideal_plots import gap_curves, load_paths, trajectory_lines, trajectory_map
from eulerian.output.method_pair import MethodPair
from eulerian.output.snapshots import Snapshots
from eulerian.output.study import read_study
from eulerian.output.study_plots import frontier
from eulerian.output.swarm_paths import SwarmPaths
from eulerian.output.swarm_plots import swarm_figure

_DENSITY_TIMES = 5  # shown of those that are kept

# Okabe and Ito's palette, told apart by colour-blind readers.
_PART_COLOURS = {
    "total": "#000000",
    "terminal": "#0072B2",
    "kinetic": "#D55E00",
    "jacobian": "#009E73",
    "parameters": "#CC79A7",
}


def draw_run(folder: Path) -> list[Path]:
    """Draw every figure that a run folder holds the data of; the files written. Not collective: for one rank.

    Raises:
        InputError: snapshots or history are damaged.
    """
    drawn = []
    with matplotlib.rc_context():
        _set_style()
        if (folder / FIGURES / SNAPSHOTS).is_file():
            snapshots = Snapshots.load(folder / FIGURES / SNAPSHOTS)
            on_line = snapshots.points.shape[2] == 1
            draw = density_curves if on_line else density_maps
            drawn.append(_save(draw(snapshots.thinned(_DENSITY_TIMES)), folder / FIGURES / "densities.png"))
            if (folder / FIGURES / TRAJECTORIES).is_file():
                paths = load_paths(folder / FIGURES / TRAJECTORIES)
                draw_paths = trajectory_lines if on_line else trajectory_map
                drawn.append(_save(draw_paths(snapshots, paths), folder / FIGURES / "trajectories.png"))
        if (folder / FIGURES / PARTICLES).is_file():
            paths = SwarmPaths.load(folder / FIGURES / PARTICLES)
            drawn.append(_save(swarm_figure(paths), folder / FIGURES / "particles.png"))
        if (folder / FIGURES / METHOD_PAIR).is_file():
            drawn += _draw_pair(MethodPair.load(folder / FIGURES / METHOD_PAIR), folder / FIGURES)
        if (folder / STUDY).is_file():
            drawn.append(_save(frontier(read_study(folder / STUDY)), folder / FIGURES / "study.png"))
        rows = _read_columns(folder / HISTORY, HISTORY_COLUMNS, "history")
        if len(rows["total"]) > 0:
            drawn.append(_save(history_curves(rows), folder / FIGURES / "history.png"))
        rows = _read_columns(folder / GAP, GAP_COLUMNS, "gap")
        if len(rows["primal"]) > 0:
            drawn.append(_save(gap_curves(rows), folder / FIGURES / "gap.png"))
    return drawn


def _draw_pair(pair: MethodPair, folder: Path) -> list[Path]:
    """The figures of a comparison of methods; there is no picture of densities in three dimensions."""
    draw = {1: pair_curves, 2: pair_maps}.get(pair.x.shape[1])
    drawn = [] if draw is None else [_save(draw(pair), folder / "compare.png")]
    return [*drawn, _save(part_errors(pair), folder / "parts.png")]


def history_curves(rows: dict[str, Floats]) -> Figure:
    """J with its parts, and the gradient norm, over the iterations."""
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    left: Axes
    right: Axes
    left, right = figure.subplots(1, 2)
    for name, colour in _PART_COLOURS.items():
        if np.any(rows[name] != 0.0):
            label = "$J$" if name == "total" else name
            left.plot(rows["iteration"], rows[name], color=colour, lw=2.0 if name == "total" else 1.2, label=label)
    left.set(xlabel="iteration", ylabel="objective")
    left.legend()
    right.plot(rows["iteration"], rows["gradient_norm"], color="black", lw=1.2)
    right.set(xlabel="iteration", ylabel=r"$\|\nabla J\|_{L^2(0,T)}$", yscale="log")
    right.grid(which="major", color="0.9")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.01)
    return figure


def _set_style() -> None:
    matplotlib.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "savefig.pad_inches": 0.05,
        }
    )


def _read_columns(path: Path, columns: Sequence[str], key: str) -> dict[str, Floats]:
    """Columns of a table of numbers; an empty cell is NaN; empty columns if there is no such file.

    Raises:
        InputError: it is not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}
    except FileNotFoundError:
        return {name: np.zeros(0) for name in columns}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"cannot be read ({error})", key=key, value=str(path)) from error


def _save(figure: Figure, path: Path) -> Path:
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
    return path
