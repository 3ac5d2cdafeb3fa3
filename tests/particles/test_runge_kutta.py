"""One step and its reverse, orders of convergence, error control."""

from mpi4py import MPI

import numpy as np
import pytest
from scipy.integrate import RK45

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.particles.runge_kutta import DORMAND_PRINCE, RK4, Tableau, controlled, step, step_vjp

pytestmark = pytest.mark.two_ranks

RNG = np.random.default_rng(2)


class Swing:
    """dx/dt = sin(Ax + θ) in two dimensions, with one integral, of x_0 v_1: written without any field."""

    matrix = np.array([[1.0, -2.0], [1.5, 0.5]])

    def __init__(self, theta: Floats) -> None:
        self.theta = theta

    def velocity(self, x: Floats) -> Floats:
        return np.sin(x @ self.matrix.T + self.theta)

    def value(self, x: Floats) -> Floats:
        v = self.velocity(x)
        return np.concatenate([v, (x[:, 0] * v[:, 1])[:, None]], axis=1)

    def vjp(self, x: Floats, v: Floats, w: Floats) -> tuple[Floats, Floats]:
        by_velocity = w[:, :2].copy()
        by_velocity[:, 1] += w[:, 2] * x[:, 0]
        inner = np.cos(x @ self.matrix.T + self.theta) * by_velocity
        by_point = inner @ self.matrix
        by_point[:, 0] += w[:, 2] * v[:, 1]
        return by_point, inner.sum(axis=0)


def test_the_pair_is_that_of_scipy() -> None:
    for row, given in zip(DORMAND_PRINCE.a, RK45.A, strict=True):
        np.testing.assert_allclose(row, given[: len(row)], rtol=1e-15)
    np.testing.assert_allclose(DORMAND_PRINCE.b, RK45.B, rtol=1e-15)


@pytest.mark.parametrize("a", [((), (0.5, 0.5)), ((0.5,), (0.5,))])
def test_a_tableau_that_is_not_explicit_is_refused(a: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match="explicit"):
        Tableau(a, (0.5, 0.5), 2)


def test_weights_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Tableau(((), (0.5,)), (0.5, 0.4), 2)


@pytest.mark.parametrize("tableau", [RK4, DORMAND_PRINCE])
def test_order_of_positions_and_integrals(tableau: Tableau) -> None:
    motion, x = Swing(np.array([0.3, -0.2])), RNG.standard_normal((6, 2))

    def end(count: int) -> Floats:
        y = np.concatenate([x, np.zeros((6, 1))], axis=1)
        for _ in range(count):
            y = step(tableau, motion, y, 1.0 / count, 2)
        return y

    best = end(256)
    errors = np.array([np.abs(end(count) - best).max(axis=0) for count in (8, 16, 32)])
    rates = np.log2(errors[:-1] / errors[1:])
    assert np.all(rates[-1] > tableau.order - 0.4), rates
    assert np.all(errors[-1] < 1e-5)


@pytest.mark.parametrize("tableau", [RK4, DORMAND_PRINCE])
def test_reverse_of_a_step_is_exact(tableau: Tableau) -> None:
    x, w, theta, h = RNG.standard_normal((5, 2)), RNG.standard_normal((5, 3)), np.array([0.3, -0.2]), 0.7

    def pairing(x: Floats, theta: Floats) -> float:
        y = np.concatenate([x, np.ones((5, 1))], axis=1)
        return float(np.vdot(w, step(tableau, Swing(theta), y, h, 2)))

    before, by_theta = step_vjp(tableau, Swing(theta), x, h, w)
    np.testing.assert_array_equal(before[:, 2], w[:, 2])
    dx, dtheta, e = RNG.standard_normal((5, 2)), RNG.standard_normal(2), 1e-4
    slope = (pairing(x + e * dx, theta + e * dtheta) - pairing(x - e * dx, theta - e * dtheta)) / (2 * e)
    assert slope == pytest.approx(np.vdot(before[:, :2], dx) + np.vdot(by_theta, dtheta), rel=1e-6)


def start(n: int) -> Floats:
    return np.concatenate([np.random.default_rng(4).standard_normal((n, 2)), np.zeros((n, 1))], axis=1)


def advance(y: Floats, tolerance: float, *, max_steps: int = 1000, comm: MPI.Comm | None = None, speed: float = 1.0):
    motion = Swing(np.array([0.3, -0.2]))
    motion.matrix = speed * Swing.matrix
    return controlled(motion, y, 1.5, 2, tolerance, first=1.5, max_steps=max_steps, comm=comm)


def test_error_control_reaches_its_tolerance() -> None:
    exact = advance(start(20), 1e-12)[2]
    errors = [np.abs(advance(start(20), tolerance)[2] - exact).max() for tolerance in (1e-4, 1e-7)]
    assert errors[0] < 1e-3
    assert errors[1] < 1e-6
    assert len(advance(start(20), 1e-7)[0]) > len(advance(start(20), 1e-4)[0])


def test_its_steps_are_those_of_the_method() -> None:
    """The same steps taken by ``step`` lead through the same points: so the reverse is that of what was done."""
    steps, starts, end = advance(start(8), 1e-6)
    y = start(8)
    for h, x in zip(steps, starts, strict=True):
        np.testing.assert_allclose(y[:, :2], x, atol=1e-14)
        y = step(DORMAND_PRINCE, Swing(np.array([0.3, -0.2])), y, float(h), 2)
    np.testing.assert_allclose(y, end, atol=1e-14)
    assert steps.sum() == pytest.approx(1.5, abs=1e-15)


def test_ranks_agree_on_the_steps(comm: MPI.Comm) -> None:
    """Also a rank without particles takes them."""
    alone = advance(start(7), 1e-6)
    own = start(7)[comm.rank :: max(comm.size - 1, 1)] if comm.rank < max(comm.size - 1, 1) else start(7)[:0]
    together = advance(own, 1e-6, comm=comm)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-10)
    assert together[2].shape == own.shape


def test_too_many_steps_are_a_rejected_evaluation() -> None:
    with pytest.raises(RejectedEvaluation, match="more than 5 steps"):
        advance(start(4), 1e-9, max_steps=5, speed=30.0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_velocity_that_is_not_finite_is_a_rejected_evaluation() -> None:
    with pytest.raises(RejectedEvaluation, match="small enough"):
        controlled(Swing(np.array([np.nan, 0.0])), start(4), 1.0, 2, 1e-6, first=1.0, max_steps=50, comm=MPI.COMM_SELF)


def test_a_field_that_fails_on_one_rank_fails_on_all(comm: MPI.Comm) -> None:
    class Failing(Swing):
        def value(self, x: Floats) -> Floats:
            if comm.rank == comm.size - 1:
                raise InputError("no velocity here")
            return super().value(x)

    with pytest.raises(InputError, match="no velocity here"):
        controlled(Failing(np.zeros(2)), start(4), 1.0, 2, 1e-6, first=1.0, max_steps=50, comm=comm)
