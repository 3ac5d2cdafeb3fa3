"""Where adaptive refinement begins."""

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.training import COARSEST, coarse_mesh
from eulerian.app.config import Box, Domain
from eulerian.mesh.simplices import Simplices


def cells_along(mesh: Simplices, axis: int) -> int:
    return len(np.unique(np.round(mesh.points[:, axis], 9))) - 1


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("cells", "expected"), [((64, 64), (16, 16)), ((48, 24), (12, 6)), ((100,), (13,)), ((5, 40), (4, 10))]
)
def test_a_box_begins_coarse(comm: MPI.Comm, cells: tuple[int, ...], expected: tuple[int, ...]) -> None:
    dim = len(cells)
    box = Box(lower=(-1.0,) * dim, upper=(1.0,) * dim, cells=cells)
    mesh = coarse_mesh(comm, Domain(box=box, refine=3))
    assert tuple(cells_along(mesh, axis) for axis in range(dim)) == expected
    assert max(expected) <= COARSEST[dim]


@pytest.mark.one_process
def test_a_file_begins_as_it_is(comm: MPI.Comm) -> None:
    mesh = coarse_mesh(comm, Domain(file=MESHES / "square_with_hole.msh", refine=2))
    once = create_mesh(comm, Domain(file=MESHES / "square_with_hole.msh"))
    assert len(mesh.cells) == once.topology.index_map(2).size_global
    assert mesh.cell_tags is None
