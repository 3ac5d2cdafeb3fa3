"""A study of both methods: its table for the terminal, for ``result.json`` and as a file."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eulerian.app.runs.columns import Row, csv_text, read_rows
from eulerian.app.runs.files import STUDY_COLUMNS, write_text

if TYPE_CHECKING:
    from eulerian.analysis.convergence import Rung
    from eulerian.app.runs.result import Document

_TITLES = {"objective_error": "J", "gradient_error": "∇J", "density_error": "density"}


def study_rows(rungs: Iterable["Rung"]) -> list["Document"]:
    """One row of ``STUDY_COLUMNS`` per rung."""
    return [dict(zip(STUDY_COLUMNS, _cells(rung), strict=True)) for rung in rungs]


def _cells(rung: "Rung") -> tuple[Any, ...]:
    trial, what = rung.trial, rung.resolution
    on_mesh = what.degree is not None
    return (
        what.ladder,
        what.degree if on_mesh else None,
        what.cells if on_mesh else None,
        what.h,
        None if on_mesh else what.particles,
        None if on_mesh else len(trial.values),
        float(np.mean(trial.values)),
        rung.objective_error,
        rung.gradient_cosine,
        rung.gradient_error,
        rung.density_error,
        trial.cost.value.cpu,
        trial.cost.gradient.cpu,
        trial.cost.value.cpu + trial.density_cpu,
        trial.cost.value.wall,
        trial.cost.gradient.wall,
    )


def study_rates(rungs: Iterable["Rung"]) -> "Document":
    """By ladder and error, the r of error ~ h^r or N^(−r)."""
    from eulerian.analysis.convergence import ERRORS, ladders, observed_rate  # starts MPI, which no figure needs

    return {
        name: {error: observed_rate(own, error) for error in ERRORS} | {"power_of": "h" if _on_mesh(own) else "1/N"}
        for name, own in ladders(rungs).items()
    }


def _on_mesh(rungs: Sequence["Rung"]) -> bool:
    return rungs[0].resolution.degree is not None


def write_study(path: Path, rungs: Iterable["Rung"]) -> None:
    """Write the rows as a CSV file; what is unknown stays empty."""
    write_text(path, csv_text(STUDY_COLUMNS, study_rows(rungs), header=True))


def read_study(path: Path) -> list[Row]:
    """The rows that ``write_study`` wrote: numbers, NaN where a cell is empty, and the ladder's name.

    Raises:
        InputError: it is not such a file.
    """
    return read_rows(path, STUDY_COLUMNS, "study", text="ladder")


def study_table(rungs: Sequence["Rung"]) -> str:
    """Errors and costs of all rungs, and below each ladder its observed rates."""
    from eulerian.analysis.convergence import ERRORS, ladders, observed_rate  # starts MPI, which no figure needs

    titles = ("error of J", "cosine of ∇J", "error of ∇J", "L¹, density", "CPU s, J", "CPU s, ∇J")
    lines = [f"{'':28}" + "".join(f"{title:>14}" for title in titles)]
    for name, own in ladders(rungs).items():
        lines.append(name)
        for rung in own:
            cost = rung.trial.cost
            errors = (rung.objective_error, rung.gradient_cosine, rung.gradient_error, rung.density_error)
            cells = (*errors, cost.value.cpu, cost.gradient.cpu)
            lines.append(f"{_size(rung):>28}" + "".join(_cell(value, i == 1) for i, value in enumerate(cells)))
        rates = {error: observed_rate(own, error) for error in ERRORS}
        base, sign = ("h", "") if _on_mesh(own) else ("N", "-")
        listed = ", ".join(f"{_TITLES[error]} {base}^{sign}{rate:.2f}" for error, rate in rates.items())
        lines.append(f"{'observed:':>28}  {listed}")
    return "\n".join(lines)


def _size(rung: "Rung") -> str:
    what = rung.resolution
    return f"N = {what.particles}" if what.degree is None else f"{what.cells} cells, h = {what.h:.3g}"


def _cell(value: float, cosine: bool) -> str:
    if not math.isfinite(value):
        return f"{'-':>14}"
    return f"{value:14.8f}" if cosine else f"{value:14.2e}"
