"""The density of a flow along its characteristics: affine flows of normal densities are normal at any time."""

import numpy as np
import pytest
from test_flow import HORIZON, LABELS, ROWS, X, affine, exact, network

from eulerian.base.arrays import Floats
from eulerian.fields import Affine
from eulerian.fields.piecewise import PiecewiseField
from eulerian.mesh.point_location import BoxRegion
from eulerian.particles.characteristics import CharacteristicDensity
from eulerian.particles.flow import Scheme, carry

pytestmark = pytest.mark.one_process

EVERYWHERE = BoxRegion(np.full(2, -100.0), np.full(2, 100.0))


def normal(x: Floats) -> Floats:
    """Two labels: one normal density, and half of it."""
    density = np.exp(-0.5 * np.sum(x**2, axis=1)) / (2.0 * np.pi)
    return np.stack([density, 0.5 * density], axis=1)


@pytest.mark.parametrize("t", [0.0, 0.2, 0.6, 0.71, HORIZON])
def test_normal_densities_stay_normal(t: float) -> None:
    """Before, at and after the end of a layer."""
    density = CharacteristicDensity(normal, affine(), ROWS, HORIZON, 40, EVERYWHERE)
    centre = exact(np.zeros((1, 2)), t)[0]
    matrix = np.stack([exact(row[None], t)[0] - centre for row in np.eye(2)], axis=1)
    away = (X - centre) @ np.linalg.inv(matrix).T
    found = density.values(t, X)
    np.testing.assert_allclose(found, normal(away) / abs(np.linalg.det(matrix)), rtol=1e-6)


@pytest.mark.parametrize("t", [0.3, 1.1])
def test_every_label_comes_back_on_its_own_way(t: float) -> None:
    field, rows = network(n_labels=3)

    def marked(x: Floats) -> Floats:
        return np.stack([x[:, 0], x[:, 1], x[:, 0] + x[:, 1]], axis=1)

    density = CharacteristicDensity(marked, field, rows, HORIZON, 60, EVERYWHERE)
    end = carry(field, rows, X, LABELS, [t], Scheme(HORIZON, "rk4", 60))[0]
    found = density.values(t, end)
    logarithm = CharacteristicDensity(lambda x: np.ones((len(x), 3)), field, rows, HORIZON, 60, EVERYWHERE)
    own = np.arange(len(X)), LABELS
    np.testing.assert_allclose((found / logarithm.values(t, end))[own], marked(X)[own], rtol=1e-5, atol=1e-6)


def test_what_comes_from_outside_is_not_known() -> None:
    """Everything moves to the right at speed 1: what is on the left has come through the wall."""
    field = PiecewiseField.equal(Affine(2), 1.0, 2)
    rows = np.array([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * 2)
    box = BoxRegion(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    density = CharacteristicDensity(normal, field, rows, 1.0, 4, box)
    x = np.stack([np.linspace(-1.0, 1.0, 41), np.zeros(41)], axis=1)
    found = density.values(0.75, x)
    known = x[:, 0] >= -0.25 - 1e-9
    assert np.array_equal(np.isfinite(found).all(axis=1), known)
    np.testing.assert_allclose(found[known], normal(x[known] - [0.75, 0.0]), rtol=1e-9)


def test_a_way_that_comes_back_into_the_domain_has_left_it_all_the_same() -> None:
    """Out in one layer and in again in the other: what is at home at both ends has not been there between."""
    field = PiecewiseField.equal(Affine(2), 1.0, 2)
    rows = np.array([[0.0, 0.0, 0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, -2.0, 0.0]])
    box = BoxRegion(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    density = CharacteristicDensity(normal, field, rows, 1.0, 4, box)
    found = density.values(1.0, np.array([[-0.5, 0.0], [0.5, 0.0]]))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
