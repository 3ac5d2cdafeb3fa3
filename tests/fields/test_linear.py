import numpy as np
import pytest

from eulerian.errors import InputError
from eulerian.fields import Affine, RandomFeatures, Rbf, Residual, Translation

pytestmark = pytest.mark.one_process

BOX = ((-1.0, 0.0), (3.0, 1.0))


def test_affine_layout_is_the_matrix_row_by_row_then_the_shift():
    theta = np.array([0.0, -2.0, 3.0, 0.5, 10.0, 20.0])
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(Affine(2).value(theta, x), [[10.0, 23.0], [8.0, 20.5], [8.0, 23.5]])
    np.testing.assert_array_equal(Affine(2).jacobian(theta, x), np.broadcast_to([[0.0, -2.0], [3.0, 0.5]], (3, 2, 2)))


def test_translation_is_its_parameter():
    assert Translation(3).n_params(3) == 3
    np.testing.assert_array_equal(Translation(3).value([1.0, 2.0, 3.0], np.zeros((2, 3))), [[1, 2, 3], [1, 2, 3]])


def test_one_block_of_parameters_per_label():
    field = Translation(2, n_labels=2)
    theta = np.array([1.0, 2.0, 3.0, 4.0])
    x = np.zeros((1, 2))
    np.testing.assert_array_equal(field.value(theta, x, 0), [[1.0, 2.0]])
    np.testing.assert_array_equal(field.value(theta, x, 1), [[3.0, 4.0]])
    np.testing.assert_array_equal(field.vjp(theta, x, np.ones((1, 2)), 1), [0.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize("kind", [RandomFeatures, Rbf, Residual])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_constants_are_among_the_fields_of_a_box(kind, dim):
    field = kind(dim, 4, (0.0,) * dim, (1.0,) * dim)
    theta = np.zeros(field.n_params(dim))
    assert len(theta) == dim * 5
    theta[-dim:] = 7.0
    np.testing.assert_array_equal(field.value(theta, np.full((2, dim), 0.3)), np.full((2, dim), 7.0))


@pytest.mark.parametrize("kind", [RandomFeatures, Rbf, Residual])
def test_features_follow_the_box(kind):
    """A box moved and stretched moves and stretches the features, whatever its place and size."""
    near, far = kind(2, 8, (-1.0, -1.0), (1.0, 1.0)), kind(2, 8, (1000.0, -4e-3), (1400.0, -2e-3))
    u = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    x = np.array([1200.0, -3e-3]) + u * np.array([200.0, 1e-3])
    np.testing.assert_allclose(near.features(u), far.features(x), atol=1e-10)
    assert np.ptp(near.features(u), axis=0).min() > 1e-2  # none of them is idle


@pytest.mark.parametrize("kind", [RandomFeatures, Residual])
def test_frozen_weights_depend_on_the_seed_only(kind):
    x = np.array([[0.1, 0.2]])
    first, same, other = (kind(2, 8, *BOX, seed=seed).features(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_residual_is_the_formula():
    field = Residual(2, 3, *BOX, seed=4)
    a, c = field.inner
    theta = np.arange(8.0)
    weights, bias = theta[:6].reshape(2, 3), theta[6:]
    x = np.array([0.5, 0.25])
    np.testing.assert_allclose(field.value(theta, [x])[0], weights @ np.tanh(a @ x + c) + bias, rtol=1e-14)


def test_rbf_centres_fill_the_box():
    for dim in (1, 2, 3):
        centres = Rbf(dim, 200, (0.0,) * dim, (1.0,) * dim).centres
        counts, _ = np.histogramdd(centres, bins=[2] * dim, range=[(-1, 1)] * dim)
        assert counts.min() >= 0.7 * 200 / 2**dim


def test_random_start_is_small():
    theta = Affine(2, zero_init=False).init(np.random.default_rng(0))
    assert 0 < np.abs(theta).max() < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(0), "field.dim: must be at least 1; got 0"),
        (lambda: Affine(2, n_labels=-1), "field.n_labels: must be at least 0"),
        (lambda: Rbf(2, 0, *BOX), "field.width: must be at least 1"),
        (lambda: Rbf(1, 4, *BOX), r"lower: an array of shape \(1,\)"),
        (lambda: Rbf(1, 4, (1.0,), (1.0,)), "lower < upper"),
        (lambda: Rbf(1, 4, (0.0,), (np.inf,)), "finite corners"),
        (lambda: Residual(1, 4, (0.0,), (1.0,), activation="step"), "one of tanh, softplus, relu; got 'step'"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
