"""Which domains are convex, and their half spaces."""

from pathlib import Path

from mpi4py import MPI

import meshio
import numpy as np
import pytest
from paths import MESHES

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.bounds.convexity import convex_domain
from eulerian.density.space import DensitySpace


def box_space(comm: MPI.Comm, dim: int, cells: int = 4) -> DensitySpace:
    box = Box(lower=(-1.0, 0.5, 2.0)[:dim], upper=(1.0, 3.5, 2.5)[:dim], cells=(cells,) * dim)
    return DensitySpace(create_mesh(comm, Domain(box=box)), 0)


def file_space(comm: MPI.Comm, file: Path, refine: int = 0) -> DensitySpace:
    return DensitySpace(create_mesh(comm, Domain(file=str(file), refine=refine)), 0)


def is_convex(space: DensitySpace) -> bool:
    try:
        convex_domain(space)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_box_is_convex(comm: MPI.Comm, dim: int) -> None:
    space = box_space(comm, dim)
    domain = convex_domain(space)
    assert domain.is_box
    assert len(domain.normals) == 2 * dim
    np.testing.assert_allclose(domain.lower, [-1.0, 0.5, 2.0][:dim])
    np.testing.assert_allclose(domain.upper, [1.0, 3.5, 2.5][:dim])
    middle, half = 0.5 * (domain.lower + domain.upper), 0.5 * (domain.upper - domain.lower)
    directions = np.concatenate([np.eye(dim), -np.eye(dim)])
    np.testing.assert_allclose(domain.depth(middle + 0.9 * half * directions).min(), 0.1 * half.min(), rtol=1e-12)
    np.testing.assert_allclose(domain.depth(middle + 1.1 * half * directions), -0.1 * np.tile(half, 2), rtol=1e-12)


@pytest.mark.parametrize("refine", [0, 1])
@pytest.mark.parametrize("name", ["disk", "ball", "interval"])
def test_round_meshes_are_convex(comm: MPI.Comm, name: str, refine: int) -> None:
    assert is_convex(file_space(comm, MESHES / f"{name}.msh", refine))


@pytest.mark.parametrize("name", ["dumbbell", "l_shape", "square_with_hole"])
def test_other_meshes_are_refused(comm: MPI.Comm, name: str) -> None:
    space = file_space(comm, MESHES / f"{name}.msh")
    assert not is_convex(space)
    with pytest.raises(InputError, match="convex") as refused:
        convex_domain(space)
    assert refused.value.key == "domain"


def slit_square(length: int) -> tuple[Floats, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """[0, 4]² in unit squares, cut along y = 2 from the left over ``length`` of them."""
    points = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    corner = np.array([5 * j + i for j in range(4) for i in range(4)])
    lower = np.stack([corner, corner + 1, corner + 6], axis=1)
    upper = np.stack([corner, corner + 6, corner + 5], axis=1)
    cells = np.concatenate([lower, upper])
    above = np.tile(corner >= 10, 2)
    for i in range(length):  # the cells above the slit get corners of their own
        rows = cells[above]
        rows[rows == 10 + i] = len(points) + i
        cells[above] = rows
    return np.concatenate([points, points[10 : 10 + length]]), cells


@pytest.mark.parametrize("length", [0, 2])
def test_a_slit_without_volume_is_seen(comm: MPI.Comm, tmp_path: Path, length: int) -> None:
    points, cells = slit_square(length)
    on_root(comm, lambda: meshio.Mesh(points, [("triangle", cells)]).write(tmp_path / "slit.vtu"))
    assert is_convex(file_space(comm, tmp_path / "slit.vtu")) == (length == 0)


@pytest.mark.parametrize(("depth", "convex"), [(1e-3, True), (0.1, False)])
def test_small_dents_are_forgiven(comm: MPI.Comm, depth: float, convex: bool) -> None:
    box = Box(lower=(0.0, 0.0), upper=(1.0, 1.0), cells=(4, 4))
    mesh = create_mesh(comm, Domain(box=box))
    x = mesh.geometry.x
    x[(x[:, 0] == 0.5) & (x[:, 1] == 0.0), 1] += depth
    assert is_convex(DensitySpace(mesh, 0)) == convex


def test_half_spaces_of_a_disk(comm: MPI.Comm) -> None:
    space = file_space(comm, MESHES / "disk.msh")
    domain = convex_domain(space)
    assert not domain.is_box
    np.testing.assert_allclose(np.linalg.norm(domain.normals, axis=1), 1.0, rtol=1e-14)
    assert domain.contains(space.vertices.reshape(-1, 2)).all()
    angles = np.linspace(0.0, 6.0, 1000)
    circle = 5.0 * np.column_stack([np.cos(angles), np.sin(angles)])
    sagitta = 5.0 * (1.0 - np.cos(np.pi / len(domain.normals)))
    outside = 1.001 * circle
    assert not domain.contains(outside).any()
    beyond, worst = domain.excess(outside)
    slack = outside @ domain.normals.T - domain.offsets
    np.testing.assert_allclose(beyond, slack.max(axis=1), atol=1e-14)
    np.testing.assert_array_equal(worst, slack.argmax(axis=1))
    assert domain.contains((1.0 - sagitta / 4.0) * circle).all()
    everywhere = comm.allgather((domain.normals.tobytes(), domain.offsets.tobytes(), domain.centre.tobytes()))
    assert len(set(everywhere)) == 1
