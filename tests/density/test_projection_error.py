"""How far a projection is from its density: against brute force, and at the order of the degree."""

from mpi4py import MPI

import numpy as np
import pytest

from eulerian.app.build.mesh import create_mesh
from eulerian.app.build.mixture import density_and_exact
from eulerian.app.config import Box, Domain, GaussianTerm, Term, UniformTerm
from eulerian.base.parallel import sum_all
from eulerian.density.exact_density import projection_errors
from eulerian.density.space import DensitySpace

TERMS: list[Term] = [
    GaussianTerm(mean=(0.1, -0.2), std=0.3),
    GaussianTerm(mean=(0.4, 0.2), std=0.4, label=1, weight=3.0),
]


def total(comm: MPI.Comm, cells: int, degree: int, terms: list[Term], labels: int) -> list[float]:
    box = Box(lower=(-2.0, -2.0), upper=(2.0, 2.0), cells=(cells, cells))
    space = DensitySpace(create_mesh(comm, Domain(box=box)), degree, labels)
    rho, exact = density_and_exact(space, terms)
    errors = projection_errors(space, rho, exact)
    assert errors.min(initial=0.0) >= 0.0
    return [float(each) for each in sum_all(comm, errors.sum(axis=0))]


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_it_falls_at_the_order_of_the_projection(comm: MPI.Comm, degree: int) -> None:
    coarse, fine = (np.array(total(comm, cells, degree, TERMS, 2)) for cells in (24, 48))
    rates = np.log2(coarse / fine)
    assert rates == pytest.approx([degree + 1.0] * 2, abs=0.2)
    assert (fine <= {0: 0.2, 1: 0.02, 2: 0.002}[degree]).all()


def test_it_is_relative_to_the_mass_of_the_label(comm: MPI.Comm) -> None:
    alike: list[Term] = [
        GaussianTerm(mean=(0.1, -0.2), std=0.3, label=label, weight=1.0 + 8.0 * label) for label in (0, 1)
    ]
    small, large = total(comm, 12, 1, alike, 2)
    assert small == pytest.approx(large, rel=1e-12)


def test_a_jump_through_cells_costs_what_brute_force_says(comm: MPI.Comm) -> None:
    """Of a strip, whose edges go through the middles of columns of cells, degree 0 keeps the mean on each triangle."""
    terms: list[Term] = [UniformTerm(lower=(-0.5, -2.0), upper=(0.5, 2.0))]  # ρ = 1/4
    (found,) = total(comm, 12, 0, terms, 1)  # cells of 1/3
    # A triangle of which a share s lies in the strip is off by 2 s (1 − s) ρ times its area; s is 1/4 or 3/4.
    column = 2.0 * 0.25 * 0.75 * 0.25 * (4.0 / 3.0)
    assert found == pytest.approx(2.0 * column, rel=1e-9)
