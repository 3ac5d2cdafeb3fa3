"""The convex solver against exact values, independent certificates, symmetries and hard cases."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from discrete import Discrete, cheapest_momenta, discretise, everywhere, worst_violation
from paths import MESHES
from point_losses import formula, logistic, quadratic
from problems import warped_mesh
from thinning import thinned

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.config import Box, Domain, ExpressionTerm, GaussianTerm, SamplesTerm, Term, UniformTerm
from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import InputError
from eulerian.base.formula import Expression
from eulerian.density.space import DensitySpace
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.functionals import (
    FixedFunctional,
    Functional,
    KullbackLeiblerFunctional,
    LinearFunctional,
    SquaredDistanceFunctional,
)
from eulerian.ideal.problem import GapRecord, IdealProblem

# Accuracy has nothing to do with ranks: where many iterations are needed, every rank does them all for itself.
ALONE = MPI.COMM_SELF


def box_space(
    comm: MPI.Comm, dim: int, cells: int, lower: float, upper: float, degree: int = 1, n_labels: int = 1
) -> DensitySpace:
    box = Box(lower=(lower,) * dim, upper=(upper,) * dim, cells=(cells,) * dim)
    return DensitySpace(create_mesh(comm, Domain(box=box)), degree, n_labels)


def gaussian(mean: tuple[float, ...], std: float, label: int = 0, weight: float = 1.0) -> GaussianTerm:
    return GaussianTerm(kind="gaussian", mean=mean, std=std, label=label, weight=weight)


def normal(mean: tuple[float, ...], covariance: tuple[tuple[float, ...], ...]) -> GaussianTerm:
    return GaussianTerm(kind="gaussian", mean=mean, covariance=covariance)


def uniform(lower: float, upper: float, dim: int, label: int = 0, weight: float = 1.0) -> UniformTerm:
    return UniformTerm(kind="uniform", lower=(lower,) * dim, upper=(upper,) * dim, label=label, weight=weight)


def solve(
    space: DensitySpace,
    rho: Floats,
    functional: Functional,
    kinetic: float = 1.0,
    horizon: float = 1.0,
    layers: int = 4,
    *,
    gap: float = 1e-3,
    iterations: int = 5000,
) -> ConvexSolution:
    problem = IdealProblem(space, rho, functional, kinetic, horizon, layers)
    return solve_convex(problem, gap_tolerance=gap, max_iterations=iterations)


# -- exact values -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A problem whose value is known: functions of the number of cells per side."""

    dim: int
    box: tuple[float, float]
    terms: list[Term]
    functional: Callable[[DensitySpace], Functional]
    kinetic: float
    horizon: float
    exact: float

    def solve(self, comm: MPI.Comm, cells: int, layers: int, gap: float) -> ConvexSolution:
        space = box_space(comm, self.dim, cells, *self.box, n_labels=1 + max(term.label for term in self.terms))
        rho = initial_density(space, self.terms)
        return solve(space, rho, self.functional(space), self.kinetic, self.horizon, layers, gap=gap, iterations=20000)


def loss(function: Callable[[Floats], Floats]) -> Callable[[DensitySpace], Functional]:
    return lambda _: LinearFunctional(function)


def to_quadratic(
    dim: int, lam: float, horizon: float, kappa: float, c: list[float], mean: tuple[float, ...], std: float
) -> Reference:
    """Q1."""
    alpha = lam / horizon
    spread = sum((m - target) ** 2 for m, target in zip(mean, c, strict=True)) + dim * std**2
    exact = 0.5 * alpha * kappa / (alpha + kappa) * spread
    reached = loss(quadratic(np.array([c]), kappa))
    return Reference(dim, (-4.0, 4.0) if dim == 1 else (-3.0, 3.0), [gaussian(mean, std)], reached, lam, horizon, exact)


def between(lam: float, horizon: float, start: GaussianTerm, end: GaussianTerm) -> Reference:
    """G1, by the formula of Bures."""
    first, second = np.atleast_2d(start.covariance), np.atleast_2d(end.covariance)
    root = np.real(scipy.linalg.sqrtm(first))
    middle = np.real(scipy.linalg.sqrtm(root @ second @ root))
    distance = np.sum((np.array(start.mean) - end.mean) ** 2) + np.trace(first + second - 2.0 * middle)
    exact = 0.5 * lam / horizon * float(distance)
    dim = len(start.mean)
    return Reference(
        dim, (-0.25, 1.25), [start], lambda space: FixedFunctional(initial_density(space, [end])), lam, horizon, exact
    )


def classify() -> Reference:
    """C1: labels are the signs of x."""
    halves = [("heaviside(-x)", 0), ("heaviside(x)", 1)]
    terms: list[Term] = [ExpressionTerm(kind="expression", value=f"exp(-x**2/2)*{half}", label=y) for half, y in halves]
    return Reference(1, (-5.0, 5.0), terms, loss(logistic(np.array([1.0]), 0.0)), 0.7, 1.5, 0.320731684268)


MILD = to_quadratic(1, 1.0, 1.0, 1.0, [0.5], (-0.4,), 0.6)
Q1A = to_quadratic(1, 0.7, 1.5, 2.0, [1.3], (-0.4,), 0.6)
Q1B = to_quadratic(2, 0.5, 1.0, 1.0, [1.0, -0.5], (-0.5, 0.3), 0.5)
WIDE: list[Term] = [gaussian((0.25,), 0.8)]
Q2 = Reference(1, (-4.0, 4.0), [gaussian((-0.4,), 0.6)], loss(lambda x: 0.3 * x), 0.7, 1.5, -0.12 - 0.45 * 0.3 / 1.4)
W1 = Reference(
    1, (-4.0, 4.0), WIDE, loss(lambda x: 1.5 * np.minimum((x - 1.2) ** 2, (x + 1.2) ** 2)), 0.7, 1.5, 0.108304028949
)
W2 = Reference(1, (-4.0, 4.0), WIDE, loss(lambda x: 0.25 * (x**2 - 1.0) ** 2), 0.7, 1.5, 0.0670953218169)
SMOOTH = replace(W2, kinetic=2.0, horizon=1.0, exact=0.139699239381)
MOVED = between(0.7, 0.8, normal((0.3,), ((0.01,),)), normal((0.7,), ((0.01,),)))
SQUEEZED = between(0.7, 0.8, normal((0.35,), ((0.0196,),)), normal((0.65,), ((0.0064,),)))
TURNED = between(
    0.7, 0.8, normal((0.3, 0.4), ((0.02, 0.008), (0.008, 0.01))), normal((0.7, 0.65), ((0.01, -0.005), (-0.005, 0.015)))
)

# reference, meshes as (cells, layers), largest error on the first one, order at which what is allowed falls: errors of
# opposite sign cancel on some mesh in between, so the errors themselves need not fall
REFINED = {
    "Q1 1-D": (MILD, [(32, 4), (64, 8), (128, 16)], 4e-3, 1.5),
    "Q1 2-D": (to_quadratic(2, 1.0, 1.0, 1.0, [0.5, -0.2], (-0.4, 0.3), 0.6), [(8, 2), (16, 4), (24, 6)], 0.17, 2.5),
    "W1": (W1, [(30, 6), (60, 12), (120, 24)], 7e-2, 1.8),
    "C1": (classify(), [(40, 8), (80, 16), (160, 32)], 8e-3, 1.6),
    "G1 1-D": (MOVED, [(12, 4), (24, 8), (48, 16), (96, 32)], 2.1e-2, 2.4),
    "G1 1-D, other variances": (SQUEEZED, [(12, 2), (24, 4), (48, 8), (96, 16)], 1.5e-2, 1.3),
    "G1 2-D, other covariances": (TURNED, [(12, 3), (24, 6), (48, 12)], 1.3e-2, 1.4),
    "G1 1-D, time only": (MOVED, [(96, 1), (96, 2), (96, 4), (96, 8)], 0.15, 1.8),
    "G1 1-D, space only": (MOVED, [(12, 32), (24, 32), (48, 32)], 1.2e-2, 2.0),
    "Q1 1-D, time only": (MILD, [(160, 2), (160, 4), (160, 8)], 2e-2, 1.5),
}


@pytest.mark.one_process
@pytest.mark.parametrize("name", REFINED)
def test_both_values_converge(name: str) -> None:
    reference, meshes, largest, order = REFINED[name]
    for mesh in meshes:
        solution = reference.solve(ALONE, *mesh, 4e-4)
        assert solution.status == "converged"
        finer = max(now / first for now, first in zip(mesh, meshes[0], strict=True))
        for value in (solution.primal, solution.dual):
            assert abs(value / reference.exact - 1.0) <= largest * finer**-order, mesh


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("reference", "cells", "layers", "tolerance"),
    [(Q1A, 96, 32, 2e-3), (Q1B, 24, 8, 1e-2), (Q2, 80, 8, 1e-3), (W2, 80, 16, 1e-2), (SMOOTH, 80, 16, 2e-3)],
    ids=["Q1a", "Q1b", "Q2", "W2", "W2 smooth"],
)
def test_exact_values(reference: Reference, cells: int, layers: int, tolerance: float) -> None:
    solution = reference.solve(ALONE, cells, layers, 1e-3)
    assert solution.status == "converged"
    assert solution.primal == pytest.approx(reference.exact, rel=tolerance)
    assert solution.dual == pytest.approx(reference.exact, rel=tolerance)


@pytest.mark.one_process
def test_parts_and_moments() -> None:
    solution = Q1A.solve(ALONE, 96, 32, 1e-3)
    assert solution.terminal == pytest.approx(0.116325785245, rel=2e-2)
    assert solution.kinetic == pytest.approx(0.498539079620, rel=5e-3)
    space = solution.flow.linear_space
    mean, covariance = space.mean_and_covariance(solution.flow.density_at(1.5))
    assert mean[0, 0] == pytest.approx(0.978378378378, rel=1e-2)
    assert np.sqrt(covariance[0, 0, 0]) == pytest.approx(0.113513513514, rel=0.15)  # a cell is 0.083
    solution = Q1B.solve(ALONE, 24, 8, 1e-3)
    assert solution.kinetic / Q1B.exact == pytest.approx(1.0 / 1.5, rel=4e-2)  # κ/(α + κ)


# -- certificates, checked without the solver -------------------------------------------------------------------------


KINKED = formula(Expression.parse("abs(x - 0.3) + 0.2*x*label", ("x", "label"), "value"), 2)
LOSSES = {
    "quadratic": lambda dim: quadratic(np.full((2, dim), 0.4) * [[1.0], [-0.5]], 2.0),
    "expression": lambda _: KINKED,
    "logistic": lambda dim: logistic(np.arange(1.0, dim + 1.0), 0.1),
}
TARGETS = {"kl": KullbackLeiblerFunctional, "l2": SquaredDistanceFunctional, "fixed": FixedFunctional}
KINDS = (*LOSSES, *TARGETS)
DOMAINS = {"1": 1, "2": 2, "3": 3, "disk": 2, "dumbbell": 2, "square_with_hole": 2}
CASES = [(domain, kind) for domain in ("1", "2") for kind in KINDS] + [
    ("3", "quadratic"),
    ("3", "kl"),
    ("disk", "quadratic"),
    ("dumbbell", "fixed"),
    ("square_with_hole", "l2"),
]
# Solved to the end and certified on two ranks, and on three; the first iterations of others are compared there.
SEVERAL, THREE = {"1 fixed", "1 l2", "2 kl", "3 quadratic", "dumbbell fixed"}, {"2 kl", "3 quadratic"}
# Meshes that are cut into three: every kind, every dimension, and walls inside.
CUT = [("1", "fixed"), ("2", "expression"), ("2", "logistic"), ("2", "l2"), ("3", "kl"), ("square_with_hole", "l2")]


def certificate_problem(comm: MPI.Comm, domain: str, kind: str) -> IdealProblem:
    """Two labels of different mass, densities constant on the cells."""
    dim = DOMAINS[domain]
    if domain in "123":
        mesh, size = warped_mesh(comm, dim), 1.0
    else:
        mesh, size = create_mesh(comm, Domain(file=str(MESHES / f"{domain}.msh"))), 2.0
    space = DensitySpace(mesh, 0, 2)

    def both(mean: float, other: float) -> Floats:
        terms = [gaussian((mean * size, *(0.0,) * (dim - 1)), 0.25 * size, 0, 2.0)]
        return initial_density(space, [*terms, gaussian((other * size, *(0.1,) * (dim - 1)), 0.3 * size, 1, 1.0)])

    goal = TARGETS[kind](both(0.7, -0.5)) if kind in TARGETS else LinearFunctional(LOSSES[kind](dim))
    return IdealProblem(space, both(-0.7, 0.6), goal, 0.8, 1.3, 3 if domain in "123" else 2)


@pytest.fixture(scope="module", params=thinned(map(" ".join, CASES), SEVERAL, THREE))
def case(request: pytest.FixtureRequest, comm: MPI.Comm) -> tuple[IdealProblem, list[ConvexSolution]]:
    problem = certificate_problem(comm, *request.param.split())
    return problem, [solve_convex(problem, max_iterations=n) for n in (7, 5000)]


def test_status_tells_whether_the_gap_is_small(case: tuple[IdealProblem, list[ConvexSolution]]) -> None:
    _, (short, long) = case
    assert (short.status, short.iterations, len(short.history)) == ("max_iterations", 7, 1)
    assert "7 iterations" in short.reason
    assert long.status == "converged"
    assert long.relative_gap <= 1e-3
    assert long.residual <= 1e-4 or long.relative_gap <= 2e-4  # two labels
    assert long.iterations < 2500
    for solution in (short, long):
        assert 0.0 <= solution.gap < np.inf
        assert solution.gap == solution.primal - solution.dual
        assert solution.primal == pytest.approx(solution.terminal + solution.kinetic, rel=1e-14)
    assert max(record.dual for record in long.history) <= long.primal
    assert short.primal >= long.dual
    assert short.dual <= long.primal


def loads(problem: IdealProblem, rho: Floats, cells: Ints, n: int) -> Floats:
    """∫φ_i dρ of densities that are constant on the cells: a share of a cell's mass to each vertex, (N, K)."""
    space = problem.space
    masses = np.concatenate(space.comm.allgather(space.cell_mass(rho)))
    result = np.zeros((n, space.n_labels))
    for cell, mass in zip(cells, masses, strict=True):
        result[cell] += mass / (space.dim + 1)
    return result


def test_flow_is_feasible_and_costs_what_is_said(case: tuple[IdealProblem, list[ConvexSolution]]) -> None:
    problem, solutions = case
    grid = solutions[0].flow.grid
    mesh = discretise(grid)
    source = loads(problem, problem.rho0, mesh.cells, len(mesh.x))
    for solution in solutions:
        density, final = everywhere(grid, solution.flow.density), everywhere(grid, solution.flow.final)
        assert density.min() >= 0.0
        assert final.min() >= 0.0
        kinetic, mass = 0.0, source.sum(axis=0)
        np.testing.assert_allclose(np.einsum("i,ink->nk", mesh.masses, density), [mass] * problem.slabs, rtol=1e-12)
        np.testing.assert_allclose(mesh.masses @ final, mass, rtol=1e-12)
        for y in range(2):
            cost, missed = cheapest_momenta(mesh, problem.kinetic, density[:, :, y], source[:, y], final[:, y])
            kinetic += cost
            assert missed <= 1e-10
        assert solution.kinetic == pytest.approx(kinetic, rel=1e-6)
        assert solution.terminal == pytest.approx(terminal_cost(problem, mesh, final), rel=1e-9)


def target_values(problem: IdealProblem, mesh: Discrete) -> Floats:
    """ρ* at the vertices, (N, K)."""
    assert problem.functional.target is not None
    return loads(problem, problem.functional.target, mesh.cells, len(mesh.x)) / mesh.masses[:, None]


def terminal_cost(problem: IdealProblem, mesh: Discrete, final: Floats) -> float:
    """F, written out."""
    masses = mesh.masses[:, None]
    if problem.functional.loss is not None:
        return float(np.sum(masses * problem.functional.loss(mesh.x) * final))
    target = target_values(problem, mesh)
    match problem.functional:
        case FixedFunctional():
            np.testing.assert_allclose(final, target, rtol=1e-11, atol=1e-15)
            return 0.0
        case SquaredDistanceFunctional():
            return float(np.sum(masses * 0.5 * (final - target) ** 2))
        case KullbackLeiblerFunctional():
            delta = problem.space.floor
            logarithm = np.log((final + delta) / (target + delta))
            return float(np.sum(masses * ((final + delta) * logarithm - final + target)))


def conjugate(problem: IdealProblem, mesh: Discrete, w: Floats) -> float:
    """F*, written out; for w where it is finite."""
    masses = mesh.masses[:, None]
    if problem.functional.loss is not None:
        assert np.max(w - problem.functional.loss(mesh.x)) <= 1e-13
        return 0.0
    target = target_values(problem, mesh)
    match problem.functional:
        case FixedFunctional():
            return float(np.sum(masses * target * w))
        case KullbackLeiblerFunctional():
            delta = problem.space.floor
            best = np.maximum((target + delta) * np.exp(w) - delta, 0.0)
            logarithm = np.log((best + delta) / (target + delta))
            return float(np.sum(masses * (w * best - ((best + delta) * logarithm - best + target))))
        case SquaredDistanceFunctional():
            best = np.maximum(w + target, 0.0)
            return float(np.sum(masses * (w * best - 0.5 * (best - target) ** 2)))


def test_potential_is_feasible_and_is_worth_what_is_said(case: tuple[IdealProblem, list[ConvexSolution]]) -> None:
    problem, solutions = case
    grid = solutions[0].flow.grid
    mesh = discretise(grid)
    source = loads(problem, problem.rho0, mesh.cells, len(mesh.x))
    for solution in solutions:
        phi = everywhere(grid, solution.flow.potential)
        scale = np.abs(phi).max() / mesh.tau
        for y in range(2):
            assert worst_violation(mesh, problem.kinetic, phi[:, :, y]) <= 1e-13 * scale
        value = float(np.sum(source * phi[:, 0])) - conjugate(problem, mesh, phi[:, -1])
        assert solution.dual == pytest.approx(value, rel=1e-11, abs=1e-13 * np.abs(phi).max())


@pytest.mark.one_process
@pytest.mark.parametrize(("dim", "cells", "layers"), [(1, 5, 3), (2, 2, 2)])
def test_another_optimiser_finds_the_same_value(dim: int, cells: int, layers: int) -> None:
    # The dual problem by sequential quadratic programming, with constraints from plain loops.
    space = DensitySpace(warped_mesh(ALONE, dim, cells), 0)
    rho = initial_density(space, [gaussian((-0.4, 0.1)[:dim], 0.5)])
    problem = IdealProblem(
        space, rho, LinearFunctional(quadratic(np.array([[0.6, -0.3][:dim]]), 1.5)), 0.9, 1.2, layers
    )
    solution = solve_convex(problem, gap_tolerance=2e-5)
    mesh = discretise(solution.flow.grid)
    source = loads(problem, rho, mesh.cells, len(mesh.x))[:, 0]
    ceiling = problem.functional.loss(mesh.x)[:, 0]  # type: ignore[union-attr]
    shape = (len(mesh.x), layers + 1)

    def slack(flat: Floats) -> Floats:
        phi = flat.reshape(shape)
        slope = np.einsum("cid,cit->cdt", mesh.gradients, phi[mesh.cells])
        squares = np.einsum("c,cdt->ct", mesh.volumes, slope**2) / (dim + 1)
        ring = np.zeros(shape)
        np.add.at(ring, mesh.cells, squares[:, None, :])
        mean = (ring[:, 1:] + ring[:, :-1]) / (4.0 * problem.kinetic * mesh.masses[:, None])
        return np.concatenate([(-mesh.falls(phi) - mean).ravel(), ceiling - phi[:, -1]])

    weight = np.zeros(shape)
    weight[:, 0] = source
    found = scipy.optimize.minimize(
        lambda flat: -float(weight.ravel() @ flat),
        np.tile(ceiling.min() + np.linspace(-0.1, -0.01, layers + 1), (len(mesh.x), 1)).ravel(),
        jac=lambda _: -weight.ravel(),
        constraints={"type": "ineq", "fun": slack},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert found.success
    assert solution.dual <= -found.fun * (1.0 + 1e-6)
    assert solution.primal >= -found.fun * (1.0 - 1e-6)


# -- symmetries of the discrete problem -------------------------------------------------------------------------------


def transport(space: DensitySpace, scale: float = 1.0, origin: float = 0.0) -> tuple[Floats, Floats]:
    """Two densities in [0, 1]^d, scaled and moved with it."""
    dim = space.dim
    means = (origin + 0.3 * scale,) * dim, (origin + 0.65 * scale, *(origin + 0.7 * scale,) * (dim - 1))
    widths = (0.12, 0.09) if dim < 3 else (0.3, 0.25)
    first, second = (
        initial_density(space, [gaussian(mean, std * scale)]) for mean, std in zip(means, widths, strict=True)
    )
    return first, second


@pytest.mark.one_process
@pytest.mark.parametrize("kind", ["fixed", "quadratic"])
@pytest.mark.parametrize(("scale", "origin"), [(1e3, 1e5), (1e-3, 0.0)])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_units_do_not_matter(dim: int, scale: float, origin: float, kind: str) -> None:
    values = []
    for size, start in ((1.0, 0.0), (scale, origin)):
        space = box_space(ALONE, dim, {1: 16, 2: 8, 3: 3}[dim], start, start + size)
        rho, end = transport(space, size, start)
        centre = np.full((1, dim), start + 0.7 * size)
        functional = FixedFunctional(end) if kind == "fixed" else LinearFunctional(quadratic(centre, 2.0 / size**2))
        solution = solve(space, rho, functional, 0.7 / size**2, 1.5)
        values.append((solution.primal, solution.dual, solution.iterations))
        assert solution.status == "converged"
    np.testing.assert_allclose(values[1][:2], values[0][:2], rtol=1e-4)
    assert abs(values[1][2] - values[0][2]) <= 20


@pytest.mark.one_process
@pytest.mark.parametrize("dim", [1, 2])
def test_value_scales_with_the_weights(dim: int) -> None:
    space = box_space(ALONE, dim, 12, 0.0, 1.0)
    rho, end = transport(space)
    base = solve(space, rho, FixedFunctional(end))
    for kinetic, horizon in ((3.0, 1.0), (1.0, 2.5), (0.02, 0.3)):
        other = solve(space, rho, FixedFunctional(end), kinetic, horizon)
        np.testing.assert_allclose(
            np.array([other.primal, other.dual]) * horizon / kinetic, [base.primal, base.dual], rtol=1e-7
        )
    wells = [LinearFunctional(lambda x, c=c: c * np.abs(x[:, :1] - 0.7)) for c in (1.0, 5.0)]
    one, five = (solve(space, rho, wells[i], (1.0, 5.0)[i]) for i in (0, 1))
    np.testing.assert_allclose([five.primal, five.dual], 5.0 * np.array([one.primal, one.dual]), rtol=1e-7)
    light = solve(space, 0.01 * rho, wells[0])
    np.testing.assert_allclose([light.primal, light.dual], 0.01 * np.array([one.primal, one.dual]), rtol=1e-7)
    raised = solve(space, rho, LinearFunctional(lambda x: 0.3 + np.abs(x[:, :1] - 0.7)))
    assert max(abs(raised.primal - one.primal - 0.3), abs(raised.dual - one.dual - 0.3)) <= raised.gap + one.gap


@pytest.mark.one_process
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_reflections_and_reversed_time(dim: int) -> None:
    # A box's mesh is its own image under x → 1 − x.
    space = box_space(ALONE, dim, {1: 16, 2: 8, 3: 3}[dim], 0.0, 1.0)
    means = [(0.3,) * dim, (0.65, 0.7, 0.6)[:dim]]
    mirrored = [tuple(1.0 - c for c in mean) for mean in means]
    pairs = [means, mirrored, means[::-1]]
    bounds = []
    for start, end in pairs:
        rho, target = (initial_density(space, [gaussian(mean, 0.15 if dim < 3 else 0.3)]) for mean in (start, end))
        solution = solve(space, rho, FixedFunctional(target), gap=2e-4)
        bounds.append((solution.dual, solution.primal))
    assert bounds[1] == pytest.approx(bounds[0], rel=1e-6)
    assert max(low for low, _ in bounds) <= min(high for _, high in bounds) * (1.0 + 1e-12)


@pytest.mark.two_ranks
def test_labels_can_be_renamed(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 8, 0.0, 1.0, n_labels=3)
    means, goals = [(0.2, 0.3), (0.5, 0.6), (0.8, 0.2)], np.array([[0.5, 0.5], [0.1, 0.9], [0.4, 0.1]])
    solutions = []
    for order in ([0, 1, 2], [2, 0, 1]):
        terms = [gaussian(means[y], 0.12, label, 1.0 + y) for label, y in enumerate(order)]
        rho = initial_density(space, terms)
        solutions.append(solve(space, rho, LinearFunctional(quadratic(goals[order], 1.0)), iterations=120, gap=1e-9))
    one, other = solutions
    assert other.primal == pytest.approx(one.primal, rel=1e-8)
    assert other.dual == pytest.approx(one.dual, rel=1e-8)
    np.testing.assert_allclose(other.flow.density, one.flow.density[:, :, [2, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(other.flow.potential, one.flow.potential[:, :, [2, 0, 1]], atol=1e-6)


@pytest.mark.two_ranks
def test_labels_add_up(comm: MPI.Comm) -> None:
    space, single = box_space(comm, 1, 30, 0.0, 1.0, n_labels=2), box_space(comm, 1, 30, 0.0, 1.0)
    terms = [gaussian((0.3,), 0.1, 0, 2.0), gaussian((0.6,), 0.1, 1, 1.0)]
    goals = np.array([[0.6], [0.2]])
    together = solve(space, initial_density(space, terms), LinearFunctional(quadratic(goals, 1.0)), gap=2e-4)
    alone = []
    for y in range(2):
        rho = initial_density(space, terms)[..., y : y + 1].copy()
        alone.append(solve(single, rho, LinearFunctional(quadratic(goals[y : y + 1], 1.0)), gap=2e-4))
    assert together.dual <= sum(solution.primal for solution in alone) * (1.0 + 1e-12)
    assert together.primal >= sum(solution.dual for solution in alone) * (1.0 - 1e-12)


# -- hard cases -------------------------------------------------------------------------------------------------------


@pytest.mark.one_process
@pytest.mark.parametrize("dim", [1, 2])
def test_nothing_to_do(dim: int) -> None:
    space = box_space(ALONE, dim, {1: 30, 2: 10}[dim], 0.0, 1.0)
    rho, _ = transport(space)
    cell = 0.5 * solve(space, rho, FixedFunctional(rho), iterations=1).flow.grid.cell_size ** 2
    stays = solve(space, rho, FixedFunctional(rho))
    constant = solve(space, rho, LinearFunctional(lambda x: np.full((len(x), 1), 3.0)))
    for solution, value, scale in ((stays, 0.0, cell), (constant, 3.0, 3.0)):
        assert solution.status == "converged"
        assert -1e-15 <= solution.primal - value <= 1e-3 * scale
        # Mass that stays is a little too narrow for the blur.
        assert -1e-3 * scale <= solution.dual - value <= 1e-5 * scale
    assert constant.kinetic <= 3e-3


NARROW, BROAD = 0.02, 0.12


@pytest.mark.one_process
@pytest.mark.parametrize(
    ("dim", "kind"), [(1, "fixed"), (1, "kl"), (1, "l2"), (1, "quadratic"), (2, "fixed"), (2, "kl")]
)
@pytest.mark.parametrize("shape", ["narrow", "to narrow", "uniform", "to uniform"])
def test_rough_densities(dim: int, shape: str, kind: str) -> None:
    # Some of them are empty in most of the domain; KL allows no mass outside of the target.
    space = box_space(ALONE, dim, {1: 40, 2: 12}[dim], 0.0, 1.0)
    start: Term = gaussian((0.3,) * dim, NARROW if shape == "narrow" else BROAD)
    end: Term = gaussian((0.7,) * dim, NARROW if shape == "to narrow" else BROAD)
    if "uniform" in shape:
        end = uniform(0.6, 0.9, dim)
    if shape == "uniform":
        start = uniform(0.1, 0.4, dim)
    target = initial_density(space, [end])
    functional = TARGETS[kind](target) if kind in TARGETS else LinearFunctional(quadratic(np.full((1, dim), 0.7), 2.0))
    solution = solve(space, initial_density(space, [start]), functional, layers=6)
    assert solution.status == "converged"
    assert 0.0 <= solution.gap <= 1e-3 * solution.primal
    if shape == "uniform" and kind == "fixed":
        assert solution.primal == pytest.approx(0.125 * dim, rel=0.06)


@pytest.mark.one_process
@pytest.mark.parametrize("kind", ["fixed", "kl", "l2", "quadratic"])
@pytest.mark.parametrize("kinetic", [1e-3, 1e3])
def test_prices_of_moving(kinetic: float, kind: str) -> None:
    space = box_space(ALONE, 1, 40, 0.0, 1.0)
    rho, end = transport(space)
    functional = TARGETS[kind](end) if kind in TARGETS else LinearFunctional(quadratic(np.array([[0.7]]), 2.0))
    solution = solve(space, rho, functional, kinetic, layers=8, iterations=1500)
    assert solution.status == "converged"
    if kinetic > 1.0:  # the better, the less it moves
        assert solution.primal <= solve(space, rho, functional, 10.0 * kinetic, layers=8).primal * 1.001


@pytest.mark.one_process
@pytest.mark.parametrize("kind", ["fixed", "quadratic"])
def test_finer_meshes_take_hardly_more_iterations(kind: str) -> None:
    iterations = []
    for cells in (8, 16, 32):
        space = box_space(ALONE, 2, cells, 0.0, 1.0)
        rho, end = transport(space)
        goal = FixedFunctional(end) if kind == "fixed" else LinearFunctional(quadratic(np.array([[0.65, 0.7]]), 4.0))
        solution = solve(space, rho, goal, 0.7, 1.5, 12)
        assert solution.status == "converged"
        iterations.append(solution.iterations)
    assert max(iterations) <= 500
    assert iterations[-1] <= 1.2 * iterations[0]


@pytest.mark.one_process
def test_a_narrow_gap_on_a_coarse_mesh() -> None:
    # Densities that are smoothed much cost more than the gap.
    solution = MILD.solve(ALONE, 16, 4, 1e-4)
    assert (solution.status, solution.iterations < 1000) == ("converged", True)


@pytest.mark.one_process
def test_many_thin_slabs() -> None:
    # The densities of the method itself are poor here, those carried by its velocity are good.
    assert Q1A.solve(ALONE, 96, 64, 1e-3).iterations < 1500


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_fewer_cells_and_modes_than_ranks(comm: MPI.Comm, dim: int, cells: int) -> None:
    bounds = []
    for ranks in (comm, MPI.COMM_SELF):
        space = box_space(ranks, dim, cells, 0.0, 1.0)
        rho, end = transport(space)
        for functional in (
            FixedFunctional(end),
            KullbackLeiblerFunctional(end),
            LinearFunctional(quadratic(np.full((1, dim), 0.7), 2.0)),
        ):
            solution = solve(space, rho, functional, layers=1, iterations=40, gap=1e-12)
            assert solution.gap >= 0.0
            bounds.append((solution.primal, solution.dual))
    np.testing.assert_allclose(bounds[:3], bounds[3:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2])
def test_an_empty_half_of_the_target(comm: MPI.Comm, dim: int) -> None:
    # Infinite divergences must not be taken for numbers on any rank.
    space = box_space(comm, dim, {1: 30, 2: 8}[dim], 0.0, 1.0)
    rho, target = (initial_density(space, [uniform(low, low + 0.3, dim)]) for low in (0.1, 0.6))
    solution = solve(space, rho, KullbackLeiblerFunctional(target), iterations=40)
    assert 0.0 <= solution.gap < 0.1


@pytest.mark.two_ranks
def test_a_label_of_next_to_nothing(comm: MPI.Comm) -> None:
    space = box_space(comm, 2, 10, 0.0, 1.0, n_labels=2)
    start = initial_density(space, [gaussian((0.3, 0.3), 0.12), gaussian((0.7, 0.4), 0.12, 1, 1e-6)])
    end = initial_density(space, [gaussian((0.7, 0.6), 0.12), gaussian((0.3, 0.4), 0.12, 1, 1e-6)])
    for functional in (
        FixedFunctional(end),
        KullbackLeiblerFunctional(end),
        LinearFunctional(quadratic(np.array([[0.7, 0.6], [0.2, 0.2]]), 2.0)),
    ):
        solution = solve(space, start, functional)
        assert solution.status == "converged"
        np.testing.assert_allclose(
            np.array([solution.flow.grid.integrate(solution.flow.final[:, y]) for y in range(2)]) * (1.0 + 1e-6),
            [1.0, 1e-6],
            rtol=1e-9,
        )


@pytest.mark.two_ranks
def test_samples(comm: MPI.Comm, tmp_path: Path) -> None:
    if comm.rank == 0:
        rng = np.random.default_rng(0)
        classes = rng.integers(0, 2, 60)
        table = np.column_stack([rng.normal(0.3 + 0.4 * classes, 0.08), rng.normal(0.5, 0.1, 60), classes])
        np.savetxt(tmp_path / "points.csv", table, delimiter=",", header="a,b,class", comments="")
    comm.barrier()
    term = SamplesTerm(
        kind="samples", file=str(tmp_path / "points.csv"), columns=("a", "b"), label_column="class", bandwidth=0.05
    )
    space = box_space(comm, 2, 10, 0.0, 1.0, n_labels=2)
    rho = initial_density(space, [term])
    solution = solve(space, rho, LinearFunctional(quadratic(np.array([[0.7, 0.5], [0.3, 0.5]]), 2.0)))
    assert solution.status == "converged"


# -- around the corner ------------------------------------------------------------------------------------------------


def test_flow_goes_around_a_hole(comm: MPI.Comm) -> None:
    space = DensitySpace(create_mesh(comm, Domain(file=str(MESHES / "square_with_hole.msh"))), 1)
    ends = [initial_density(space, [gaussian((side * 1.3, 0.0), 0.2)]) for side in (-1.0, 1.0)]
    solution = solve(space, ends[0], FixedFunctional(ends[1]), layers=8, gap=3e-3)
    assert solution.status == "converged"
    straight = 0.5 * 2.6**2
    radius, distance = 0.6, 1.3  # tangents to the hole and an arc
    tangent = math.sqrt(distance**2 - radius**2)
    around = 0.5 * (2.0 * tangent + 2.0 * radius * math.asin(radius / distance)) ** 2
    assert 1.02 * straight < solution.dual
    assert solution.primal == pytest.approx(around, rel=0.1)
    middle = solution.flow.linear_space.mean_and_covariance(solution.flow.density_at(0.5))
    assert abs(middle[0][0, 0]) < 0.05
    assert middle[1][0, 1, 1] > 0.5**2  # half passes above, half below


# -- ranks, records, refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "kind"), thinned(CASES, CASES, CUT))
def test_the_number_of_ranks_does_not_matter(comm: MPI.Comm, dim: str, kind: str) -> None:
    problems = [certificate_problem(ranks, dim, kind) for ranks in (comm, MPI.COMM_SELF)]
    shared, alone = (solve_convex(problem, gap_tolerance=1e-12, max_iterations=60) for problem in problems)
    numbers = (shared.primal, shared.dual, shared.terminal, shared.kinetic, shared.residual)
    assert len(set(comm.allgather(numbers))) == 1
    np.testing.assert_allclose(numbers[:4], [alone.primal, alone.dual, alone.terminal, alone.kinetic], rtol=1e-8)
    # vertices are numbered differently: compare them by their coordinates
    grids = shared.flow.grid, alone.flow.grid
    sorted_rows = []
    for grid, flow in zip(grids, (shared.flow, alone.flow), strict=True):
        x = everywhere(grid, grid.x, 1e-14)
        order = np.lexsort(np.round(x, 9).T)
        rows = [everywhere(grid, values).reshape(len(x), -1)[order] for values in (flow.density, flow.final)]
        sorted_rows.append(
            np.concatenate([x[order], *rows, everywhere(grid, flow.potential).reshape(len(x), -1)[order]], 1)
        )
    np.testing.assert_allclose(sorted_rows[0], sorted_rows[1], rtol=1e-6, atol=1e-7)


def test_records(comm: MPI.Comm) -> None:
    space = box_space(comm, 1, 30, 0.0, 1.0)
    rho, end = transport(space)
    told: list[GapRecord] = []
    solution = solve_convex(IdealProblem(space, rho, FixedFunctional(end), 1.0, 1.0, 4), callback=told.append)
    assert tuple(told) == solution.history
    assert [record.iteration for record in told] == list(range(10, solution.iterations + 1, 10))
    for first, second in pairwise(told):
        assert second.seconds >= first.seconds > 0.0
    assert not told[0].feasible
    assert told[-1].feasible
    for record in told:
        if record.feasible:
            assert record.gap == record.primal - record.dual
            assert record.relative_gap == pytest.approx(abs(record.gap) / max(abs(record.primal), abs(record.dual)))
        else:  # an estimate has no gap
            assert math.isnan(record.gap)
            assert math.isnan(record.relative_gap)
    assert solution.residual == told[-1].residual
    assert len(set(comm.allgather(repr(solution.history)))) == 1


@pytest.mark.parametrize("kinetic", [0.0, -1.0, math.nan])
def test_moving_must_cost_something(comm: MPI.Comm, kinetic: float) -> None:
    space = box_space(comm, 1, 5, 0.0, 1.0)
    rho, _ = transport(space)
    with pytest.raises(InputError) as refused:
        solve(space, rho, FixedFunctional(rho), kinetic)
    assert refused.value.key == "kinetic"


def test_an_iteration_is_needed(comm: MPI.Comm) -> None:
    space = box_space(comm, 1, 5, 0.0, 1.0)
    rho, _ = transport(space)
    with pytest.raises(InputError) as refused:
        solve(space, rho, FixedFunctional(rho), iterations=0)
    assert refused.value.key == "max_iterations"


@pytest.mark.two_ranks
def test_masses_must_agree(comm: MPI.Comm) -> None:
    space = box_space(comm, 1, 20, 0.0, 1.0, n_labels=2)
    rho, target = (
        initial_density(space, [gaussian((0.4,), 0.1, 0, weight), gaussian((0.6,), 0.1, 1)]) for weight in (1.0, 1.01)
    )
    with pytest.raises(InputError, match="same mass") as refused:
        solve(space, rho, FixedFunctional(target))
    assert refused.value.key == "terminal.target"
    assert solve(space, rho, KullbackLeiblerFunctional(target)).status == "converged"
    close = rho * (1.0 + 1e-8)
    assert solve(space, rho, FixedFunctional(close), iterations=20).gap < np.inf


@pytest.mark.parametrize("text", ["-log(x)", "1/x", "log(x)"])
def test_losses_without_a_value_at_a_vertex_are_refused(comm: MPI.Comm, text: str) -> None:
    space = box_space(comm, 1, 20, 0.0, 1.0)
    rho, _ = transport(space)
    with pytest.raises(InputError, match="not finite") as refused:
        solve(space, rho, LinearFunctional(formula(Expression.parse(text, ("x",), "value"), 1)))
    assert refused.value.key == "terminal"
