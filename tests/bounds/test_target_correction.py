"""What is left of the way to a target: its weight's limits, and its size against exact distances."""

from mpi4py import MPI

import numpy as np
import pytest
from exact_values import on_a_line, transport

from eulerian.base.arrays import Floats
from eulerian.bounds.splines import Jets, SplineFunction, SplineSpace
from eulerian.bounds.target_correction import Arrived, change_weight, missing_cost
from eulerian.density.shapes import Gaussian

SIDE = {1: 600, 2: 120}


def test_the_weight_of_a_change() -> None:
    """1/∫ġ²/(a + (b − a)g), by a fine sum; its limits a/1.2 and a/4.94, and b for a = 0."""
    a, b = np.random.default_rng(0).uniform(0.0, 1.0, (2, 50)) ** 4
    s = (np.arange(200_000) + 0.5) / 200_000
    g, slope = s * s * (3.0 - 2.0 * s), 6.0 * s * (1.0 - s)
    exact = [1.0 / np.mean(slope**2 / ((1.0 - g) * x + g * y)) for x, y in zip(a, b, strict=True)]
    assert change_weight(a, b) == pytest.approx(np.array(exact), rel=2e-3)
    assert change_weight(b, a) == pytest.approx(change_weight(a, b), rel=1e-12)  # there and back
    assert change_weight(a, a) == pytest.approx(a / 1.2, rel=1e-12)
    assert change_weight(a, 0.0 * a) == pytest.approx(a / 4.94, rel=2e-3)
    assert change_weight(np.zeros(1), np.zeros(1)).max() < 1e-100


def arrived(comm: MPI.Comm, start: Gaussian, goal: Gaussian, torn: bool = False) -> tuple[SplineFunction, Arrived]:
    """A map that leaves everything where it is, on [−3, 3]^dim: this rank's points."""
    dim = start.dim
    axis = -3.0 + 6.0 * (np.arange(SIDE[dim]) + 0.5) / SIDE[dim]
    x = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    x = x[comm.rank :: comm.size]
    volumes = np.full(len(x), (6.0 / SIDE[dim]) ** dim)
    splines = SplineSpace(np.full(dim, -3.0), np.full(dim, 3.0), (16,) * dim)
    here, there = start.values(x), goal.values(x)
    return SplineFunction(splines, np.zeros(splines.size)), Arrived(x, volumes * here, x, volumes, here, there, torn)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("shift", [0.02, 0.1])
def test_the_distance_of_two_densities(comm: MPI.Comm, dim: int, shift: float) -> None:
    """On a line W₂² itself, elsewhere no less, and little more where the densities are close."""
    start, goal = Gaussian([0.1] * dim, std=0.5), Gaussian([0.1 + shift] * dim, std=0.5 + shift)
    exact = transport(2.0, start, goal)
    potential, densities = arrived(comm, start, goal)
    found = missing_cost(comm, potential, 2.0, 0.0, densities)
    if dim == 1:
        assert found == pytest.approx(exact, rel=1e-4)
    else:
        assert exact <= found <= 1.3 * exact
    assert len(set(comm.allgather(found))) == 1


def test_a_bent_potential_and_a_push_cost_more(comm: MPI.Comm) -> None:
    """(α + M)/2 w² + √p w."""
    potential, densities = arrived(comm, Gaussian(0.0, std=0.5), Gaussian(0.2, std=0.5))
    plain = missing_cost(comm, potential, 2.0, 0.0, densities)
    space = potential.space
    for bend, more in ((3.0, 1.5), (-3.0, 0.0)):
        bent = SplineFunction(
            space, space.interpolate(Jets(np.zeros(()), np.zeros(1), np.full((1, 1), bend)), np.zeros(1))
        )
        assert missing_cost(comm, bent, 2.0, 0.0, densities) == pytest.approx((1.0 + more) * plain, rel=1e-9)
    pushed = missing_cost(comm, potential, 2.0, 0.09, densities)
    assert pushed == pytest.approx(plain + 0.3 * np.sqrt(plain), rel=1e-9)


def two(x: Floats) -> Floats:
    return np.asarray(np.exp(-8.0 * (x + 1.0) ** 2) + 2.0 * np.exp(-20.0 * (x - 0.8) ** 2))


def test_a_torn_density_on_a_line(comm: MPI.Comm) -> None:
    """Where the densities have gaps no weighted norm would do."""
    potential, densities = arrived(comm, Gaussian(0.0, std=0.3), Gaussian(0.0, std=0.3))
    wanted = two(densities.x[:, 0])
    total = comm.allreduce(float(densities.volumes @ wanted))
    torn = Arrived(
        densities.z, densities.masses, densities.x, densities.volumes, densities.arrived, wanted / total, torn=True
    )
    exact = on_a_line(2.0, -3.0, 3.0, lambda x: Gaussian(0.0, std=0.3).values(x[:, None]), two)
    assert missing_cost(comm, potential, 2.0, 0.0, torn) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("shift", [0.1, 0.2])
def test_a_coupling_costs_no_less_than_the_best(comm: MPI.Comm, shift: float) -> None:
    """And little more, but for what points stand for: 0.05 wide pieces, in halves of halves."""
    start, goal = Gaussian([0.1, -0.2], std=0.5), Gaussian([0.1 + shift, 0.0], std=[0.5 + shift, 0.4])
    exact = transport(2.0, start, goal)
    potential, densities = arrived(comm, start, goal, torn=True)
    found = missing_cost(comm, potential, 2.0, 0.0, densities)
    assert exact <= found <= 1.2 * exact + 0.05**2
    assert len(set(comm.allgather(found))) == 1
