"""Functionals of the continuous problem: conjugates against brute force, and the densities that they ask for."""

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
import pytest
from scipy.optimize import minimize

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.shapes import Gaussian, Uniform
from eulerian.density.space import DensitySpace
from eulerian.ideal.final_costs import (
    DomainRule,
    FinalCost,
    FixedCost,
    KullbackLeiblerCost,
    SquaredDistanceCost,
    domain_rules,
)
from eulerian.mesh.create import box_mesh

N, MASS = 30, 0.6
X = (np.arange(N) + 0.5) / N
WEIGHTS = np.random.default_rng(0).uniform(0.5, 1.5, N) / N
TARGET = 0.1 + np.exp(-40.0 * (X - 0.6) ** 2)
TARGET *= MASS / (WEIGHTS @ TARGET)
PHI = np.random.default_rng(1).standard_normal(N)
FLOOR = 0.05


@dataclass(frozen=True)
class Target:
    """Of one label, on the line."""

    scale: float = 1.0

    @property
    def mass(self) -> Floats:
        return np.array([MASS])

    def values(self, x: Floats) -> Floats:
        return self.scale * np.interp(x, X, TARGET)

    def log_values(self, x: Floats) -> Floats:
        return np.log(self.values(x))


def shared(comm: MPI.Comm, values: Floats) -> Floats:
    """This rank's."""
    return np.asarray(values[comm.rank :: comm.size])


def whole(comm: MPI.Comm, values: Floats) -> Floats:
    found = np.zeros(N)
    found[comm.rank :: comm.size] = values
    return parallel.sum_all(comm, found)


def rule(comm: MPI.Comm) -> DomainRule:
    parts = [shared(comm, values) for values in (X, WEIGHTS, TARGET)]
    return DomainRule(parts[0][:, None], parts[1], parts[2], 0.0, comm)


def cost(comm: MPI.Comm, kind: str) -> FinalCost:
    if kind == "fixed":
        return FixedCost(rule(comm), MASS)
    if kind == "l2":
        return SquaredDistanceCost(rule(comm), MASS)
    return KullbackLeiblerCost(rule(comm), MASS, Target(), 0, np.log(FLOOR) if kind == "floor" else -np.inf)


def value(kind: str, density: Floats) -> float:
    """F on the rule's points, by its definition."""
    if kind == "l2":
        return float(WEIGHTS @ (density - TARGET) ** 2) / 2.0
    raised = TARGET + FLOOR if kind == "floor" else TARGET
    return float(WEIGHTS @ (density * np.log(np.maximum(density, 1e-300) / raised)))


SMOOTH = ("kl", "floor", "l2")
kinds = pytest.mark.parametrize("kind", [*SMOOTH, "fixed"])


@pytest.mark.parametrize("kind", SMOOTH)
def test_conjugates_are_suprema(comm: MPI.Comm, kind: str) -> None:
    """Over densities at the points, by a general optimiser."""
    found = cost(comm, kind).conjugate(shared(comm, PHI))
    best = minimize(
        lambda r: value(kind, r) - WEIGHTS @ (PHI * r),
        np.full(N, MASS / WEIGHTS.sum()),
        method="SLSQP",
        bounds=[(0.0, None)] * N,
        constraints={"type": "eq", "fun": lambda r: WEIGHTS @ r - MASS},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert -best.fun <= found.value + 1e-9
    assert found.value == pytest.approx(-best.fun, rel=1e-6)
    assert whole(comm, found.weights) / WEIGHTS == pytest.approx(best.x, abs=2e-2)


@kinds
def test_derivatives(comm: MPI.Comm, kind: str) -> None:
    """Of F*, by central differences: the weights, and their derivative by the curvature."""
    one, step = cost(comm, kind), 1e-5
    found, direction = one.conjugate(shared(comm, PHI)), np.random.default_rng(2).standard_normal(N)
    ahead, behind = (one.conjugate(shared(comm, PHI + sign * step * direction)) for sign in (1, -1))
    weights, curvature = whole(comm, found.weights), whole(comm, found.curvature)
    assert (ahead.value - behind.value) / (2 * step) == pytest.approx(weights @ direction, rel=1e-7)
    total = curvature.sum()
    second = curvature * (direction - (curvature @ direction / total if total else 0.0))
    change = (whole(comm, ahead.weights) - whole(comm, behind.weights)) / (2 * step)
    assert change == pytest.approx(second, abs=1e-7)
    assert weights.sum() == pytest.approx(MASS, rel=1e-12)
    assert weights.min() >= 0.0


@pytest.mark.parametrize("kind", SMOOTH)
def test_the_density_that_is_asked_for(comm: MPI.Comm, kind: str) -> None:
    """F(ρ_φ) = ∫φρ_φ − F*(φ), and F(ρ) ≥ ∫φρ − F*(φ) for any other one."""
    one = cost(comm, kind)
    found = one.conjugate(shared(comm, PHI))
    weights = whole(comm, found.weights)
    assert one.value(shared(comm, weights / WEIGHTS)) == pytest.approx(PHI @ weights - found.value, rel=1e-11)
    other = np.random.default_rng(3).uniform(0.0, 1.0, N)
    other *= MASS / (WEIGHTS @ other)
    assert one.value(shared(comm, other)) == pytest.approx(value(kind, other), rel=1e-11)
    assert one.value(shared(comm, other)) > (WEIGHTS * other) @ PHI - found.value


@kinds
def test_constants(comm: MPI.Comm, kind: str) -> None:
    """F*(φ + c) = F*(φ) + c·mass, however large c is."""
    one = cost(comm, kind)
    plain, high = one.conjugate(shared(comm, PHI)), one.conjugate(shared(comm, PHI + 800.0))
    assert high.value == pytest.approx(plain.value + 800.0 * MASS, rel=1e-13)
    assert high.weights == pytest.approx(plain.weights, rel=1e-9)


@pytest.mark.parametrize("scale", [0.97, 1.05])
def test_kl_does_not_see_what_a_rule_misses(comm: MPI.Comm, scale: float) -> None:
    """Of the masses, of the target as well as of the density."""
    off = KullbackLeiblerCost(rule(comm), MASS, Target(scale), 0, -np.inf)
    plain, wrong = (one.conjugate(shared(comm, PHI)).value for one in (cost(comm, "kl"), off))
    assert wrong == pytest.approx(plain, rel=1e-12)
    assert off.value(shared(comm, scale * TARGET)) == pytest.approx(0.0, abs=1e-12)


def test_one_density_has_no_other_value(comm: MPI.Comm) -> None:
    assert cost(comm, "fixed").value(shared(comm, TARGET)) == np.inf
    assert cost(comm, "fixed").conjugate(shared(comm, PHI)).value == pytest.approx(WEIGHTS @ (TARGET * PHI))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("jumps", [False, True])
def test_rules_of_the_domain(comm: MPI.Comm, dim: int, jumps: bool) -> None:
    """They have its volume, and the target's mass and moments, although the cells are as wide as the densities."""
    space = DensitySpace(box_mesh([-2.0] * dim, [3.0] * dim, [6] * dim, comm=comm), 0)
    centre, goal = np.full(dim, 0.61), Gaussian([0.61] * dim, std=0.3)
    shape = Uniform(centre - 0.7, centre + 0.7) if jumps else goal
    start, target = (space.project(each).exact for each in (Gaussian([-0.5] * dim, std=0.2), shape))
    assert start is not None
    assert target is not None
    square = 0.7**2 / 3.0 if jumps else 0.3**2
    fine, coarse = domain_rules(space, start, target, 0, 0.5, 5.0 * 2.0**-9)
    for one, tolerance in ((fine, 2e-3), (coarse, 4e-3)):
        sizes = np.stack([np.ones(len(one.x)), one.target, one.target * np.sum((one.x - centre) ** 2, axis=1)])
        volume, mass, moment = one.sum(*(sizes * one.weights))
        assert volume == pytest.approx(5.0**dim, rel=1e-12)
        assert abs(mass - 1.0) <= one.missed + 1e-12
        assert one.missed < 0.02  # a density's own mass on the mesh has an error as well
        assert moment / mass == pytest.approx(dim * square, rel=tolerance)
        assert one.weights.min() > 0.0
