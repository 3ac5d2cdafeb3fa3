"""Laws that every built-in field keeps, in every dimension, with and without labels."""

import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.fields import (
    Affine,
    Frame,
    Mlp,
    Nodal,
    NormalisedField,
    RandomFeatures,
    Rbf,
    Residual,
    SpeedLimit,
    Translation,
    VectorField,
)

pytestmark = pytest.mark.one_process

NODES = np.random.default_rng(7).uniform(-1.0, 2.0, (7, 3))
LOWER, UPPER = (-2.0, -1.0, 0.5), (1.0, 3.0, 2.5)


def in_box(field: VectorField, dim: int) -> NormalisedField:
    return NormalisedField(field, Frame.of_box(LOWER[:dim], UPPER[:dim], 0.4))


MAKERS = {
    "translation": lambda d, k: Translation(d, n_labels=k),
    "affine": lambda d, k: Affine(d, n_labels=k),
    "random": lambda d, k: in_box(RandomFeatures(d, 5, seed=3, n_labels=k), d),
    "rbf": lambda d, k: in_box(Rbf(d, 6, n_labels=k), d),
    "residual": lambda d, k: in_box(Residual(d, 5, seed=3, n_labels=k), d),
    "residual relu": lambda d, k: in_box(Residual(d, 5, activation="relu", n_labels=k), d),
    "mlp in a box": lambda d, k: in_box(Mlp(d, (6, 4), "tanh", n_labels=k), d),
    "mlp tanh": lambda d, k: Mlp(d, (6, 4), "tanh", n_labels=k),
    "mlp softplus": lambda d, k: Mlp(d, (5,), "softplus", n_labels=k),
    "mlp relu": lambda d, k: Mlp(d, (6, 4, 5), "relu", n_labels=k),
    "mlp without hidden layers": lambda d, k: Mlp(d, (), n_labels=k),
    "mlp with a limit": lambda d, k: Mlp(d, (6, 4), n_labels=k, max_speed=1.7),
    "mlp in a box with a limit": lambda d, k: SpeedLimit(in_box(Mlp(d, (6, 4), n_labels=k), d), 1.7),
    "affine with a limit": lambda d, k: SpeedLimit(Affine(d, n_labels=k), 1.7),
    "free": lambda d, k: Nodal(NODES[:, :d], n_labels=k),
}
WITH_JACOBIAN = [kind for kind in MAKERS if kind != "free"]
H = 1e-5


class Case:
    """A field with random parameters, points, cotangents and a direction in θ."""

    def __init__(self, kind: str, dim: int, n_labels: int) -> None:
        rng = np.random.default_rng(3)  # a seed that puts no point within a difference step of a relu kink
        self.field: VectorField = MAKERS[kind](dim, n_labels)
        p = self.field.n_params(dim)
        self.theta, self.delta = rng.standard_normal(p), rng.standard_normal(p)
        self.x = NODES[rng.permutation(7), :dim] if kind == "free" else rng.uniform(-1.5, 2.0, (9, dim))
        self.w = rng.standard_normal(self.x.shape)
        self.ww = rng.standard_normal((*self.x.shape, dim))
        self.label = 1 if n_labels else None

    def slope(self, quantity) -> float:
        """Central difference of a scalar function of θ in the direction delta."""
        return (quantity(self.theta + H * self.delta) - quantity(self.theta - H * self.delta)) / (2 * H)


@pytest.fixture(params=[1, 2, 3], ids="{}-D".format)
def dim(request):
    return request.param


@pytest.fixture(params=[0, 3], ids="{} labels".format)
def n_labels(request):
    return request.param


@pytest.mark.parametrize("kind", MAKERS)
def test_vjp_is_the_derivative_of_the_value(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    g = c.field.vjp(c.theta, c.x, c.w, c.label)
    expected = c.slope(lambda theta: np.sum(c.w * c.field.value(theta, c.x, c.label)))
    assert g.shape == c.theta.shape
    assert np.dot(g, c.delta) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", WITH_JACOBIAN)
def test_theta_jacobian_is_the_matrix_of_the_vjp(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    jacobian = c.field.theta_jacobian(c.theta, c.x, c.label)
    assert jacobian.shape == (*c.x.shape, c.theta.size)
    expected = c.field.vjp(c.theta, c.x, c.w, c.label)
    np.testing.assert_allclose(np.einsum("nik,ni->k", jacobian, c.w), expected, rtol=1e-12, atol=1e-13)
    for n in (0, len(c.x) - 1):  # point by point, so that no two of them can have been exchanged
        expected = c.field.vjp(c.theta, c.x[n : n + 1], c.w[n : n + 1], c.label)
        np.testing.assert_allclose(np.einsum("ik,i->k", jacobian[n], c.w[n]), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", WITH_JACOBIAN)
def test_jacobian_is_the_derivative_in_space(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    jacobian = c.field.jacobian(c.theta, c.x, c.label)
    for j in range(dim):
        step = H * np.eye(dim)[j]
        ahead, behind = (c.field.value(c.theta, c.x + s * step, c.label) for s in (1, -1))
        np.testing.assert_allclose(jacobian[:, :, j], (ahead - behind) / (2 * H), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", WITH_JACOBIAN)
def test_jacobian_vjp_is_the_derivative_of_the_jacobian(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    g = c.field.jacobian_vjp(c.theta, c.x, c.ww, c.label)
    expected = c.slope(lambda theta: np.sum(c.ww * c.field.jacobian(theta, c.x, c.label)))
    assert g.shape == c.theta.shape
    assert np.dot(g, c.delta) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", WITH_JACOBIAN)
def test_jacobian_vjp_x_is_the_derivative_of_the_jacobian_in_space(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    g = c.field.jacobian_vjp_x(c.theta, c.x, c.ww, c.label)
    assert g.shape == c.x.shape
    for j in range(dim):
        step = H * np.eye(dim)[j]
        ahead, behind = (c.field.jacobian(c.theta, c.x + s * step, c.label) for s in (1, -1))
        expected = np.sum(c.ww * (ahead - behind), axis=(1, 2)) / (2 * H)
        np.testing.assert_allclose(g[:, j], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if not kind.startswith("mlp") and "limit" not in kind])
def test_fields_of_the_linear_regime_are_linear_in_theta(kind, dim, n_labels):
    """Then ⟨w, v(x, δ)⟩ = ⟨vjp(θ, x, w), δ⟩ holds to rounding, at every θ."""
    c = Case(kind, dim, n_labels)
    left = np.sum(c.w * c.field.value(c.delta, c.x, c.label))
    assert np.dot(c.field.vjp(c.theta, c.x, c.w, c.label), c.delta) == pytest.approx(left, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_start_is_the_zero_field_and_a_function_of_the_seed(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    theta, again = (c.field.init(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(theta, again)
    assert theta.dtype == np.float64
    assert not np.any(c.field.value(theta, c.x, c.label))


@pytest.mark.parametrize("kind", MAKERS)
def test_no_points_at_all(kind, dim, n_labels):
    """A rank may own no node."""
    c = Case(kind, dim, n_labels)
    none = np.empty((0, dim))
    assert c.field.value(c.theta, none, c.label).shape == (0, dim)
    assert not np.any(c.field.vjp(c.theta, none, none, c.label))
    if kind in WITH_JACOBIAN:
        assert c.field.theta_jacobian(c.theta, none, c.label).shape == (0, dim, c.theta.size)
        assert c.field.jacobian(c.theta, none, c.label).shape == (0, dim, dim)
        assert not np.any(c.field.jacobian_vjp(c.theta, none, np.empty((0, dim, dim)), c.label))
        assert c.field.jacobian_vjp_x(c.theta, none, np.empty((0, dim, dim)), c.label).shape == (0, dim)


@pytest.mark.parametrize("kind", MAKERS)
def test_arguments_stay_as_they_were(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    before = [np.copy(a) for a in (c.theta, c.x, c.w, c.ww)]
    c.field.value(c.theta, c.x, c.label)
    c.field.vjp(c.theta, c.x, c.w, c.label)
    if kind in WITH_JACOBIAN:
        c.field.jacobian(c.theta, c.x, c.label)
        c.field.jacobian_vjp(c.theta, c.x, c.ww, c.label)
        c.field.jacobian_vjp_x(c.theta, c.x, c.ww, c.label)
    for old, new in zip(before, (c.theta, c.x, c.w, c.ww), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_far_off_parameters_give_values_without_warnings(kind, bad):
    """Warnings are errors here; what is not finite must stay visible."""
    c = Case(kind, 2, 0)
    theta = np.full_like(c.theta, bad)
    v = c.field.value(theta, c.x)
    c.field.vjp(theta, c.x, c.w)
    if kind in WITH_JACOBIAN:
        c.field.jacobian(theta, c.x)
        c.field.jacobian_vjp(theta, c.x, c.ww)
        c.field.jacobian_vjp_x(theta, c.x, c.ww)
    if not np.isfinite(bad):
        assert not np.all(np.isfinite(v))
    if np.isnan(bad):
        assert np.all(np.isnan(v))


@pytest.mark.parametrize("kind", WITH_JACOBIAN)
def test_many_points_are_the_sum_of_few(kind):
    """More points than one block holds: cutting them up changes nothing."""
    c = Case(kind, 2, 0)
    rng = np.random.default_rng(1)
    x, w = rng.uniform(-1, 1, (70_001, 2)), rng.standard_normal((70_001, 2))
    v, g = c.field.value(c.theta, x), c.field.vjp(c.theta, x, w)
    parts = np.array_split(np.arange(len(x)), 700)
    np.testing.assert_allclose(v, np.concatenate([c.field.value(c.theta, x[i]) for i in parts]), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(g, sum(c.field.vjp(c.theta, x[i], w[i]) for i in parts), rtol=1e-9, atol=1e-8)
    some = slice(30_000, 70_001)
    ww = w[:, :, None] * [1.0, -0.5]
    np.testing.assert_allclose(c.field.jacobian(c.theta, x)[some], c.field.jacobian(c.theta, x[some]), atol=1e-12)
    total = sum(c.field.jacobian_vjp(c.theta, x[i], ww[i]) for i in parts)
    np.testing.assert_allclose(c.field.jacobian_vjp(c.theta, x, ww), total, rtol=1e-9, atol=1e-8)
    in_space = c.field.jacobian_vjp_x(c.theta, x, ww)[some]
    np.testing.assert_allclose(in_space, c.field.jacobian_vjp_x(c.theta, x[some], ww[some]), atol=1e-10)


@pytest.mark.parametrize("kind", MAKERS)
def test_labels_move_independently(kind, dim):
    c = Case(kind, dim, 3)
    values = [c.field.value(c.theta, c.x, label) for label in range(3)]
    assert not np.allclose(values[0], values[1])
    assert not np.allclose(values[1], values[2])
    for label in (None, -1, 3):
        with pytest.raises(InputError, match="label from 0 to 2"):
            c.field.value(c.theta, c.x, label)


@pytest.mark.parametrize("kind", MAKERS)
def test_fields_without_labels_ignore_the_label(kind):
    c = Case(kind, 2, 0)
    np.testing.assert_array_equal(c.field.value(c.theta, c.x, 4), c.field.value(c.theta, c.x))


@pytest.mark.parametrize("kind", MAKERS)
def test_wrong_shapes_are_refused(kind):
    c = Case(kind, 2, 0)
    for theta, x, w, name in (
        (c.theta[1:], c.x, c.w, "theta"),
        (c.theta, c.x[:, :1], c.w, "x"),
        (c.theta, c.x, c.w[:1], "w"),
        (c.theta, c.x, c.w[:, :1], "w"),
    ):
        with pytest.raises(InputError, match=f"^{name}: an array of shape"):
            c.field.vjp(theta, x, w)
    with pytest.raises(InputError, match="built for dimension 2"):
        c.field.n_params(3)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind.startswith("mlp")])
def test_derivatives_together_are_those_apart(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    by_theta, by_point = c.field.pull_back(c.theta, c.x, c.w, c.label)
    np.testing.assert_array_equal(by_theta, c.field.vjp(c.theta, c.x, c.w, c.label))
    expected = np.einsum("nij,ni->nj", c.field.jacobian(c.theta, c.x, c.label), c.w)
    np.testing.assert_allclose(by_point, expected, rtol=1e-12, atol=1e-14)
    by_theta, by_point = c.field.jacobian_pull_back(c.theta, c.x, c.ww, c.label)
    np.testing.assert_array_equal(by_theta, c.field.jacobian_vjp(c.theta, c.x, c.ww, c.label))
    np.testing.assert_allclose(by_point, c.field.jacobian_vjp_x(c.theta, c.x, c.ww, c.label), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "free"])
@pytest.mark.parametrize("copies", [1, 30_000], ids=["kept", "computed again"])
def test_value_and_derivative_together_are_those_apart(kind, n_labels, copies):
    c = Case(kind, 2, n_labels)
    x, w = np.tile(c.x, (copies, 1)), np.tile(c.w, (copies, 1))
    v, vjp = c.field.value_and_vjp(c.theta, x, c.label)
    np.testing.assert_allclose(v, c.field.value(c.theta, x, c.label), rtol=1e-13, atol=1e-14)
    expected = c.field.vjp(c.theta, x, w, c.label)
    for factor in (1.0, 2.0):  # as often as one likes
        np.testing.assert_allclose(vjp(factor * w), factor * expected, rtol=1e-10, atol=1e-12 * copies)
    with pytest.raises(InputError, match="w: an array of shape"):
        vjp(w[:1])


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if "mlp" in kind])
def test_value_and_diagonal_are_those_of_value_and_jacobian(kind, dim, n_labels):
    c = Case(kind, dim, n_labels)
    v, diagonal = c.field.value_and_diagonal(c.theta, c.x, c.label)
    np.testing.assert_allclose(v, c.field.value(c.theta, c.x, c.label), rtol=1e-13, atol=1e-14)
    expected = np.einsum("nii->ni", c.field.jacobian(c.theta, c.x, c.label))
    np.testing.assert_allclose(diagonal, expected, rtol=1e-12, atol=1e-13)
