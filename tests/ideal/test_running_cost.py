"""Running costs of the density: conjugates and proximal maps, exact values, independent certificates and optima."""

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
import pytest
import scipy.optimize
from discrete import Discrete, cheapest_momenta, discretise, everywhere
from point_losses import quadratic
from problems import orders, warped_mesh
from thinning import thinned

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.config import Box, Domain, GaussianTerm
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.functionals import (
    FixedFunctional,
    Functional,
    KullbackLeiblerFunctional,
    LinearFunctional,
    SquaredDistanceFunctional,
)
from eulerian.ideal.inner_product import Metric, at
from eulerian.ideal.problem import LABEL_BY_LABEL, IdealProblem
from eulerian.ideal.running_cost import RunningAtVertices, RunningCost
from eulerian.ideal.space_time import SpaceTime

ALONE = MPI.COMM_SELF
LAYERS = 3
SQUARES = {1: "x**2", 2: "x**2 + y**2"}
WEIGHTS = {"potential": (0.0, 0.0), "congestion": (0.4, 0.0), "entropy": (0.0, 0.3), "both": (0.4, 0.3)}


def hill(x: Floats) -> Floats:
    """A potential of both signs."""
    return np.asarray(0.6 * np.cos(3.0 * x[:, 0]) + 0.1 * x[:, -1])


def gaussian(mean: tuple[float, ...], std: float, label: int = 0, weight: float = 1.0) -> GaussianTerm:
    return GaussianTerm(kind="gaussian", mean=mean, std=std, label=label, weight=weight)


def box_space(comm: MPI.Comm, dim: int, cells: int, lower: float, upper: float) -> DensitySpace:
    box = Box(lower=(lower,) * dim, upper=(upper,) * dim, cells=(cells,) * dim)
    return DensitySpace(create_mesh(comm, Domain(box=box)), 1)


# -- g and its conjugate, vertex by vertex ----------------------------------------------------------------------------


def cost(rho: Floats, v: Floats | float, gamma: float, sigma: float, delta: float) -> Floats:
    """The definition of g(ρ)."""
    entropy = (rho + delta) * np.log(rho + delta) - delta * np.log(delta)
    return np.asarray(v * rho + 0.5 * gamma * rho**2 + sigma * entropy)


def best_density(s: float, v: float, gamma: float, sigma: float, delta: float) -> float:
    """The maximiser of sρ − g(ρ) over ρ ≥ 0, by bisection of its derivative."""

    def slope(rho: float) -> float:
        return float(s - v - gamma * rho - sigma * (np.log(rho + delta) + 1.0))

    if slope(0.0) <= 0.0:
        return 0.0
    top = 1.0
    while slope(top) > 0.0:
        top *= 2.0
    return float(scipy.optimize.brentq(slope, 0.0, top, xtol=1e-16, rtol=1e-15))


def conjugates(s: Floats, v: Floats, gamma: float, sigma: float, delta: float) -> Floats:
    """g*(s) of arrays of one shape, one by one."""
    result = np.empty(s.shape)
    for index in np.ndindex(s.shape):
        rho = best_density(s[index], v[index], gamma, sigma, delta)
        result[index] = s[index] * rho - cost(np.array(rho), v[index], gamma, sigma, delta)
    return result


def running(comm: MPI.Comm, dim: int, gamma: float, sigma: float) -> RunningAtVertices:
    grid = SpaceTime(DensitySpace(warped_mesh(comm, dim), 0), LAYERS, 1.3)
    return RunningCost(hill, gamma, sigma).at_vertices(grid)


def noise(grid: SpaceTime, seed: int, *shape: int) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((grid.n_global, *shape))
    return np.ascontiguousarray(rows[grid.numbers])


@pytest.mark.parametrize("name", ["congestion", "entropy", "both"])
@pytest.mark.parametrize("dim", [1, 2])
def test_young(comm: MPI.Comm, name: str, dim: int) -> None:
    gamma, sigma = WEIGHTS[name]
    g = running(comm, dim, gamma, sigma)
    grid = g.grid
    s = noise(grid, 1, LAYERS)
    if sigma:
        s[::2] -= 8.0  # where not even the first mass is worth it, and where little is
    v = np.repeat(hill(grid.x)[:, None], LAYERS, axis=1)
    best = np.vectorize(lambda a, b: best_density(a, b, gamma, sigma, g.floor), otypes=[float])(s, v)
    np.testing.assert_allclose(g.wanted(s), best, rtol=1e-9, atol=1e-15)
    expected = grid.tau * sum(grid.integrate(f) for f in conjugates(s, v, gamma, sigma, g.floor).T)
    assert g.conjugate(s) == pytest.approx(expected, rel=1e-10)
    for rho in (np.abs(noise(grid, 2, LAYERS)), np.zeros_like(s), best):
        value = grid.tau * sum(grid.integrate(f) for f in cost(rho, v, gamma, sigma, g.floor).T)
        assert sum(g.parts(rho).values()) == pytest.approx(value, rel=1e-12, abs=1e-14)
        product = grid.tau * sum(grid.integrate(f) for f in (s * rho).T)
        assert product <= value + g.conjugate(s) + 1e-12
        assert (product == pytest.approx(value + g.conjugate(s), rel=1e-9)) is (rho is best)


@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize("mass", [1e-3, 1.0])
@pytest.mark.parametrize("name", WEIGHTS)
def test_shift_is_the_best(comm: MPI.Comm, name: str, mass: float, size: float) -> None:
    gamma, sigma = WEIGHTS[name]
    g = running(comm, 2, gamma, sigma)
    s = size * noise(g.grid, 3, LAYERS)
    c = g.shift(s, mass)
    if name == "potential":
        np.testing.assert_allclose(g.grid.max_columns(s - c - hill(g.grid.x)[:, None]), 0.0, atol=1e-15 * size)
        assert g.conjugate(s - c) == 0.0
        return
    for shift in (c, g.shift(s, mass, c + 1.0), g.shift(s, mass, np.full(LAYERS, -1e9)), g.shift(s, mass, c)):
        assert [g.grid.integrate(f) for f in g.wanted(s - shift).T] == pytest.approx([mass] * LAYERS, rel=1e-5)

    def loss(shift: Floats) -> float:
        return g.grid.tau * mass * float(shift.sum()) + g.conjugate(s - shift)

    for step in np.random.default_rng(1).standard_normal((4, LAYERS)):
        assert loss(c + 1e-2 * step) >= loss(c) - 1e-12 * abs(loss(c))


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e3, 1e12])
@pytest.mark.parametrize("name", WEIGHTS)
def test_proximal_map_of_anything(comm: MPI.Comm, name: str, size: float) -> None:
    """φ = 0, relaxation 0: z stays, and its proximal point is found from a bad first guess of the multiplier."""
    gamma, sigma = WEIGHTS[name]
    g = running(comm, 1, gamma, sigma)
    grid, kinetic, omega, penalty = g.grid, 0.8, 0.6, 2.5
    weights = np.exp(noise(grid, 9))
    metric = Metric(grid, kinetic, omega, 0.7, weights)
    za, squares = noise(grid, 1, LAYERS), size * noise(grid, 2, LAYERS) ** 2
    squares[::3] = 0.0
    v = hill(grid.x)[:, None]
    for guess in (0.0, 1e-8, 1e8):
        mu, shrink, phi, z = np.full_like(za, guess), np.ones_like(za), np.zeros((len(za), LAYERS + 1)), za.copy()
        sweep = at(phi), at(squares), 0.0, at(z), at(mu), at(shrink), at(np.zeros(2))
        metric.functions.charge(metric.struct, at(g.potential), gamma, sigma, g.floor, penalty, *sweep)
        np.testing.assert_array_equal(z, za)
        np.testing.assert_allclose(shrink, 1.0 / (1.0 + mu / (kinetic * omega**2)), rtol=1e-13)
        # z - q is ρ/(rW) times the gradient of s = q_a + |q_b|²/2λ; with ρ = g*′(s) that is the proximal point.
        assert np.all(mu >= 0.0)
        rho = penalty * weights[:, None] * mu
        s = za - mu + squares * shrink**2 / (2.0 * kinetic)
        logarithm = sigma * (np.log(rho + g.floor) + 1.0)
        excess = s - v - gamma * rho - logarithm
        scale = np.abs(za) + mu + np.abs(v) + gamma * rho + np.abs(logarithm)
        assert np.max(excess / scale, initial=-1.0) <= 1e-12
        assert np.max(np.abs(np.where(mu > 0.0, excess, 0.0)) / scale, initial=0.0) <= 1e-12
    assert grid.sum((mu > 0.0)[: grid.n_owned_nodes].astype(float)) > 0.0
    metric.destroy()


# -- exact values -----------------------------------------------------------------------------------------------------


@pytest.mark.one_process
def test_linear_quadratic() -> None:
    """V = k/2|x|², ℓ = κ/2|x|²: v = −P(t)x/λ with P' = P²/λ − k, P(T) = κ, and J* = ½P(0)(|m0|² + tr S0)."""
    lam, k, kappa, horizon = 1.0, 0.5, 0.2, 1.0
    still, pace = np.sqrt(k * lam), np.tanh(np.sqrt(k / lam) * horizon)
    start = still * (kappa + still * pace) / (still + kappa * pace)
    tables = {1: ([(16, 4), (32, 8), (64, 16)], 1.9, 2.5e-3), 2: ([(16, 4), (24, 6), (32, 8)], 1.8, 5e-3)}
    for dim, (meshes, order, largest) in tables.items():
        mean, std = (-0.5, 0.6)[:dim], 0.6
        exact = 0.5 * start * (np.sum(np.square(mean)) + dim * std**2)
        errors = []
        for cells, layers in meshes:
            space = box_space(ALONE, dim, cells, *((-3.5, 3.5) if dim == 1 else (-3.0, 3.0)))
            rho = initial_density(space, [gaussian(mean, std)])
            goal = LinearFunctional(quadratic(np.zeros((1, dim)), kappa))
            problem = IdealProblem(space, rho, goal, lam, horizon, layers, potential=f"{0.5 * k} * ({SQUARES[dim]})")
            solution = solve_convex(problem, gap_tolerance=5e-4)
            assert solution.status == "converged"
            errors.append([abs(value / exact - 1.0) for value in (solution.primal, solution.dual)])
        for column in np.transpose(errors):
            assert np.all(np.diff(column) < 0.0), errors
            assert orders([column[0], column[-1]], meshes[-1][0] / meshes[0][0])[0] >= order, errors
            assert column[-1] <= largest, errors
    moments = solution.flow.linear_space.mean_and_covariance(solution.flow.density_at(horizon))
    # dx/dt = −P x/λ: the map is 1/(cosh ωT + κ/√(kλ) sinh ωT)
    shrunk = 1.0 / (np.cosh(np.sqrt(k / lam) * horizon) + kappa / still * np.sinh(np.sqrt(k / lam) * horizon))
    np.testing.assert_allclose(moments[0][0], shrunk * np.array(mean), rtol=2e-2)


def test_uniform_density_stays(comm: MPI.Comm) -> None:
    """A uniform density is the cheapest for congestion and entropy, and nothing drives it: every value is known."""
    space = box_space(comm, 2, 5, 0.0, 2.0)
    rho = space.zeros()
    rho[:, 0] = 0.25 / space.phi0
    target = FixedFunctional(rho)
    problem = IdealProblem(space, rho, target, 0.9, 1.7, 3, potential="3", congestion=0.4, entropy=0.3)
    solution = solve_convex(problem)
    delta = space.floor
    entropy = 0.3 * 1.7 * 4.0 * ((0.25 + delta) * np.log(0.25 + delta) - delta * np.log(delta))
    expected = {"terminal": 0.0, "potential": 3.0 * 1.7, "congestion": 0.2 * 1.7 * 0.25, "entropy": entropy}
    for name, value in expected.items():
        assert solution.parts[name] == pytest.approx(value, rel=1e-5, abs=1e-12)
    assert solution.parts["kinetic"] <= 1e-4
    assert solution.dual <= sum(expected.values()) * (1.0 + 1e-9)
    assert solution.dual == pytest.approx(sum(expected.values()), rel=1e-3)


@pytest.mark.one_process
@pytest.mark.parametrize("dim", [1, 2])
def test_congestion_and_entropy_flatten_a_peak(dim: int) -> None:
    space = box_space(ALONE, dim, {1: 40, 2: 10}[dim], 0.0, 1.0)
    rho, end = (initial_density(space, [gaussian((m,) * dim, 0.1)]) for m in (0.35, 0.65))
    for kind in ("congestion", "entropy"):
        found, weights = [], (0.0, 3e-3, 3e-2, 0.3)
        for weight in weights:
            problem = IdealProblem(space, rho, FixedFunctional(end), 1.0, 1.0, 8, **{kind: weight})
            solution = solve_convex(problem)
            assert solution.status == "converged"
            found.append(solution)
        peaks = [solution.flow.density[:, 3:5].max() for solution in found]
        shape = [s.parts[kind] / w for s, w in zip(found, weights, strict=True) if w]
        assert np.all(np.diff(peaks) < 0.0), peaks
        assert np.all(np.diff(shape) < 0.0), shape
        assert np.all(np.diff([s.kinetic for s in found]) > 0.0)
        values = np.array([[s.dual, s.primal] for s in found])  # concave in the weight
        slopes = np.diff(values.mean(axis=1)) / np.diff(weights)
        assert np.all(np.diff(slopes) < 0.0), slopes


# -- certificates, checked without the solver -------------------------------------------------------------------------

TARGETS = {"fixed": FixedFunctional, "kl": KullbackLeiblerFunctional, "l2": SquaredDistanceFunctional}
CASES = [
    "1 fixed both",
    "1 quadratic entropy",
    "1 kl potential",
    "2 fixed congestion",
    "2 quadratic both",
    "2 l2 entropy",
    "2 quadratic potential",
]
# Solved to the end on two ranks, and on three; all the costs' first iterations are compared below.
SEVERAL, THREE = {"1 fixed both", "1 kl potential", "2 quadratic both", "2 l2 entropy"}, {"2 quadratic both"}


@dataclass(frozen=True)
class Case:
    """Two labels of different mass, solved badly and well."""

    problem: IdealProblem
    weights: tuple[float, float]
    solutions: list[ConvexSolution]


def case_problem(comm: MPI.Comm, dim: int, kind: str, name: str) -> IdealProblem:
    space = DensitySpace(warped_mesh(comm, dim), 0, 2)

    def both(mean: float, other: float) -> Floats:
        low = gaussian((mean, *(0.0,) * (dim - 1)), 0.25, 0, 2.0)
        return initial_density(space, [low, gaussian((other, *(0.1,) * (dim - 1)), 0.3, 1, 1.0)])

    targets = np.full((2, dim), 0.4) * [[1.0], [-0.5]]
    goal: Functional = (
        LinearFunctional(quadratic(targets, 2.0)) if kind == "quadratic" else TARGETS[kind](both(0.7, -0.5))
    )
    congestion, entropy = WEIGHTS[name]
    rho = both(-0.7, 0.6)
    return IdealProblem(space, rho, goal, 0.8, 1.3, LAYERS, potential=hill, congestion=congestion, entropy=entropy)


@pytest.fixture(scope="module", params=thinned(CASES, SEVERAL, THREE))
def case(request: pytest.FixtureRequest, comm: MPI.Comm) -> Case:
    dim, kind, name = request.param.split()
    problem = case_problem(comm, int(dim), kind, name)
    return Case(problem, WEIGHTS[name], [solve_convex(problem, max_iterations=n) for n in (7, 5000)])


def test_primal_is_above_dual(case: Case) -> None:
    short, long = case.solutions
    assert (short.status, long.status) == ("max_iterations", "converged")
    assert (LABEL_BY_LABEL in long.reason) is any(case.weights)
    for solution in (short, long):
        assert 0.0 <= solution.gap < np.inf
        assert solution.primal == pytest.approx(sum(solution.parts.values()), rel=1e-13)
    assert long.iterations < 1500
    assert max(record.dual for record in long.history) <= long.primal
    assert short.primal >= long.dual
    size = sum(abs(part) for part in long.parts.values())
    assert long.gap <= 1.001e-3 * size


def test_flow_costs_what_is_said(case: Case) -> None:
    problem = case.problem
    for solution in case.solutions:
        grid = solution.flow.grid
        mesh = discretise(grid)
        density, final = everywhere(grid, solution.flow.density), everywhere(grid, solution.flow.final)
        source = everywhere(grid, solution.flow.initial) * mesh.masses[:, None]
        kinetic = 0.0
        for y in range(2):
            found, missed = cheapest_momenta(mesh, problem.kinetic, density[:, :, y], source[:, y], final[:, y])
            kinetic += found
            assert missed <= 1e-10
        assert solution.kinetic == pytest.approx(kinetic, rel=1e-6)
        volume = mesh.tau * mesh.masses[:, None, None]
        gamma, sigma = case.weights
        expected = {
            "potential": np.sum(volume * hill(mesh.x)[:, None, None] * density),
            "congestion": np.sum(volume * 0.5 * gamma * density**2),
            "entropy": np.sum(volume * cost(density, 0.0, 0.0, sigma, problem.space.floor)),
        }
        for name, value in expected.items():
            assert solution.parts[name] == pytest.approx(value, rel=1e-10, abs=1e-14)


def heights(mesh: Discrete, lam: float, phi: Floats) -> Floats:
    """s at the vertices and slabs, (N, L), from plain loops."""
    slope = np.einsum("cid,cit->cdt", mesh.gradients, phi[mesh.cells])
    squares = np.einsum("c,cdt->ct", mesh.volumes, slope**2) / (mesh.dim + 1)
    ring = np.zeros(phi.shape)
    for vertices, values in zip(mesh.cells, squares, strict=True):
        ring[vertices] += values
    mean = (ring[:, 1:] + ring[:, :-1]) / (4.0 * lam * mesh.masses[:, None])
    return np.asarray(mean + mesh.falls(phi))


def test_potential_is_worth_what_is_said(case: Case) -> None:
    problem, (gamma, sigma) = case.problem, case.weights
    for solution in case.solutions:
        grid = solution.flow.grid
        mesh = discretise(grid)
        phi = everywhere(grid, solution.flow.potential)
        value = float(np.sum(everywhere(grid, solution.flow.initial) * mesh.masses[:, None] * phi[:, 0]))
        v = np.repeat(hill(mesh.x)[:, None], LAYERS, axis=1)
        for y in range(2):
            functional = problem.functional
            end = solution.flow.potential[:, -1, y]
            if functional.target is not None and functional.is_constraint:
                value -= grid.total(grid.load(functional.target, y) * end)
            else:
                value -= functional.at_vertices(grid, y, grid.masses).conjugate(end)
            s = heights(mesh, problem.kinetic, phi[:, :, y])
            if gamma == sigma == 0.0:
                assert np.max(s - v) <= 1e-12 * np.abs(s).max()
            else:
                found = conjugates(s, v, gamma, sigma, problem.space.floor)
                value -= mesh.tau * float(np.sum(mesh.masses[:, None] * found))
        assert solution.dual == pytest.approx(value, rel=1e-9, abs=1e-12 * np.abs(phi).max())


@pytest.mark.one_process
@pytest.mark.parametrize("name", WEIGHTS)
def test_another_optimiser_finds_the_same_value(name: str) -> None:
    """The dual problem on a tiny mesh by sequential quadratic programming, with everything from plain loops."""
    gamma, sigma = WEIGHTS[name]
    space = DensitySpace(warped_mesh(ALONE, 1, 5), 0)
    rho = initial_density(space, [gaussian((-0.4,), 0.5)])
    lam, goal = 0.9, LinearFunctional(quadratic(np.array([[0.6]]), 1.5))
    problem = IdealProblem(space, rho, goal, lam, 1.2, 3, potential=hill, congestion=gamma, entropy=sigma)
    solution = solve_convex(problem, gap_tolerance=2e-5, residual_tolerance=1e-5)
    mesh = discretise(solution.flow.grid)
    source = everywhere(solution.flow.grid, solution.flow.initial)[:, 0] * mesh.masses
    ceiling = goal.loss(mesh.x)[:, 0]
    shape = (len(mesh.x), 4)
    v = np.repeat(hill(mesh.x)[:, None], 3, axis=1)
    delta = space.floor

    def slack(flat: Floats) -> Floats:
        return (v - heights(mesh, lam, flat.reshape(shape))).ravel()

    def loss(flat: Floats) -> float:
        value = -float(source @ flat.reshape(shape)[:, 0])
        if name == "potential":
            return value
        s = v.ravel() - slack(flat)
        return value + mesh.tau * float(np.repeat(mesh.masses, 3) @ conjugates(s, v.ravel(), gamma, sigma, delta))

    start = np.tile(ceiling.min() + np.linspace(-0.4, -0.1, 4), (len(mesh.x), 1)).ravel() - 0.5
    bounds = [(None, top if instant == 3 else None) for top in ceiling for instant in range(4)]
    found = scipy.optimize.minimize(
        loss,
        start,
        bounds=bounds,
        method="SLSQP",
        constraints={"type": "ineq", "fun": slack} if name == "potential" else (),
        options={"maxiter": 1000, "ftol": 1e-11},
    )
    assert found.success, found.message
    size = sum(abs(part) for part in solution.parts.values())
    assert solution.dual <= -found.fun + 2e-6 * size
    assert solution.primal >= -found.fun - 2e-6 * size
    assert solution.gap <= 2e-5 * size


# -- symmetries, ranks, what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", thinned(WEIGHTS, WEIGHTS, {"potential", "both"}))
def test_the_number_of_ranks_does_not_matter(comm: MPI.Comm, name: str) -> None:
    found = [
        solve_convex(case_problem(some, 2, "quadratic", name), gap_tolerance=1e-9, max_iterations=60)
        for some in (comm, ALONE)
    ]
    for part in found[1].parts:
        assert found[0].parts[part] == pytest.approx(found[1].parts[part], rel=1e-6, abs=1e-12)
    assert found[0].dual == pytest.approx(found[1].dual, rel=1e-7)


@pytest.mark.one_process
def test_raising_the_potential_raises_the_value() -> None:
    space = box_space(ALONE, 1, 24, 0.0, 1.0)
    rho, end = (initial_density(space, [gaussian((m,), 0.12)]) for m in (0.3, 0.7))
    low, high = (
        solve_convex(IdealProblem(space, rho, FixedFunctional(end), 0.7, 1.3, 6, potential=f"x + {c}", congestion=0.1))
        for c in (0.0, -2.0)
    )
    lift = 2.0 * 1.3
    assert low.dual <= high.primal + lift + 1e-12
    assert high.dual <= low.primal - lift + 1e-12
    assert high.primal < 0.0
    assert high.parts["kinetic"] == pytest.approx(low.parts["kinetic"], rel=1e-2)
    assert high.relative_gap == pytest.approx(high.gap / sum(abs(part) for part in high.parts.values()), rel=1e-12)


@pytest.mark.two_ranks
def test_labels_one_by_one_cost_less_than_together(comm: MPI.Comm) -> None:
    space, single = (DensitySpace(warped_mesh(comm, 1, 16), 1, n) for n in (2, 1))
    terms = [gaussian((-0.2,), 0.3, 0, 2.0), gaussian((0.2,), 0.3, 1, 1.0)]
    weights = RunningCost(hill, 0.3, 0.2)
    rho = initial_density(space, terms)
    together = solve_convex(IdealProblem(space, rho, FixedFunctional(rho), 0.5, 1.0, 4, **vars(weights)))
    bounds = np.zeros(2)
    for y in range(2):
        own = np.ascontiguousarray(rho[..., y : y + 1])
        alone = solve_convex(IdealProblem(single, own, FixedFunctional(own), 0.5, 1.0, 4, **vars(weights)))
        assert LABEL_BY_LABEL not in alone.reason
        bounds += (alone.dual, alone.primal)
    assert together.primal >= bounds[0] - 1e-12
    assert together.dual <= bounds[1] + 1e-12
    grid = together.flow.grid
    total = weights.at_vertices(grid).parts(together.flow.density.sum(axis=2))
    for name in ("congestion", "entropy"):
        assert together.parts[name] < total[name]
    assert together.together == pytest.approx(sum((together.parts | total).values()), rel=1e-12)
    assert f"costs {together.together:.8g}" in together.reason
    assert alone.together == alone.primal
    assert together.parts["potential"] == pytest.approx(total["potential"], rel=1e-12)


def test_a_potential_must_be_finite(comm: MPI.Comm) -> None:
    problem = case_problem(comm, 1, "quadratic", "both")
    bad = IdealProblem(problem.space, problem.rho0, problem.functional, 0.8, 1.3, LAYERS, potential="log(x)")
    with pytest.raises(InputError, match="not finite") as refused:
        solve_convex(bad)
    assert refused.value.key == "potential"
