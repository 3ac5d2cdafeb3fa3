"""J over the values that a sweep has tried, on the mesh and for the network itself, and how far it is from a bound."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eulerian.app.figures.colours import PALETTE, VERMILION
from eulerian.app.figures.run_figure import RunFigure
from eulerian.app.runs.files import SWEEP, number_at
from eulerian.app.runs.run_table import TableRow
from eulerian.app.runs.sweep_table import COMPLETE, SweepRecord, column

_WIDE = 20.0  # a ratio of values from which on an axis is logarithmic
_MOST_TICKS = 7  # as many values stand at the axis themselves
_LONGEST = 18  # letters of a value
_MOST_NAMED = 16  # lines with a legend


def _draw(folder: Path) -> Figure | None:
    record = SweepRecord.load(folder)
    return sweep_curves(record) if any(_good(row) for row in record.rows) else None


SWEEP_FIGURE = RunFigure("sweep", (SWEEP,), _draw)


def _good(row: TableRow) -> bool:
    return row["status"] in COMPLETE and number_at(row["objective"]) is not None


@final
@dataclass(frozen=True)
class _Across:
    """What the horizontal axis shows: a key with its values.

    Attributes:
        key: that is varied.
        written: its values as the user wrote them; ticks where they are no numbers.
        numbers: whether they all are.
    """

    key: str
    written: tuple[str, ...]
    numbers: bool

    @classmethod
    def of(cls, record: SweepRecord) -> Self:
        """The key with the most values, of those with numbers if there are any."""

        def numeric(key: str) -> bool:
            return all(number_at(row[column(key)]) is not None for row in record.rows)

        key = max(record.keys, key=lambda key: (numeric(key), len(record.keys[key])))
        return cls(key, record.keys[key], numeric(key))

    def place(self, row: TableRow, order: Sequence[Any]) -> float:
        """Where a run is; ``order`` has the values in the order in which they were given."""
        value = row[column(self.key)]
        return float(value) if self.numbers else float(order.index(value))

    def set_axis(self, axes: Axes, places: Sequence[float]) -> None:
        """The axis's name, its scale and its ticks."""
        axes.set_xlabel(self.key)
        if not self.numbers:
            labels = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in self.written]
            axes.set_xticks(range(len(labels)), labels)
            return
        if min(places) > 0.0 and max(places) / min(places) >= _WIDE:
            axes.set_xscale("log")
        ticks = sorted(set(places))
        if len(ticks) <= _MOST_TICKS:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)


def sweep_curves(record: SweepRecord) -> Figure:
    """J over one key, a line for all values of the others; beside it the gap to the lower bound, where one is known."""
    across = _Across.of(record)
    with_gap = sum((number_at(row["gap"]) or 0.0) > 0.0 for row in record.rows if _good(row)) > 1
    lines = list(_lines(record, across))
    named = 1 < len(lines) <= _MOST_NAMED
    panels = 2 if with_gap else 1
    figure = Figure(figsize=(4.2 * panels + (1.6 if named else 0.0), 3.2), layout="constrained")
    axes: Any = figure.subplots(1, panels, squeeze=False)[0]
    order = list({repr(row[column(across.key)]): row[column(across.key)] for row in record.rows}.values())
    for (_, rows), colour in zip(lines, _colours(len(lines)), strict=True):
        _draw_line(axes[0], rows, [across.place(row, order) for row in rows], colour, alone=len(lines) == 1)
        if with_gap:
            x = [across.place(row, order) for row in rows if _good(row)]
            gaps = [number_at(row["gap"]) or np.nan for row in rows if _good(row)]
            axes[1].plot(x, np.where(np.array(gaps) > 0.0, gaps, np.nan), "o-", color=colour, ms=4, lw=1.2)
    _mark_failed(axes[0], [across.place(row, order) for row in record.rows if row["status"] == "failed"])
    axes[0].set_ylabel("$J$")
    if with_gap:
        axes[1].set(ylabel="gap to the lower bound", yscale="log")
    for each in axes:
        across.set_axis(each, [across.place(row, order) for row in record.rows])
        each.grid(which="major", color="0.92")
        each.set_axisbelow(True)
    styles = _styles(record, alone=len(lines) == 1)
    if len(lines) == 1:
        axes[0].legend(handles=styles)
    else:  # there is no room between so many lines
        figure.legend(handles=styles, loc="outside lower center", ncols=len(styles))
    if named:
        handles = [Line2D([], [], color=colour, lw=1.6) for colour in _colours(len(lines))]
        figure.legend(handles, [name for name, _ in lines], loc="outside right center")
    return figure


def _lines(record: SweepRecord, across: _Across) -> Iterator[tuple[str, list[TableRow]]]:
    """The runs with the same values of all other keys, and these; in the order of the horizontal axis."""
    others = [key for key in record.keys if key != across.key]
    groups: dict[str, tuple[str, list[TableRow]]] = {}
    for row in record.rows:
        name = ", ".join(f"{key.rpartition('.')[2]} = {_text(row[column(key)])}" for key in others)
        groups.setdefault(repr([row[column(key)] for key in others]), (name, []))[1].append(row)
    for name, rows in groups.values():
        yield name, sorted(rows, key=lambda row: row[column(across.key)]) if across.numbers else rows


def _text(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _colours(count: int) -> list[Any]:
    if count == 1:
        return ["black"]
    return list(PALETTE[:count]) if count <= len(PALETTE) else list(colormaps["viridis"](np.linspace(0.0, 0.9, count)))


def _draw_line(axes: Axes, rows: Sequence[TableRow], x: Sequence[float], colour: Any, *, alone: bool) -> None:
    """J of the mesh, dashed with open marks, and of the network itself."""
    good = np.array([_good(row) for row in rows])
    for key in ("objective", "verified"):
        y = [value if (value := number_at(row[key])) is not None else np.nan for row in rows]
        style: Mapping[str, Any] = _style(key)
        shade = VERMILION if alone and key == "verified" else colour
        axes.plot(np.array(x)[good], np.array(y)[good], color=shade, **style)


def _style(key: str) -> dict[str, Any]:
    if key == "objective":
        return {"ls": "--", "lw": 1.0, "marker": "o", "ms": 7, "mfc": "none"}
    return {"ls": "-", "lw": 1.4, "marker": "o", "ms": 3.5}


def _styles(record: SweepRecord, *, alone: bool) -> list[Line2D]:
    """Entries of the legend: what the two lines are, and the mark of failures."""
    shown = [("objective", "$J$ of the mesh", "black" if alone else "0.35")]
    if any(_good(row) and number_at(row["verified"]) is not None for row in record.rows):
        shown.append(("verified", "$J$ of the network itself", VERMILION if alone else "0.35"))
    handles = [Line2D([], [], color=colour, label=label, **_style(key)) for key, label, colour in shown]
    if any(row["status"] == "failed" for row in record.rows):
        handles.append(Line2D([], [], color="0.2", marker="x", ls="", label="failed"))
    return handles


def _mark_failed(axes: Axes, places: Sequence[float]) -> None:
    """Crosses at the lower edge."""
    if places:
        axes.plot(places, np.zeros(len(places)), "x", color="0.2", transform=axes.get_xaxis_transform(), clip_on=False)
