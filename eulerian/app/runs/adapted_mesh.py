"""The mesh of a run with ``[adapt]`` as arrays, and in its folder. Not collective: for one rank."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eulerian.app.runs.files import MESH
from eulerian.base.errors import InputError
from eulerian.base.npz import read_arrays
from eulerian.mesh.simplices import Simplices

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
