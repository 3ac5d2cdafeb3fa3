import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.fields import Affine, Frame, RandomFeatures, Rbf, Residual, Translation

pytestmark = pytest.mark.one_process


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
    field = kind(dim, 4)
    theta = np.zeros(field.n_params(dim))
    assert len(theta) == dim * 5
    theta[-dim:] = 7.0
    np.testing.assert_array_equal(field.value(theta, np.full((2, dim), 0.3)), np.full((2, dim), 7.0))


@pytest.mark.parametrize("kind", [RandomFeatures, Rbf, Residual])
def test_features_fill_the_box(kind):
    u = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    assert np.ptp(kind(2, 8).features(u), axis=0).min() > 1e-2  # none of them is idle


@pytest.mark.parametrize("kind", [RandomFeatures, Residual])
def test_frozen_weights_depend_on_the_seed_only(kind):
    x = np.array([[0.1, 0.2]])
    first, same, other = (kind(2, 8, seed=seed).features(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_residual_is_the_formula():
    field = Residual(2, 3, seed=4)
    a, c = field.inner
    theta = np.arange(8.0)
    weights, bias = theta[:6].reshape(2, 3), theta[6:]
    x = np.array([0.5, 0.25])
    np.testing.assert_allclose(field.value(theta, [x])[0], weights @ np.tanh(a @ x + c) + bias, rtol=1e-14)


def test_rbf_centres_fill_the_box():
    for dim in (1, 2, 3):
        centres = Rbf(dim, 200).centres
        counts, _ = np.histogramdd(centres, bins=[2] * dim, range=[(-1, 1)] * dim)
        assert counts.min() >= 0.7 * 200 / 2**dim


def test_random_start_is_small():
    theta = Affine(2, zero_init=False).init(np.random.default_rng(0))
    assert 0 < np.abs(theta).max() < 0.5


@pytest.mark.parametrize("kind", [Affine, Translation])
def test_a_random_start_is_as_small_in_any_units(kind):
    """Relative to the largest half width per horizon; and the same motion of the box wherever it is."""
    u, speeds = np.random.default_rng(1).uniform(-1.0, 1.0, (50, 2)), []
    for centre, size, horizon in (((0.0, 0.0), 1.0, 1.0), ((5e5, 5.4e6), 4.0, 3600.0), ((0.0, 1e-6), 1e-6, 1e-3)):
        frame = Frame(centre, (size, 0.5 * size), size / horizon, horizon)
        field = kind(2, n_labels=2, zero_init=False, frame=frame)
        theta = field.init(np.random.default_rng(0))
        x = np.array(centre) + u * frame.length
        speeds.append(field.value(theta, x, 1) * horizon / size)
    assert 0.0 < np.abs(speeds[0]).max() < 0.6
    np.testing.assert_allclose(speeds[1:], [speeds[0]] * 2, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(0), "field.dim: must be at least 1; got 0"),
        (lambda: Affine(2, n_labels=-1), "field.n_labels: must be at least 0"),
        (lambda: Rbf(2, 0), "field.width: must be at least 1"),
        (lambda: Frame.of_box((0.0, 1.0), (1.0,), 1.0), r"upper: an array of shape \(2,\)"),
        (lambda: Frame.of_box((1.0,), (1.0,), 1.0), "lower < upper"),
        (lambda: Frame.of_box((0.0,), (np.inf,), 1.0), "finite corners"),
        (lambda: Residual(1, 4, activation="step"), "one of tanh, softplus, relu; got 'step'"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
