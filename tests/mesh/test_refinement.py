"""Which cells are cut, and that the mesh does not ask how many ranks there are."""

import hashlib

from mpi4py import MPI

import numpy as np
import pytest

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.density.space import DensitySpace
from eulerian.mesh.refinement import doerfler_marking, refined
from eulerian.mesh.simplices import Simplices, box_simplices

SQUARE = Box(lower=(-1.0, -1.0), upper=(1.0, 1.0), cells=(5, 4))


def space_on(comm: MPI.Comm, mesh: Simplices, degree: int = 1) -> DensitySpace:
    return DensitySpace(create_mesh(comm, Domain(box=SQUARE), None, mesh), degree, 1, mesh)


@pytest.mark.one_process
def test_the_fewest_cells_with_the_share_are_marked() -> None:
    indicator = np.array([0.1, 4.0, 0.2, 3.0, 2.0, 0.7])
    assert doerfler_marking(indicator, 0.4).tolist() == [False, True, False, False, False, False]
    assert doerfler_marking(indicator, 0.41).tolist() == [False, True, False, True, False, False]
    assert doerfler_marking(indicator, 1.0).all()
    for share in (0.1, 0.5, 0.9):
        marked = doerfler_marking(indicator, share)
        assert indicator[marked].sum() >= share * indicator.sum()
        assert indicator[marked].sum() - indicator[marked].min() < share * indicator.sum()


@pytest.mark.one_process
def test_cells_that_differ_by_rounding_are_marked_alike() -> None:
    indicator = 1.0 + 1e-13 * np.random.default_rng(0).standard_normal(8)
    assert doerfler_marking(indicator, 0.3).all()
    assert not doerfler_marking(np.zeros(4), 0.5).any()
    assert not doerfler_marking(np.zeros(0), 0.5).any()


@pytest.mark.one_process
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_boxes_are_those_of_dolfinx(comm: MPI.Comm, dim: int) -> None:
    box = Box(lower=(-1.0, 0.0, 2.0)[:dim], upper=(1.0, 0.5, 3.0)[:dim], cells=(3, 2, 4)[:dim])
    ours, theirs = DensitySpace(create_mesh(comm, Domain(box=box)), 0), box_simplices(box.lower, box.upper, box.cells)
    volumes = np.abs(np.linalg.det(np.diff(theirs.points[theirs.cells], axis=1)))
    assert sorted(volumes) == pytest.approx(sorted(ours.geometry.det), rel=1e-12)
    assert ours.vertices.reshape(-1, dim).max(axis=0) == pytest.approx(theirs.points.max(axis=0))


def test_the_mesh_is_the_same_on_any_number_of_ranks(comm: MPI.Comm) -> None:
    """The indicator is one with many ties, computed on the ranks."""
    assert len({*comm.allgather(fingerprint(comm)), fingerprint(MPI.COMM_SELF)}) == 1


def fingerprint(comm: MPI.Comm) -> str:
    """Of a mesh after some refinements. Collective."""
    mesh = box_simplices(SQUARE.lower, SQUARE.upper, SQUARE.cells)
    for number in range(5):
        space = space_on(comm, mesh)
        x = space.vertices.mean(axis=1)
        indicator = np.exp(-8.0 * (x**2).sum(axis=1)) * space.geometry.det[: space.n_owned]
        mesh = refined(mesh, space.mesh, indicator, 0.4, 1 + number % 2)
    return hashlib.sha256(mesh.cells.tobytes() + mesh.points.tobytes()).hexdigest()
