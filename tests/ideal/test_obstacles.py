"""The study of obstacles: shortest paths around walls, exact values against brute force, the command at small sizes."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
from matplotlib.image import imread
from paths import MESHES, SCRIPTS

pytestmark = pytest.mark.mpi  # studies are for one process to run


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import from ``scripts/`` as a script does."""
    monkeypatch.syspath_prepend(str(SCRIPTS / "studies"))
    yield
    for name in ("study", "geodesics", "obstacles"):
        sys.modules.pop(name, None)


def domain(name: str) -> Any:
    """The polygon of a mesh in ``meshes/``."""
    from geodesics import Polygon

    mesh = meshio.read(MESHES / f"{name}.msh")
    return Polygon.of_mesh(mesh.points[:, :2], mesh.cells_dict["triangle"])


def inside_l(x: np.ndarray) -> np.ndarray:
    """[-1, 1]² without its quarter x > 0, y < 0."""
    return (np.abs(x).max(axis=-1) < 1.0) & ((x[..., 0] < 0.0) | (x[..., 1] > 0.0))


# -- polygons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "corners", "bends"), [("l_shape", 6, 1), ("dumbbell", 12, 4)])
def test_a_mesh_becomes_its_polygon(name: str, corners: int, bends: int) -> None:
    polygon = domain(name)
    assert (len(polygon.corners), len(polygon.bends)) == (corners, bends)
    a, b = polygon.corners, polygon.ends
    area = 0.5 * np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    assert area == pytest.approx({"l_shape": 3.0, "dumbbell": 2 * 2.4**2 + 1.2 * 0.5}[name], rel=1e-9)


def test_a_hole_is_a_polygon_too() -> None:
    polygon = domain("square_with_hole")
    a, b = polygon.corners, polygon.ends
    assert len(polygon.corners) == len(polygon.bends) + 4 > 30
    assert 0.5 * np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) == pytest.approx(16 - np.pi * 0.36, rel=1e-3)
    assert np.linalg.norm(polygon.bends, axis=1) == pytest.approx(0.6, abs=1e-6)


def test_boundaries_that_touch_in_a_vertex_are_refused() -> None:
    from geodesics import Polygon

    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    with pytest.raises(ValueError, match="vertex"):
        Polygon.of_mesh(x, np.array([[0, 1, 2], [0, 3, 4]]))


def test_who_sees_whom() -> None:
    polygon = domain("l_shape")
    p = np.array([-0.5, -0.5])
    q = np.array([[0.5, 0.4], [0.5, 0.6], [-0.5, 0.9], [0.9, 0.1]])
    assert polygon.see(p, q).tolist() == [False, True, True, False]
    rng = np.random.default_rng(0)
    p, q = (rng.uniform(-1.0, 1.0, (600, 2)) for _ in range(2))
    p, q = (points[inside_l(p) & inside_l(q)] for points in (p, q))
    shares = np.linspace(0.0, 1.0, 2001)[:, None, None]
    assert np.array_equal(polygon.see(p, q), inside_l((1.0 - shares) * p + shares * q).all(axis=0))


def test_shortest_paths_turn_around_a_corner() -> None:
    polygon = domain("l_shape")
    x, z = np.array([[-0.5, -0.5], [-0.3, 0.4]]), np.array([[0.5, 0.2], [0.9, 0.9]])
    around = np.hypot(0.5, 0.5) + np.hypot(0.5, 0.2)
    expected = [[around, np.hypot(1.4, 1.4)], [np.hypot(0.8, 0.2), np.hypot(1.2, 0.5)]]
    assert polygon.distances(x, z) == pytest.approx(np.array(expected), abs=1e-7)


def test_shortest_paths_wrap_around_a_disk() -> None:
    """Tangent, arc, tangent; a polygon in the circle cuts corners a little."""
    found = domain("square_with_hole").distances(np.array([[-1.5, 0.0]]), np.array([[1.5, 0.0], [0.0, 1.2]]))
    tangent, half = np.sqrt(1.5**2 - 0.36), np.arccos(0.6 / 1.5)
    expected = 2 * tangent + 0.6 * (np.pi - 2 * half)
    assert found[0, 0] == pytest.approx(expected, rel=1e-3)
    assert found[0, 0] < expected
    assert found[0, 1] == pytest.approx(np.hypot(1.5, 1.2), abs=1e-12)


# -- exact values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "weight"),
    [
        ((0.6, 0.3), 3.0),  # behind the corner
        ((0.6, 0.3), 0.4),  # hardly worth the way: many stop at the wall, or before the corner
        ((-0.7, -0.8), 5.0),
    ],
)
def test_values_are_those_of_brute_force(target: tuple[float, float], weight: float) -> None:
    from geodesics import least_cost

    polygon, alpha = domain("l_shape"), 1.3
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.0, 1.0, (60, 2))
    x = np.concatenate([x[inside_l(x)], [[-0.05, -0.9], [-0.02, -0.2]]])
    lines = np.linspace(-1.0, 1.0, 162)
    z = np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 2)
    walls = np.concatenate([np.stack([0 * lines, lines - 1.0], axis=1), np.stack([lines + 1.0, 0 * lines], axis=1)])
    z = np.concatenate([z[inside_l(z)], walls * 0.5 + np.array([-1e-9, 1e-9])])
    found = least_cost(polygon, x, np.array(target), weight, alpha, 0.01)
    loss = 0.5 * weight * np.sum((z - target) ** 2, axis=1)
    search = np.min(loss + 0.5 * alpha * polygon.distances(x, z) ** 2, axis=1)
    assert np.all(found <= search + 0.5 * (weight + alpha) * 0.005**2)  # walls are searched at points
    assert np.max(search - found) < 0.5 * (weight + alpha) * 0.75 * (lines[1] - lines[0]) ** 2
    straight = 0.5 * alpha * weight / (alpha + weight) * np.sum((x - target) ** 2, axis=1)
    assert np.all(found >= straight - 1e-12)
    assert np.any(found > straight + 1e-3)


def test_on_a_convex_domain_walls_cost_nothing() -> None:
    from geodesics import Polygon, least_cost

    square = Polygon.of_mesh(
        np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    x = np.random.default_rng(0).uniform(0.01, 0.99, (20, 2))
    found = least_cost(square, x, np.array([0.9, 0.4]), 2.0, 0.5, 0.1)
    assert found == pytest.approx(0.5 * 0.4 * np.sum((x - [0.9, 0.4]) ** 2, axis=1), abs=1e-14)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_at_small_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstacles

    monkeypatch.setattr(sys, "argv", ["obstacles.py", "--quick", "--output", str(tmp_path)])
    obstacles.main()
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = {row["domain"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"hole", "dumbbell"}
    for row in rows.values():
        hull, exact, dual, primal = (float(row[name]) for name in ("without_walls", "around_walls", "dual", "primal"))
        assert hull < exact
        assert 0.0 < primal - dual < 0.05 * primal
        assert primal == pytest.approx(exact, rel=0.06)
        assert primal > exact
        assert float(row["network"]) > dual
    # The value without walls is β/2 (|m − c|² + tr S), but for the little of the Gaussian that walls cut off.
    assert float(rows["dumbbell"]["without_walls"]) == pytest.approx(0.375 * (3.8**2 + 0.2**2 + 2 * 0.25**2), rel=2e-3)
    image = imread(tmp_path / "obstacles.png")
    assert min(image.shape[:2]) > 300
    assert np.ptp(image[..., :3]) > 0.5
