"""Arrays of simplices: refinement, quality, facets."""

import numpy as np
import pytest
from paths import MESHES

from eulerian.base.errors import InputError
from eulerian.mesh.checks import check_mesh
from eulerian.mesh.importing import read_simplices
from eulerian.mesh.simplices import Simplices, facet_table, halve_edges, qualities, signed_volumes

pytestmark = pytest.mark.one_process


def test_points_and_cells_of_ones_own() -> None:
    mesh = Simplices([[0, 0], [1, 0], [0, 1], [1, 1]], [[0, 1, 2], [1, 3, 2]])  # type: ignore[arg-type]
    assert (mesh.points.dtype, mesh.cells.dtype) == (np.float64, np.int64)
    assert (mesh.cell_tags, mesh.facets.shape, mesh.facet_tags.shape) == (None, (0, 2), (0,))
    assert len(halve_edges(mesh).cells) == 8


@pytest.mark.parametrize(
    ("points", "cells", "words"),
    [
        ([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0, 1]], "do not fit together"),
        ([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0, 2.0]], "do not fit together"),
        ([0.0, 1.0], [[0, 1]], "do not fit together"),
        ([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1, 2, 3]], "3 points, numbered from 0"),
        ([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[-1, 0, 1]], "3 points, numbered from 0"),
    ],
)
def test_what_is_no_mesh(points: list[list[float]], cells: list[list[int]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Simplices(np.array(points), np.array(cells))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_refinement_against_the_plain_loop(dim: int) -> None:
    rng = np.random.default_rng(dim)
    points = np.vstack([np.zeros(dim), np.eye(dim)]) + 0.1 * rng.normal(size=(dim + 1, dim))
    cells = np.arange(dim + 1)[None]
    none = np.empty(0, dtype=np.int32)
    mesh = Simplices(points, cells, np.array([5], dtype=np.int32), np.empty((0, dim), dtype=np.int64), none)
    fine = halve_edges(mesh)
    middles = {tuple((points[i] + points[j]) / 2) for i in range(dim + 1) for j in range(i)}
    assert {tuple(x) for x in fine.points} == middles | {tuple(x) for x in points}
    # Children have equal volumes, and their number is 2^d.
    volumes = np.abs(signed_volumes(fine.points, fine.cells))
    np.testing.assert_allclose(volumes, np.full(2**dim, np.abs(signed_volumes(points, cells))[0] / 2**dim), rtol=1e-12)
    assert fine.cell_tags is not None
    assert fine.cell_tags.tolist() == [5] * 2**dim


def test_repeated_refinement_keeps_the_quality() -> None:
    mesh, _ = read_simplices(MESHES / "ball.msh")
    first = qualities(mesh).min()
    for _ in range(2):
        mesh = halve_edges(mesh)
    assert qualities(mesh).min() > 0.9 * first
    assert qualities(mesh).max() <= 1 + 1e-12


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_quality_of_regular_and_flat_simplices(dim: int) -> None:
    regular = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    if dim == 2:
        regular = np.array([[0.0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
    if dim == 1:
        regular = np.array([[0.0], [3.0]])
    none = np.empty(0, dtype=np.int32)
    mesh = Simplices(regular, np.arange(dim + 1)[None], None, np.empty((0, dim), dtype=np.int64), none)
    assert qualities(mesh)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["interval", "l_shape", "ball"])
def test_a_refined_mesh_is_a_mesh_and_keeps_its_tagged_facets(name: str) -> None:
    mesh, _ = read_simplices(MESHES / f"{name}.msh")
    fine = halve_edges(mesh)
    table = check_mesh(fine)
    found = table.find(fine.facets)
    assert (found >= 0).all()
    assert np.array_equal(np.unique(found), np.flatnonzero(table.boundary))  # every boundary facet has a tag here
    assert len(fine.facets) == len(mesh.facets) * 2 ** (mesh.dim - 1)


@pytest.mark.parametrize("name", ["interval", "l_shape", "ball"])
def test_facets_against_the_plain_loop(name: str) -> None:
    mesh, _ = read_simplices(MESHES / f"{name}.msh")
    expected: dict[tuple[int, ...], list[int]] = {}
    for cell, nodes in enumerate(mesh.cells.tolist()):
        for node in nodes:
            expected.setdefault(tuple(sorted(set(nodes) - {node})), []).append(cell)
    table = facet_table(mesh.points, mesh.cells)
    found = {
        tuple(nodes): [cell for cell in cells if cell >= 0]
        for nodes, cells in zip(table.vertices.tolist(), table.cells.tolist(), strict=True)
    }
    assert {nodes: sorted(cells) for nodes, cells in found.items()} == expected
    rows = np.array(sorted(expected))[::3]
    np.testing.assert_array_equal(table.vertices[table.find(rows[:, ::-1])], rows)
    assert (table.find(rows + len(mesh.points)) == -1).all()
