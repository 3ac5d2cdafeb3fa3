"""Layers pass label and time on, and use joint derivatives only where they belong to the field."""

import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.fields.base import VectorField
from eulerian.fields.features import Affine
from eulerian.fields.mlp import Mlp
from eulerian.fields.piecewise import PiecewiseField

pytestmark = pytest.mark.one_process

RNG = np.random.default_rng(0)
X, W, WW = RNG.standard_normal((5, 2)), RNG.standard_normal((5, 2)), RNG.standard_normal((5, 2, 2))


class Twice(Mlp):
    """Twice the network: it inherits derivatives that are not its own."""

    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        return 2.0 * super().value(theta, x, label)

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        return 2.0 * super().vjp(theta, x, w, label)

    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        return 2.0 * super().jacobian(theta, x, label)

    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        return 2.0 * Mlp.jacobian_pull_back(self, theta, x, w, label)[0]

    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        return 2.0 * super().jacobian_vjp_x(theta, x, w, label)


class Clock:
    """v = θ₀ t, in every component."""

    time_dependent = True

    def value(self, theta: Floats, x: Floats, *, time: float) -> Floats:
        return np.full_like(x, theta[0] * time)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_joint_derivatives(factor: float) -> None:
    field: VectorField = (Mlp if factor == 1.0 else Twice)(2, (4,), "tanh", 0, False, 1.0)
    theta = field.init(np.random.default_rng(1))
    layered, plain = PiecewiseField.equal(field, 1.0, 2), Mlp(2, (4,), "tanh", 0, False, 1.0)

    for found, expected in (
        (layered.pull_back(0, theta, X, W), plain.pull_back(theta, X, W)),
        (layered.jacobian_pull_back(0, theta, X, WW), plain.jacobian_pull_back(theta, X, WW)),
    ):
        np.testing.assert_allclose(found[0], factor * expected[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found[1], factor * expected[1], rtol=1e-12, atol=1e-14)
    v, vjp = layered.value_and_vjp(0, theta, X)
    np.testing.assert_allclose(v, factor * plain.value(theta, X), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(vjp(W), factor * plain.vjp(theta, X, W), rtol=1e-12, atol=1e-14)


def test_derivatives_by_theta_are_told_by_those_who_have_them() -> None:
    field = Mlp(2, (4,), "tanh", 2, False, 1.0)
    theta = field.init(np.random.default_rng(1))
    layered = PiecewiseField.equal(field, 1.0, 2, label_dependent=True)
    assert layered.tells_theta_jacobian
    np.testing.assert_array_equal(layered.theta_jacobian(1, theta, X, 1), field.theta_jacobian(theta, X, 1))
    for silent in (Twice(2, (4,)), Clock()):
        assert not PiecewiseField.equal(silent, 1.0, 2).tells_theta_jacobian  # type: ignore[arg-type]


def test_labels_and_times() -> None:
    layered = PiecewiseField.equal(Clock(), 2.0, 4)  # type: ignore[arg-type]
    assert [layered.value(layer, np.ones(1), X, label=3)[0, 0] for layer in range(4)] == [0.25, 0.75, 1.25, 1.75]
    assert layered.value_and_vjp(1, np.ones(1), X, label=3)[0][0, 0] == 0.75
    labelled = PiecewiseField.equal(Affine(2, n_labels=2), 1.0, 1, label_dependent=True)
    theta = np.arange(12.0)
    np.testing.assert_array_equal(labelled.value(0, theta, X, 1), Affine(2, n_labels=2).value(theta, X, 1))
    unlabelled = PiecewiseField.equal(Affine(2), 1.0, 1)
    np.testing.assert_array_equal(unlabelled.value(0, theta[:6], X, 1), Affine(2).value(theta[:6], X))
