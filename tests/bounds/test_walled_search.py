"""Hopf–Lax around walls against brute force, a known integral, finer meshes, and the laws of the formula."""

from itertools import permutations

from mpi4py import MPI

import dolfinx
import numpy as np
import pytest
from paths import MESHES
from point_losses import quadratic

from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.cloud import Envelopes
from eulerian.bounds.geodesics import Geodesics
from eulerian.bounds.hopf_lax import HopfLax, hopf_lax, try_hopf_lax
from eulerian.bounds.polygon import Polygon
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.ideal.functionals import LinearFunctional, Loss
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import distributed
from eulerian.mesh.simplices import Simplices

# J* of the places of scripts/studies/obstacles.py, from halved cells and a tolerance of 1e-7; they are good to 3e-7.
DUMBBELL, HOLE = 5.95213538, 3.38616493

PLACES = {
    "dumbbell": (((-1.8, 0.6), 0.25), (2.0, 0.8), DUMBBELL),
    "square_with_hole": (((-1.3, 0.0), 0.25), (1.5, 0.0), HOLE),
}


def space_of(comm: MPI.Comm, name: str, refine: int = 0) -> DensitySpace:
    return DensitySpace(create_mesh(comm, Domain(file=str(MESHES / f"{name}.msh"), refine=refine)), 0)


def of_place(comm: MPI.Comm, name: str, tolerance: float | None = None) -> HopfLax:
    space, ((mean, std), target, _) = space_of(comm, name), PLACES[name]
    loss = LinearFunctional(quadratic(np.array([target]), 3.0))
    return hopf_lax(IdealProblem(space, Gaussian(mean, std=std), loss, 1.0), tolerance)


def without_mass(comm: MPI.Comm, name: str, loss: Loss, kinetic: float) -> tuple[HopfLax, Geodesics]:
    space = space_of(comm, name)
    problem = IdealProblem(space, space.zeros(), LinearFunctional(loss), kinetic)
    return hopf_lax(problem), Geodesics(Polygon.of_space(space), comm)


def two_wells(z: Floats) -> Floats:
    """One well is deeper, and kinked at its bottom."""
    near, far = (np.sum((z - c) ** 2, axis=1) for c in ((-0.9, -0.7), (0.8, 0.55)))
    return np.minimum(2.0 * near + 0.7, np.abs(z[:, 0] - 0.8) + far)[:, None]


def waves(z: Floats) -> Floats:
    rng = np.random.default_rng(4)
    frequencies, phases = rng.uniform(-7.0, 7.0, (2, 12)), rng.uniform(0.0, 6.0, 12)
    wave = np.sin(z @ frequencies + phases) @ rng.standard_normal(12)
    return (0.3 * wave + 0.5 * np.sum((z - [0.5, 0.4]) ** 2, axis=1))[:, None]


def points_inside(geodesics: Geodesics, n: int, seed: int = 1) -> Floats:
    corners = geodesics.polygon.corners
    x = np.random.default_rng(seed).uniform(corners.min(axis=0), corners.max(axis=0), (n, 2))
    return x[geodesics.inside(x)[0]]


def notched_cube(comm: MPI.Comm) -> dolfinx.mesh.Mesh:
    """The unit cube without one of its eighths."""
    x = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corner = np.array([9 * i + 3 * j + k for i in range(2) for j in range(2) for k in range(2)])
    ways = [np.cumsum([0, *order]) for order in permutations((9, 3, 1))]
    cells = np.concatenate([corner[:, None] + way for way in ways])
    cells = cells[np.any(x[cells].mean(axis=1) < 0.5, axis=1)]
    return distributed(comm, Simplices.untagged(x, cells) if comm.rank == 0 else None, 3)


# -- the minimum -----------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("kinetic", [0.2, 2.0, 20.0])
@pytest.mark.parametrize("loss", [two_wells, waves])
@pytest.mark.parametrize("name", ["l_shape", "dumbbell", "square_with_hole"])
def test_brute_force_finds_nothing_better(comm: MPI.Comm, name: str, loss: Loss, kinetic: float) -> None:
    result, geodesics = without_mass(comm, name, loss, kinetic)
    x, corners = points_inside(geodesics, 24), geodesics.polygon.corners
    lines = [np.linspace(low, high, 300) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True)]
    z = np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 2)
    z = np.concatenate([z[geodesics.inside(z)[0]], geodesics.polygon.walls(0.01)[0]])
    lengths = np.hstack([geodesics.distances(x, some) for some in np.array_split(z, 8)])
    brute = np.min(loss(z)[:, 0] + 0.5 * kinetic * lengths**2, axis=1)
    found, best = result.potential(x)[:, 0], result.destinations_of(x)[:, 0]
    assert np.max(found - brute) < 1e-9
    spacing = max(line[1] - line[0] for line in lines)
    assert np.max(brute - found) < 4.0 * spacing  # ℓ has kinks
    assert geodesics.inside(best)[0].all()
    there = loss(best)[:, 0] + 0.5 * kinetic * np.diag(geodesics.distances(x, best)) ** 2
    assert found == pytest.approx(there, rel=1e-9)


def test_around_one_corner_the_value_is_known(comm: MPI.Comm) -> None:
    """L shape, ℓ = κ/2 |z − c|², c behind the corner: the way is straight behind it, and s long before."""
    target, kappa, alpha = np.array([0.6, 0.3]), 3.0, 1.3
    result, _ = without_mass(comm, "l_shape", quadratic(target[None], kappa), alpha)
    x = np.array([[-0.05, -0.9], [-0.3, -0.5], [-0.2, -0.4]])
    before, away = np.linalg.norm(x, axis=1), np.linalg.norm(target)
    exact = 0.5 * alpha * kappa / (alpha + kappa) * (before + away) ** 2
    assert result.potential(x)[:, 0] == pytest.approx(exact, rel=1e-12)
    share = (kappa * away - alpha * before) / (kappa + alpha) / away
    assert result.destinations_of(x)[:, 0] == pytest.approx(share[:, None] * target, abs=1e-7)


@pytest.mark.parametrize("name", ["l_shape", "dumbbell"])
def test_the_best_places_behind_a_bend(comm: MPI.Comm, name: str) -> None:
    """They are those of all places, and without αs²/2 the least cost is a concave function of s."""
    result, geodesics = without_mass(comm, name, waves, 1.5)
    search = result._search
    grid, losses = search.grid, search.losses_there[0]
    s = np.linspace(0.0, 5.0, 101)
    ways = np.repeat(s[:, None], geodesics.n_bends, axis=1)
    costs, places = Envelopes(geodesics, grid, losses, 1.5).best(0, ways)
    legs = geodesics.legs(grid.z, grid.moved)
    for bend in range(geodesics.n_bends):
        behind = np.isfinite(legs[:, bend])
        everything = losses[0, behind] + 0.75 * (s[:, None] + legs[behind, bend]) ** 2
        assert costs[:, bend] == pytest.approx(everything.min(axis=1), rel=1e-12)
        assert behind[places[:, bend]].all()
        concave = costs[:, bend] - 0.75 * s**2
        assert np.all(np.diff(concave, 2) <= 1e-12)
        assert np.all(np.diff(concave) >= -1e-12)


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLACES)
def test_exact_values(comm: MPI.Comm, name: str) -> None:
    result, exact = of_place(comm, name), PLACES[name][2]
    assert result.value == pytest.approx(exact, rel=1e-6)
    assert abs(result.value - exact) < result.error + 3e-7
    assert result.error < 2e-6 * exact
    assert result.value == result.terminal + result.kinetic


@pytest.mark.parametrize("name", ["l_shape", "square_with_hole"])
def test_the_number_of_ranks_does_not_matter(comm: MPI.Comm, name: str) -> None:
    def solved(ranks: MPI.Comm) -> HopfLax:
        space = space_of(ranks, name)
        problem = IdealProblem(space, Gaussian((-0.6, -0.6), std=0.3), LinearFunctional(two_wells), 0.7)
        return hopf_lax(problem, 3e-3)

    shared, alone = solved(comm), solved(MPI.COMM_SELF)
    assert len(set(comm.allgather((shared.value, shared.error)))) == 1
    assert shared.value == pytest.approx(alone.value, rel=1e-12)
    x = np.random.default_rng(0).uniform(-0.9, -0.7, (20, 2))
    assert shared.potential(x) == pytest.approx(alone.potential(x), abs=1e-12)


def test_without_kinetic_cost_everything_goes_to_the_minimum(comm: MPI.Comm) -> None:
    space = space_of(comm, "l_shape")
    loss = LinearFunctional(quadratic(np.array([[0.6, 0.3]]), 1.0))
    result = hopf_lax(IdealProblem(space, Gaussian((-0.5, -0.5), std=0.2), loss, 0.0), 1.0)
    assert result.value == pytest.approx(0.0, abs=1e-12)


# -- paths -----------------------------------------------------------------------------------------------------------


def test_paths_bend_around_corners_at_constant_speed(comm: MPI.Comm) -> None:
    result = of_place(comm, "dumbbell", 1.0)
    geodesics = Geodesics(Polygon.of_space(space_of(comm, "dumbbell")), comm)
    x, times = np.array([[-1.8, 0.6], [2.0, 0.5]]), np.linspace(0.0, 1.0, 201)
    paths = result.paths_of(x, times)[:, 0]
    assert paths[:, 0] == pytest.approx(x)
    assert paths[:, -1] == pytest.approx(result.destinations_of(x)[:, 0])
    assert geodesics.inside(paths.reshape(-1, 2))[0].all()
    steps = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    lengths = np.diag(geodesics.distances(x, paths[:, -1]))
    assert steps.max(axis=1) == pytest.approx(lengths / 200.0, rel=1e-9)
    assert np.sum(steps < 0.999 * lengths[:, None] / 200.0, axis=1).tolist() == [2, 0]  # where they bend


def test_positions_follow_the_paths(comm: MPI.Comm) -> None:
    result = of_place(comm, "dumbbell", 1.0)
    heavy = result.masses[:, 0] > 1e-9
    assert result.positions(0.0)[:, 0] == pytest.approx(result.points, abs=1e-12)
    assert result.positions(1.0) == pytest.approx(result.destinations, abs=1e-12)
    middle = result.paths_of(result.points[heavy], np.array([0.3]))[:, :, 0]
    assert result.positions(0.3)[heavy] == pytest.approx(middle, abs=1e-9)
    early = (result.positions(1e-4) - result.positions(0.0)) / 1e-4
    assert result.velocities == pytest.approx(early, abs=1e-8)
    # ∫∫|v|²ρ is constant in time: λ/2 of it is the kinetic part.
    square = np.sum(result.velocities[:, 0] ** 2, axis=1)
    energy = comm.allreduce(float(0.5 * result.masses[:, 0] @ square))
    assert energy == pytest.approx(result.kinetic, rel=1e-9)


# -- refusals --------------------------------------------------------------------------------------------------------


def test_losses_must_be_finite_inside_only(comm: MPI.Comm) -> None:
    def fine(z: Floats) -> Floats:
        return np.where((z[:, 0] > 1e-9) & (z[:, 1] < -1e-9), np.nan, z[:, 0])[:, None]

    result, _ = without_mass(comm, "l_shape", fine, 0.1)
    assert result.destinations_of(np.array([[0.5, 0.1]]))[0, 0, 0] < -0.9
    with pytest.raises(InputError, match="not finite"):
        without_mass(comm, "l_shape", lambda z: np.log(z[:, :1]), 1.0)


def test_walls_in_three_dimensions_are_refused(comm: MPI.Comm) -> None:
    space = DensitySpace(notched_cube(comm), 0)
    found, why = try_hopf_lax(IdealProblem(space, space.zeros(), LinearFunctional(lambda z: z[:, :1]), 1.0))
    assert found is None
    assert "convex" in why
