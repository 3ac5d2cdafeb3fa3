"""No point is ever moved faster than the limit, in the user's units, and slow ones are moved as they were."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import eulerian as eu
from eulerian.base.errors import InputError
from eulerian.fields import Affine, Frame, Mlp, NormalisedField, SpeedLimit, in_box
from eulerian.fields.frame import frame_of, in_frame, rewrapped, unwrapped
from eulerian.fields.piecewise import PiecewiseField

pytestmark = pytest.mark.one_process

# A box of very unequal sides, far from the origin, and a horizon that is not one.
BOX = ((1e3, -2.0), (1.4e3, 0.0), 20.0)
LIMIT = 3.5


def points(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(BOX[0], BOX[1], (n, 2))


@pytest.mark.parametrize("size", [10.0, 1e3, 1e12, 1e150])
@pytest.mark.parametrize("n_labels", [0, 2])
def test_the_speed_is_below_the_limit_in_the_users_units(size: float, n_labels: int) -> None:
    field = in_box(Mlp(2, (8,), n_labels=n_labels, zero_init=False, max_speed=LIMIT), *BOX)
    free = in_box(Mlp(2, (8,), n_labels=n_labels, zero_init=False), *BOX)
    theta = size * field.init(np.random.default_rng(1))
    for label in range(n_labels) if n_labels else (None,):
        v, w = (each.value(theta, points(2000), label) for each in (field, free))
        speed = np.linalg.norm(v, axis=1)
        assert np.max(np.hypot.reduce(w, axis=1)) > 2.0 * LIMIT  # else nothing is tested
        assert np.max(speed) <= LIMIT
        assert np.max(speed) > 0.8 * LIMIT
        expected = w / np.hypot(1.0, np.hypot.reduce(w, axis=1) / LIMIT)[:, None]
        np.testing.assert_allclose(v, expected, rtol=1e-13)


def test_what_is_much_slower_stays_as_it_is() -> None:
    free = in_box(Mlp(2, (8,), zero_init=False), *BOX)
    theta = free.init(np.random.default_rng(1))
    w = free.value(theta, points(100))
    fastest = np.linalg.norm(w, axis=1).max()
    v = SpeedLimit(free, 1e4 * fastest).value(theta, points(100))
    np.testing.assert_allclose(v, w, rtol=0.6e-8, atol=0.0)
    assert not np.array_equal(v, w)


def test_it_is_the_same_around_a_network_in_its_box_and_asked_of_the_network() -> None:
    asked, around = in_box(Mlp(2, (8,), max_speed=LIMIT), *BOX), in_box(SpeedLimit(Mlp(2, (8,)), LIMIT), *BOX)
    assert asked == around == SpeedLimit(in_box(Mlp(2, (8,)), *BOX), LIMIT)
    raw = Mlp(2, (8,), max_speed=LIMIT)
    theta = raw.init(np.random.default_rng(0)) + 1.0
    np.testing.assert_array_equal(raw.value(theta, points(5)), SpeedLimit(Mlp(2, (8,)), LIMIT).value(theta, points(5)))
    assert replace(raw, max_speed=None) == Mlp(2, (8,))
    again = pickle.loads(pickle.dumps(raw))
    np.testing.assert_array_equal(again.value(theta, points(5)), raw.value(theta, points(5)))


def test_another_frame_leaves_the_limit_as_it_is() -> None:
    """Parameters of a run elsewhere bring their frame along, whose unit of velocity is another one."""
    field = in_box(Mlp(2, (8,), max_speed=LIMIT), *BOX)
    elsewhere = Frame.of_box((0.0, 0.0), (1.0, 1.0), 2.0)
    moved = in_frame(field, elsewhere)
    assert frame_of(field) == Frame.of_box(*BOX, reach=4.0)
    assert frame_of(moved) == elsewhere
    assert moved == SpeedLimit(NormalisedField(Mlp(2, (8,)), elsewhere), LIMIT)
    assert unwrapped(moved) == Mlp(2, (8,))
    assert rewrapped(moved, Mlp(2, (3,))) == SpeedLimit(NormalisedField(Mlp(2, (3,)), elsewhere), LIMIT)
    affine = SpeedLimit(Affine(2), LIMIT)
    assert in_frame(affine, elsewhere) is affine  # its parameters are in the user's units
    assert in_box(affine, *BOX).units == Affine(2).in_box(*BOX).units is not None


class Twice(Mlp):
    """A subclass that makes something else of the network."""

    def value(self, theta, x, label=None):
        return 2.0 * super().value(theta, x, label)


def test_a_subclass_is_limited_as_it_is() -> None:
    theta = Mlp(2, (4,)).init(np.random.default_rng(0)) + 1.0
    x = np.random.default_rng(1).standard_normal((6, 2))
    w = 2.0 * Mlp(2, (4,)).value(theta, x)
    expected = w / np.sqrt(1.0 + np.sum(w**2, axis=1, keepdims=True) / LIMIT**2)
    np.testing.assert_allclose(Twice(2, (4,), max_speed=LIMIT).value(theta, x), expected, rtol=1e-13)


class Swirl:
    """A user's field of time, with the methods that every field needs and a Jacobian, no more."""

    time_dependent = True

    def n_params(self, _dim):
        return 1

    def init(self, _rng):
        return np.ones(1)

    def value(self, theta, x, time=0.0):
        return theta[0] * (1.0 + time) * x @ np.array([[0.0, 1.0], [-1.0, 0.0]])

    def vjp(self, _theta, x, w, time=0.0):
        return np.array([np.sum(w * self.value([1.0], x, time))])

    def jacobian(self, theta, x, time=0.0):
        return np.tile(theta[0] * (1.0 + time) * np.array([[0.0, -1.0], [1.0, 0.0]]), (len(x), 1, 1))


def test_a_users_field_keeps_what_it_can_and_its_time() -> None:
    field = SpeedLimit(Swirl(), LIMIT)
    layered = PiecewiseField.equal(field, 2.0, 2)
    row, x, w = np.array([4.0]), np.array([[1.0, 0.5], [-2.0, 3.0]]), np.array([[0.3, 1.0], [-1.0, 2.0]])
    assert layered.time_dependent
    assert layered.has("jacobian")
    assert not layered.has("jacobian_vjp")
    assert not layered.tells_theta_jacobian
    raw = Swirl().value(row, x, layered.times[1])
    expected = raw / np.sqrt(1.0 + np.sum(raw**2, axis=1, keepdims=True) / LIMIT**2)
    np.testing.assert_allclose(layered.value(1, row, x), expected, rtol=1e-13)
    h = 1e-6
    slope = np.sum(w * (layered.value(1, row + h, x) - layered.value(1, row - h, x))) / (2 * h)
    v, vjp = layered.value_and_vjp(1, row, x)
    np.testing.assert_allclose(v, expected, rtol=1e-13)
    assert vjp(w)[0] == pytest.approx(slope, rel=1e-7)
    by_theta, by_point = layered.pull_back(1, row, x, w)
    assert by_theta[0] == pytest.approx(slope, rel=1e-7)
    np.testing.assert_allclose(by_point, np.einsum("nij,ni->nj", layered.jacobian(1, row, x), w), rtol=1e-13)
    # A rotation has no divergence, and the limit of its speed depends on the radius only.
    np.testing.assert_allclose(layered.value_and_divergence(1, row, x)[1], 0.0, atol=1e-13)


@pytest.mark.parametrize("speed", [0.0, -1.0, np.nan, np.inf, True, "fast"])
def test_what_is_no_speed_is_refused(speed: object) -> None:
    with pytest.raises(InputError, match="max_speed: must be a finite number > 0"):
        SpeedLimit(Mlp(2, (4,)), speed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_speed: must be a finite number > 0"):
        eu.Mlp(2, [4], max_speed=speed)  # type: ignore[arg-type]


def test_nodal_velocities_are_bounded_themselves() -> None:
    with pytest.raises(InputError, match=r"its parameters are its velocities.*bounds="):
        SpeedLimit(eu.Nodal(points(4)), LIMIT)
