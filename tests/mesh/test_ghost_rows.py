"""Rows that several ranks see: adding up their copies, and copying the owners' rows."""

import gc

from mpi4py import MPI

import dolfinx
import numpy as np
import pytest
from problems import warped_mesh

from eulerian.mesh.ghost_rows import GhostRows


def vertex_map(comm: MPI.Comm, dim: int) -> dolfinx.common.IndexMap:
    return dolfinx.fem.functionspace(warped_mesh(comm, dim), ("Lagrange", 1)).dofmap.index_map


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)], ids=str)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_copies_add_up(comm: MPI.Comm, dim: int, shape: tuple[int, ...]) -> None:
    index_map = vertex_map(comm, dim)
    ghosts = GhostRows(index_map)
    n = index_map.size_local + index_map.num_ghosts
    numbers = index_map.local_to_global(np.arange(n, dtype=np.int32))
    rows = np.random.default_rng(comm.rank).standard_normal((n, *shape))
    expected = np.zeros((index_map.size_global, *shape))
    for theirs, values in comm.allgather((numbers, rows)):
        np.add.at(expected, theirs, values)
    for _ in range(2):  # nothing is left behind in buffers
        summed = rows.copy()
        ghosts.accumulate(summed)
        np.testing.assert_allclose(summed, expected[numbers], rtol=1e-13, atol=1e-14)
    everybody = comm.allgather((numbers, summed))
    for theirs, values in everybody:  # the same bits everywhere
        both = np.intersect1d(theirs, numbers)
        mine, other = (np.argsort(who)[np.searchsorted(np.sort(who), both)] for who in (numbers, theirs))
        np.testing.assert_array_equal(summed[mine], values[other])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_copy_is_counted_once(comm: MPI.Comm, dim: int) -> None:
    index_map = vertex_map(comm, dim)
    n = index_map.size_local + index_map.num_ghosts
    count = np.ones(n)
    GhostRows(index_map).accumulate(count)
    numbers = index_map.local_to_global(np.arange(n, dtype=np.int32))
    holders = np.bincount(np.concatenate(comm.allgather(numbers)), minlength=index_map.size_global)
    np.testing.assert_array_equal(count, holders[numbers])
    assert comm.size == 1 or holders.max() > 1


def test_updating_copies_the_owners_rows(comm: MPI.Comm) -> None:
    index_map = vertex_map(comm, 2)
    n = index_map.size_local + index_map.num_ghosts
    numbers = index_map.local_to_global(np.arange(n, dtype=np.int32)).astype(float)
    rows = np.stack([numbers, -numbers], axis=1)
    rows[index_map.size_local :] = np.nan
    GhostRows(index_map).update(rows)
    np.testing.assert_array_equal(rows, np.stack([numbers, -numbers], axis=1))


def test_ranks_without_rows(comm: MPI.Comm) -> None:
    box = dolfinx.mesh.create_interval(comm, 1, [0.0, 1.0])
    index_map = dolfinx.fem.functionspace(box, ("Lagrange", 1)).dofmap.index_map
    count = np.ones((index_map.size_local + index_map.num_ghosts, 2))
    GhostRows(index_map).accumulate(count)
    assert np.all(count >= 1.0)


def communicators_left(comm: MPI.Comm) -> int:
    """How many more communicators MPI makes, at most 3000. Collective."""
    held: list[MPI.Comm] = []
    try:
        while len(held) < 3000:
            held.append(comm.Dup())
    except MPI.Exception:
        pass  # MPICH has some 2000
    for duplicate in held:
        duplicate.Free()
    return comm.allreduce(len(held), MPI.MIN)


def test_meshes_leave_no_communicators_behind(comm: MPI.Comm) -> None:
    """A ladder of meshes in one process would end at some thousandth one: MPI has no more communicators."""

    def meshes(n: int) -> int:
        for _ in range(n):
            GhostRows(vertex_map(comm, 2))
            gc.collect()
            comm.barrier()
        return communicators_left(comm)

    meshes(1)  # what a first time leaves behind, MPI's refusal to make yet another one included
    before = meshes(1)
    assert meshes(5) == before
