"""Names of a run's files, and files that are never half written. Not collective: for one rank."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np

from eulerian.errors import InputError

RESULT, CONFIG, THETA = "result.json", "config.resolved.toml", "theta.npz"
HISTORY, GAP = "history.csv", "gap.csv"
FIGURES, SNAPSHOTS, TRAJECTORIES, CHECKPOINT = "figures", "snapshots.npz", "trajectories.npz", "checkpoint"
LATEST, PREVIOUS = "latest.npz", "previous.npz"  # checkpoints
METHOD_PAIR, STUDY = "compare.npz", "study.csv"
PARTICLES = "particles.npz"
BOUNDARY = "boundary.npz"
ANIMATION = "animation.gif"

LATER_PARTS = ("potential", "congestion", "entropy")
LATER_COLUMNS = (*LATER_PARTS, "level")  # which histories of earlier versions have not
HISTORY_COLUMNS = (
    "iteration",
    "total",
    "terminal",
    "kinetic",
    "jacobian",
    "parameters",
    "gradient_norm",
    "evaluations",
    "seconds",
    *LATER_COLUMNS,
)

STUDY_COLUMNS = (
    "ladder",
    "degree",
    "cells",
    "h",
    "particles",
    "sets",
    "objective",
    "objective_error",
    "gradient_cosine",
    "gradient_error",
    "density_error",
    "cpu_objective",
    "cpu_gradient",
    "cpu_density",
    "seconds_objective",
    "seconds_gradient",
)

GAP_COLUMNS = ("iteration", "primal", "dual", "gap", "relative_gap", "residual", "seconds")


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], before: Callable[[], object] = lambda: None
) -> None:
    """Write a file that is either complete or absent: beside its name, synced, then renamed, and the name synced.

    Args:
        path: the file.
        write: puts its contents into a stream.
        before: is called when they are safe, but not under that name yet.
    """
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    before()
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays to an ``.npz`` file, atomically and without pickle."""
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_arrays(path: Path, names: Iterable[str], key: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read named arrays of an ``.npz`` file, without pickle.

    Raises:
        InputError: it is missing or not such a file; names ``key``.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names}
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(f"cannot be read ({error})", key=key, value=str(path)) from error


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, complete or not."""
    return (path / RESULT).is_file() or (path / CONFIG).is_file()
