"""A domain of several parts that are not connected."""

from pathlib import Path

from mpi4py import MPI

import meshio
import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.parallel import on_root
from eulerian.density.space import DensitySpace
from eulerian.mesh.create import import_mesh

CELLS = {1: 24, 2: 8}


def box(dim: int, corner: Floats, first: int) -> tuple[Floats, Floats]:
    """Points (n, 3) and cells of the unit interval or square at a corner, numbered from ``first``."""
    n = CELLS[dim]
    line = np.arange(n + 1)
    if dim == 1:
        points = np.column_stack([line / n, 0.0 * line, 0.0 * line])
        return points + corner, first + np.column_stack([line[:-1], line[1:]])
    x, y = np.meshgrid(line / n, line / n)
    points = np.column_stack([x.ravel(), y.ravel(), 0.0 * x.ravel()])
    start = (line[:-1] + (n + 1) * line[:-1, None]).ravel()[:, None]
    cells = np.concatenate([start + np.array(corners) for corners in ([0, 1, n + 2], [0, n + 2, n + 1])])
    return points + corner, first + cells


def archipelago(comm: MPI.Comm, folder: Path, dim: int, corners: list[list[float]], degree: int = 1) -> DensitySpace:
    """Unit boxes at several places, with two labels."""
    path = folder / f"parts{len(corners)}.vtu"

    def write() -> None:
        boxes, count = [], 0
        for corner in corners:
            boxes.append(box(dim, np.array(corner), count))
            count += len(boxes[-1][0])
        points, cells = (np.concatenate(arrays) for arrays in zip(*boxes, strict=True))
        meshio.Mesh(points, [({1: "line", 2: "triangle"}[dim], cells)]).write(path)

    on_root(comm, write)
    return DensitySpace(import_mesh(comm, path).mesh, degree, 1)
