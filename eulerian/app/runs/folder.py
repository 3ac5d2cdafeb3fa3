"""The folder of one run: who may write there, and files that are never half written."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from mpi4py import MPI

from eulerian.app.runs.columns import Row, csv_text
from eulerian.app.runs.files import (
    ANIMATION,
    BOUNDARY,
    CHECKPOINT,
    CLASSES,
    CONFIG,
    DENSITIES,
    EXACT,
    FIGURES,
    GAP,
    GAP_COLUMNS,
    HISTORY,
    HISTORY_COLUMNS,
    LATEST,
    LOG,
    MESH,
    METHOD_PAIR,
    PARTICLES,
    PREVIOUS,
    PROJECTIONS,
    PUSHED_POINTS,
    RESULT,
    SNAPSHOTS,
    STUDY,
    TARGETS,
    THETA,
    TIMES,
    TRAJECTORIES,
    ArrayRecord,
    append_text,
    is_run,
    plain,
    write_arrays,
    write_text,
)
from eulerian.app.runs.result import Document
from eulerian.app.runs.run_files import mesh_arrays
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.fields.frame import Frame
from eulerian.fields.theta_file import theta_arrays
from eulerian.mesh.simplices import Simplices

KEY = "output.directory"

# What a run writes beside its configuration, and so what --overwrite ever deletes. The result goes first: a folder with
# one is complete. The configuration is only ever replaced: a folder with one is a run's, whenever a process is killed.
_PRODUCTS = (
    RESULT,
    HISTORY,
    GAP,
    THETA,
    MESH,
    LOG,
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
    *(f"{FIGURES}/{name}" for name in (BOUNDARY, TARGETS, EXACT, TIMES, CLASSES, PUSHED_POINTS, PROJECTIONS)),
    STUDY,
    ".*.part",
    f"{FIGURES}/.*.part",
    f"{CHECKPOINT}/{LATEST}",
    f"{CHECKPOINT}/{PREVIOUS}",
    f"{CHECKPOINT}/{DENSITIES}",
    *(f"{word}_*.{kind}" for word in ("pushed", "pulled") for kind in ("csv", "json")),
    "sampled.csv",
    "generated.csv",
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
        warnings: that the run has given so far; every result that is written here has them. On rank 0.
        figures: whether they are wanted.
    """

    comm: MPI.Comm
    path: Path
    warnings: list[str] = field(default_factory=list)
    figures: bool = True

    @classmethod
    def claim(
        cls, comm: MPI.Comm, directory: str | Path, overwrite: bool = False, *, figures: bool = True
    ) -> "RunFolder":
        """Check that a run may be written to ``directory``; nothing is changed. Collective.

        Args:
            comm: of the run.
            directory: the folder.
            overwrite: it may hold a run already, which is replaced or continued.
            figures: whether they are wanted.

        Raises:
            InputError: it holds a run (without ``overwrite``) or things that are no run, or cannot be written.
        """
        path = Path(directory)
        on_root(comm, lambda: _check_free(path, overwrite))
        return cls(comm, path, figures=figures)

    def start(self, config_text: str, keep: Sequence[str] = (), history: Sequence[Row] = ()) -> None:
        """Create the folder, delete a previous run's files and write the resolved configuration. Collective.

        Args:
            config_text: the configuration, which is replaced and never missing.
            keep: patterns of files that stay.
            history: of a run that is continued; what it wrote later than that is gone.
        """

        def work() -> None:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                _delete_products(self.path, keep)
                write_text(self.path / CONFIG, config_text)
                if history:
                    write_text(self.path / HISTORY, csv_text(HISTORY_COLUMNS, history, header=True))
            except OSError as error:
                raise _unwritable(self.path, error) from error

        on_root(self.comm, work)

    def write_result(self, document: Document) -> None:
        """Write ``result.json``: the last file of a run. Collective."""
        on_root(self.comm, lambda: self.write_result_here(document))

    def write_result_here(self, document: Document) -> None:
        """``write_result`` for one rank alone. Not collective."""
        text = json.dumps(plain(self.with_warnings(document)), indent=2, allow_nan=False)
        write_text(self.path / RESULT, text + "\n")

    def with_warnings(self, document: Document) -> Document:
        """The document with the run's warnings, each once. Not collective."""
        if not self.warnings:
            return document
        return {**document, "warnings": list(dict.fromkeys([*self.warnings, *document.get("warnings", [])]))}

    def write_theta(self, layers: Floats, readout: Floats | None = None, frame: Frame | None = None) -> None:
        """Write ``theta.npz``. Collective.

        Args:
            layers: ``theta`` (L, p).
            readout: ``readout`` (r,), where one is trained.
            frame: what a network's parameters are relative to; None for those in the user's units.
        """
        on_root(self.comm, lambda: self.write_theta_here(layers, readout, frame))

    def write_theta_here(self, layers: Floats, readout: Floats | None = None, frame: Frame | None = None) -> None:
        """``write_theta`` for one rank alone. Not collective."""
        write_arrays(self.path / THETA, theta_arrays(layers, readout, frame))

    def write_mesh(self, mesh: Simplices) -> None:
        """Write ``mesh.npz``, on which the run can be built again. Collective."""
        on_root(self.comm, lambda: write_arrays(self.path / MESH, mesh_arrays(mesh)))

    def write_figure_data(self, name: str, record: ArrayRecord | None) -> None:
        """Write what a figure is drawn from, if rank 0 has any. Collective."""
        on_root(self.comm, lambda: None if record is None else record.save(self.path / FIGURES / name))

    def append_history_here(self, row: Row) -> None:
        """Add one line to ``history.csv``; what is not finite stays empty. For one rank; not collective."""
        self._append(HISTORY, HISTORY_COLUMNS, row)

    def append_gap(self, row: Row) -> None:
        """Add one line to ``gap.csv``; what is not finite stays empty. Collective."""
        on_root(self.comm, lambda: self._append(GAP, GAP_COLUMNS, row))

    def _append(self, name: str, columns: Sequence[str], row: Row) -> None:
        path = self.path / name
        text = csv_text(columns, [row], header=not path.exists())
        append_text(path, text)


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


def _delete_products(path: Path, keep: Sequence[str]) -> None:
    """Delete what a run writes but for what is to stay, and nothing else; subfolders only once they are empty."""
    kept = {file for pattern in keep for file in path.glob(pattern)}
    for pattern in _PRODUCTS:
        for file in path.glob(pattern):
            if file not in kept and (file.is_file() or file.is_symlink()):
                file.unlink()
    for folder in (path / FIGURES, path / CHECKPOINT):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
