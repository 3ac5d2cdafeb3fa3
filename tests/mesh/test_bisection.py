"""Bisected meshes are triangulations of the same domain, of bounded quality, the same whatever ends in which order."""

import numpy as np
import pytest
from numpy.typing import NDArray
from paths import MESHES

from eulerian.mesh.checks import check_mesh
from eulerian.mesh.importing import read_simplices
from eulerian.mesh.refinement import bisect, edge_table, without_tags
from eulerian.mesh.simplices import Simplices, box_simplices, qualities, signed_volumes

pytestmark = pytest.mark.one_process


def box(dim: int, cells: int = 3) -> Simplices:
    return box_simplices((-1.0,) * dim, (1.0, 2.0, 1.5)[:dim], (cells,) * dim)


def near_a_sphere(mesh: Simplices, width: float) -> NDArray[np.bool_]:
    centres = mesh.points[mesh.cells].mean(axis=1)
    return np.asarray(np.abs(np.linalg.norm(centres - 0.1, axis=1) - 0.6) < width)


@pytest.mark.parametrize(("dim", "rounds"), [(1, 10), (2, 10), (3, 7)])
def test_the_domain_is_covered_once_and_no_node_hangs(dim: int, rounds: int) -> None:
    mesh, rng = box(dim), np.random.default_rng(0)
    volume, quality = np.abs(signed_volumes(mesh.points, mesh.cells)).sum(), qualities(mesh).min()
    boundary = {1: 2, 2: 12, 3: 108}[dim]
    for number in range(rounds):
        before = mesh
        marked = near_a_sphere(mesh, 0.4 / 1.4**number) | (rng.random(len(mesh.cells)) < 0.03)
        mesh, parents = bisect(mesh, marked)
        table = check_mesh(mesh)  # refuses folded and overlapping cells, and hanging nodes
        # A node that hangs would make facets of the boundary inside the domain.
        sides = mesh.points[table.vertices[table.boundary]]
        low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
        on_wall = (sides == low).all(axis=1) | (sides == high).all(axis=1)
        assert on_wall.any(axis=1).all()
        assert np.count_nonzero(table.boundary) >= boundary
        assert np.abs(signed_volumes(mesh.points, mesh.cells)).sum() == pytest.approx(volume, rel=1e-12)
        children = np.bincount(parents, minlength=len(before.cells))
        assert (np.diff(parents) >= 0).all()
        assert (children[marked] >= 2).all()
        assert children.max() <= 2 ** (dim * (dim + 1) // 2)
        shares = np.bincount(parents, np.abs(signed_volumes(mesh.points, mesh.cells)))
        assert shares == pytest.approx(np.abs(signed_volumes(before.points, before.cells)), rel=1e-12)
    assert qualities(mesh).min() >= {1: 0.999, 2: 0.8, 3: 0.3}[dim] * quality
    sizes = np.abs(signed_volumes(mesh.points, mesh.cells))
    assert sizes.max() / sizes.min() >= 2.0 ** (rounds - 2)  # it was refined where it was asked for, and not all over


def test_nothing_is_cut_where_nothing_is_marked() -> None:
    mesh = box(2)
    same, parents = bisect(mesh, np.zeros(len(mesh.cells), dtype=bool))
    assert np.array_equal(same.cells, mesh.cells)
    assert np.array_equal(same.points, mesh.points)
    assert np.array_equal(parents, np.arange(len(mesh.cells)))


def test_one_cell_is_cut_at_its_longest_edge_with_the_neighbour_there() -> None:
    mesh = box(2, 1)  # two triangles with a common diagonal
    finer, parents = bisect(mesh, np.array([True, False]))
    assert parents.tolist() == [0, 0, 1, 1]
    assert len(finer.points) == 5
    assert finer.points[4].tolist() == [0.0, 0.5]


def test_edges_of_equal_length_are_told_apart_by_their_numbers() -> None:
    """Coordinates that differ in their last bits make the same mesh."""
    mesh = box(3, 2)
    shaken = mesh.points * (1.0 + 1e-15 * np.random.default_rng(1).standard_normal(mesh.points.shape))
    other = Simplices(shaken, mesh.cells, None, mesh.facets, mesh.facet_tags)
    for number in range(4):
        marked = near_a_sphere(mesh, 0.3 / 1.3**number)
        (mesh, _), (other, _) = bisect(mesh, marked), bisect(other, marked)
        assert np.array_equal(mesh.cells, other.cells)


def test_new_nodes_of_a_curved_domain_stay_inside() -> None:
    mesh = without_tags(read_simplices(MESHES / "disk.msh")[0])
    radius = np.linalg.norm(mesh.points, axis=1).max()
    table = check_mesh(mesh)
    length = np.linalg.norm(np.diff(mesh.points[table.vertices[table.boundary]], axis=1), axis=2).sum()
    finer, _ = bisect(mesh, near_a_sphere(mesh, 0.5))
    table = check_mesh(finer)
    assert np.linalg.norm(finer.points, axis=1).max() <= radius
    edges = finer.points[table.vertices[table.boundary]]
    assert np.linalg.norm(np.diff(edges, axis=1), axis=2).sum() == pytest.approx(length, rel=1e-12)


def test_edges_are_those_of_the_cells() -> None:
    mesh = box(3, 1)
    edges, of_cell = edge_table(mesh.cells)
    for cell, numbers in zip(mesh.cells.tolist(), of_cell, strict=True):
        expected = {frozenset((a, b)) for a in cell for b in cell if a < b}
        assert {frozenset(edge) for edge in edges[numbers].tolist()} == expected
    assert (edges[:, 0] < edges[:, 1]).all()
