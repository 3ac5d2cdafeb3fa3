"""Run folders as the commands leave them, without the time that the commands take."""

import csv
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
from numpy.typing import ArrayLike

from eulerian.app.config import Config, parse_config
from eulerian.app.runs.folder import RunFolder
from eulerian.base.parallel import on_root
from eulerian.fields.frame import Frame, frame_of


def leave_run(
    comm: MPI.Comm, folder: Path, table: dict[str, Any], theta: ArrayLike, readout: Any = None, command: str = "train"
) -> Path:
    """A run folder with a configuration and parameters (L, p), or (1, p) for the same in every layer."""
    run = RunFolder.claim(comm, folder, overwrite=True)
    config = parse_config(table, folder.parent)
    run.start(config.to_toml())
    rows = np.asarray(theta, dtype=float)
    rows = np.broadcast_to(rows, (table["field"]["layers"], rows.shape[1]))
    run.write_theta(rows, None if readout is None else np.asarray(readout, dtype=float), _frame(config))
    run.write_result({"command": command, "status": "converged"})
    return folder


def _frame(config: Config) -> Frame | None:
    """What parameters of a network in a box are relative to."""
    box = config.domain.box
    if box is None or config.field.kind not in ("mlp", "linear"):
        return None
    return frame_of(config.field.build(box.dim, config.n_labels or 1, box.lower, box.upper))


def write_csv(comm: MPI.Comm, path: Path, names: list[str], rows: Any) -> Path:
    """A table, written by rank 0."""

    def write() -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(rows)

    on_root(comm, write)
    return path


def read_csv(comm: MPI.Comm, path: Path) -> dict[str, list[str]]:
    """Columns by name, on all ranks."""

    def read() -> dict[str, list[str]]:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [row[name] for row in rows] for name in rows[0]}

    return on_root(comm, read)


def numbers(column: list[str]) -> Any:
    """A column as numbers."""
    return np.array([float(value) for value in column])
