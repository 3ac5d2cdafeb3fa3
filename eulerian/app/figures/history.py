"""How a minimisation went: J with its parts, how far it is above a lower bound, and the gradient norm."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, SymmetricalLogLocator

from eulerian.app.figures.colours import PALETTE, VERMILION
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.columns import read_columns
from eulerian.app.runs.files import HISTORY, HISTORY_COLUMNS, LATER_COLUMNS, RESULT, number_at
from eulerian.base.arrays import Floats
from eulerian.objective.parts import part_names

# Okabe and Ito's colours are fewer than there are parts: grey, indigo, wine and olive can be told from them.
_COLOURS = {
    "total": "black",
    **dict(zip(part_names(), cycle([*PALETTE, "#7F7F7F", "#332288", "#882255", "#999933"]), strict=False)),
}
_DASHED = part_names("potential", "density", "functional")  # costs of the density itself
_TRUE = VERMILION
_WIDE = 20.0  # a ratio of J at its highest and at the end from which on its axis is logarithmic
_SHALLOW = 1e-4  # of the highest J: what is below is near 0


def _draw(folder: Path) -> Figure | None:
    rows = read_columns(folder / HISTORY, HISTORY_COLUMNS, "history", absent=LATER_COLUMNS)
    return history_curves(rows, ReferenceValues.of(_result(folder))) if len(rows["total"]) > 0 else None


HISTORY_FIGURE = RunFigure("history", (HISTORY,), _draw)


def _result(folder: Path) -> Mapping[str, Any]:
    """The run's result; nothing where there is none yet, or none that can be read."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


@final
@dataclass(frozen=True)
class ReferenceValues:
    """The lower bounds of a run's J, as far as they are known.

    Attributes:
        bound: a lower bound of J for any flow, or None.
        verified: the true J of the network's flow at the end, or None.
        kept: the iteration that this is of, where that is not the last one.
    """

    bound: float | None = None
    verified: float | None = None
    kept: float | None = None

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Self:
        """Those of a ``result.json``; what is missing in it, or damaged, is not known."""
        return cls(
            number_at(result, "certificate", "ideal"),
            number_at(result, "verified", "objective", "total"),
            number_at(result, "stop", "kept"),
        )


def history_curves(rows: Mapping[str, Floats], known: ReferenceValues | None = None) -> Figure:
    """J with its parts, J minus the bound where one is known, and the gradient norm, over the iterations."""
    known = ReferenceValues() if known is None else known
    count = 2 if known.bound is None else 3
    figure = Figure(figsize=(3.5 * count, 2.8), layout="constrained")
    panels: Any = figure.subplots(1, count)
    _draw_parts(panels[0], rows, known)
    if known.bound is not None:
        _draw_gap(panels[1], rows, known.bound, known)
    last = panels[-1]
    last.plot(rows["iteration"], rows["gradient_norm"], color="black", lw=1.2)
    last.set(ylabel=r"$\|\nabla J\|_{L^2(0,T)}$", yscale="log")
    last.grid(which="major", color="0.9")
    changes = rows["iteration"][1:][np.diff(rows["level"]) > 0.0]
    for axes in panels:
        for change in changes:  # to a finer mesh
            axes.axvline(change, color="0.6", lw=0.8, ls=":", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.01)
        axes.set_xlabel("iteration")
    return figure


def _draw_parts(axes: Axes, rows: Mapping[str, Floats], known: ReferenceValues) -> None:
    """J and its parts on the mesh, the bound, and the true J at the end."""
    for name, colour in _COLOURS.items():
        if np.any(rows[name] != 0.0):
            label = "$J$" if name == "total" else name
            width = 2.0 if name == "total" else 1.2
            dashes = "--" if name in _DASHED else "-"
            axes.plot(rows["iteration"], rows[name], color=colour, lw=width, ls=dashes, label=label)
    if known.bound is not None:
        axes.axhline(known.bound, color="0.5", lw=0.9, ls=(0, (1, 1)), label="bound")
    _draw_checks(axes, rows, rows["verified"])
    if known.verified is not None:
        end = rows["iteration"][-1] if known.kept is None else known.kept
        label = "true $J$" if known.kept is None else "true $J$, kept"
        axes.plot([end], [known.verified], "D", color=_TRUE, ms=4.5, clip_on=False, label=label, zorder=4)
    axes.set_ylabel("objective")
    _set_scale(axes, rows["total"])
    axes.legend(ncols=1 if len(axes.lines) < 5 else 2)


def _set_scale(axes: Axes, totals: Floats) -> None:
    """Where J falls by much, a linear axis shows its first iterations only: above J at the end it is logarithmic."""
    sizes = np.abs(totals[np.isfinite(totals)])
    if len(sizes) and sizes.max() >= _WIDE * sizes[-1] > 0.0:
        threshold = max(float(sizes[-1]), _SHALLOW * float(sizes.max()))
        axes.set_yscale("symlog", linthresh=threshold, linscale=1.0)  # parts of J may be 0, and negative
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10.0, linthresh=threshold, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def _draw_checks(axes: Axes, rows: Mapping[str, Floats], values: Floats) -> None:
    """The true J at the iterates where it was asked for."""
    if np.any(np.isfinite(values)):
        style: dict[str, Any] = {"color": _TRUE, "ms": 4.0, "mfc": "white", "mew": 1.0, "zorder": 3, "clip_on": False}
        axes.plot(rows["iteration"], values, "o", label="true $J$ on the way", **style)


def _draw_gap(axes: Axes, rows: Mapping[str, Floats], bound: float, known: ReferenceValues) -> None:
    """How far J is above the bound; the mesh's J may come to lie below it, which is said and not drawn."""
    gap = rows["total"] - bound
    above = gap > 0.0  # False for NaN
    axes.plot(rows["iteration"], np.where(above, gap, np.nan), color="black", lw=1.6, label="$J$ of the mesh")
    axes.set(ylabel="$J$ minus lower bound", yscale="log" if above.any() else "linear")
    checked = rows["verified"] - bound
    _draw_checks(axes, rows, np.where(checked > 0.0, checked, np.nan))
    if known.verified is not None and known.verified > bound:
        label = "true $J$ at the end" if known.kept is None else "true $J$, kept"
        axes.axhline(known.verified - bound, color=_TRUE, lw=1.1, ls="--", label=label)
    below = np.count_nonzero(gap <= 0.0)
    if below:
        text = f"{below} of {len(gap)} iterates are below the bound on the mesh"
        axes.set_title(text, fontsize="x-small", color="0.3")
    axes.grid(which="major", color="0.9")
    if len(axes.lines) > 1:
        axes.legend()
