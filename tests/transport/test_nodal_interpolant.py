"""Nodal velocities between the nodes: the function that the mesh sees, with its derivatives."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import warped_mesh

from eulerian.density.space import DensitySpace
from eulerian.fields.nodal import Nodal
from eulerian.transport.nodal_interpolant import NodalField
from eulerian.transport.velocity_space import VelocitySpace, velocity_nodes

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]


def made(comm: MPI.Comm, dim: int, degree: int, labels: int = 0) -> tuple[VelocitySpace, Nodal, NodalField]:
    velocity_space = VelocitySpace(DensitySpace(warped_mesh(comm, dim), degree))
    free = Nodal(velocity_nodes(velocity_space.density_space), n_labels=labels)
    return velocity_space, free, NodalField.gather(velocity_space, free)


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_it_is_the_velocity_that_the_mesh_sees(comm: MPI.Comm, dim: int, degree: int) -> None:
    velocity_space, free, field = made(comm, dim, degree, labels=2)
    theta = np.random.default_rng(0).standard_normal(free.n_params(dim))
    inside = np.random.default_rng(1).dirichlet(np.full(dim + 1, 3.0), 4)[:, 1:]
    corners = velocity_space.density_space.vertices
    x = (corners[:, :1] + inside @ (corners[:, 1:] - corners[:, :1])).reshape(-1, dim)
    for label in range(2):
        v = free.value(theta, velocity_space.x, label)
        at, gradient = velocity_space.at(v, inside), velocity_space.gradient_at(v, inside)
        np.testing.assert_allclose(field.value(theta, x, label), at.reshape(-1, dim), atol=1e-8)
        np.testing.assert_allclose(field.jacobian(theta, x, label), gradient.reshape(-1, dim, dim), atol=1e-7)


@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (2, 1), (3, 2)])
def test_derivatives_by_theta(comm: MPI.Comm, dim: int, degree: int) -> None:
    _, free, field = made(comm, dim, degree, labels=2)
    rng = np.random.default_rng(2)
    theta, change = rng.standard_normal((2, free.n_params(dim)))
    x = rng.uniform(-1.2, 1.2, (40, dim))  # some are outside
    w, big = rng.standard_normal((40, dim)), rng.standard_normal((40, dim, dim))
    # Linear in θ, so that differences are exact.
    by_value = np.sum(w * (field.value(theta + change, x, 1) - field.value(theta, x, 1)))
    assert by_value == pytest.approx(field.vjp(theta, x, w, 1) @ change, rel=1e-11)
    by_jacobian = np.sum(big * (field.jacobian(theta + change, x, 1) - field.jacobian(theta, x, 1)))
    assert by_jacobian == pytest.approx(field.jacobian_vjp(theta, x, big, 1) @ change, rel=1e-10)


@pytest.mark.parametrize(("dim", "degree"), [(1, 2), (2, 2), (3, 1), (3, 2)])
def test_derivatives_of_the_jacobian_in_space(comm: MPI.Comm, dim: int, degree: int) -> None:
    velocity_space, free, field = made(comm, dim, degree)
    rng = np.random.default_rng(2)
    theta = rng.standard_normal(free.n_params(dim))
    x = velocity_space.density_space.vertices[:8].mean(axis=1)
    w, step = rng.standard_normal((len(x), dim, dim)), 1e-3 * rng.standard_normal((len(x), dim))
    # The Jacobian is linear inside a cell: its differences are exact.
    difference = np.sum(w * (field.jacobian(theta, x + step) - field.jacobian(theta, x - step)), axis=(1, 2)) / 2
    slope = np.sum(field.jacobian_vjp_x(theta, x, w) * step, axis=1)
    np.testing.assert_allclose(slope, difference, atol=1e-9 * max(1.0, float(np.abs(difference).max())))
    assert np.any(np.abs(slope) > 1e-3) == (degree == 2)
    assert not field.jacobian_vjp_x(theta, x + 10.0, w).any()


def test_outside_it_is_the_velocity_of_the_rim(comm: MPI.Comm) -> None:
    _, free, field = made(comm, 1, 1)
    theta = np.random.default_rng(0).standard_normal(free.n_params(1))
    ends = field.value(theta, free.nodes[[0, -1]])
    outside = np.array([[-1.5], [7.0]])
    np.testing.assert_allclose(field.value(theta, outside), ends, atol=1e-12)
    assert not field.jacobian(theta, outside).any()


def test_the_same_on_any_number_of_ranks(comm: MPI.Comm) -> None:
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 2))
    theta = np.random.default_rng(1).standard_normal(made(comm, 2, 2)[1].n_params(2))
    ours, alone = (made(c, 2, 2)[2].value(theta, x) for c in (comm, MPI.COMM_SELF))
    np.testing.assert_allclose(ours, alone, rtol=1e-12)
