"""A mesh file written for a test, and the points that several tests start from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI

import meshio
import numpy as np
import pytest

from eulerian.base.parallel import on_root

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, comm: MPI.Comm) -> Write:
    """Write a mesh file on rank 0 and return its path on all ranks."""

    def to_file(name: str, points: Any, cells: Any, **options: Any) -> Path:
        def save() -> None:
            data = {key: options.pop(key) for key in ("cell_data", "field_data") if key in options}
            mesh = meshio.Mesh(np.asarray(points, dtype=float), cells, **data)
            mesh.write(tmp_path / name, **options)

        on_root(comm, save)
        return tmp_path / name

    return to_file
