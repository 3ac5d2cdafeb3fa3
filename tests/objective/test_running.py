"""Running costs: closed forms, and derivatives by the velocity and by θ."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import random_density, warped_mesh, wave
from thinning import thinned

from eulerian.base import parallel
from eulerian.density.space import DensitySpace
from eulerian.objective.costs import Costs, ParameterCost
from eulerian.objective.running import VelocityCost
from eulerian.transport.velocity_space import VelocitySpace

CASES = [(dim, degree) for dim in (1, 2, 3) for degree in (0, 1, 2)]


def total(comm: MPI.Comm, value: float) -> float:
    return float(parallel.sum_all(comm, np.array([value]))[0])


@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_linear_velocities_in_closed_form(comm: MPI.Comm, dim: int, degree: int) -> None:
    """v = A x + b lies in the space, so ∫|v|²ρ comes from the moments of ρ, and ∫|∇v|²ρ is |A|² times the mass."""
    space = DensitySpace(warped_mesh(comm, dim), degree)
    velocity_space = VelocitySpace(space)
    rho = random_density(space, 1, 1)
    a, b = np.random.default_rng(0).standard_normal((dim, dim)), np.arange(1.0, dim + 1.0)
    cost = VelocityCost(velocity_space, Costs(0.6, 0.3).velocity_terms)

    parts = cost.densities(velocity_space.x @ a.T + b)

    mass = space.mass(rho)[0]
    mean, covariance = (moment[0] for moment in space.mean_and_covariance(rho))
    energy = mass * (np.sum((a @ mean + b) ** 2) + np.trace(a @ covariance @ a.T))
    values = {name: total(comm, float(np.vdot(part, rho[: space.n_owned, :, 0]))) for name, part in parts.items()}
    assert values == pytest.approx({"kinetic": 0.3 * energy, "jacobian": 0.15 * mass * np.sum(a**2)}, rel=1e-11)


def test_terms_of_no_weight_are_left_out(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1)
    velocity_space = VelocitySpace(space)
    v = wave(velocity_space.x)
    assert VelocityCost(velocity_space, Costs(0.0, 0.0).velocity_terms).densities(v) == {}
    assert set(VelocityCost(velocity_space, Costs(1.0, 0.0).velocity_terms).densities(v)) == {"kinetic"}
    assert set(VelocityCost(velocity_space, Costs(0.0, 1.0).velocity_terms).densities(v)) == {"jacobian"}
    occupation = random_density(space, 1, 1)[: space.n_owned, :, 0]
    assert not np.any(VelocityCost(velocity_space, Costs(0.0, 0.0).velocity_terms).velocity_gradient(v, occupation))


@pytest.mark.parametrize(("kinetic", "jacobian"), thinned([(0.6, 0.0), (0.0, 0.3), (0.6, 0.3)], {(0.6, 0.3)}))
@pytest.mark.parametrize(("dim", "degree"), CASES)
def test_derivative_by_the_velocity(comm: MPI.Comm, dim: int, degree: int, kinetic: float, jacobian: float) -> None:
    """The cost is quadratic in v, so central differences are exact."""
    space = DensitySpace(warped_mesh(comm, dim), degree)
    velocity_space = VelocitySpace(space)
    v, w = wave(velocity_space.x), wave(velocity_space.x, 5)
    occupation = random_density(space, 1, 1)[: space.n_owned, :, 0]
    cost = VelocityCost(velocity_space, Costs(kinetic, jacobian).velocity_terms)

    def value(s: float) -> float:
        return total(comm, sum(float(np.vdot(part, occupation)) for part in cost.densities(v + s * w).values()))

    slope = total(comm, float(np.vdot(cost.velocity_gradient(v, occupation), w)))
    assert slope == pytest.approx(0.5 * (value(1.0) - value(-1.0)), rel=1e-10)


@pytest.mark.parametrize(("l2", "h1"), [(0.7, 0.0), (0.0, 0.2), (0.7, 0.2)])
def test_derivative_by_the_parameters(l2: float, h1: float) -> None:
    rng = np.random.default_rng(0)
    theta, readout, change, shift = (rng.standard_normal(s) for s in ((4, 3), 5, (4, 3), 5))
    cost = ParameterCost(l2, h1, 0.25)
    layers, constant = cost.gradient(theta, readout)
    slope = np.vdot(layers, change) + np.vdot(constant, shift)
    difference = 0.5 * (cost.value(theta + change, readout + shift) - cost.value(theta - change, readout - shift))
    assert slope == pytest.approx(difference, rel=1e-12)


def test_a_readout_counts_like_a_parameter_that_is_constant_in_time() -> None:
    readout = np.array([0.3, -0.2])
    as_parameter = ParameterCost(0.7, 0.4, 0.25).value(np.tile(readout, (4, 1)), np.zeros(0))
    as_readout = ParameterCost(0.7, 0.4, 0.25).value(np.zeros((4, 2)), readout)
    assert as_readout == pytest.approx(as_parameter, rel=1e-14)


def test_one_layer_has_no_slope() -> None:
    assert ParameterCost(0.0, 1.0, 1.0).value(np.ones((1, 3)), np.zeros(0)) == 0.0
