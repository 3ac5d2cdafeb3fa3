"""The splitting method: a state from potentials and densities, and rates that are gathered along paths."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import warped_mesh
from thinning import thinned

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.ideal.advection import Advection
from eulerian.ideal.inner_product import Metric
from eulerian.ideal.poisson import GatheredMesh
from eulerian.ideal.running_cost import RunningAtVertices
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.splitting import Splitting
from eulerian.ideal.vertex_functionals import FixedAtVertices, LinearAtVertices, VertexFunctional

LAYERS, KINETIC, OMEGA, HORIZON = 6, 0.8, 0.6, 1.3


def make(comm: MPI.Comm, dim: int) -> SpaceTime:
    return SpaceTime(DensitySpace(warped_mesh(comm, dim), 0), LAYERS, HORIZON)


def bump(grid: SpaceTime, centre: float) -> Floats:
    """Loads of a Gaussian of mass one, (n_nodes,)."""
    loads = grid.masses * np.exp(-2.0 * ((grid.x - centre) ** 2).sum(axis=1))
    return loads / grid.total(loads)


def paths(grid: SpaceTime) -> Floats:
    """A smooth potential whose velocity differs from place to place, (n_nodes, L + 1)."""
    first = grid.x[:, :1]
    return 0.1 * np.sin(2.0 * first + grid.times) + 0.05 * (grid.x**2).sum(axis=1)[:, None] * (1.0 + grid.times)


@pytest.mark.parametrize(
    ("dim", "kind"),
    thinned(
        [(dim, kind) for dim in (1, 2, 3) for kind in ("fixed", "loss", "congestion")],
        {(1, "fixed"), (2, "congestion"), (3, "loss")},
    ),
)
def test_it_may_begin_again_from_what_it_found(comm: MPI.Comm, dim: int, kind: str) -> None:
    grid = make(comm, dim)
    functional: VertexFunctional = LinearAtVertices(grid, ((grid.x - 0.3) ** 2).sum(axis=1))
    if kind == "fixed":
        functional = FixedAtVertices(grid, bump(grid, 0.3))
    running = RunningAtVertices(grid, 0.1 * grid.x[:, 0] ** 2, 0.2, 0.0) if kind == "congestion" else None
    gamma = 0.0 if kind == "fixed" else 1.0 / HORIZON
    metric = Metric(grid, KINETIC, OMEGA, gamma, np.exp(0.3 * np.sin(grid.x[:, 0])))
    splitting = Splitting(metric, functional, bump(grid, -0.3), 2.0, running)
    for _ in range(150):
        splitting.step()
    before, found = splitting.checked_step(), splitting.iterate()
    splitting.begin_from(found)
    again = splitting.iterate()
    np.testing.assert_array_equal(again[:, : LAYERS + 1], found[:, : LAYERS + 1])
    missed = grid.integrate(np.abs(again - found)[:, LAYERS + 1 : -1].sum(axis=1) / LAYERS)
    assert missed <= 0.1  # of a mass of one
    for _ in range(5):
        splitting.step()
    after = splitting.checked_step()
    assert after.residual <= 3.0 * before.residual
    assert after.dual == pytest.approx(before.dual, abs=0.1 * abs(before.dual))
    metric.destroy()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_what_is_gathered_backwards_is_what_the_carried_density_meets(comm: MPI.Comm, dim: int) -> None:
    grid = make(comm, dim)
    advection, phi = Advection(grid, GatheredMesh(grid), KINETIC), 0.2 * paths(grid)
    source = grid.masses / grid.volume  # positive everywhere, so that nothing is cut off
    rate = 1.0 + np.cos(3.0 * grid.x[:, :1] + grid.times[1:])
    carried, gathered = advection.carry(phi, source, None), advection.gather_backwards(phi, rate)
    assert carried is not None
    assert gathered is not None
    met = grid.tau * sum(grid.integrate(rate[:, n] * carried[0][:, n]) for n in range(LAYERS))
    assert grid.total(source * gathered[:, 0]) == pytest.approx(met, rel=1e-4)
    assert not gathered[:, -1].any()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_violations_vanish_by_newtons_method(comm: MPI.Comm, dim: int) -> None:
    grid = make(comm, dim)
    metric = Metric(grid, KINETIC, OMEGA, 0.0, np.ones(grid.n_nodes))
    functional = FixedAtVertices(grid, bump(grid, 0.3))
    splitting = Splitting(metric, functional, bump(grid, -0.3), 2.0)
    advection, phi = Advection(grid, GatheredMesh(grid), KINETIC), 0.3 * paths(grid)
    worst = []
    for _ in range(4):
        violation = splitting.violation(phi)
        worst.append(grid.max(violation))
        fall = advection.gather_backwards(phi, violation)
        assert fall is not None
        phi = phi - fall
    assert worst[0] > 5e-3
    assert worst[2] <= 1e-2 * worst[0]
    assert worst[3] <= 0.1 * worst[2]
    metric.destroy()


@pytest.mark.parametrize("congestion", [0.0, 0.02])
def test_running_costs_allow_more(comm: MPI.Comm, congestion: float) -> None:
    grid = make(comm, 1)
    metric = Metric(grid, KINETIC, OMEGA, 0.0, np.ones(grid.n_nodes))
    functional = FixedAtVertices(grid, bump(grid, 0.3))
    plain = Splitting(metric, functional, bump(grid, -0.3), 2.0)
    phi, height = -2.0 * paths(grid), 0.05 * (1.0 + grid.x[:, 0] ** 2)
    running = RunningAtVertices(grid, height, congestion, 0.0)
    priced = Splitting(metric, functional, bump(grid, -0.3), 2.0, running)
    for _ in range(5):
        priced.step()
    allowed = height[:, None] + congestion * priced.density
    positive = priced.violation(phi) > 0.0
    assert grid.max(positive.astype(float)) == 1.0
    np.testing.assert_allclose(priced.violation(phi)[positive], (plain.violation(phi) - allowed)[positive], rtol=1e-12)
    metric.destroy()
