"""Kernel estimates on a grid against the sum over all points."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from eulerian.analysis.kernel_estimate import KernelEstimate

pytestmark = pytest.mark.one_process


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_it_is_the_sum_of_kernels(dim: int) -> None:
    rng = np.random.default_rng(dim)
    mix = rng.standard_normal((dim, dim))
    x, weights = rng.standard_normal((800, dim)) @ mix.T + 3.0, rng.uniform(0.2, 1.0, 800)
    at = rng.standard_normal((500, dim)) @ mix.T + 3.0
    # SciPy divides the covariance by 1 − Σw², the estimate of independent samples; that is 0.2 % here.
    exact = weights.sum() * gaussian_kde(x.T, weights=weights)(at.T)
    assert np.abs(KernelEstimate.of(x, weights).values(at) - exact).max() < 0.006 * exact.max()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_mass_and_reach(dim: int) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((300, dim)), np.full(300, 0.7 / 300)
    found = KernelEstimate.of(x, weights)
    cell = found.spacing**dim / np.linalg.det(found.whitening)
    assert found.table.sum() * cell == pytest.approx(0.7, rel=1e-6)
    assert found.table.min() >= 0.0
    assert np.array_equal(found.values(np.full((1, dim), 50.0)), [0.0])


def test_it_follows_affine_maps() -> None:
    """Scott's bandwidth is a multiple of the covariance: the estimate of A x + b is the estimate of x, carried over."""
    rng = np.random.default_rng(4)
    x, weights = rng.standard_normal((400, 2)) * [3.0, 0.1], np.ones(400)
    matrix, shift = np.array([[0.0, -2.0], [0.5, 0.3]]), np.array([7.0, -1.0])
    one, other = KernelEstimate.of(x, weights), KernelEstimate.of(x @ matrix.T + shift, weights)
    before, after = one.values(x), other.values(x @ matrix.T + shift) * abs(np.linalg.det(matrix))
    assert np.abs(before - after).max() < 0.01 * before.max()


def test_points_that_do_not_span_the_space() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        KernelEstimate.of(np.zeros((5, 2)), np.ones(5))
