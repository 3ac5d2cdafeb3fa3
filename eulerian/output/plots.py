"""Figures of a run, drawn from what its folder holds: densities over time, paths, how the minimisation went."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.output.compare_plots import pair_curves, pair_maps, part_errors
from eulerian.output.density_plots import density_curves, density_maps
from eulerian.output.files import (
    BOUNDARY,
    FIGURES,
    GAP,
    GAP_COLUMNS,
    HISTORY,
    HISTORY_COLUMNS,
    LATER_COLUMNS,
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
from eulerian.output.wall_contact import WallContact
from eulerian.output.wall_plots import contact_figure

type Kind = Literal["png", "pdf", "svg"]

_DENSITY_TIMES = 5  # shown of those that are kept
_PAGE = 6.2  # inches, of figures for a paper

# Okabe and Ito's palette, told apart by colour-blind readers.
_PART_COLOURS = {
    "total": "#000000",
    "terminal": "#0072B2",
    "kinetic": "#D55E00",
    "jacobian": "#009E73",
    "parameters": "#CC79A7",
    "potential": "#E69F00",
    "congestion": "#56B4E9",
    "entropy": "#7F7F7F",
}
_DASHED = ("potential", "congestion", "entropy")  # costs of the density itself


def draw_run(folder: Path, kind: Kind = "png") -> list[Path]:
    """Draw every figure that a run folder holds the data of; the files written. Not collective: for one rank.

    A ``pdf`` or ``svg`` is for a paper: at most as wide as a page of text, 8 pt letters, fonts embedded, and densities
    as pictures inside of axes that are lines and letters.

    Raises:
        InputError: snapshots or history are damaged.
    """
    drawn = []
    with matplotlib.rc_context():
        set_style(kind)
        for name, figure in _figures(folder, kind):
            drawn.append(_save(figure, folder / FIGURES / f"{name}.{kind}", kind))
    return drawn


def _figures(folder: Path, kind: Kind) -> Iterator[tuple[str, Figure]]:
    """Names and figures."""
    if (folder / FIGURES / SNAPSHOTS).is_file():
        snapshots = Snapshots.load(folder / FIGURES / SNAPSHOTS)
        on_line = snapshots.points.shape[2] == 1
        few = snapshots.thinned(_DENSITY_TIMES)
        yield "densities", density_curves(few) if on_line else density_maps(few, None if kind == "png" else _PAGE)
        if (folder / FIGURES / TRAJECTORIES).is_file():
            paths = load_paths(folder / FIGURES / TRAJECTORIES)
            draw_paths = trajectory_lines if on_line else trajectory_map
            yield "trajectories", draw_paths(snapshots, paths)
    if (folder / FIGURES / PARTICLES).is_file():
        yield "particles", swarm_figure(SwarmPaths.load(folder / FIGURES / PARTICLES))
    if (folder / FIGURES / METHOD_PAIR).is_file():
        yield from _pair_figures(MethodPair.load(folder / FIGURES / METHOD_PAIR))
    if (folder / FIGURES / BOUNDARY).is_file():
        yield "boundary", contact_figure(WallContact.load(folder / FIGURES / BOUNDARY))
    if (folder / STUDY).is_file():
        yield "study", frontier(read_study(folder / STUDY))
    rows = _read_columns(folder / HISTORY, HISTORY_COLUMNS, "history", absent=LATER_COLUMNS)
    if len(rows["total"]) > 0:
        yield "history", history_curves(rows)
    rows = _read_columns(folder / GAP, GAP_COLUMNS, "gap")
    if len(rows["primal"]) > 0:
        yield "gap", gap_curves(rows)


def _pair_figures(pair: MethodPair) -> Iterator[tuple[str, Figure]]:
    """The figures of a comparison of methods; there is no picture of densities in three dimensions."""
    draw = {1: pair_curves, 2: pair_maps}.get(pair.x.shape[1])
    if draw is not None:
        yield "compare", draw(pair)
    yield "parts", part_errors(pair)


def history_curves(rows: dict[str, Floats]) -> Figure:
    """J with its parts, and the gradient norm, over the iterations."""
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    left: Axes
    right: Axes
    left, right = figure.subplots(1, 2)
    for name, colour in _PART_COLOURS.items():
        if np.any(rows[name] != 0.0):
            label = "$J$" if name == "total" else name
            width, dashes = 2.0 if name == "total" else 1.2, "--" if name in _DASHED else "-"
            left.plot(rows["iteration"], rows[name], color=colour, lw=width, ls=dashes, label=label)
    left.set(xlabel="iteration", ylabel="objective")
    left.legend(ncols=1 if len(left.lines) < 5 else 2)
    right.plot(rows["iteration"], rows["gradient_norm"], color="black", lw=1.2)
    right.set(xlabel="iteration", ylabel=r"$\|\nabla J\|_{L^2(0,T)}$", yscale="log")
    right.grid(which="major", color="0.9")
    changes = rows["iteration"][1:][np.diff(rows["level"]) > 0.0]
    for axes in (left, right):
        for change in changes:  # to a finer mesh
            axes.axvline(change, color="0.6", lw=0.8, ls=":", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.01)
    return figure


def set_style(kind: Kind = "png") -> None:
    """The look of every figure, for the time of a ``matplotlib.rc_context``."""
    size = 9 if kind == "png" else 8
    matplotlib.rcParams.update(
        {
            "font.size": size,
            "axes.titlesize": size,
            "axes.labelsize": size,
            "legend.fontsize": size - 1,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "savefig.dpi": 200 if kind == "png" else 300,
            "pdf.fonttype": 42,  # TrueType: letters stay letters, and journals take it
            "svg.hashsalt": "eulerian",  # the same file every time
            "savefig.bbox": "tight",
            "savefig.pad_inches": 0.05,
        }
    )


def _read_columns(path: Path, columns: Sequence[str], key: str, absent: Sequence[str] = ()) -> dict[str, Floats]:
    """Columns of a table of numbers; an empty cell is NaN; empty columns if there is no such file.

    Columns that may be ``absent``, in files of earlier versions, are zero there.

    Raises:
        InputError: it is not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        missing = {name: "0" for name in absent if rows and name not in rows[0]}
        return {name: np.array([float((row | missing)[name] or "nan") for row in rows]) for name in columns}
    except FileNotFoundError:
        return {name: np.zeros(0) for name in columns}
    except (OSError, KeyError, ValueError, TypeError) as error:
        remedy = "It is damaged: run the command again."
        raise InputError(f"cannot be read ({error})", key=key, value=str(path), remedy=remedy) from error


def _save(figure: Figure, path: Path, kind: Kind) -> Path:
    metadata: dict[str, str | None] = {}
    cut: Bbox | None = None  # for Matplotlib to find out
    if kind != "png":
        width, height = figure.get_size_inches()
        factor = min(1.0, _PAGE / width)
        figure.set_size_inches(width * factor, height * factor**0.5)  # letters do not shrink
        metadata = {"CreationDate" if kind == "pdf" else "Date": None}
    if figure.get_layout_engine() is None:
        cut = _cropped(figure)
    write_atomically(path, lambda file: figure.savefig(file, format=kind, metadata=metadata, bbox_inches=cut))
    return path


def _cropped(figure: Figure) -> Bbox:
    """What a figure without a layout engine shows, in inches; Matplotlib itself would draw it once more to see that."""
    figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
    shown = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]
    return shown.padded(matplotlib.rcParams["savefig.pad_inches"])
