"""Walls: closest points of the domain, against brute force and closed forms."""

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from problems import box_space

from eulerian.analysis.walls import BoxWalls, FacetWalls, boundary_facets, closest_on_simplices, walls_of
from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.density.space import DensitySpace


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_facets_of_a_box_give_what_clipping_gives(comm: MPI.Comm, dim: int) -> None:
    space = box_space(comm, dim, 4, 0, size=1.0)
    clip = walls_of(space)
    assert isinstance(clip, BoxWalls)
    general = FacetWalls(boundary_facets(space))
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.95, 0.95, (400, dim))
    tracked, boxed = general.track(x), clip.track(x)
    for _ in range(5):
        step = 0.3 * rng.standard_normal(x.shape)
        found, touched = tracked.projected(x + step)
        expected, left = boxed.projected(x + step)
        assert np.allclose(found, expected, atol=1e-12)
        assert np.array_equal(touched, left)
        x = found
    assert touched.any()
    assert not touched.all()


def test_corners_that_point_inward_are_told_by_all_their_facets(comm: MPI.Comm) -> None:
    """Outside an obstacle's corner or inside it: the two facets that meet there may disagree one by one."""
    space = DensitySpace(create_mesh(comm, Domain(file=MESHES / "dumbbell.msh")), 0)
    walls = FacetWalls(boundary_facets(space))
    x = np.random.default_rng(1).uniform(*space.bounding_box, (3000, 2))
    from eulerian.density.outside import Domain as Covered

    inside = Covered(space).contains(x)
    points, outside = walls.closest(x)
    assert np.array_equal(outside, ~inside)
    flat = walls.facets
    brute = [closest_on_simplices(np.broadcast_to(each, (len(flat), 2)), flat) for each in x[:50]]
    for each, candidates, point in zip(x, brute, points, strict=False):
        least = np.linalg.norm(candidates - each, axis=1).min()
        assert np.linalg.norm(point - each) == pytest.approx(least, rel=1e-12)


@pytest.mark.one_process
def test_points_far_from_walls_are_not_looked_at(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    space = box_space(comm, 2, 30, 0, size=1.0)
    walls = FacetWalls(boundary_facets(space))
    tracked = walls.track(np.zeros((10, 2)))
    monkeypatch.setattr(FacetWalls, "closest", None)
    x = np.zeros((10, 2))
    for _ in range(9):
        x = x + np.array([0.1, 0.0])
        assert np.array_equal(tracked.projected(x)[0], x)
