"""Cubic splines on a box: their derivatives, what they reproduce, and what halving their intervals leaves alone."""

from itertools import combinations_with_replacement

import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.bounds.splines import Jets, SplineFunction, SplineSpace

SPACES = {
    1: SplineSpace(np.array([-1.0]), np.array([2.0]), (5,)),
    2: SplineSpace(np.array([-1.0, 0.5]), np.array([2.0, 1.5]), (4, 2)),
    3: SplineSpace(np.array([0.0, -3.0, 1.0]), np.array([1.0, -2.5, 4.0]), (2, 3, 4)),
}
dims = pytest.mark.parametrize("dim", SPACES)


def coefficients(space: SplineSpace, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(space.size)


def points(space: SplineSpace, count: int = 40, margin: float = 0.0) -> Floats:
    shares = np.random.default_rng(1).uniform(margin, 1.0 - margin, (count, space.dim))
    return np.asarray(space.lower + shares * (space.upper - space.lower))


@dims
def test_derivatives(dim: int) -> None:
    """By central differences of the values, and of the gradients."""
    space, step = SPACES[dim], 1e-5
    x, c = points(space, margin=0.01), coefficients(SPACES[dim])
    function, scale = SplineFunction(space, c), 1.0 / space.width.min()
    jets = function.jets(x)
    for axis, unit in enumerate(np.eye(dim)):
        ahead, behind = function.jets(x + step * unit), function.jets(x - step * unit)
        assert jets.gradient[:, axis] == pytest.approx((ahead.value - behind.value) / (2 * step), abs=1e-8 * scale**3)
        slope = (ahead.gradient - behind.gradient) / (2 * step)
        # A third derivative may jump at a knot.
        assert jets.hessian[:, axis] == pytest.approx(slope, abs=40 * step * scale**3)
    assert np.array_equal(jets.hessian, jets.hessian.transpose(0, 2, 1))


@dims
def test_twice_continuously_differentiable(dim: int) -> None:
    """From both sides of the knots."""
    space = SPACES[dim]
    x, c = points(space, margin=0.1), coefficients(space)
    x[:, 0] = space.lower[0] + space.width[0]
    left, right = x.copy(), x.copy()
    left[:, 0] -= 1e-12
    right[:, 0] += 1e-12
    for one, other in zip(space.design(left).jets(c), space.design(right).jets(c), strict=True):
        assert one == pytest.approx(other, abs=1e-7)


@dims
def test_matrices_are_the_jets(dim: int) -> None:
    space = SPACES[dim]
    c, design = coefficients(space), space.design(points(space))
    jets = design.jets(c)
    assert design.values(c) == pytest.approx(jets.value, abs=1e-13)
    assert design.matrix() @ c == pytest.approx(jets.value, abs=1e-13)
    for axis, slope in enumerate(design.slopes()):
        assert slope @ c == pytest.approx(jets.gradient[:, axis], abs=1e-11)
    for i, j in combinations_with_replacement(range(dim), 2):
        orders = tuple((axis == i) + (axis == j) for axis in range(dim))
        assert design.matrix(orders) @ c == pytest.approx(jets.hessian[:, i, j], abs=1e-10)


@dims
def test_halved_intervals_change_nothing(dim: int) -> None:
    space = SPACES[dim]
    c, x = coefficients(space), points(space)
    finer = space.refined()
    assert finer.shape == tuple(2 * n + 3 for n in space.intervals)
    for one, other in zip(space.design(x).jets(c), finer.design(x).jets(space.prolong(c)), strict=True):
        assert other == pytest.approx(one, rel=1e-11, abs=1e-11)


@dims
def test_quadratics_are_reproduced(dim: int) -> None:
    space, rng = SPACES[dim], np.random.default_rng(2)
    bend = rng.standard_normal((dim, dim))
    bend = bend + bend.T
    slope, centre, x = rng.standard_normal(dim), rng.standard_normal(dim), points(space)
    jets = space.design(x).jets(space.interpolate(Jets(np.array(0.7), slope, bend), centre))
    away = x - centre
    expected = 0.7 + away @ slope + 0.5 * np.einsum("ni,ij,nj->n", away, bend, away)
    assert jets.value == pytest.approx(expected, abs=1e-11)
    assert jets.gradient == pytest.approx(slope + away @ bend, abs=1e-11)
    assert jets.hessian == pytest.approx(np.broadcast_to(bend, jets.hessian.shape), abs=1e-10)


@dims
def test_one_is_a_partition(dim: int) -> None:
    """All coefficients 1 make the function 1, and no basis function is negative."""
    matrix = SPACES[dim].design(points(SPACES[dim])).matrix()
    assert matrix.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-14)
    assert matrix.data.min() >= 0.0


@dims
def test_points_outside_count_as_the_nearest(dim: int) -> None:
    space = SPACES[dim]
    x, c = points(space), coefficients(space)
    far = x + np.where(np.arange(len(x))[:, None] % 2, 50.0, -50.0)
    nearest = np.clip(far, space.lower, space.upper)
    for one, other in zip(space.design(far).jets(c), space.design(nearest).jets(c), strict=True):
        assert np.array_equal(one, other)


@dims
def test_no_points(dim: int) -> None:
    """A rank may have none."""
    space = SPACES[dim]
    design = space.design(np.zeros((0, dim)))
    assert design.jets(coefficients(space)).hessian.shape == (0, dim, dim)
    assert design.matrix().shape == (0, space.size)
