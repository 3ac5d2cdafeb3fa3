"""Shortest paths in polygons, against sampled lines of sight and known lengths."""

from itertools import pairwise

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.geodesics import Geodesics
from eulerian.bounds.polygon import Polygon
from eulerian.density.space import DensitySpace


def of_mesh(comm: MPI.Comm, name: str) -> Geodesics:
    space = DensitySpace(create_mesh(comm, Domain(file=str(MESHES / f"{name}.msh"))), 0)
    return Geodesics(Polygon.of_space(space), comm)


def of_loops(*loops: Floats) -> Geodesics:
    """A polygon of closed lines, the domain on their left."""
    begin = np.concatenate(loops)
    end = np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])
    return Geodesics(Polygon.of_edges(begin, end), MPI.COMM_WORLD)


def square(half: float) -> Floats:
    return half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def round_hole(n: int, radius: float) -> Floats:
    """Corners in clockwise order: the domain is outside."""
    angles = -2.0 * np.pi * np.arange(n) / n
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def inside_l(x: Floats) -> np.ndarray:
    """[-1, 1]² without its quarter x > 0, y < 0."""
    return (np.abs(x).max(axis=-1) < 1.0) & ((x[..., 0] < 0.0) | (x[..., 1] > 0.0))


def points_inside(geodesics: Geodesics, n: int, seed: int) -> Floats:
    corners = geodesics.polygon.corners
    x = np.random.default_rng(seed).uniform(corners.min(axis=0), corners.max(axis=0), (n, 2))
    return x[geodesics.inside(x)[0]]


# -- polygons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "corners", "bends", "area"),
    [("l_shape", 6, 1, 3.0), ("dumbbell", 12, 4, 2 * 2.4**2 + 1.2 * 0.5), ("square_with_hole", 44, 40, 16 - 1.127)],
)
def test_a_mesh_becomes_its_polygon(comm: MPI.Comm, name: str, corners: int, bends: int, area: float) -> None:
    polygon = of_mesh(comm, name).polygon
    assert (len(polygon.corners), len(polygon.bends)) == (corners, bends)
    a, b = polygon.corners, polygon.ends
    assert 0.5 * np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) == pytest.approx(area, rel=1e-3)
    for other in comm.allgather(polygon.corners):
        assert np.array_equal(other, polygon.corners)


def test_boundaries_that_touch_in_a_vertex_are_refused() -> None:
    with pytest.raises(InputError, match="do not touch"):
        of_loops(square(1.0), square(1.0) + 2.0)


def test_straight_walls_have_no_corners_in_between() -> None:
    many = np.concatenate([np.linspace(a, b, 7)[:-1] for a, b in pairwise([*square(1.0), square(1.0)[0]])])
    assert len(of_loops(many + 1e-13 * np.sin(np.arange(24))[:, None]).polygon.corners) == 4


# -- sight -----------------------------------------------------------------------------------------------------------


def test_who_sees_whom(comm: MPI.Comm) -> None:
    found = of_mesh(comm, "l_shape")
    rng = np.random.default_rng(0)
    p, q = (rng.uniform(-1.0, 1.0, (600, 2)) for _ in range(2))
    p, q = (points[inside_l(p) & inside_l(q)] for points in (p, q))
    shares = np.linspace(0.0, 1.0, 2001)[:, None, None]
    assert np.array_equal(found.see(p, q), inside_l((1.0 - shares) * p + shares * q).all(axis=0))


@pytest.mark.parametrize("name", ["l_shape", "dumbbell", "square_with_hole"])
def test_the_views_of_bends_are_those_of_all_edges(comm: MPI.Comm, name: str) -> None:
    """Views: angular sectors. Pairs: every edge. And only lines that are no support of the corner are left out."""
    found = of_mesh(comm, name)
    x = points_inside(found, 400, 3)
    legs, moved = found.legs(x, x), found.polygon.moved_bends
    who, bend = (a.ravel() for a in np.meshgrid(np.arange(len(x)), np.arange(found.n_bends), indexing="ij"))
    seen = found.see(moved[bend], x[who]).reshape(legs.shape)
    assert not np.any(np.isfinite(legs) & ~seen)
    assert np.isfinite(legs).any(axis=0).all()
    # From a bend that is left out the way to x is no shortest one: the path over it can be cut short.
    before, after = (found._kept["sides"][:, i : i + 2] for i in (0, 2))
    away = x[:, None] - found.polygon.bends
    cross = [before[:, 1] * away[..., 0] - before[:, 0] * away[..., 1]]
    cross.append(after[:, 0] * away[..., 1] - after[:, 1] * away[..., 0])
    assert np.array_equal(np.isfinite(legs), seen & (cross[0] * cross[1] >= 0.0))


def test_points_on_walls_and_in_corners(comm: MPI.Comm) -> None:
    found = of_mesh(comm, "l_shape")
    z = np.array([[-1.0, -1.0], [0.0, -1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, -0.5], [0.5, 0.0]])
    inside, moved = found.inside(z + 1e-13 * np.random.default_rng(0).standard_normal(z.shape))
    assert inside.all()
    assert inside_l(moved).all()
    expected = np.linalg.norm(z[:, None] - z, axis=2)
    for i, j in [(0, 3), (1, 3), (1, 4), (1, 6), (5, 3), (5, 4), (5, 6), (0, 6)]:
        expected[i, j] = expected[j, i] = np.linalg.norm(z[i]) + np.linalg.norm(z[j])
    assert found.distances(z, z) == pytest.approx(expected, abs=1e-12)
    assert not found.inside(np.array([[0.5, -0.5], [1.1, 0.5]]))[0].any()


def test_corners_in_a_row() -> None:
    """Teeth whose tips lie on one line: paths along it touch them all, and are as long as it is."""
    teeth = np.array([[x, y] for i in range(6) for x, y in ((i + 0.2, 0.0), (i + 0.5, 1.0), (i + 0.8, 0.0))])
    comb = np.concatenate([[[0.0, 0.0]], teeth, [[6.0, 0.0], [6.0, 2.0], [0.0, 2.0]]])
    found = of_loops(comb)
    x, z = np.array([[0.0, 1.0], [0.01, 0.5]]), np.array([[6.0, 1.0], [5.99, 0.5]])
    slope = np.hypot(0.49, 0.5)
    expected = [[6.0, 5.5 + slope], [slope + 5.5, 5.0 + 2.0 * slope]]
    assert found.distances(x, z) == pytest.approx(np.array(expected), abs=1e-12)


# -- lengths ---------------------------------------------------------------------------------------------------------


def test_shortest_paths_turn_around_a_corner(comm: MPI.Comm) -> None:
    x, z = np.array([[-0.5, -0.5], [-0.3, 0.4]]), np.array([[0.5, 0.2], [0.9, 0.9]])
    around = np.hypot(0.5, 0.5) + np.hypot(0.5, 0.2)
    expected = [[around, np.hypot(1.4, 1.4)], [np.hypot(0.8, 0.2), np.hypot(1.2, 0.5)]]
    assert of_mesh(comm, "l_shape").distances(x, z) == pytest.approx(np.array(expected), abs=1e-14)


@pytest.mark.parametrize("n", [40, 400])
def test_shortest_paths_wrap_around_a_disk(n: int) -> None:
    """Tangent, arc, tangent; a polygon in the circle cuts corners, of second order in their number."""
    found = of_loops(square(2.0), round_hole(n, 0.6))
    lengths = found.distances(np.array([[-1.5, 0.0]]), np.array([[1.5, 0.0], [0.0, 1.2]]))[0]
    expected = 2 * np.sqrt(1.5**2 - 0.36) + 0.6 * (np.pi - 2 * np.arccos(0.6 / 1.5))
    assert 0.0 < expected - lengths[0] < 1.0 / n**2
    assert lengths[1] == pytest.approx(np.hypot(1.5, 1.2), abs=1e-14)


@pytest.mark.parametrize("name", ["dumbbell", "square_with_hole"])
def test_lengths_are_a_metric(comm: MPI.Comm, name: str) -> None:
    found = of_mesh(comm, name)
    x = points_inside(found, 60, 1)
    lengths = found.distances(x, x)
    assert np.all(lengths >= np.linalg.norm(x[:, None] - x, axis=2))
    assert lengths == pytest.approx(lengths.T, abs=1e-13)
    assert np.all(lengths[:, :, None] + lengths[None] >= lengths[:, None] - 1e-12)


def test_parts_are_infinitely_far_apart() -> None:
    found = of_loops(square(1.0), square(1.0) + np.array([3.0, 0.0]))
    lengths = found.distances(np.array([[0.5, 0.5]]), np.array([[0.0, 0.0], [3.0, 0.0]]))
    assert lengths[0].tolist() == [pytest.approx(np.sqrt(0.5)), np.inf]
