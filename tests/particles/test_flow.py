"""Points and log-densities through affine flows, which matrix exponentials solve, and through networks."""

from mpi4py import MPI

import numpy as np
import pytest
from scipy.linalg import expm

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields import Affine, Mlp
from eulerian.fields.piecewise import PiecewiseField
from eulerian.particles.flow import Scheme, carry, carry_back, carry_density

pytestmark = pytest.mark.two_ranks

HORIZON = 1.2
# Two layers of v = A x + b, as (A row by row, b).
ROWS = np.array([[0.4, -1.0, 0.8, 0.1, 0.3, -0.2], [-0.5, 0.6, 0.2, -0.3, -0.1, 0.7]])
SCHEMES = [Scheme(HORIZON, "rk4", 40), Scheme(HORIZON, "dopri5", tolerance=1e-10)]
X = np.random.default_rng(0).standard_normal((9, 2))
LABELS = np.arange(9) % 3


def exact(x: Floats, t: float) -> Floats:
    for row in ROWS:
        span = min(t, HORIZON / 2)
        generator = np.zeros((3, 3))
        generator[:2, :2], generator[:2, 2] = row[:4].reshape(2, 2), row[4:]
        flow = expm(span * generator)
        x, t = x @ flow[:2, :2].T + flow[:2, 2], t - span
    return x


def affine() -> PiecewiseField:
    return PiecewiseField.equal(Affine(2), HORIZON, 2)


def network(n_labels: int = 0) -> tuple[PiecewiseField, Floats]:
    field = Mlp(2, (6,), n_labels=n_labels, zero_init=False, output_scale=1.5)
    rng = np.random.default_rng(3)
    rows = np.stack([field.init(rng) for _ in range(3)])
    return PiecewiseField.equal(field, HORIZON, 3, label_dependent=n_labels > 0), rows


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.method)
def test_affine_flow_at_any_time_in_any_order(scheme: Scheme) -> None:
    times = [0.7, 0.0, 1.2, 0.6, 0.123]
    positions = carry(affine(), ROWS, X, LABELS, times, scheme)
    for t, position in zip(times, positions, strict=True):
        np.testing.assert_allclose(position, exact(X, t), atol=1e-7)
    np.testing.assert_array_equal(positions[1], X)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.method)
def test_density_of_an_affine_flow(scheme: Scheme) -> None:
    """Its change is minus the time integral of the trace."""
    change = -HORIZON / 2 * (ROWS[:, 0] + ROWS[:, 3]).sum()
    end, found = carry_density(affine(), ROWS, X, LABELS, scheme)
    np.testing.assert_allclose(end, exact(X, HORIZON), atol=1e-7)
    np.testing.assert_allclose(found, change, rtol=1e-12)
    start, back = carry_back(affine(), ROWS, exact(X, HORIZON), LABELS, scheme)
    np.testing.assert_allclose(start, X, atol=1e-7)
    np.testing.assert_allclose(back, change, rtol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.method)
def test_log_density_is_the_determinant_of_the_flow(scheme: Scheme) -> None:
    field, rows = network()
    end, change = carry_density(field, rows, X, LABELS, scheme)
    e = 1e-5
    columns = [
        (
            carry_density(field, rows, X + e * axis, LABELS, scheme)[0]
            - carry_density(field, rows, X - e * axis, LABELS, scheme)[0]
        )
        / (2 * e)
        for axis in np.eye(2)
    ]
    np.testing.assert_allclose(np.linalg.slogdet(np.stack(columns, axis=2))[1], -change, atol=1e-6)
    start, back = carry_back(field, rows, end, LABELS, scheme)
    np.testing.assert_allclose(start, X, atol=1e-6)
    np.testing.assert_allclose(back, change, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.method)
def test_every_label_goes_its_own_way(scheme: Scheme) -> None:
    field, rows = network(3)
    together = carry(field, rows, X, LABELS, [0.5, HORIZON], scheme)
    for n in range(len(X)):
        alone = carry(field, rows, X[n : n + 1], LABELS[n : n + 1], [0.5, HORIZON], scheme)
        np.testing.assert_allclose(together[:, n : n + 1], alone, atol=1e-7)
    other = carry(field, rows, X, (LABELS + 1) % 3, [HORIZON], scheme)[0]
    assert np.abs(other - together[1]).max() > 0.01


def test_intermediate_times_change_no_path() -> None:
    field, rows = network()
    coarse = Scheme(HORIZON, "rk4", 3)
    for scheme in (coarse, Scheme(HORIZON, "dopri5", tolerance=1e-4)):
        few = carry(field, rows, X, LABELS, [HORIZON], scheme)[0]
        many = carry(field, rows, X, LABELS, np.linspace(0.0, HORIZON, 14), scheme)
        np.testing.assert_array_equal(many[-1], few)
    end = carry(field, rows, X, LABELS, [HORIZON], coarse)[0]
    np.testing.assert_array_equal(carry_density(field, rows, X, LABELS, coarse)[0], end)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.method)
def test_ranks_share_points(comm: MPI.Comm, scheme: Scheme) -> None:
    """Also where a rank has none, or no particle of a label."""
    field, rows = network(3)
    own = slice(0, 0) if comm.size > 1 and comm.rank == 0 else slice(max(comm.rank - 1, 0), None, max(comm.size - 1, 1))
    alone = carry(field, rows, X, LABELS, [0.5, HORIZON], scheme)
    together = carry(field, rows, X[own], LABELS[own], [0.5, HORIZON], scheme, comm)
    np.testing.assert_allclose(together, alone[:, own], atol=1e-9)


def test_times_outside_are_refused() -> None:
    with pytest.raises(InputError, match=r"times are from 0 to 1\.2"):
        carry(affine(), ROWS, X, LABELS, [1.3], SCHEMES[0])
