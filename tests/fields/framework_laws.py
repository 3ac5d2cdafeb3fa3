"""Laws that a field made of another library's model keeps; the tests of each library run them all."""

import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.fields.frame import unwrapped
from eulerian.fields.framework import PIECE, FrameworkField

LABELS = 3


class Sample:
    """Random parameters near the model's own, points, cotangents, and what the model is given besides."""

    def __init__(self, field: FrameworkField, dim: int, n: int = 9) -> None:
        rng = np.random.default_rng(3)
        self.field, self.dim = field, dim
        self.theta = field.init(rng) + 0.3 * rng.standard_normal(field.n_params(dim))
        self.delta = rng.standard_normal(self.theta.size)
        self.x, self.w = rng.uniform(-1.5, 2.0, (n, dim)), rng.standard_normal((n, dim))
        self.ww = rng.standard_normal((n, dim, dim))
        self.given = {"label": 1} if unwrapped(field).inputs.n_labels else {}
        if field.time_dependent:
            self.given["time"] = 0.7


def check_derivatives(field: FrameworkField, dim: int, step: float, tolerance: float) -> None:
    """Every derivative against central differences of the function that it belongs to."""
    c = Sample(field, dim)

    def slope(quantity):
        return (quantity(step) - quantity(-step)) / (2 * step)

    def near(computed, exact):
        np.testing.assert_allclose(computed, exact, rtol=tolerance, atol=tolerance)

    g = field.vjp(c.theta, c.x, c.w, **c.given)
    near(g @ c.delta, slope(lambda h: np.sum(c.w * field.value(c.theta + h * c.delta, c.x, **c.given))))
    jacobian = field.jacobian(c.theta, c.x, **c.given)
    near(np.einsum("nij,nj->ni", jacobian, c.w), slope(lambda h: field.value(c.theta, c.x + h * c.w, **c.given)))
    g = field.jacobian_vjp(c.theta, c.x, c.ww, **c.given)
    near(g @ c.delta, slope(lambda h: np.sum(c.ww * field.jacobian(c.theta + h * c.delta, c.x, **c.given))))
    g = field.jacobian_vjp_x(c.theta, c.x, c.ww, **c.given)
    near(
        np.sum(g * c.w, axis=1),
        slope(lambda h: np.sum(c.ww * field.jacobian(c.theta, c.x + h * c.w, **c.given), axis=(1, 2))),
    )


def check_pieces(field: FrameworkField, dim: int) -> None:
    """No points, one point and more than one piece: cutting up and padding change nothing."""
    c = Sample(field, dim, PIECE + 3)
    none, square = np.empty((0, dim)), np.empty((0, dim, dim))
    assert field.value(c.theta, none, **c.given).shape == (0, dim)
    assert field.jacobian(c.theta, none, **c.given).shape == (0, dim, dim)
    assert field.jacobian_vjp_x(c.theta, none, square, **c.given).shape == (0, dim)
    assert not field.vjp(c.theta, none, none, **c.given).any()
    assert not field.jacobian_vjp(c.theta, none, square, **c.given).any()
    parts = [slice(0, 1), slice(1, PIECE - 1), slice(PIECE - 1, None)]
    arguments = {"value": (), "jacobian": (), "vjp": (c.w,), "jacobian_vjp": (c.ww,), "jacobian_vjp_x": (c.ww,)}
    for name, cotangent in arguments.items():
        method = getattr(field, name)
        whole = method(c.theta, c.x, *cotangent, **c.given)
        assert whole.dtype == np.float64
        pieces = [method(c.theta, c.x[i], *(w[i] for w in cotangent), **c.given) for i in parts]
        joined = sum(pieces) if name in ("vjp", "jacobian_vjp") else np.concatenate(pieces)
        np.testing.assert_allclose(whole, joined, rtol=1e-10, atol=1e-11)


def check_label_and_time(field: FrameworkField, dim: int) -> None:
    """Labels and times change the velocity; those that the model cannot see, or misses, are refused."""
    c = Sample(field, dim)
    v = field.value(c.theta, c.x, **c.given)
    for key, other in (("label", 2), ("time", 0.2)):
        if key in c.given:
            assert not np.allclose(v, field.value(c.theta, c.x, **{**c.given, key: other}))
            with pytest.raises(InputError, match=key):
                field.value(c.theta, c.x, **{**c.given, key: None})
    for label in (-1, LABELS):
        with pytest.raises(InputError, match="label"):
            field.value(c.theta, c.x, **{**c.given, "label": label})


def check_shapes(field: FrameworkField, dim: int) -> None:
    """Arguments of a wrong shape are refused, right ones stay as they were."""
    c = Sample(field, dim)
    before = [np.copy(a) for a in (c.theta, c.x, c.w, c.ww)]
    field.vjp(c.theta, c.x, c.w, **c.given)
    field.jacobian_vjp(c.theta, c.x, c.ww, **c.given)
    for old, new in zip(before, (c.theta, c.x, c.w, c.ww), strict=True):
        np.testing.assert_array_equal(old, new)
    for theta, x, w, name in (
        (c.theta[1:], c.x, c.w, "theta"),
        (c.theta, c.x[0], c.w, "x"),
        (c.theta, c.x, c.w[:1], "w"),
        (c.theta, c.x, c.ww, "w"),
    ):
        with pytest.raises(InputError, match=f"^{name}: an array of shape"):
            field.vjp(theta, x, w, **c.given)
