"""Losses at points: derivatives in space and by the readout against differences."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from eulerian.app import config
from eulerian.base.arrays import Floats
from eulerian.objective.losses import LogisticLoss, PointLoss

pytestmark = pytest.mark.one_process

LOSSES: dict[str, tuple[type, dict[str, Any]]] = {
    "quadratic": (config.QuadraticTerminal, {"targets": [[1.0, 0.5], [-0.5, 0.2]], "weight": 1.5}),
    "expression": (config.ExpressionTerminal, {"value": "(1 + label)*sin(x)*y + x**2"}),
    "constant": (config.ExpressionTerminal, {"value": "2 + label"}),
    "logistic": (config.LogisticTerminal, {"direction": [2.0, -1.0], "offset": 0.3}),
    "cross_entropy": (config.CrossEntropyTerminal, {"weights": [[1.0, 0.5], [-0.3, 0.2]], "bias": [0.2, -0.1]}),
    "trained": (config.CrossEntropyTerminal, {"trainable": True}),
}
STEP = 1e-5


def made(kind: str) -> PointLoss:
    section, keys = LOSSES[kind]
    return TypeAdapter(section).validate_python(keys, context={}).loss().bind(2, 2)


@pytest.fixture
def points() -> Floats:
    return np.random.default_rng(0).standard_normal((7, 2))


@pytest.mark.parametrize("kind", LOSSES)
def test_derivative_in_space(kind: str, points: Floats) -> None:
    loss = made(kind)
    readout = loss.initial_readout() + np.random.default_rng(1).standard_normal(loss.n_readout)

    slope = loss.gradient(points, readout)

    assert loss.value(points, readout).shape == (7, 2)
    assert slope.shape == (7, 2, 2)
    for axis in range(2):
        step = STEP * np.eye(2)[axis]
        expected = (loss.value(points + step, readout) - loss.value(points - step, readout)) / (2 * STEP)
        np.testing.assert_allclose(slope[..., axis], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", LOSSES)
def test_derivative_by_the_readout(kind: str, points: Floats) -> None:
    loss = made(kind)
    assert (loss.n_readout > 0) == (kind == "trained")
    generator = np.random.default_rng(2)
    readout, w = generator.standard_normal(loss.n_readout), generator.standard_normal((7, 2))

    slope = loss.readout_vjp(points, readout, w)

    assert slope.shape == readout.shape == loss.initial_readout().shape
    for k in range(readout.size):
        step = STEP * np.eye(readout.size)[k]
        ahead, behind = (np.vdot(w, loss.value(points, readout + s * step)) for s in (1.0, -1.0))
        assert slope[k] == pytest.approx((ahead - behind) / (2 * STEP), rel=1e-7, abs=1e-9)


def test_large_scores_do_not_overflow() -> None:
    loss = LogisticLoss([1e6, 0.0]).bind(2, 2)
    far = np.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(loss.value(far, np.zeros(0)), [[1e6, 0.0], [0.0, 1e6]])
    np.testing.assert_allclose(loss.gradient(far, np.zeros(0))[..., 0], [[1e6, 0.0], [0.0, -1e6]])
