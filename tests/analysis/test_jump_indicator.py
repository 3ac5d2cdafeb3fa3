"""Jumps of densities: their integral where it is known, nothing where there are none, and the same on any cut."""

from mpi4py import MPI

import numpy as np
import pytest
from problems import control_problem, projected, random_density, theta_with_layers, warped_mesh

from eulerian.analysis.jump_indicator import jump_indicator, summed_jumps
from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Box, Domain
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.mesh.cell_order import CellOrder


def sloping(space: DensitySpace, slope: float) -> Floats:
    rule = space.quadrature(6)
    return projected(space, 2.0 + slope * rule.points.sum(axis=2)[..., None], rule)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_what_the_space_holds_has_no_jumps(comm: MPI.Comm, dim: int) -> None:
    mesh = warped_mesh(comm, dim)
    for degree in (1, 2):
        space = DensitySpace(mesh, degree)
        assert np.max(summed_jumps(space, [sloping(space, 0.4)]), initial=0.0) <= 1e-12
    space = DensitySpace(mesh, 0)
    assert np.max(summed_jumps(space, [sloping(space, 0.0)]), initial=0.0) <= 1e-12
    assert comm.allreduce(float(np.max(summed_jumps(space, [sloping(space, 0.4)]), initial=0.0)), MPI.MAX) > 1e-3


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_step_is_counted_with_its_facet_from_both_sides(comm: MPI.Comm, dim: int) -> None:
    """ρ jumps by a at x = 0 from left to right: Σ_K ∫_∂K |[ρ]| is twice a times the area of that wall."""
    box = Box(lower=(-1.0,) * dim, upper=(1.0,) * dim, cells=(4,) * dim)
    space = DensitySpace(create_mesh(comm, Domain(box=box)), 1)
    rho = space.zeros()
    rho[:, 0, 0] = np.where(space.geometry.vertices.mean(axis=1)[:, 0] > 0.0, 3.0, 1.0) / space.phi0
    height = 0.5 * np.sqrt(dim)  # of every cell
    jumps = parallel.sum_all(comm, np.array([summed_jumps(space, [rho]).sum()]))[0] / height
    mass = 4.0 * 2.0 ** (dim - 1)
    assert jumps * mass == pytest.approx(2.0 * 2.0 * 2.0 ** (dim - 1), rel=1e-12)


def test_densities_add_up_and_labels_weigh_the_same(comm: MPI.Comm) -> None:
    mesh = warped_mesh(comm, 2)
    one, two = DensitySpace(mesh, 1), DensitySpace(mesh, 1, 2)
    rho = random_density(one, 1, 3)
    both = np.concatenate([rho, 5.0 * rho], axis=2)
    single = summed_jumps(one, [rho])
    assert summed_jumps(one, [rho, 2.0 * rho]) == pytest.approx(2.0 * single, rel=1e-12)
    assert summed_jumps(two, [both]) == pytest.approx(2.0 * single, rel=1e-12)


def test_it_does_not_ask_how_the_mesh_is_cut(comm: MPI.Comm) -> None:
    alone, shared = (control_problem(each, 2, 1, "two labels") for each in (MPI.COMM_SELF, comm))
    theta = theta_with_layers(alone)
    found = []
    for problem in (alone, shared):
        problem.value(theta)
        found.append(CellOrder(problem.density_space.mesh).gather(jump_indicator(problem)))
    if comm.rank == 0:
        assert found[0] is not None
        assert found[1] == pytest.approx(found[0], rel=1e-10)
        assert found[0].min() >= 0.0
