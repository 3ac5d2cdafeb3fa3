"""A running cost of the user's own: it is the built-in cost where it says the same, and its gradient is exact."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
import ufl

import eulerian as eu
from eulerian.analysis.verify import taylor_rates, taylor_remainders
from eulerian.base.errors import InputError

jnp = pytest.importorskip("jax.numpy")
from eulerian import jax as eujax  # noqa: E402 - it needs JAX


def problem(comm: MPI.Comm, costs: eu.Costs, **more: Any) -> eu.ControlProblem:
    space = eu.DensitySpace(eu.box_mesh([-2.0, -2.0], [2.0, 2.0], [10, 10], comm=comm), degree=2)
    rho0, loss = eu.Gaussian([-0.5, 0.3], std=0.5), eu.QuadraticLoss([1.0, -0.5])
    return eu.ControlProblem(space, eu.Mlp(2, [6]), rho0, loss, costs, eu.TimeGrid(1.0, 4), **more)


def moving(problem: eu.ControlProblem) -> np.ndarray:
    theta = problem.initial_theta
    return theta + 0.3 * np.random.default_rng(3).standard_normal(theta.shape)


SQUARE = {
    "jax": lambda: eujax.density_loss(lambda _, rho: 0.15 * rho[0] ** 2),
    "ufl": lambda: eu.FormLoss(lambda rho: 0.15 * rho**2 * ufl.dx),
}


@pytest.mark.parametrize("kind", SQUARE)
def test_it_is_the_congestion(comm: MPI.Comm, kind: str) -> None:
    """γ/2 ∫∫ρ² of the mesh's density; the rules in time differ by their errors, far below those in space."""
    own = problem(comm, eu.Costs(kinetic=0.5, running=SQUARE[kind]()))
    built_in = problem(comm, eu.Costs(kinetic=0.5, congestion=0.3), power_form="density")
    theta = moving(own)

    value, gradient = own.value_and_gradient(theta)
    expected, slope = built_in.value_and_gradient(theta)

    assert own.parts["running"] == pytest.approx(built_in.parts["congestion"], rel=1e-4)
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-4 * np.abs(slope).max())
    assert min(taylor_rates(taylor_remainders(own, theta, np.random.default_rng(1)))) >= 1.9


def test_sensors_all_along_the_way(comm: MPI.Comm) -> None:
    sensor = eujax.sensor_loss(lambda values: jnp.sum((values - 0.2) ** 2), [[0.1, 0.13], [-0.4, 0.31]])
    own = problem(comm, eu.Costs(kinetic=0.5, running=sensor))
    theta = moving(own)

    own.value(theta)

    assert own.parts["running"] > 1e-3
    assert min(taylor_rates(taylor_remainders(own, theta, np.random.default_rng(1)))) >= 1.9


def test_what_cannot_know_it_says_so(comm: MPI.Comm) -> None:
    own = problem(comm, eu.Costs(kinetic=0.5, running=SQUARE["jax"]()))
    verified = eu.verify(own, moving(own))
    assert np.isnan(verified.objective["running"])
    assert np.isfinite(verified.objective["kinetic"])
    with pytest.raises(InputError, match=r"costs\.running"):
        eu.certify(own, moving(own))
    x = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(InputError, match=r"costs\.running"):
        eu.ParticleProblem(x, eu.Mlp(2, [4]), eu.QuadraticLoss([1.0, 0.0]), own.costs, own.grid, comm=comm)


def test_what_is_none_is_refused(comm: MPI.Comm) -> None:
    with pytest.raises(InputError, match=r"costs\.running"):
        eu.Costs(running=lambda x: x)
    trained = eujax.density_loss(lambda p, _, rho: p * rho[0] ** 2, np.array(1.0))
    with pytest.raises(InputError, match="parameters of its own"):
        problem(comm, eu.Costs(running=trained))
