import pickle

import numpy as np
import pytest

from eulerian.base.errors import InputError
from eulerian.fields import Nodal

pytestmark = pytest.mark.one_process

SQUARE = np.stack(np.meshgrid(np.linspace(0, 1, 7), np.linspace(-1, 1, 5), indexing="ij"), -1).reshape(-1, 2)


def test_parameters_are_the_velocities_of_the_sorted_nodes():
    field = Nodal(SQUARE[np.random.default_rng(0).permutation(len(SQUARE))])
    np.testing.assert_array_equal(field.nodes, SQUARE)
    theta = np.arange(2.0 * len(SQUARE))
    np.testing.assert_array_equal(field.value(theta, SQUARE).ravel(), theta)
    np.testing.assert_array_equal(field.value(theta, SQUARE[[3, 3, 0]]), [[6, 7], [6, 7], [0, 1]])
    np.testing.assert_array_equal(field.vjp(theta, SQUARE[[3, 3]], np.ones((2, 2)))[4:10], [0, 0, 2, 2, 0, 0])


def test_one_block_of_velocities_per_label():
    field = Nodal(SQUARE, n_labels=2)
    theta = np.arange(4.0 * len(SQUARE))
    np.testing.assert_array_equal(field.value(theta, SQUARE[:1], 1), [[70.0, 71.0]])


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("offset", "noise"), [(0.0, 1e-10), (1e9, 2e-7)], ids=["near the origin", "far away"])
def test_nodes_are_found_and_merged_up_to_rounding(dim, offset, noise):
    rng = np.random.default_rng(dim)
    # Coordinates on a grid: many nodes share one, and every copy has last digits of its own.
    exact = np.unique(rng.integers(0, 12, (400, dim)) / 11.0, axis=0) + offset
    copies = np.concatenate([exact + rng.uniform(-noise, noise, exact.shape) for _ in range(3)])
    field = Nodal(copies[rng.permutation(len(copies))])
    assert field.nodes.shape == exact.shape
    np.testing.assert_allclose(
        field.nodes, exact, rtol=0, atol=4 * noise
    )  # the order too: sorting by rounded digits would fail
    theta = rng.standard_normal(exact.size)
    np.testing.assert_array_equal(field.value(theta, copies), np.tile(theta.reshape(exact.shape), (3, 1)))


def test_nodes_of_an_unstructured_mesh():
    points = np.random.default_rng(0).standard_normal((20_000, 3))
    field = Nodal(points)
    # Lexicographic order, but for coordinates that count as equal.
    assert np.diff(field.nodes[:, 0]).min() > -1e-7
    np.testing.assert_array_equal(*(a[np.lexsort(a.T[::-1])] for a in (field.nodes, points)))
    theta = np.random.default_rng(1).standard_normal(points.size)
    wobble = 1e-10 * np.random.default_rng(2).standard_normal(points.shape)
    np.testing.assert_array_equal(field.value(theta, field.nodes + wobble).ravel(), theta)


@pytest.mark.parametrize("point", [[0.5, 0.1], [2.0, 0.0], [-5.0, 0.0], [0.5, np.nan], [0.5, 1e-6]])
def test_other_points_are_refused(point):
    field = Nodal(SQUARE)
    with pytest.raises(InputError, match=r"1 points are not among the 35 nodes.*nearest node"):
        field.value(np.zeros(70), np.array([[0.5, 0.0], point]))


def test_coordinates_of_two_nodes_do_not_make_a_third():
    field = Nodal(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    with pytest.raises(InputError, match="not among the 3 nodes"):
        field.value(np.zeros(6), np.array([[1.0, 1.0]]))


def test_an_array_changed_in_place_is_looked_up_again():
    field = Nodal(SQUARE)
    theta = np.arange(70.0)
    x = SQUARE.copy()
    field.value(theta, x)
    x[:] = SQUARE[::-1]
    np.testing.assert_array_equal(field.value(theta, x), theta.reshape(-1, 2)[::-1])
    x[0] = 9.0
    with pytest.raises(InputError, match="not among"):
        field.value(theta, x)


def test_there_is_no_jacobian():
    field = Nodal(SQUARE)
    with pytest.raises(InputError, match=r"field.kind: .*no Jacobian.*Take a network"):
        field.jacobian(np.zeros(70), SQUARE)
    with pytest.raises(InputError, match="no Jacobian"):
        field.jacobian_vjp(np.zeros(70), SQUARE, np.zeros((35, 2, 2)))
    with pytest.raises(InputError, match="no Jacobian"):
        field.jacobian_vjp_x(np.zeros(70), SQUARE, np.zeros((35, 2, 2)))


@pytest.mark.parametrize("nodes", [np.empty((0, 2)), np.array([[np.nan, 0.0]]), np.zeros(3), 1.0])
def test_impossible_nodes_are_refused(nodes):
    with pytest.raises(InputError, match="nodes"):
        Nodal(nodes)


def test_one_node_is_enough_and_fields_travel():
    field = pickle.loads(pickle.dumps(Nodal(np.array([[3.0, 4.0]]))))
    np.testing.assert_array_equal(field.value([1.0, 2.0], np.array([[3.0, 4.0]])), [[1.0, 2.0]])
    assert np.any(Nodal(SQUARE, zero_init=False).init(np.random.default_rng(0)))
