import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.fields import Mlp
from eulerian.fields.activations import activation

pytestmark = pytest.mark.one_process

SIGMA = {"tanh": np.tanh, "softplus": lambda z: np.log1p(np.exp(z)), "relu": lambda z: np.where(z > 0, z, 0.0)}


@pytest.mark.parametrize("name", SIGMA)
@pytest.mark.parametrize("label", [None, 0, 1])
def test_value_is_the_formula_point_by_point(name, label):
    field = Mlp(2, (3, 4), name, n_labels=0 if label is None else 2)
    inputs = 2 if label is None else 4
    assert field.n_params(2) == 3 * (inputs + 1) + 4 * 4 + 2 * 5
    theta = np.random.default_rng(0).standard_normal(field.n_params(2))
    cuts = np.cumsum([3 * inputs, 3, 12, 4, 8, 2])
    w1, b1, w2, b2, w3, b3 = np.split(theta, cuts)[:-1]
    for x in np.random.default_rng(1).standard_normal((5, 2)):
        full = x if label is None else np.concatenate([x, np.eye(2)[label]])
        a = SIGMA[name](w1.reshape(3, inputs) @ full + b1)
        a = SIGMA[name](w2.reshape(4, 3) @ a + b2)
        np.testing.assert_allclose(field.value(theta, [x], label)[0], w3.reshape(2, 4) @ a + b3, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", SIGMA)
def test_activations_are_stable_and_know_their_derivatives(name):
    sigma = activation(name)
    z = np.array([-1e308, -800.0, -40.0, -1.0, -1e-3, 1e-3, 0.5, 40.0, 800.0, 1e308])
    a = sigma.value(z.copy())
    slope, bend = sigma.slope(a), sigma.bend(a, sigma.slope(a))
    assert np.all(np.isfinite([a, slope, bend]))
    assert np.isnan(sigma.slope(sigma.value(np.array([np.nan]))))  # not a slope of zero, which would hide it
    near = slice(2, 8)
    h = 1e-5
    values = [sigma.value(z[near] + s * h) for s in (1, -1)]
    np.testing.assert_allclose(slope[near], (values[0] - values[1]) / (2 * h), rtol=1e-6, atol=1e-10)
    slopes = [sigma.slope(v) for v in values]
    np.testing.assert_allclose(bend[near], (slopes[0] - slopes[1]) / (2 * h), rtol=1e-6, atol=1e-6)


def test_softplus_keeps_its_digits_far_below_zero():
    sigma = activation("softplus")
    a = sigma.value(np.array([-40.0]))
    np.testing.assert_allclose([a[0], sigma.slope(a)[0]], np.exp(-40.0), rtol=1e-12)


def test_the_hidden_layers_start_random_also_when_the_field_is_zero():
    zero, scaled = Mlp(2, (8, 8)), Mlp(2, (8, 8), zero_init=False, output_scale=3.0)
    a, b = zero.init(np.random.default_rng(1)), scaled.init(np.random.default_rng(1))
    last = 2 * 9
    np.testing.assert_array_equal(a[:-last], b[:-last])
    assert not np.any(a[-last:])
    x = np.random.default_rng(0).standard_normal((4, 2))
    small = Mlp(2, (8, 8), zero_init=False, output_scale=1.5)
    np.testing.assert_allclose(scaled.value(b, x), 2.0 * small.value(small.init(np.random.default_rng(1)), x))
    assert np.any(zero.vjp(a, x, np.ones_like(x)))  # the zero field is not a stationary point


def test_signals_keep_their_size_through_many_layers():
    for name in ("tanh", "relu"):
        field = Mlp(2, (64,) * 8, name, zero_init=False)
        v = field.value(field.init(np.random.default_rng(0)), np.random.default_rng(1).standard_normal((200, 2)))
        assert 0.02 < np.sqrt(np.mean(v**2)) < 20.0


def test_impossible_networks_are_refused():
    with pytest.raises(InputError, match=r"field.hidden: must be at least 1; got 0"):
        Mlp(2, (8, 0))
    with pytest.raises(InputError, match=r"field.activation: must be one of tanh, softplus, relu; got 'gelu'"):
        Mlp(2, (8,), "gelu")
    assert Mlp(2, [8, 8]) == Mlp(2, (8, 8))
