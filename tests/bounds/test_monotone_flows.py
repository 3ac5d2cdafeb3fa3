"""The best increasing map against exact values, brute force, and what other increasing maps cost."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from archipelago import archipelago
from problems import box_space
from scipy.integrate import quad
from scipy.optimize import isotonic_regression
from scipy.stats import norm
from test_hopf_lax import steps, waves, zigzag

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds import line_grid, monotone_flows
from eulerian.bounds.hopf_lax import hopf_lax
from eulerian.bounds.monotone_flows import MonotoneFlow, increasing_minimiser, monotone_bound
from eulerian.density.shapes import Gaussian, Uniform
from eulerian.density.space import DensitySpace
from eulerian.ideal.functionals import LinearFunctional, Loss
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.distances import SquaredDistance
from eulerian.objective.losses import LogisticLoss, QuadraticLoss
from eulerian.objective.terminal import exact_density


@dataclass(frozen=True)
class Formula:
    """Densities that a function gives, of known masses."""

    values: Callable[[Floats], Floats]
    mass: Floats


def solve(space: DensitySpace, density: Formula, loss: Loss, kinetic: float, horizon: float = 1.0) -> MonotoneFlow:
    problem = IdealProblem(space, space.zeros(), LinearFunctional(loss), kinetic, horizon)
    return monotone_bound(problem, density)


def require_enclosed(flow: MonotoneFlow, exact: float, most: float) -> None:
    """The exact value is within the error, and that is no more than it should be, relative to the value."""
    assert abs(flow.value - exact) <= flow.error
    assert flow.error <= most * abs(exact)


# -- exact values -----------------------------------------------------------------------------------------------------

STD, WEIGHT, ALPHA, TARGETS = 0.35, 4.0, 1.0, (1.0, -1.0)
GROUPS = ((0, -1.5), (1, 0.0), (0, 1.5))


def isotonic_value(n: int = 80_001) -> float:
    """The value of three groups for a quadratic loss: the isotonic regression of where each point is wanted."""
    x = np.linspace(-4.0, 4.0, n)
    masses = np.zeros((2, n))
    for label, mean in GROUPS:
        w = norm.pdf(x, mean, STD)
        masses[label] += w / w.sum() / 3.0
    m, c = masses.sum(axis=0), np.array(TARGETS)
    z = isotonic_regression((ALPHA * x + WEIGHT * (c @ masses) / m) / (ALPHA + WEIGHT), weights=m).x
    loss = sum(w @ (z - target) ** 2 for w, target in zip(masses, TARGETS, strict=True))
    return float(0.5 * WEIGHT * loss + 0.5 * ALPHA * (m @ (z - x) ** 2))


def three_groups(comm: MPI.Comm, cells: int) -> MonotoneFlow:
    space = box_space(comm, 1, cells, 1, 2, 4.0)
    rho0 = space.project({y: [Gaussian(mean, std=STD) for label, mean in GROUPS if label == y] for y in (0, 1)})
    loss = QuadraticLoss([[c] for c in TARGETS], WEIGHT)
    return monotone_bound(IdealProblem(space, rho0, loss, ALPHA, 1.0), exact_density(rho0))


@pytest.mark.parametrize("cells", [8, 50, 200])
def test_quadratic_losses_are_isotonic_regression(comm: MPI.Comm, cells: int) -> None:
    flow = three_groups(comm, cells)
    require_enclosed(flow, isotonic_value(), 4e-6)
    assert flow.value == pytest.approx(isotonic_value(), rel=5e-8)
    assert np.all(np.diff(flow.points) > 0.0)
    assert np.all(np.diff(flow.destinations) >= 0.0)
    assert flow.masses.sum(axis=0) == pytest.approx([2.0 / 3.0, 1.0 / 3.0], rel=1e-12)


@pytest.mark.parametrize("cells", [8, 9, 200])  # of 9 the labels share the one in the middle
def test_labels_that_keep_their_order_cost_what_hopf_lax_says(comm: MPI.Comm, cells: int) -> None:
    density = Formula(lambda x: norm.pdf(x) * np.hstack([x <= 0.0, x > 0.0]), np.array([0.5, 0.5]))
    space = box_space(comm, 1, cells, 1, 2, 8.0)
    problem = IdealProblem(space, space.zeros(), LogisticLoss([1.0]), 0.7, 1.5)
    flow = monotone_bound(problem, density)
    require_enclosed(flow, 0.320731684268, 1.5e-5)
    assert flow.value == pytest.approx(0.320731684268, rel=5e-7)


@pytest.mark.two_ranks
def test_the_better_one_of_two_wells(comm: MPI.Comm) -> None:
    # Left of 0 the left well is nearer: β/2 (|x| − a)², β = ακ/(α + κ), also for one label only.
    alpha, kappa, a = 0.7 / 1.5, 3.0, 1.2
    density = Formula(lambda x: norm.pdf(x, 0.25, 0.8), np.ones(1))
    wells = lambda z: 0.5 * kappa * (np.abs(z) - a) ** 2  # noqa: E731
    flow = solve(box_space(comm, 1, 20, 1, 1, 6.0), density, wells, 0.7, 1.5)
    beta = alpha * kappa / (alpha + kappa)
    exact = quad(lambda x: 0.5 * beta * (abs(x) - a) ** 2 * norm.pdf(x, 0.25, 0.8), -6, 6, points=[0.0], epsabs=1e-12)
    require_enclosed(flow, exact[0], 5e-5)
    assert flow.value == pytest.approx(flow.terminal + flow.kinetic, rel=1e-15)
    where = flow.masses[:, 0] > 1e-9
    x, z = flow.points[where], flow.destinations[where]
    wanted = (alpha * x + kappa * a * np.sign(x)) / (alpha + kappa)
    assert np.max(np.abs(z - wanted)[np.abs(x) > 1e-3]) < 2e-3  # the grid's spacing
    np.testing.assert_allclose(flow.positions(0.5), (2.0 * flow.points + flow.destinations) / 3.0, atol=1e-14)


@pytest.mark.two_ranks
@pytest.mark.parametrize("name", ["kinks", "jumps", "many minima"])
@pytest.mark.parametrize("alpha", [2.0, 0.1])
def test_losses_that_do_not_differ_cost_what_hopf_lax_says(comm: MPI.Comm, name: str, alpha: float) -> None:
    loss = {"kinks": zigzag, "jumps": steps, "many minima": waves(1, 3, 30.0)}[name]
    halves = Formula(lambda x: 0.5 * np.hstack([x <= 0.3, x > 0.3]), np.array([0.65, 0.35]))
    flow = solve(box_space(comm, 1, 8, 1, 2, 1.0), halves, lambda z: np.hstack([loss(z)] * 2), alpha)
    space = box_space(comm, 1, 400, 0, 1, 1.0)
    uniform = space.project(lambda x: np.ones(len(x))).coefficients
    exact = hopf_lax(IdealProblem(space, uniform, LinearFunctional(loss), alpha)).value
    assert flow.value == pytest.approx(exact, abs=flow.error + 1e-9)  # that of a rule of degree 30 at kinks of φ
    assert flow.error <= 1e-6 + 5e-6 * abs(exact)


def test_a_flow_that_costs_nothing_keeps_the_order_nevertheless(comm: MPI.Comm) -> None:
    # Left of 0 stands who wants to go right: all that can be done is to choose one place.
    density = Formula(lambda x: 0.5 * np.hstack([x <= 0.0, x > 0.0]), np.array([0.5, 0.5]))
    flow = solve(box_space(comm, 1, 8, 1, 2, 1.0), density, lambda z: (z - np.array([0.6, -0.6])) ** 2, 0.0)
    require_enclosed(flow, 0.36, 1e-5)
    assert flow.kinetic == 0.0
    # The other way round they need not pass one another.
    flow = solve(box_space(comm, 1, 8, 1, 2, 1.0), density, lambda z: (z - np.array([-0.6, 0.6])) ** 2, 0.0)
    assert abs(flow.value) <= flow.error < 1e-5


def test_walls_are_felt(comm: MPI.Comm) -> None:
    density = Formula(lambda x: np.full_like(x, 0.5), np.ones(1))
    flow = solve(box_space(comm, 1, 8, 1, 1, 1.0), density, lambda z: -3.0 * z, 1.0)  # all would like to go by 3
    require_enclosed(flow, -3.0 + 0.5 * 4.0 / 3.0, 1e-5)
    assert np.all(flow.destinations == 1.0)


# -- brute force ------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("seed", range(5))
def test_no_increasing_choice_is_better(seed: int) -> None:
    costs = np.random.default_rng(seed).normal(size=(6, 7))
    chosen = increasing_minimiser(costs, 6, 7)
    assert np.all(np.diff(chosen) >= 0)
    every = itertools.combinations_with_replacement(range(7), 6)
    assert costs[range(6), chosen].sum() == min(costs[range(6), list(k)].sum() for k in every)


JUMPS = np.array([0.6, 1.0 + quad(lambda x: 0.3 * np.sin(9.0 * x), -0.2313, 1.0)[0]])


def jumps(x: Floats) -> Floats:
    """Two labels on [-1, 1], whose densities jump."""
    x = x[:, 0]
    both = [1.0 * (np.abs(x - 0.137) < 0.3), 0.5 + 0.3 * np.sin(9.0 * x) * (x > -0.2313)]
    return np.asarray(np.stack(both, axis=1) / JUMPS.sum())


def kinks(z: Floats) -> Floats:
    """Random piecewise linear losses of two labels."""
    table = np.random.default_rng(1).uniform(0.0, 1.0, (2, 40))
    return np.stack([np.interp(z[:, 0], np.linspace(-1.0, 1.0, 40), row) for row in table], axis=1)


def plateaus(z: Floats) -> Floats:
    """Random losses of two labels that jump at the same places."""
    table = np.random.default_rng(1).uniform(0.0, 1.0, (2, 40))
    return table[:, np.clip(np.floor((z[:, 0] + 1.0) * 20.0).astype(int), 0, 39)].T


def wells(z: Floats) -> Floats:
    """Two wells, deeper on the left for one label and on the right for the other."""
    return 4.0 * (z**2 - 0.36) ** 2 + 0.3 * z * np.array([1.0, -1.0])


LOSSES = {"kinks": kinks, "plateaus": plateaus, "wells": wells}
JUMPING = Formula(jumps, JUMPS / JUMPS.sum())


@pytest.mark.parametrize("name", LOSSES)
def test_no_increasing_map_costs_less(comm: MPI.Comm, name: str) -> None:
    loss, alpha = LOSSES[name], 1.0
    flow = solve(box_space(comm, 1, 8, 1, 2, 1.0), JUMPING, loss, alpha)
    x = (np.arange(20_000) + 0.5) / 10_000.0 - 1.0
    masses = jumps(x[:, None]) / 10_000.0

    def cost(z: Floats) -> float:
        return float(np.vdot(masses, loss(z[:, None])) + 0.5 * alpha * masses.sum(axis=1) @ (z - x) ** 2)

    rounding = 2e-4  # of masses at jumps, by this rule
    best = np.interp(x, flow.points, flow.destinations)
    assert cost(best) == pytest.approx(flow.value, abs=flow.error + 10 * rounding)
    rng = np.random.default_rng(2)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            other = best + size * rng.standard_normal() * np.interp(x, np.linspace(-1, 1, 9), rng.standard_normal(9))
            assert cost(np.sort(np.clip(other, -1.0, 1.0))) >= flow.value - flow.error - rounding
    # Steps: all increasing maps of five pieces to nine places.
    pieces, places = np.minimum((x + 1.0) / 0.4, 4.0).astype(int), np.linspace(-1.0, 1.0, 9)
    table = np.array([[cost_of_piece(x, masses, loss, alpha, pieces == i, z) for z in places] for i in range(5)])
    every = np.array(list(itertools.combinations_with_replacement(range(9), 5)))
    assert table[range(5), every].sum(axis=1).min() >= flow.value - flow.error - rounding


def cost_of_piece(x: Floats, masses: Floats, loss: Loss, alpha: float, piece: Floats, z: float) -> float:
    """Of points (n,), some of which go to z."""
    here = masses[piece]
    away = 0.5 * alpha * (x[piece] - z) ** 2
    return float(here.sum(axis=0) @ loss(np.array([[z]]))[0] + here.sum(axis=1) @ away)


@pytest.mark.one_process
@pytest.mark.parametrize("name", LOSSES)
def test_the_error_encloses_what_a_finer_search_finds(
    comm: MPI.Comm, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = [solve(box_space(comm, 1, cells, 1, 2, 1.0), JUMPING, LOSSES[name], 1.0) for cells in (8, 31, 200)]
    monkeypatch.setattr(monotone_flows, "CELLS", 9000)
    monkeypatch.setattr(line_grid, "NODES", 9000)
    fine = solve(box_space(comm, 1, 50, 1, 2, 1.0), JUMPING, LOSSES[name], 1.0)
    assert fine.error < min(flow.error for flow in coarse)
    for flow in coarse:
        assert abs(flow.value - fine.value) <= flow.error - fine.error
        assert flow.error < 2e-5


def spread_out(x: Floats) -> Floats:
    """A uniform density in the middle of [-1, 1]."""
    return np.asarray(2.0 * (np.abs(x) < 0.25))


def shares(x: Floats) -> Floats:
    """A uniform density on [-1, 1], more and more of which has the second label."""
    return np.asarray(0.25 * (1.0 + x * np.array([-1.0, 1.0])))


@pytest.mark.parametrize(
    ("density", "loss", "alpha", "exact"),
    [
        # All move away from 0, to four times their distance, and cells apart: α/2 (1 − 4) Var x.
        (Formula(spread_out, np.ones(1)), lambda z: -0.375 * z**2, 1.0, -1.5 / 48.0),
        # Who has the first label more likely goes to the left, else to the right: -½ ∫|x| dx, half a cell each.
        (Formula(shares, np.array([0.5, 0.5])), lambda z: z * np.array([1.0, -1.0]), 0.0, -0.5),
        # All go to one point.
        (Formula(spread_out, np.ones(1)), lambda z: 100.0 * np.abs(z), 1.0, 0.5 / 48.0),
    ],
    ids=["apart", "labels", "together"],
)
@pytest.mark.parametrize("cells", [5, 8, 31])
def test_the_error_encloses_what_few_cells_hide(
    comm: MPI.Comm,
    density: Formula,
    loss: Loss,
    alpha: float,
    exact: float,
    cells: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monotone_flows, "_FIRST", cells)
    monkeypatch.setattr(monotone_flows, "CELLS", cells)
    flow = solve(box_space(comm, 1, cells, 1, len(density.mass), 1.0), density, loss, alpha)
    assert len(flow.points) <= 2 * cells
    assert abs(flow.value - exact) <= flow.error
    assert flow.masses.sum(axis=0) == pytest.approx(density.mass, rel=1e-13)


@pytest.mark.one_process
@pytest.mark.parametrize("std", [1e-2, 1e-4, 1e-6])
def test_a_density_finer_than_all_cells_is_found_or_missed(comm: MPI.Comm, std: float) -> None:
    def values(x: Floats) -> Floats:
        return 0.5 * np.hstack([norm.pdf(x, 0.1234, std), norm.pdf(x, -0.3, 0.1)])

    # A group in a point, and one that spreads as far to the right of it as to the left of its own place.
    loss = QuadraticLoss([[0.5], [0.5]], 1.0)
    space = box_space(comm, 1, 8, 1, 2, 1.0)
    problem = IdealProblem(space, space.zeros(), loss, 1.0)
    flow = monotone_bound(problem, Formula(values, np.array([0.5, 0.5])))
    exact = 0.125 * (0.3766**2 + std**2 + 0.8**2 + 0.1**2)
    assert abs(flow.value - exact) <= flow.error
    assert flow.error < 1e-5 or std < 1e-5  # what is missed is said


# -- ranks, domains, refusals -----------------------------------------------------------------------------------------


def test_all_ranks_find_what_one_finds(comm: MPI.Comm) -> None:
    flow = solve(box_space(comm, 1, 31, 1, 2, 1.0), JUMPING, wells, 1.0)
    alone = solve(box_space(MPI.COMM_SELF, 1, 31, 1, 2, 1.0), JUMPING, wells, 1.0)
    seen = (flow.value, flow.error, flow.terminal, flow.kinetic, flow.points.tobytes(), flow.destinations.tobytes())
    assert all(other == seen for other in comm.allgather(seen))
    assert flow.value == pytest.approx(alone.value, rel=1e-13)
    assert flow.error == pytest.approx(alone.error, rel=1e-9)
    np.testing.assert_allclose(flow.points, alone.points, rtol=0, atol=1e-14)
    np.testing.assert_allclose(flow.masses, alone.masses, rtol=0, atol=1e-16)


def test_no_mass_changes_intervals(comm: MPI.Comm, tmp_path: Path) -> None:
    def values(x: Floats) -> Floats:
        place = np.mod(x, 4.0)
        return np.asarray(np.where(x < 2.0, 0.7, 0.3) * (0.5 + place) * ((place >= 0.0) & (place <= 1.0)))

    def loss(z: Floats) -> Floats:  # the same in both; far below in between
        return np.asarray((np.mod(z, 4.0) - 0.7) ** 2 - 100.0 * ((z > 1.0) & (z < 4.0)))

    single = solve(archipelago(comm, tmp_path, 1, [[0, 0, 0]]), Formula(lambda x: 0.5 + x, np.ones(1)), loss, 0.5)
    both = solve(archipelago(comm, tmp_path, 1, [[0, 0, 0], [4.0, 0, 0]]), Formula(values, np.ones(1)), loss, 0.5)
    assert abs(both.value - single.value) <= both.error + single.error < 1e-5
    assert np.all((both.destinations <= 1.0) == (both.points <= 1.0))


def test_what_it_cannot_do_is_refused(comm: MPI.Comm) -> None:
    plane, line = box_space(comm, 2, 3, 1), box_space(comm, 1, 8, 1)
    uniform = Formula(lambda x: np.full((len(x), 1), 1.0 / 6.0), np.ones(1))
    square = LinearFunctional(lambda x: (x**2).sum(axis=1, keepdims=True))
    with pytest.raises(InputError, match="on the line only"):
        monotone_bound(IdealProblem(plane, plane.zeros(), square, 1.0), uniform)
    with pytest.raises(InputError, match="not linear"):
        monotone_bound(IdealProblem(line, line.zeros(), SquaredDistance(Uniform([-1.0], [1.0])), 1.0), uniform)
    with pytest.raises(InputError, match="running costs"):
        monotone_bound(IdealProblem(line, line.zeros(), square, 1.0, congestion=1.0), uniform)
    poles = LinearFunctional(lambda x: 1.0 / (x - 3.0))
    with pytest.raises(InputError, match="not finite"):
        monotone_bound(IdealProblem(line, line.zeros(), poles, 1.0), uniform)
