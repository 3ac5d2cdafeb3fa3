"""What a run folder says about its run, and the mesh of one with ``[adapt]``. Not collective: for one rank."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eulerian.app.config.read import read_tables
from eulerian.app.runs.files import CONFIG, MESH, RESULT, THETA, is_run
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.npz import read_arrays
from eulerian.fields.theta_file import read_theta
from eulerian.mesh.simplices import Simplices

type Tables = dict[str, Any]


def require_run(folder: Path) -> None:
    """Check that a folder holds a run with its parameters. Not collective.

    Raises:
        InputError: it does not.
    """
    if not is_run(folder):
        raise InputError("is no run folder", key=str(folder), remedy=f"A run folder holds a {RESULT} and a {THETA}.")
    if not (folder / THETA).is_file():
        what = f"holds no {THETA}: the run is not complete"
        raise InputError(what, key=str(folder), remedy="Let `eulerian train` run to its end.")


def ideal_field(tables: Tables, n_labels: int) -> Tables:
    """The field whose θ ``ideal`` writes, of a run's configuration."""
    kept = {key: value for key, value in tables.get("field", {}).items() if key in ("layers", "horizon")}
    return {"kind": "free", **kept, "label_dependent": n_labels > 1}


def read_run(folder: Path) -> tuple[Tables, Tables, Floats, Floats]:
    """The configuration without the start of the run, ``result.json``, θ (L, p) and the readout. Not collective.

    Raises:
        InputError: one of the files is damaged.
    """
    try:
        tables = read_tables(folder / CONFIG)
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if not isinstance(result["command"], str):
            raise TypeError(f"the command is {result['command']!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"is no complete run folder ({type(error).__name__}: {error})"
        raise InputError(what, key=str(folder), remedy="Run the command again.") from error
    # Where the run started from does not matter any more, and those files may be gone.
    tables.get("field", {}).pop("theta", None)
    for key in ("file", "columns", "label_column"):
        tables.get("particles", {}).pop(key, None)
    theta, readout = read_theta(folder / THETA, str(folder / THETA))
    return tables, result, theta, readout


type Arrays = Mapping[str, np.ndarray[Any, Any]]

_POINTS, _CELLS = "mesh_points", "mesh_cells"


def mesh_arrays(mesh: Simplices) -> dict[str, np.ndarray[Any, Any]]:
    """Points (n, d) and cells (m, d + 1) by name."""
    return {_POINTS: mesh.points, _CELLS: mesh.cells}


def mesh_from(arrays: Arrays) -> Simplices | None:
    """The mesh in named arrays, or None where there is none."""
    if _POINTS not in arrays:
        return None
    points, cells = arrays[_POINTS], arrays[_CELLS]
    dim = points.shape[1]
    return Simplices(points, cells, None, np.empty((0, dim), dtype=np.int64), np.empty(0, dtype=np.int32))


def read_mesh(run: Path) -> Simplices | None:
    """The mesh of a run folder, or None where it is the one that the configuration describes.

    Raises:
        InputError: it is damaged.
    """
    path = run / MESH
    if not path.exists():
        return None
    why: InputError | None = None
    try:
        mesh = mesh_from(read_arrays(path, (_POINTS, _CELLS), MESH))
        if mesh is not None and mesh.cells.shape[1] == mesh.dim + 1 and mesh.cells.max() < len(mesh.points):
            return mesh
    except InputError as error:
        why = error
    what = f"holds no mesh that can be read{f' ({why.what})' if why else ''}"
    raise InputError(what, key=str(path), remedy="Run the command again.") from why
