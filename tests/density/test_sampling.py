"""Draws from densities: they follow the density, on any number of ranks, and leave out what is empty."""

import math
import warnings
from itertools import pairwise

from mpi4py import MPI

import numpy as np
import pytest
from problems import random_density, warped_mesh
from scipy import stats

from eulerian.app.build.mixture import initial_density
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density import basis
from eulerian.density.cell_quantiles import cell_quantiles
from eulerian.density.cell_tree import CellTree
from eulerian.density.gathered import GatheredDensity
from eulerian.density.sampling import Draw, draw_points
from eulerian.density.space import DensitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]
METHODS = ("random", "sobol")


def smooth(comm: MPI.Comm, dim: int, degree: int, std: float = 0.3) -> tuple[DensitySpace, Floats, GatheredDensity]:
    """Two Gaussians of masses 1/4 and 3/4 on a mesh without symmetries."""
    terms = [
        {"kind": "gaussian", "mean": [(0.2, -0.1, 0.1)[i] * (1 - 2 * y) for i in range(dim)], "std": std, "label": y}
        | {"weight": 1.0 + 2.0 * y}
        for y in range(2)
    ]
    table = {
        "domain": {"box": {"lower": [-1.0] * dim, "upper": [1.0] * dim, "cells": [4] * dim}},
        "density": {"initial": terms},
        "field": {"kind": "mlp"},
        "objective": {"terminal": {"kind": "quadratic", "target": [0.0] * dim}},
    }
    space = DensitySpace(warped_mesh(comm, dim, {1: 24, 2: 12, 3: 5}[dim]), degree, 2)
    rho = initial_density(space, parse_config(table).density.initial)
    return space, rho, GatheredDensity.gather(space, rho).non_negative()


def moments(whole: GatheredDensity, label: int, degree: int = 3) -> Floats:
    """∫ f ρ/mass of all monomials f up to a degree."""
    rule = basis.quadrature_rule(whole.dim, whole.degree + degree)
    x = whole.vertices[:, :1] + rule.points @ (whole.vertices[:, 1:] - whole.vertices[:, :1])
    density = basis.legendre(whole.dim, whole.degree, rule.points) @ whole.coefficients[..., label, None]
    weights = whole.det[:, None] * rule.weights * density[..., 0] / whole.mass[label]
    return np.einsum("cq,cqm->m", weights, monomials(x, degree))


def monomials(x: Floats, degree: int = 3) -> Floats:
    powers = [p for p in np.ndindex(*(degree + 1,) * x.shape[-1]) if 0 < sum(p) <= degree]
    return np.stack([np.prod(x ** np.array(p), axis=-1) for p in powers], axis=-1)


# -- inside a cell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_constant_density_fills_its_cell_evenly(dim: int) -> None:
    n = 4096
    u = stats.qmc.Sobol(dim, rng=np.random.default_rng(0)).random(n)
    modes = np.zeros((n, basis.legendre(dim, 2, np.zeros((1, dim))).shape[1]))
    modes[:, 0] = 1.0
    x = cell_quantiles(dim, 2, modes, u)
    barycentric = np.column_stack([1 - x.sum(axis=1), x])
    assert barycentric.min() >= -1e-15
    for column in barycentric.T:  # each is Beta(1, dim)
        assert stats.kstest(column, stats.beta(1, dim).cdf).statistic < 0.01


@pytest.mark.parametrize(("dim", "degree"), [(dim, degree) for dim in (1, 2, 3) for degree in (1, 2)])
def test_a_polynomial_density_is_followed(dim: int, degree: int) -> None:
    # Zero in one vertex, so that conditional densities vanish at ends: (b·x)^degree.
    rule = basis.quadrature_rule(dim, 2 * degree)
    slope = np.array([1.0, 0.5, 2.0])[:dim]
    modes = (rule.weights * (rule.points @ slope) ** degree) @ basis.legendre(dim, degree, rule.points)
    n = 2**14
    u = stats.qmc.Sobol(dim, rng=np.random.default_rng(1)).random(n)
    x = cell_quantiles(dim, degree, np.tile(modes, (n, 1)), u)
    fine = basis.quadrature_rule(dim, degree + 4)
    density = fine.weights * (fine.points @ slope) ** degree
    expected = density @ monomials(fine.points, 4) / density.sum()
    np.testing.assert_allclose(monomials(x, 4).mean(axis=0), expected, atol=3e-4)
    assert x.min() >= 0.0
    assert x.sum(axis=1).max() <= 1.0 + 1e-15


def test_quantiles_in_one_dimension_are_exact() -> None:
    # ρ = 2x on [0, 1]: F = x².
    rule = basis.quadrature_rule(1, 2)
    modes = (rule.weights * 2 * rule.points[:, 0]) @ basis.legendre(1, 1, rule.points)
    u = np.array([0.0, 1e-12, 0.04, 0.25, 0.81, 1 - 2**-53])
    x = cell_quantiles(1, 1, np.tile(modes, (len(u), 1)), u[:, None])
    np.testing.assert_allclose(x[:, 0], np.sqrt(u), rtol=1e-9, atol=1e-12)


# -- over cells ------------------------------------------------------------------------------------------------------


def test_tree_gives_cells_points_in_proportion_to_their_masses() -> None:
    rng = np.random.default_rng(0)
    centroids, masses = rng.random((37, 2)), rng.exponential(size=37)
    masses[[3, 8, 20]] = 0.0
    side = (np.arange(512) + 0.5) / 512
    u = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    cells, rest = CellTree(centroids, masses).choose(u)
    np.testing.assert_allclose(np.bincount(cells, minlength=37) / len(u), masses / masses.sum(), atol=2e-3)
    assert np.all((rest >= 0) & (rest < 1))
    for axis in range(2):  # what is left of the coordinates is uniform again
        assert stats.kstest(rest[:, axis], "uniform").statistic < 0.01


def test_tree_never_chooses_an_empty_cell_not_even_at_the_edges() -> None:
    for n in (1, 2, 5, 16, 33):
        for kept in range(n):
            masses = np.zeros(n)
            masses[kept] = 1e-300
            edges = np.array([0.0, 1e-300, 0.5, np.nextafter(1.0, 0.0)])
            u = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2)
            cells, _ = CellTree(np.random.default_rng(1).random((n, 2)), masses).choose(u)
            assert np.all(cells == kept)


@pytest.mark.parametrize(("dim", "degree"), CASES)
@pytest.mark.parametrize("method", METHODS)
def test_log_density_is_that_of_the_values(comm: MPI.Comm, dim: int, degree: int, method: str) -> None:
    space = DensitySpace(warped_mesh(comm, dim), degree, 2)
    whole = GatheredDensity.gather(space, random_density(space, 2, seed=4)).non_negative()
    draw = draw_points(whole, 500, method=method, seed=2)  # type: ignore[arg-type]
    values = whole.values(draw.x)[np.arange(500), draw.labels]
    np.testing.assert_allclose(np.exp(draw.log_density), values, rtol=1e-7, atol=1e-9 * values.max())
    cells, _ = whole.finder.find(draw.x)
    assert np.all(cells >= 0)
    assert np.all(whole.cell_mass[cells, draw.labels] > 0.0)
    assert np.any(whole.cell_mass == 0.0)  # there are empty cells that could have been hit


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_moments_of_random_points_within_their_error(comm: MPI.Comm, dim: int, degree: int) -> None:
    _, _, whole = smooth(comm, dim, degree)
    draw = draw_points(whole, 4000, seed=5)
    for label in range(2):
        values = monomials(draw.x[draw.labels == label])
        error = values.std(axis=0) / math.sqrt(len(values))
        assert np.all(np.abs(values.mean(axis=0) - moments(whole, label)) < 4.5 * error)


@pytest.mark.one_process
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_sobol_points_converge_faster_than_random_ones(comm: MPI.Comm, dim: int, degree: int) -> None:
    _, _, whole = smooth(comm, dim, degree)
    exact, sizes = moments(whole, 1), [2**6, 2**12]
    one = GatheredDensity(whole.vertices, whole.coefficients[..., 1:], degree)
    errors = []
    for n in sizes:
        draw = draw_points(one, 8 * n, method="sobol", seed=1, replicates=8)
        means = np.stack([monomials(draw.x[draw.replicate == r]).mean(axis=0) for r in range(8)])
        errors.append(np.sqrt(np.mean((means - exact) ** 2)))
    rate = np.log(errors[0] / errors[1]) / np.log(sizes[1] / sizes[0])
    assert rate > {1: 0.9, 2: 0.65, 3: 0.58}[dim], errors
    values = monomials(draw_points(one, 4000).x)
    assert errors[1] < {1: 0.03, 2: 0.12, 3: 0.35}[dim] * np.sqrt(np.mean(values.var(axis=0)) / sizes[1])


@pytest.mark.parametrize("method", METHODS)
def test_labels_have_their_masses_in_every_replicate(comm: MPI.Comm, method: str) -> None:
    _, _, whole = smooth(comm, 2, 1)
    draw = draw_points(whole, 1003, method=method, replicates=7, seed=1)  # type: ignore[arg-type]
    assert draw.weights.sum() == pytest.approx(1.0, rel=1e-13)
    for replicate in range(7):
        mine = draw.replicate == replicate
        assert mine.sum() in (143, 144)
        share = draw.weights[mine & (draw.labels == 1)].sum()
        assert share == pytest.approx(0.75 / 7, rel=1e-12)
        assert abs((draw.labels[mine] == 1).sum() - 0.75 * mine.sum()) <= 1
    assert len(np.unique(draw.x, axis=0)) == 1003  # replicates are not copies


@pytest.mark.parametrize("method", METHODS)
def test_a_share_is_a_part_of_the_whole_draw(comm: MPI.Comm, method: str) -> None:
    _, _, whole = smooth(comm, 2, 2)
    everything = draw_points(whole, 300, method=method, replicates=3, seed=8)  # type: ignore[arg-type]
    cuts = [0, 17, 17, 140, 300]
    shares = [
        draw_points(whole, 300, method=method, replicates=3, seed=8, start=a, stop=b)  # type: ignore[arg-type]
        for a, b in pairwise(cuts)
    ]
    for name in Draw.__dataclass_fields__:
        np.testing.assert_allclose(
            np.concatenate([getattr(share, name) for share in shares]), getattr(everything, name), rtol=1e-12
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_points_do_not_depend_on_the_ranks(comm: MPI.Comm, method: str) -> None:
    for dim in (1, 2, 3):
        ours, alone = (
            draw_points(smooth(c, dim, 1)[2], 200, method=method, seed=3)  # type: ignore[arg-type]
            for c in (comm, MPI.COMM_SELF)
        )
        np.testing.assert_allclose(ours.x, alone.x, atol=1e-9)
        np.testing.assert_array_equal(ours.labels, alone.labels)
        np.testing.assert_allclose(ours.log_density, alone.log_density, rtol=1e-8, atol=1e-8)


def test_seeds_differ_and_repeat(comm: MPI.Comm) -> None:
    _, _, whole = smooth(comm, 2, 1)
    one, again, other = (draw_points(whole, 50, seed=seed).x for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.any(np.isclose(one, other))


def test_a_label_without_mass_gets_no_points(comm: MPI.Comm) -> None:
    _, _, whole = smooth(comm, 1, 1)
    coefficients = whole.coefficients.copy()
    coefficients[..., 0] = 0.0
    draw = draw_points(GatheredDensity(whole.vertices, coefficients, 1), 9)
    assert np.all(draw.labels == 1)
    assert draw.weights.sum() == pytest.approx(1.0)


def test_refusals(comm: MPI.Comm) -> None:
    _, _, whole = smooth(comm, 1, 1)
    with pytest.raises(InputError, match="3 replicates of 2 labels need 6 points"):
        draw_points(whole, 5, replicates=3)
    with pytest.raises(InputError, match="no mass"):
        draw_points(GatheredDensity(whole.vertices, 0 * whole.coefficients, 1), 5)


def test_any_number_of_sobol_points_without_a_warning(comm: MPI.Comm) -> None:
    _, _, whole = smooth(comm, 1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(draw_points(whole, 77, method="sobol").x) == 77
