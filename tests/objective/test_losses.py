"""Losses at points: derivatives in space and by the readout against differences."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from eulerian.app import config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.objective.losses import (
    CrossEntropyLoss,
    FormulaLoss,
    FunctionLoss,
    LogisticLoss,
    PointLoss,
    QuadraticLoss,
    as_loss,
)

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


# -- functions of a user's -------------------------------------------------------------------------------------------


def ripples(x: Floats) -> Floats:
    return np.sin(3.0 * x[:, 0]) * np.exp(x[:, 1])


def by_label(x: Floats, label: int) -> Floats:
    return (1.0 + label) * ripples(x)


@pytest.mark.parametrize(("function", "factors"), [(ripples, (1.0, 1.0)), (by_label, (1.0, 2.0))])
def test_a_function_is_a_loss(function: Any, factors: tuple[float, float], points: Floats) -> None:
    """Differences of fourth order are right to about ε^(4/5)."""
    loss = as_loss(function).bind(2, 2)
    x, y = points.T
    slope = np.stack([3.0 * np.cos(3.0 * x) * np.exp(y), np.sin(3.0 * x) * np.exp(y)], axis=1)

    np.testing.assert_array_equal(loss.value(points, np.zeros(0)), np.outer(ripples(points), factors))
    np.testing.assert_allclose(
        loss.gradient(points, np.zeros(0)), slope[:, None] * np.array(factors)[:, None], rtol=1e-9, atol=1e-10
    )
    assert loss.value(points[:0], np.zeros(0)).shape == (0, 2)


def test_a_given_derivative_is_taken(points: Floats) -> None:
    loss = FunctionLoss(lambda x: x[:, 0] ** 2, derivative=lambda x: 7.0 * np.ones_like(x)).bind(2, 3)
    assert np.all(loss.gradient(points, np.zeros(0)) == 7.0)


def test_differences_far_from_the_origin() -> None:
    """Coordinates of maps: millions, while the function varies over hundreds."""
    middle = np.array([4.5e6, 5.6e6])
    loss = FunctionLoss(lambda x: np.sum(((x - middle) / 300.0) ** 2, axis=1), length=300.0).bind(2, 1)
    x = middle + np.random.default_rng(0).normal(0.0, 300.0, (9, 2))
    np.testing.assert_allclose(loss.gradient(x, np.zeros(0))[:, 0], 2.0 * (x - middle) / 300.0**2, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda _: 0.0, r"one number for each point: .* it returned shape \(\)"),
        (lambda x: x, r"it returned shape \(7, 2\)"),
        (lambda x: x[:, 0] + 1j, "real numbers, .* complex128"),
        (lambda x: [None] * len(x), "real numbers, .* object"),
        (lambda x: x[:, 5], "the function raised IndexError"),
    ],
)
def test_what_a_function_returns_is_looked_at(function: Any, words: str, points: Floats) -> None:
    with pytest.raises(InputError, match=words) as caught:
        as_loss(function).bind(2, 1).value(points, np.zeros(0))
    assert caught.value.key == "terminal"
    assert caught.value.remedy


def test_a_function_may_write_into_its_points(points: Floats) -> None:
    def careless(x: Floats) -> Floats:
        x *= 0.0
        return x[:, 0]

    before = points.copy()
    as_loss(careless).bind(2, 1).value(points, np.zeros(0))
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize(
    "what", [3.0, None, lambda: 0.0, lambda x, label, more: x * label * more, lambda x, *, k: x * k]
)
def test_what_is_no_loss(what: Any) -> None:
    with pytest.raises(InputError) as caught:
        as_loss(what).bind(2, 1)
    assert caught.value.key == "terminal"


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        (QuadraticLoss([1.0, 2.0, 3.0]), "terminal.target"),
        (QuadraticLoss([[1.0], [2.0]]), "terminal.targets"),
        (QuadraticLoss([[1.0, 2.0]]), "terminal.targets"),
        (LogisticLoss([1.0]), "terminal.direction"),
        (CrossEntropyLoss(np.zeros((3, 2))), "terminal.weights"),
        (CrossEntropyLoss(np.zeros((2, 1))), "terminal.weights"),
        (CrossEntropyLoss(bias=np.zeros(3)), "terminal.bias"),
        (FormulaLoss("z"), "terminal.value"),
    ],
)
def test_losses_are_held_against_space_and_labels(loss: PointLoss, key: str) -> None:
    with pytest.raises(InputError) as caught:
        loss.bind(2, 2)
    assert caught.value.key == key


def test_only_two_labels_are_separated() -> None:
    with pytest.raises(InputError, match="needs two labels, but there is 1 label"):
        LogisticLoss([1.0]).bind(1, 1)
