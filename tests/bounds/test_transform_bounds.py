"""The parts of bounds by transforms: brackets, the potentials to begin with, walls, and a rule that misses nothing."""

import math

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.base.arrays import Floats
from eulerian.bounds.splines import SplineSpace
from eulerian.bounds.transform_bounds import Bracket, _better, _LabelBounds, _quadratic, matrix_root, transform_bounds
from eulerian.density.shape import LabelledShape
from eulerian.density.shapes import Gaussian, Uniform
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import density_rules
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import box_mesh
from eulerian.objective.distances import FixedDensity, KullbackLeibler

pytestmark = pytest.mark.two_ranks  # points are shared out, whatever the mesh is cut into


def test_brackets() -> None:
    rough, fine = Bracket(1.0, 3.0, 0.5), Bracket(1.2, 2.9, 0.1)
    assert rough + fine == Bracket(2.2, 5.9, 0.6)
    assert _better(rough, fine) == _better(fine, rough) == fine
    # A higher bound that is known less well is not the better one.
    assert _better(fine, Bracket(1.5, 2.0, 0.6)) == Bracket(1.2, 2.0, 0.1)
    assert fine.hardly_better(rough, 0.01)
    assert not Bracket(1.5, 2.0, 0.1).hardly_better(rough, 0.01)
    assert not rough.hardly_better(None, 0.01)
    unknown = Bracket(1.0, math.inf, 0.1)
    assert Bracket(1.004, math.inf, 0.1).hardly_better(unknown, 0.01)
    assert not Bracket(1.1, math.inf, 0.1).hardly_better(unknown, 0.01)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_quadratic_potentials_lead_from_moments_to_moments(dim: int) -> None:
    """The origins x = z + ∇φ(z)/α of points z with the goal's moments have those of the start."""
    rng, alpha = np.random.default_rng(dim), 0.7
    roots = rng.standard_normal((2, dim, dim)) + 2.0 * np.eye(dim)
    start, goal = ((rng.standard_normal(dim), root @ root.T) for root in roots)
    space = SplineSpace(np.full(dim, -60.0), np.full(dim, 60.0), (3,) * dim)
    coefficients = space.interpolate(*_quadratic(start, goal, 1.0, alpha))
    white = rng.standard_normal((400, dim))
    white = (white - white.mean(axis=0)) @ np.linalg.inv(
        np.linalg.cholesky(np.cov(white.T, bias=True).reshape(dim, dim))
    ).T
    z = goal[0] + white @ matrix_root(goal[1])
    x = z + space.design(z).jets(coefficients).gradient / alpha
    assert x.mean(axis=0) == pytest.approx(start[0], abs=1e-9)
    assert np.cov(x.T, bias=True).reshape(dim, dim) == pytest.approx(start[1], abs=1e-8)
    stay = space.design(z).jets(space.interpolate(*_quadratic(start, goal, 0.0, alpha)))
    assert stay.gradient == pytest.approx(np.zeros_like(z), abs=1e-9)


def bounds_on(space: DensitySpace) -> _LabelBounds:
    middle = [0.0] * space.dim
    problem = IdealProblem(space, Gaussian(middle, std=0.2), FixedDensity(Gaussian(middle, std=0.1)), 1.0)
    return _LabelBounds(problem, 0)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_wall_holds_points(comm: MPI.Comm, dim: int) -> None:
    """Also where points are at several walls at once, and none beyond any."""
    bounds = bounds_on(DensitySpace(box_mesh([-1.0] * dim, [1.0] * dim, [2] * dim, comm), 0))
    walls = np.concatenate([sign * np.eye(dim) for sign in (1.0, -1.0)])
    for z, beyond, held in ((walls, False, True), (0.999 * walls, False, False), (1.001 * walls, True, True)):
        outside, at_wall = bounds._beyond(z)
        assert np.all(outside == beyond)
        assert np.all(at_wall == held)


def test_the_rim_of_a_disk_holds_points(comm: MPI.Comm) -> None:
    space = DensitySpace(create_mesh(comm, Domain(file=str(MESHES / "disk.msh"))), 0)
    angle = np.linspace(0.0, 6.0, 50)
    rim = space.bounding_box[1][0] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    bounds = bounds_on(space)
    for size, beyond in ((0.98, False), (1.01, True)):
        outside, held = bounds._beyond(size * rim)
        assert np.all(outside == beyond)
        assert np.all(held == beyond)


@pytest.mark.parametrize("dim", [1, 2])
def test_jumps_near_corners_are_seen(comm: MPI.Comm, dim: int) -> None:
    """Where no rule has a point between a jump and the end of a cell: the second moment tells."""
    space = DensitySpace(box_mesh([-3.0] * dim, [3.0] * dim, [32] * dim, comm), 0)
    known = space.project(Uniform([-1.1] * dim, [1.3] * dim)).exact
    assert known is not None
    exact, errors = (1.1**3 + 1.3**3) / 7.2, []
    for jumps in (None, 6.0 * 2.0**-9):
        rule, _ = density_rules(space, known, [0], 1e-3, jumps=jumps)
        local = float(rule.weights[:, 0] @ rule.x[:, 0] ** 2)
        errors.append(abs(comm.allreduce(local) / exact - 1.0))
    assert errors[1] < 2e-3 < 5.0 * errors[1] + 1e-2
    assert errors[0] > 5.0 * errors[1]


def narrow(x: float, cells: int, comm: MPI.Comm) -> tuple[Floats, float]:
    """The bracket of a narrow density that moves by x, and the exact value."""
    space = DensitySpace(box_mesh([-4.0, -4.0], [4.0, 4.0], [cells, cells], comm), 0)
    start, goal = Gaussian([-x / 2, 0.1], std=0.06), Gaussian([x / 2, 0.1], std=0.06)
    found = transform_bounds(IdealProblem(space, start, KullbackLeibler(goal), 500.0))
    k = 1.0 / 0.06**2
    exact = 0.5 * 500.0 * k / (500.0 + k) * x**2
    return np.array([found.lower - found.error, found.upper + found.error]), exact


def test_no_mass_hides_in_wide_cells(comm: MPI.Comm) -> None:
    """Densities 30 times narrower than the cells."""
    (lower, upper), exact = narrow(3.0, 4, comm)
    assert lower <= exact <= upper
    assert upper - lower < 1e-2 * exact


def test_a_lower_bound_alone_is_hardly_worse(comm: MPI.Comm) -> None:
    """For two hills, which no coarse spline gives; it stays a bound and is no better than the thorough one."""
    space = DensitySpace(box_mesh([-3.0], [3.0], [24], comm), 1)
    goal = space.project([LabelledShape(Gaussian([x], std=0.25)) for x in (-0.9, 1.1)])
    problem = IdealProblem(space, Gaussian([0.2], std=0.4), KullbackLeibler(goal), 0.7)
    both, alone = transform_bounds(problem), transform_bounds(problem, lower_only=True)
    assert alone.upper == math.inf
    assert 0.97 * both.lower < alone.lower <= both.lower * (1.0 + 1e-3) + both.error + alone.error
    assert alone.lower - alone.error <= both.upper
