"""Congestion and entropy by the compiled loops, against their formulas in NumPy, and against what is known exactly."""

import math

from mpi4py import MPI

import numpy as np
import pytest
from problems import random_density, random_rows, warped_mesh
from thinning import thinned

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import initial_density
from eulerian.app.config import Box, Domain, GaussianTerm
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.objective.floored_entropy import entropy, entropy_slope
from eulerian.transport.density_cost import DensityCharge, DensityCost
from eulerian.transport.simd_layout import NodalLayout

SHAPES = [(1, 0), (1, 2), (2, 0), (2, 1), (2, 2), (3, 1), (3, 2)]
COST = DensityCost(congestion=0.7, entropy=0.3, floor=0.01)  # a small floor would amplify rounding near zero


def reference(space: DensitySpace, cost: DensityCost, total: Floats) -> tuple[Floats, Floats]:
    """Both costs on this rank, and their derivative (n_owned, nd) by the coefficients of the total density."""
    rule = space.quadrature(space.objective_degree)
    rho, det = total @ rule.basis.T, space.geometry.det[: space.n_owned]
    disorder = entropy(rho, cost.floor) - cost.floor * math.log(cost.floor)
    values = 0.5 * cost.congestion * np.sum(det[:, None] * total**2), cost.entropy * np.sum(rule.weights * disorder)
    slope = cost.congestion * det[:, None] * total
    slope += (cost.entropy * rule.weights * entropy_slope(rho, cost.floor)) @ rule.basis
    return np.array(values), slope


@pytest.mark.parametrize("columns", thinned([1, 2, 3, 8, 11], {3, 11}, {11}))
@pytest.mark.parametrize(("dim", "degree"), SHAPES)
def test_loops_and_formulas_agree(comm: MPI.Comm, dim: int, degree: int, columns: int) -> None:
    """Also below zero, where the entropy is its tangent, for densities of one or two arrays."""
    space = DensitySpace(warped_mesh(comm, dim), degree, columns)
    layout = NodalLayout(space, columns)
    densities = [random_density(space, columns, seed) - 0.05 * random_density(space, columns, 7) for seed in (1, 2, 3)]
    packed = [layout.pack(rho, fill=1.0) for rho in densities]
    running = layout.pack_shared(random_rows(space, 1, 5)[: space.n_owned, :, 0])
    charge = DensityCharge(layout, COST)
    for moments in ([[packed[0]], [packed[1]]], [[packed[0], packed[1]], [packed[2], packed[1]]]):
        values, slopes = charge.values(moments), charge.slopes(moments, running)
        for moment, value, slope in zip(moments, values, slopes, strict=True):
            total = sum(layout.unpack(part)[: space.n_owned] for part in moment).sum(axis=2)
            expected, derivative = reference(space, COST, total)
            np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
            wanted = layout.pack_shared(derivative) + running
            np.testing.assert_allclose(slope, wanted, rtol=1e-11, atol=1e-11)


def test_one_cost_alone(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 1)
    layout = NodalLayout(space, 1)
    moments, base = (
        [[layout.pack(random_density(space, 1, 1))]],
        layout.pack_shared(np.zeros((space.n_owned, space.nd))),
    )
    both = DensityCharge(layout, COST)
    whole, parts = both.slopes(moments, base)[0].copy(), []
    for cost, empty in ((DensityCost(0.7, 0.0, COST.floor), 1), (DensityCost(0.0, 0.3, COST.floor), 0)):
        charge = DensityCharge(layout, cost)
        value = charge.values(moments)[0]
        assert value[empty] == 0.0
        assert value[1 - empty] == both.values(moments)[0][1 - empty]
        parts.append(charge.slopes(moments, base)[0].copy())
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-14)


@pytest.mark.one_process
@pytest.mark.parametrize("exponent", range(-250, 251, 50))
def test_the_logarithm(exponent: int) -> None:
    """To a few units in the last place, over the range of numbers, next to powers of two and around 1."""
    space = DensitySpace(create_mesh(MPI.COMM_SELF, Domain(box=Box(lower=(0.0,), upper=(1.0,), cells=(400,)))), 0, 1)
    layout = NodalLayout(space, 1)
    rng = np.random.default_rng(0)
    near = np.nextafter(2.0 ** rng.integers(-3, 4, 200), rng.choice([0.0, np.inf], 200))
    rho = np.concatenate([near, rng.uniform(0.5, 2.0, 200)]) * 10.0**exponent
    floor = 1e-300
    charge = DensityCharge(layout, DensityCost(0.0, 1.0, floor))
    packed = layout.pack(rho[:, None, None] / space.phi0)
    base = layout.pack_shared(np.zeros((space.n_owned, 1)))
    found = charge.slopes([[packed]], base)[0].ravel()[:400]
    exact = np.log(packed.ravel()[:400] + floor) + 1.0
    np.testing.assert_allclose(found, exact, rtol=1e-15, atol=4e-16)


def test_what_is_no_number_is_told(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 1)
    layout = NodalLayout(space, 1)
    for bad in (math.nan, math.inf):
        rho = np.full((space.n_cells, space.nd, 1), 0.5)
        rho[:, 0] = bad
        values = parallel.sum_all(comm, DensityCharge(layout, COST).values([[layout.pack(rho)]])[0])
        assert not np.any(np.isfinite(values))


def test_costs_of_a_normal_density(comm: MPI.Comm) -> None:
    std = 0.4
    space = DensitySpace(create_mesh(comm, Domain(box=Box(lower=(-4.0,), upper=(4.0,), cells=(200,)))), 2, 1)
    layout = NodalLayout(space, 1)
    packed = layout.pack(initial_density(space, [GaussianTerm(mean=(0.1,), std=std)]))
    charge = DensityCharge(layout, DensityCost(0.7, 0.3, space.floor))
    congestion, disorder = parallel.sum_all(comm, charge.values([[packed]])[0])
    assert congestion == pytest.approx(0.35 / (2 * std * math.sqrt(math.pi)), rel=1e-5)
    assert disorder == pytest.approx(-0.3 * (0.5 + 0.5 * math.log(2 * math.pi * std**2)), rel=1e-4)
