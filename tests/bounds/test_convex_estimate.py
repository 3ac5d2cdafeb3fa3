"""The second mesh that the convex solver's error is taken from: coarser for a box, halved edges elsewhere."""

from math import factorial, prod

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.base import parallel
from eulerian.base.errors import InputError
from eulerian.bounds import convex_estimate
from eulerian.bounds.convex_estimate import _of_slabs, on_second_mesh
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.problem import IdealProblem
from eulerian.ideal.space_time import SpaceTime
from eulerian.mesh.create import box_mesh
from eulerian.objective.distances import KullbackLeibler


def cells(space: DensitySpace) -> int:
    return int(space.mesh.topology.index_map(space.dim).size_global)


def volume(space: DensitySpace) -> float:
    sizes = space.geometry.det[: space.n_owned].sum()[None] / factorial(space.dim)
    return float(parallel.sum_all(space.comm, sizes)[0])


def problem(space: DensitySpace) -> IdealProblem:
    middle = np.mean(space.bounding_box, axis=0)
    start, goal = Gaussian(middle, std=0.2), Gaussian(middle + 0.1, std=0.1)
    return IdealProblem(space, start, KullbackLeibler(goal), 0.3, 1.5, 4)


@pytest.mark.parametrize("number", [(20,), (12, 7), (8, 2, 2)])
def test_a_box_has_twice_as_wide_cells(comm: MPI.Comm, number: tuple[int, ...]) -> None:
    dim = len(number)
    lower = [-1.0, 0.5, 2.0][:dim]
    upper = [low + 0.25 * n for low, n in zip(lower, number, strict=True)]
    first = problem(DensitySpace(box_mesh(lower, upper, list(number), comm), 2))
    second, finer = on_second_mesh(first)
    assert not finer
    halved = prod(round(0.5 * n) for n in number) * factorial(dim)
    assert cells(second.space) == halved
    assert volume(second.space) == pytest.approx(volume(first.space), rel=1e-12)
    for one, other in zip(second.space.bounding_box, first.space.bounding_box, strict=True):
        assert one == pytest.approx(other, abs=1e-14)
    assert second.space.degree == 2
    assert (second.kinetic, second.horizon, second.slabs) == (0.3, 1.5, 4)
    assert second.density.mass == pytest.approx([1.0])
    assert second.functional.target is not None
    assert len(second.functional.target) == second.space.n_cells


@pytest.mark.parametrize("name", ["disk.msh", "l_shape.msh", "few on a line", "few in space"])
def test_other_meshes_have_halved_edges(comm: MPI.Comm, name: str) -> None:
    """Boxes of few cells too."""
    if name.endswith(".msh"):
        space = DensitySpace(create_mesh(comm, Domain(file=str(MESHES / name))), 0)
    else:
        dim = 1 if name == "few on a line" else 3
        space = DensitySpace(box_mesh([-2.0] * dim, [2.0] * dim, [7, 2, 2][:dim], comm), 0)
    second, finer = on_second_mesh(problem(space))
    assert finer
    assert cells(second.space) == 2**space.dim * cells(space)
    assert volume(second.space) == pytest.approx(volume(space), rel=1e-12)
    assert len(set(comm.allgather(cells(second.space)))) == 1


def test_too_many_cells(comm: MPI.Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convex_estimate, "_MOST_CELLS", {1: 9})
    with pytest.raises(InputError, match="too many cells"):
        on_second_mesh(problem(DensitySpace(box_mesh([-2.0], [2.0], [5], comm), 0)))


def test_a_density_that_is_known_on_one_mesh_only(comm: MPI.Comm) -> None:
    space = DensitySpace(box_mesh([-2.0], [2.0], [20], comm), 1)
    known = space.project(Gaussian(0.0, std=0.5)).coefficients
    with pytest.raises(InputError, match="one mesh only"):
        on_second_mesh(IdealProblem(space, known, "x**2", 0.3))


@pytest.mark.parametrize("dim", [1, 2])
def test_what_long_slabs_take_off(comm: MPI.Comm, dim: int) -> None:
    """Of φ = p(t)|x|²/2, whose D²φ grows by a half in every slab, for a uniform density in the middle."""
    lam, horizon, slabs = 0.7, 1.5, 3
    space = DensitySpace(box_mesh([-1.0] * dim, [1.0] * dim, [20] * dim, comm), 1)
    grid = SpaceTime(space, slabs, horizon)
    curvature = 1.0 + 0.5 * np.arange(slabs + 1)
    potential = (0.5 * np.sum(grid.x**2, axis=1)[:, None] * curvature)[:, :, None]
    middle = (np.abs(grid.x).max(axis=1) < 0.55).astype(float)
    density = np.repeat(middle[:, None, None], slabs, axis=1) / grid.integrate(middle)
    flow = ConvexFlow(grid, lam, density[:, 0], density, density[:, 0], potential)
    expected = horizon / lam * 0.25**2 * grid.integrate(middle * np.sum(grid.x**2, axis=1)) / grid.integrate(middle)
    assert _of_slabs(flow) == pytest.approx(expected, rel=1e-9)
