"""The folder of one run: who may write there, and files that are never half written."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mpi4py import MPI

from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.output.files import (
    ANIMATION,
    BOUNDARY,
    CHECKPOINT,
    CONFIG,
    FIGURES,
    GAP,
    GAP_COLUMNS,
    HISTORY,
    HISTORY_COLUMNS,
    METHOD_PAIR,
    PARTICLES,
    RESULT,
    SNAPSHOTS,
    STUDY,
    THETA,
    TRAJECTORIES,
    is_run,
    write_arrays,
    write_text,
)
from eulerian.output.result import Document, plain
from eulerian.parallel import on_root

KEY = "output.directory"

# All that a run writes, and so all that --overwrite ever deletes. The result goes first: a folder with one is complete.
_PRODUCTS = (
    RESULT,
    CONFIG,
    HISTORY,
    GAP,
    THETA,
    "densities*.pvd",
    "densities*.pvtu",
    "densities*.vtu",
    f"{FIGURES}/*.png",
    f"{FIGURES}/*.pdf",
    f"{FIGURES}/*.svg",
    f"{FIGURES}/{ANIMATION}",
    f"{FIGURES}/{SNAPSHOTS}",
    f"{FIGURES}/{TRAJECTORIES}",
    f"{FIGURES}/{PARTICLES}",
    f"{FIGURES}/{METHOD_PAIR}",
    f"{FIGURES}/{BOUNDARY}",
    STUDY,
    ".*.part",
    f"{FIGURES}/.*.part",
    f"{CHECKPOINT}/{THETA}",
    "pushed_*.csv",
    "pushed_*.json",
    "sampled.csv",
    f"{CHECKPOINT}/.*.part",
)


@final
@dataclass(frozen=True)
class RunFolder:
    """One run's folder, written by rank 0 only; an error there reaches every rank.

    ``claim`` asks whether the folder may be written, before any computation; ``start`` empties it, once the input has
    proved right. Every file but the histories is written beside its name, synced and renamed.

    Attributes:
        comm: the run's communicator.
        path: the folder.
    """

    comm: MPI.Comm
    path: Path

    @classmethod
    def claim(cls, comm: MPI.Comm, directory: str | Path, overwrite: bool = False) -> "RunFolder":
        """Check that a run may be written to ``directory``; nothing is changed. Collective.

        Raises:
            InputError: it holds a run (without ``overwrite``) or things that are no run, or cannot be written.
        """
        path = Path(directory)
        on_root(comm, lambda: _check_free(path, overwrite))
        return cls(comm, path)

    def start(self, config_text: str) -> None:
        """Create the folder, delete a previous run's files and write the resolved configuration. Collective."""

        def work() -> None:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                _delete_products(self.path)
                write_text(self.path / CONFIG, config_text)
            except OSError as error:
                raise _unwritable(self.path, error) from error

        on_root(self.comm, work)

    def write_result(self, document: Document) -> None:
        """Write ``result.json``: the last file of a run. Collective."""
        text = json.dumps(plain(document), indent=2, allow_nan=False) + "\n"
        on_root(self.comm, lambda: write_text(self.path / RESULT, text))

    def write_theta(self, layers: Floats, readout: Floats | None = None, *, checkpoint: bool = False) -> None:
        """Write ``theta.npz`` with ``theta`` (L, p) and, where it is trained, ``readout``. Collective.

        With ``checkpoint`` it goes to the folder ``checkpoint``, for a run that may not reach its end.
        """
        arrays = {"theta": layers} if readout is None else {"theta": layers, "readout": readout}

        folder = self.path / CHECKPOINT if checkpoint else self.path
        on_root(self.comm, lambda: write_arrays(folder / THETA, arrays))

    def append_history(self, row: Mapping[str, float]) -> None:
        """Add one line to ``history.csv``; what is not finite stays empty. Collective."""
        self._append(HISTORY, HISTORY_COLUMNS, row)

    def append_gap(self, row: Mapping[str, float]) -> None:
        """Add one line to ``gap.csv``; what is not finite stays empty. Collective."""
        self._append(GAP, GAP_COLUMNS, row)

    def _append(self, name: str, columns: Sequence[str], row: Mapping[str, float]) -> None:
        values = [row[column] for column in columns]
        cells = [repr(plain(value)) if math.isfinite(value) else "" for value in values]

        def work() -> None:
            path = self.path / name
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            if not path.exists():
                writer.writerow(columns)
            writer.writerow(cells)
            with path.open("a", encoding="utf-8") as file:
                file.write(text.getvalue())

        on_root(self.comm, work)


def _check_free(path: Path, overwrite: bool) -> None:
    """Raise InputError unless a run may be written to ``path``."""
    try:
        if path.exists() and not path.is_dir():
            raise InputError("is a file, not a folder", key=KEY, value=str(path), remedy="Choose another with --output")
        if path.is_dir() and any(path.iterdir()):
            if not is_run(path):
                raise InputError(
                    "the folder holds other things than a run; nothing in it was touched",
                    key=KEY,
                    value=str(path),
                    remedy="Choose another folder with --output",
                )
            if not overwrite:
                raise InputError(
                    "the folder already holds a run",
                    key=KEY,
                    value=str(path),
                    remedy="Use --overwrite to replace it or choose another folder with --output",
                )
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(f"{existing} cannot be written")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the folder cannot be written ({error.strerror or error})",
        key=KEY,
        value=str(path),
        remedy="Choose another folder with --output",
    )


def _delete_products(path: Path) -> None:
    """Delete what a run writes, and nothing else; subfolders only once they are empty."""
    for pattern in _PRODUCTS:
        for file in path.glob(pattern):
            if file.is_file() or file.is_symlink():
                file.unlink()
    for folder in (path / FIGURES, path / CHECKPOINT):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
