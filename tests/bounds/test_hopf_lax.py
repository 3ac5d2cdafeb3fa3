"""Hopf–Lax against exact values, brute force and the laws of the formula.

Densities on a mesh are not those of the formulas: their moments differ. Wherever a formula needs the moments only, it
is evaluated with the discrete ones, and what is left is the error of the search, near rounding.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from mpi4py import MPI

import numpy as np
import pytest
from paths import MESHES
from point_losses import cross_entropy, formula, logistic, quadratic
from problems import random_density

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.config import Box, Domain, ExpressionTerm, GaussianTerm, Term
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.formula import Expression
from eulerian.bounds.hopf_lax import HopfLax, hopf_lax
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.ideal.functionals import LinearFunctional, Loss
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.losses import QuadraticLoss

CELLS = {1: 20, 2: 6, 3: 3}


def box_space(
    comm: MPI.Comm, dim: int, degree: int = 1, n_labels: int = 1, half: float = 1.0, cells: int | None = None
) -> DensitySpace:
    box = Box(lower=(-half,) * dim, upper=(half,) * dim, cells=(cells or CELLS[dim],) * dim)
    return DensitySpace(create_mesh(comm, Domain(box=box)), degree, n_labels)


def disk_space(comm: MPI.Comm) -> DensitySpace:
    return DensitySpace(create_mesh(comm, Domain(file=str(MESHES / "disk.msh"))), 1)


def solve(
    space: DensitySpace, rho: Floats, loss: Loss, kinetic: float, horizon: float, tolerance: float | None = None
) -> HopfLax:
    return hopf_lax(IdealProblem(space, rho, LinearFunctional(loss), kinetic, horizon), tolerance)


def gaussian(mean: tuple[float, ...], std: float) -> list[Term]:
    return [GaussianTerm(kind="gaussian", mean=mean, std=std)]


def on_line(
    comm: MPI.Comm, terms: list[Term], loss: Loss, kinetic: float, horizon: float, half: float, n_labels: int = 1
) -> HopfLax:
    space = box_space(comm, 1, 2, n_labels, half, 200)
    return solve(space, initial_density(space, terms), loss, kinetic, horizon)


def waves(dim: int, seed: int, highest: float) -> Loss:
    """A rough smooth loss: forty waves."""
    rng = np.random.default_rng(seed)
    frequencies, phases = rng.uniform(-highest, highest, (dim, 40)), rng.uniform(0.0, 2.0 * np.pi, 40)
    sizes = rng.standard_normal(40)
    return lambda x: (np.sin(x @ frequencies + phases) @ sizes)[:, None]


def zigzag(x: Floats) -> Floats:
    """A random piecewise linear loss on [-1, 1]^dim, the product of one per axis: kinks at every minimum."""
    rng = np.random.default_rng(5)
    number = {1: 80, 2: 40, 3: 12}[x.shape[1]]
    result = np.ones(len(x))
    for column in x.T:
        result *= np.interp(column, np.linspace(-1.0, 1.0, number), rng.uniform(0.5, 1.5, number))
    return result[:, None]


def steps(x: Floats) -> Floats:
    """A random loss that is constant on the boxes of a lattice."""
    number = {1: 150, 2: 30, 3: 8}[x.shape[1]]
    table = np.random.default_rng(7).uniform(0.0, 1.0, (number,) * x.shape[1])
    index = np.clip(np.floor((x + 1.0) / 2.0 * number).astype(int), 0, number - 1)
    return np.asarray(table[tuple(index.T)])[:, None]


def brute_force(loss: Loss, x: Floats, stiffness: float) -> tuple[Floats, float]:
    """φ_0 (n,) at points of [-1, 1]^dim by trying all points of a grid that is not the solver's, and its spacing."""
    dim = x.shape[1]
    number = {1: 40_000, 2: 700, 3: 90}[dim]
    axis = np.linspace(-1.0, 1.0, number)
    z = np.stack(np.meshgrid(*[axis] * dim), axis=-1).reshape(-1, dim)
    losses = loss(z)[:, 0]
    return np.array([np.min(losses + 0.5 * stiffness * ((z - p) ** 2).sum(axis=1)) for p in x]), axis[1] - axis[0]


# -- exact values -----------------------------------------------------------------------------------------------------


def test_gaussian_on_a_line(comm: MPI.Comm) -> None:
    # Projections of degree 2 keep mean and variance: the references' twelve digits are all there.
    result = on_line(comm, gaussian((-0.4,), 0.6), quadratic(np.array([[1.3]]), 2.0), 0.7, 1.5, 5.0)
    assert result.value == pytest.approx(0.614864864865, abs=2e-12)
    assert result.terminal == pytest.approx(0.116325785245, abs=5e-12)
    assert result.kinetic == pytest.approx(0.498539079620, abs=5e-12)
    assert result.value == result.terminal + result.kinetic
    x = np.linspace(-1.0, 1.0, 7)[:, None]
    alpha = 0.7 / 1.5
    np.testing.assert_allclose(result.destinations_of(x)[:, 0], (alpha * x + 2.6) / (alpha + 2.0), rtol=0, atol=1e-9)


@pytest.mark.two_ranks
def test_gaussian_in_the_plane(comm: MPI.Comm) -> None:
    # 3.5 standard deviations above the mean the domain ends: cutting the tail off costs 1.3e-6 of J*.
    space = box_space(comm, 2, half=3.0, cells=48)
    rho = initial_density(space, gaussian((-0.5, 0.3), 0.5))
    result = solve(space, rho, quadratic(np.array([[1.0, -0.5]]), 1.0), 0.5, 1.0)
    assert result.value == pytest.approx(0.565, rel=2e-6)
    assert result.kinetic == pytest.approx(2.0 * result.terminal, rel=1e-9)


@pytest.mark.two_ranks
@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_targets_per_label(comm: MPI.Comm, dim: int, degree: int) -> None:
    space = box_space(comm, dim, degree, 2)
    rho = random_density(space, 2, 3)
    targets, kappa, kinetic, horizon = np.array([[0.4, 0.2, -0.1], [-0.7, 0.1, 0.3]])[:, :dim], 1.7, 0.6, 1.3
    result = solve(space, rho, quadratic(targets, kappa), kinetic, horizon, 1.0)  # the rule is exact: no cell is cut
    alpha = kinetic / horizon
    mean, covariance = space.mean_and_covariance(rho)
    spread = np.sum((mean - targets) ** 2, axis=1) + np.trace(covariance, axis1=1, axis2=2)
    exact = float(space.mass(rho) @ spread)
    assert result.value == pytest.approx(0.5 * alpha * kappa / (alpha + kappa) * exact, rel=1e-12)
    assert result.kinetic == pytest.approx(0.5 * alpha * (kappa / (alpha + kappa)) ** 2 * exact, rel=1e-8)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_linear_loss_translates(comm: MPI.Comm, dim: int) -> None:
    space = box_space(comm, dim, 1, half=2.0, cells={1: 20, 2: 8, 3: 6}[dim])
    rho = random_density(space, 1, 1)
    centres = space.geometry.vertices.mean(axis=1)
    rho[np.abs(centres).max(axis=1) > 1.0] = 0.0
    g, kinetic, horizon = np.array([0.3, -0.2, 0.25])[:dim], 0.8, 1.5
    result = solve(space, rho, lambda x: (x @ g)[:, None], kinetic, horizon, 1.0)
    mass, (mean, _) = space.mass(rho)[0], space.mean_and_covariance(rho)
    assert result.value == pytest.approx(mass * (g @ mean[0] - horizon * g @ g / (2.0 * kinetic)), rel=1e-12)
    filled = np.abs(result.masses[:, 0]) > 1e-6 * mass / len(result.masses)
    velocity = result.velocities[filled, 0]
    np.testing.assert_allclose(velocity, np.broadcast_to(-g / kinetic, velocity.shape), rtol=0, atol=1e-7)


WELLS: list[tuple[Callable[[Floats], Floats], float, float, float]] = [
    (lambda x: 1.5 * np.minimum((x - 1.2) ** 2, (x + 1.2) ** 2), 0.7, 1.5, 0.108304028949),
    (lambda x: 0.25 * (x**2 - 1.0) ** 2, 0.7, 1.5, 0.0670953218169),
    (lambda x: 0.25 * (x**2 - 1.0) ** 2, 2.0, 1.0, 0.139699239381),
]


@pytest.mark.parametrize(("loss", "kinetic", "horizon", "exact"), WELLS)
def test_two_wells(comm: MPI.Comm, loss: Loss, kinetic: float, horizon: float, exact: float) -> None:
    # The kink at 0 is a vertex of the mesh; what is left is the projection of the density, of order 1e-10.
    result = on_line(comm, gaussian((0.25,), 0.8), loss, kinetic, horizon, 6.0)
    assert result.value == pytest.approx(exact, rel=2e-10)


def test_a_kink_inside_a_cell(comm: MPI.Comm) -> None:
    # The rule of 16 points misses (jump of φ_0') (cell/16)² ρ_0/12 or so: 7e-7 here, 6e-6 of J*.
    loss, kinetic, horizon, exact = WELLS[0]
    space = box_space(comm, 1, 1, half=6.0, cells=201)
    rho = initial_density(space, gaussian((0.25,), 0.8))
    assert solve(space, rho, loss, kinetic, horizon).value == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("cells", [16, 17])
@pytest.mark.parametrize(("loss", "kinetic", "horizon", "exact"), WELLS)
def test_the_density_itself_on_a_coarse_mesh(
    comm: MPI.Comm, loss: Loss, kinetic: float, horizon: float, exact: float, cells: int
) -> None:
    space = box_space(comm, 1, 1, half=6.0, cells=cells)
    rho0 = space.project(Gaussian((0.25,), std=0.8))
    result = hopf_lax(IdealProblem(space, rho0, LinearFunctional(loss), kinetic, horizon))
    assert abs(result.value - exact) < result.error < 2e-9
    assert result.value == pytest.approx(exact, rel=1e-10)


def test_the_density_itself_in_the_plane(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, half=3.0, cells=8)
    rho0 = space.project(Gaussian((-0.5, 0.3), std=0.5))
    problem = IdealProblem(space, rho0, QuadraticLoss((1.0, -0.5)), 0.5)
    result = hopf_lax(problem)
    assert abs(result.value - 0.565) < 1e-6
    # The Gaussian ends at the walls: its moments are those of a Gaussian cut off on both sides.
    low, high = -3.0 - np.array([-0.5, 0.3]), 3.0 - np.array([-0.5, 0.3])
    moments = [truncated_moments(a / 0.5, b / 0.5) for a, b in zip(low, high, strict=True)]
    mean = np.array([-0.5, 0.3]) + 0.5 * np.array([m for m, _ in moments])
    spread = 0.25 * sum(square - m**2 for m, square in moments)
    exact = (np.sum((mean - (1.0, -0.5)) ** 2) + spread) / 6.0
    assert abs(result.value - exact) < 0.1 * result.error < 1e-7
    finer = hopf_lax(problem, 1e-7)
    assert abs(finer.value - exact) < finer.error < 1e-7


@pytest.mark.parametrize("dim", [1, 2])
def test_what_is_accurate_enough_costs_less_and_knows_its_error(comm: MPI.Comm, dim: int) -> None:
    """Three soft wells, where most cells hold next to no mass."""
    points: list[int] = []

    def loss(z: Floats) -> Floats:
        points.append(len(z))
        goals = np.array([-1.0, 0.2, 1.1])
        wells = np.exp(-2.0 * (z[:, :1] - goals) ** 2).sum(axis=1, keepdims=True)
        return np.asarray(0.3 * z[:, -1:] ** 2 - 0.5 * np.log(wells + 1e-9))

    space = box_space(comm, dim, half=4.0, cells=16)
    problem = IdealProblem(space, Gaussian((0.3,) * dim, std=0.3), LinearFunctional(loss), 0.7)
    heard: list[float] = []

    def accuracy(about: float) -> float:
        heard.append(about)
        return 1e-3 * abs(about)

    fine = hopf_lax(problem)
    most = comm.allreduce(sum(points))
    points.clear()
    rough = hopf_lax(problem, accuracy=accuracy)
    assert heard == [pytest.approx(fine.value, rel=0.1)]  # by cells that are not cut
    assert abs(rough.value - fine.value) <= rough.error + fine.error
    assert fine.error < rough.error <= accuracy(heard[0])
    assert comm.allreduce(sum(points)) < 0.7 * most  # all ranks together: their shares differ


def test_accuracy_that_is_nought_is_the_usual_one(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, half=3.0, cells=8)
    problem = IdealProblem(space, Gaussian((0.3, 0.3), std=0.3), LinearFunctional(lambda z: z[:, :1] ** 2), 0.7)
    usual, exact = hopf_lax(problem), hopf_lax(problem, accuracy=lambda _: 0.0)
    assert (exact.value, exact.error) == (usual.value, usual.error)


def truncated_moments(a: float, b: float) -> tuple[float, float]:
    """E t and E t² of a standard Gaussian between a and b."""
    mass = 0.5 * (math.erf(b / math.sqrt(2.0)) - math.erf(a / math.sqrt(2.0)))
    at_a, at_b = (math.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi) for t in (a, b))
    return (at_a - at_b) / mass, 1.0 + (a * at_a - b * at_b) / mass


def test_a_density_that_the_points_miss_is_in_the_error(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, half=3.0, cells=2)
    problem = IdealProblem(space, space.zeros(), QuadraticLoss((1.0, -0.5)), 0.5, initial=Hidden())
    result = hopf_lax(problem)
    assert result.error > 0.9 * abs(result.value)


class Hidden:
    """A peak of mass 1 that no point of the rule is near, on a little that is everywhere."""

    mass = np.ones(1)

    def values(self, x: Floats) -> Floats:
        return np.full((len(x), 1), 1e-6)


def test_labelled_halves(comm: MPI.Comm) -> None:
    halves = [f"exp(-x**2/2)*heaviside({'-x' if y == 0 else 'x'})" for y in range(2)]
    terms: list[Term] = [ExpressionTerm(kind="expression", value=text, label=y) for y, text in enumerate(halves)]
    result = on_line(comm, terms, logistic(np.array([1.0]), 0.0), 0.7, 1.5, 8.0, 2)
    assert result.value == pytest.approx(0.320731684268, rel=1e-11)
    both = cross_entropy(np.array([[-0.5], [0.5]]), np.zeros(2))  # the same losses, written with two logits
    assert on_line(comm, terms, both, 0.7, 1.5, 8.0, 2).value == pytest.approx(result.value, rel=1e-12)


# -- the global minimum -----------------------------------------------------------------------------------------------

ROUGH = [
    *(
        (dim, f"waves {seed}", waves(dim, seed, {1: 60.0, 2: 25.0, 3: 9.0}[dim]))
        for dim in (1, 2, 3)
        for seed in (0, 1)
    ),
    *((dim, "zigzag", zigzag) for dim in (1, 2, 3)),
    *((dim, "steps", steps) for dim in (1, 2, 3)),
]


@pytest.mark.one_process
@pytest.mark.parametrize("stiffness", [0.3, 5.0])
@pytest.mark.parametrize(
    ("dim", "loss"), [(dim, loss) for dim, _, loss in ROUGH], ids=[f"{d} {n}" for d, n, _ in ROUGH]
)
def test_brute_force_finds_nothing_better(comm: MPI.Comm, dim: int, loss: Loss, stiffness: float) -> None:
    space = box_space(comm, dim)
    result = solve(space, space.zeros(), loss, stiffness, 1.0)
    x = np.random.default_rng(2).uniform(-1.0, 1.0, (25, dim))
    found, z = result.potential(x)[:, 0], result.destinations_of(x)[:, 0]
    best, spacing = brute_force(loss, x, stiffness)
    assert np.max(found - best) <= 1e-12
    rough = best - found  # what a grid misses: at most its spacing times the slope
    slope = np.abs(np.diff(loss(np.linspace(-1.0, 1.0, 5001)[:, None] * np.ones(dim))[:, 0])).max() * 2500.0
    assert loss is steps or rough.max() <= spacing * (slope + 5.0) * dim
    np.testing.assert_allclose(loss(z)[:, 0] + 0.5 * stiffness * ((x - z) ** 2).sum(axis=1), found, rtol=1e-12)
    assert np.abs(z).max() <= 1.0 + 1e-11


@pytest.mark.two_ranks
@pytest.mark.parametrize("steepness", [1.0, 5.0, 50.0])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_kink_across_the_axes(comm: MPI.Comm, dim: int, steepness: float) -> None:
    space = box_space(comm, dim)
    n = np.array([1.0, 0.3, 0.17])[:dim] / np.linalg.norm([1.0, 0.3, 0.17][:dim])
    g = 0.3 * (np.eye(dim)[-1] - n * n[-1])  # along the kink
    result = solve(
        space,
        space.zeros(),
        lambda x: (steepness * np.abs(x @ n) + x @ g)[:, None],
        1.0,
        1.0,
    )
    x = np.random.default_rng(0).uniform(-0.6, 0.6, (200, dim))
    across = np.abs(x @ n)
    huber = np.where(across > steepness, steepness * across - 0.5 * steepness**2, 0.5 * across**2)
    error = result.potential(x)[:, 0] - (huber + x @ g - 0.5 * g @ g)
    assert error.min() >= -1e-13
    assert error.max() <= 1e-7 * (1.0 + steepness)


# -- at the boundary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_target_outside_of_a_box(comm: MPI.Comm, dim: int) -> None:
    space = box_space(comm, dim)
    target, kappa, alpha = np.array([[5.0, 0.2, -4.0]])[:, :dim], 2.0, 0.5
    rho = initial_density(space, gaussian((0.0,) * dim, 0.6))
    result = solve(space, rho, quadratic(target, kappa), alpha, 1.0)
    free = (alpha * result.points + kappa * target) / (alpha + kappa)
    nearest, filled = np.clip(free, -1.0, 1.0), result.masses[:, 0] > 1e-10
    np.testing.assert_allclose(result.destinations[filled, 0], nearest[filled], rtol=0, atol=1e-5)
    exact = 0.5 * kappa * ((nearest - target) ** 2).sum(axis=1) + 0.5 * alpha * ((nearest - result.points) ** 2).sum(
        axis=1
    )
    np.testing.assert_allclose(result.potentials[filled, 0], exact[filled], rtol=1e-10)


def test_a_target_outside_of_a_disk(comm: MPI.Comm) -> None:
    space = disk_space(comm)
    target, kappa, alpha = np.array([[6.5, 3.0]]), 1.0, 0.5
    result = solve(space, space.zeros(), quadratic(target, kappa), alpha, 1.0)
    x = np.random.default_rng(0).uniform(-3.0, 3.0, (60, 2))
    z = result.destinations_of(x)[:, 0]
    free = (alpha * x + kappa * target) / (alpha + kappa)
    # The nearest point of the polygon: of an edge where the free minimiser is outside.
    corners = np.unique(np.concatenate(comm.allgather(space.vertices.reshape(-1, 2))), axis=0)
    corners = corners[np.linalg.norm(corners, axis=1) > 5.0 - 1e-9]
    corners = corners[np.argsort(np.arctan2(corners[:, 1], corners[:, 0]))]
    edges = np.roll(corners, -1, axis=0) - corners
    share = np.clip(np.sum((free[:, None] - corners) * edges, axis=2) / np.sum(edges**2, axis=1), 0.0, 1.0)
    feet = corners + share[..., None] * edges
    nearest = feet[np.arange(len(x)), np.linalg.norm(feet - free[:, None], axis=2).argmin(axis=1)]
    outside = np.linalg.norm(free, axis=1) > 5.0
    assert 10 < outside.sum() < 60
    nearest[np.linalg.norm(free, axis=1) < 4.99] = free[np.linalg.norm(free, axis=1) < 4.99]
    np.testing.assert_allclose(z, nearest, rtol=0, atol=3e-4)  # the square root of the cost's error

    def cost(z: Floats) -> Floats:
        return np.asarray(0.5 * kappa * ((z - target) ** 2).sum(axis=1) + 0.5 * alpha * ((z - x) ** 2).sum(axis=1))

    np.testing.assert_allclose(cost(z), cost(nearest), rtol=1e-8)


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.two_ranks
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_potential_lies_below_the_loss_and_grows_with_the_weight(comm: MPI.Comm, dim: int) -> None:
    space = box_space(comm, dim)
    rho, loss = random_density(space, 1, 4), waves(dim, 3, 8.0)
    results = [solve(space, rho, loss, kinetic, 2.0, 1.0) for kinetic in (0.0, 0.1, 1.0, 10.0)]
    x = space.quadrature(3).points.reshape(-1, dim)
    potentials = [result.potential(x) for result in results]
    for result in results:
        assert np.all(result.potentials <= loss(result.points) + 1e-13)
    for weaker, stronger in pairwise(potentials):
        assert np.all(weaker <= stronger + 1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_without_kinetic_cost_everything_goes_to_the_minimum(comm: MPI.Comm, dim: int) -> None:
    space = box_space(comm, dim)
    rho = random_density(space, 1, 4)
    centre = np.array([0.31, -0.22, 0.13])[:dim]
    result = solve(space, rho, lambda x: (2.0 + ((x - centre) ** 2).sum(axis=1))[:, None], 0.0, 1.0)
    assert result.value == pytest.approx(2.0 * space.mass(rho)[0], rel=1e-12)
    assert result.kinetic == 0.0
    np.testing.assert_allclose(result.destinations_of(np.zeros((1, dim)))[0, 0], centre, rtol=0, atol=1e-7)


@pytest.mark.parametrize("loss", [WELLS[0][0], waves(1, 0, 20.0)], ids=["wells", "waves"])
def test_envelope(comm: MPI.Comm, loss: Loss) -> None:
    # dJ*/dλ = kinetic/λ. Minimisers jump with λ, J* does not, and its second derivative is bounded on average.
    space = box_space(comm, 1, 1)
    rho, kinetic, change = initial_density(space, gaussian((0.1,), 0.2)), 0.7, 1e-5
    result = solve(space, rho, loss, kinetic, 1.5)
    above, below = (solve(space, rho, loss, kinetic * (1.0 + s * change), 1.5).value for s in (1.0, -1.0))
    assert (above - below) / (2.0 * kinetic * change) == pytest.approx(result.kinetic / kinetic, rel=1e-5)


def test_a_jump_is_approached(comm: MPI.Comm) -> None:
    # ℓ = 1 for x > 0, ½ at 0: who starts at x in (0, √2) with λ/T = 1 goes to just below 0, φ_0 = x²/2.
    space = box_space(comm, 1, 0)
    rho = space.zeros()
    rho[space.geometry.vertices.mean(axis=(1, 2)) > 0.0] = 1.0
    loss = formula(Expression.parse("heaviside(x)", ("x",), "value"), 1)
    result = solve(space, rho, loss, 1.0, 1.0)
    mass = space.mass(rho)[0]
    assert result.value == pytest.approx(mass / 6.0, rel=1e-9)
    assert result.value >= mass / 6.0 * (1.0 - 1e-12)


def test_paths_are_straight(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 1, 2)
    result = solve(
        space, random_density(space, 2, 4), quadratic(np.array([[0.5, 0.5], [0.0, -0.5]]), 1.0), 0.5, 2.0, 0.1
    )
    assert result.destinations.shape == (*result.masses.shape, 2)
    np.testing.assert_array_equal(result.positions(0.0), np.repeat(result.points[:, None], 2, axis=1))
    np.testing.assert_array_equal(result.positions(2.0), result.destinations)
    np.testing.assert_allclose(result.positions(0.5), result.positions(0.0) + 0.5 * result.velocities, atol=1e-15)


# -- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_number_of_ranks_does_not_matter(comm: MPI.Comm, dim: int) -> None:
    outcomes = []
    for ranks in (comm, MPI.COMM_SELF):
        space = box_space(ranks, dim, 1, 2)
        terms = [
            GaussianTerm(kind="gaussian", mean=(0.2 - 0.5 * y,) * dim, std=0.2, label=y, weight=1.0 + y)
            for y in range(2)
        ]
        loss = formula(Expression.parse("cos(9*x) + label*x", ("x", "label"), "value"), 2)
        result = solve(space, initial_density(space, terms), loss, 0.5, 1.0, 1.0 if dim == 3 else None)
        outcomes.append(result)
    shared, alone = outcomes
    assert len(set(comm.allgather((shared.value, shared.terminal, shared.kinetic)))) == 1
    assert shared.value == pytest.approx(alone.value, rel=1e-12)
    assert shared.terminal == pytest.approx(alone.terminal, rel=1e-8)
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (20, dim))
    np.testing.assert_allclose(shared.potential(x), alone.potential(x), atol=1e-9)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1/x", "log(x)", "sqrt(x)", "-1/abs(x)"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_losses_without_values_are_refused(comm: MPI.Comm, dim: int, text: str) -> None:
    space = box_space(comm, dim)
    loss = formula(Expression.parse(text, ("x",), "value"), 1)
    with pytest.raises(InputError, match="not finite") as refused:
        solve(space, random_density(space, 1, 0), loss, 1.0, 1.0)
    assert refused.value.key == "terminal"


@pytest.mark.parametrize(
    ("kinetic", "horizon", "key"),
    [
        (-1.0, 1.0, "kinetic"),
        (math.nan, 1.0, "kinetic"),
        (math.inf, 1.0, "kinetic"),
        (1.0, 0.0, "horizon"),
        (1.0, math.inf, "horizon"),
    ],
)
def test_weights_out_of_range_are_refused(comm: MPI.Comm, kinetic: float, horizon: float, key: str) -> None:
    space = box_space(comm, 1)
    with pytest.raises(InputError) as refused:
        solve(space, space.zeros(), quadratic(np.zeros((1, 1)), 1.0), kinetic, horizon)
    assert refused.value.key == key
