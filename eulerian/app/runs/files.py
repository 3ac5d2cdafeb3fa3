"""Names of a run's files, files that are never half written, and arrays in them. Not collective: for one rank."""

import errno
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np

from eulerian.base.errors import ComputationError
from eulerian.base.npz import read_arrays
from eulerian.objective.parts import part_names

RESULT, CONFIG, THETA, LOG = "result.json", "config.resolved.toml", "theta.npz", "run.log"
MESH = "mesh.npz"  # of a run with [adapt]
HISTORY, GAP = "history.csv", "gap.csv"
FIGURES, SNAPSHOTS, TRAJECTORIES, CHECKPOINT = "figures", "snapshots.npz", "trajectories.npz", "checkpoint"
LATEST, PREVIOUS = "latest.npz", "previous.npz"  # checkpoints
METHOD_PAIR, STUDY = "compare.npz", "study.csv"
PARTICLES = "particles.npz"
DENSITIES = "density_*.h5"
BOUNDARY, TARGETS, EXACT, TIMES = "boundary.npz", "targets.npz", "exact.npz", "times.npz"
CLASSES, PUSHED_POINTS, PROJECTIONS = "classes.npz", "pushed_points.npz", "sights.npz"
ANIMATION = "animation.gif"
SWEEP, SWEEP_TABLE = "sweep.json", "sweep.csv"  # in the folder that the runs of a sweep are in

# Which histories of earlier versions have not, and what is in them then.
LATER_COLUMNS = {
    **dict.fromkeys((*part_names("potential", "density"), "level"), "0"),
    "verified": "",
    **dict.fromkeys(part_names("intermediate", "functional"), "0"),
}
HISTORY_COLUMNS = (
    "iteration",
    "total",
    *part_names("terminal", "velocity", "parameters"),
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


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Guard the writing of a file.

    Raises:
        ComputationError: the system refused; names the file, and what can be done.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space" if full else "See that its folder is there and may be written"
        raise ComputationError(
            f"{path} cannot be written ({error.strerror or error}). {remedy}, or choose another folder"
        ) from error


def write_atomically(
    path: Path,
    write: Callable[[BinaryIO], object],
    before: Callable[[], object] = lambda: None,
    *,
    sync: bool = True,
) -> None:
    """Write a file that is either complete or absent.

    Args:
        path: the file.
        write: puts its contents into a stream.
        before: is called when they are safe, but not under that name yet.
        sync: wait for the disk; else a machine that loses power may leave the file empty, a killed process may not.

    Raises:
        ComputationError: it cannot be written; nothing is left of it, and an older file of its name is still there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        try:
            with part.open("wb") as file:
                write(file)
            if sync:
                _sync(part)
            before()
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        if sync:
            _sync(path.parent)


def _sync(path: Path) -> None:
    """Make sure that a file, or the names in a folder, survive the machine's end."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_text(path: Path, text: str) -> None:
    """Add to a text file, all or nothing.

    Raises:
        ComputationError: it cannot be written.
    """
    with writing(path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            data = text.encode("utf-8")
            while data:  # of a disk that fills up, a write may take only a part
                data = data[file.write(data) or 0 :]
        except OSError:
            if before:
                file.truncate(before)
            else:
                path.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays to an ``.npz`` file, atomically and without pickle."""
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def number_at(tree: object, *keys: str) -> float | None:
    """A finite number in a tree of tables, or None."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    if isinstance(tree, bool) or not isinstance(tree, int | float):
        return None
    return tree if math.isfinite(tree) else None


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, complete or not."""
    return (path / RESULT).is_file() or (path / CONFIG).is_file()


@dataclass(frozen=True)
class ArrayRecord:
    """A frozen dataclass of arrays that is a file, too. Not collective: for one rank.

    Attributes:
        CONTENTS: what errors call the arrays.
    """

    CONTENTS: ClassVar[str]

    def save(self, path: Path) -> None:
        """Write all arrays to an ``.npz`` file."""
        write_arrays(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            InputError: it is missing or not such a file.
        """
        return cls(**read_arrays(path, [field.name for field in fields(cls)], cls.CONTENTS))

    @classmethod
    def load_if_there(cls, path: Path) -> Self | None:
        """The same; None where there is no such file."""
        return cls.load(path) if path.is_file() else None


def plain(value: Any) -> Any:
    """Plain JSON data: arrays become lists, NumPy scalars numbers, and what is not finite None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
