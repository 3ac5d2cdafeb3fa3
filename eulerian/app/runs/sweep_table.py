"""The runs of a sweep: what was varied, and how each of them went. Not collective: for one rank."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, final

from eulerian.app.runs.files import SWEEP, SWEEP_TABLE, plain, write_text
from eulerian.app.runs.run_table import COLUMNS, RunTable, TableRow
from eulerian.base.errors import InputError

# Statuses of runs that have come to their end.
COMPLETE = ("converged", "max_iterations", "done")
WAITING = "waiting"


@final
@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as ``sweep.json`` holds it.

    Attributes:
        command: of every run.
        method: ``densities`` or ``particles``.
        theta: where all runs evaluate their network, as the user named it; None for the configurations' own.
        keys: that have several values, with these as they were written.
        rows: a row of ``RunTable`` for every run, and the value of each key in a column of ``column``.
    """

    command: str
    method: str
    theta: str | None
    keys: Mapping[str, tuple[str, ...]]
    rows: list[TableRow]

    @property
    def table(self) -> RunTable:
        """The runs; on the terminal their names have the values."""
        name, *others = COLUMNS.items()
        varied = {column(key): "" for key in self.keys}
        return RunTable(self.rows, dict([name, *varied.items(), *others]) | {"command": ""})

    @property
    def undone(self) -> list[TableRow]:
        """Runs that failed, or have not come to their end."""
        return [row for row in self.rows if row["status"] not in COMPLETE]

    def save(self, folder: Path) -> None:
        """Write ``sweep.json`` and ``sweep.csv``.

        Raises:
            ComputationError: they cannot be written.
        """
        write_text(folder / SWEEP, json.dumps(plain(asdict(self)), indent=2, ensure_ascii=False) + "\n")
        write_text(folder / SWEEP_TABLE, self.table.csv())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it is missing or damaged.
        """
        path = folder / SWEEP
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            keys = {str(key): tuple(map(str, values)) for key, values in found["keys"].items()}
            rows = [_row(row, keys) for row in found["rows"]]
            return cls(str(found["command"]), str(found["method"]), found["theta"], keys, rows)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"cannot be read ({type(error).__name__}: {error})"
            remedy = "Sweep into another folder, or start anew with --overwrite."
            raise InputError(what, key=str(path), remedy=remedy) from error


def column(key: str) -> str:
    """The column of a key's values, which no other column is called."""
    return f"{key} (set)" if key in COLUMNS else key


def _row(row: Mapping[str, Any], keys: Mapping[str, Any]) -> TableRow:
    return {name: row[name] for name in (*COLUMNS, *map(column, keys))}
