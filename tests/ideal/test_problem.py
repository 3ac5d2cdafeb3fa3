"""The idealised problem as Python makes it, without a configuration: what it takes, and what it refuses."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from thinning import thinned

import eulerian
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.shapes import Gaussian
from eulerian.density.space import DensitySpace
from eulerian.fields import Affine
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import box_mesh
from eulerian.objective.costs import Costs
from eulerian.objective.distances import FixedDensity, KullbackLeibler, SquaredDistance
from eulerian.objective.losses import QuadraticLoss
from eulerian.transport.trajectory import TimeGrid

# Q1a: the exact value of the idealised problem is 0.614864864865.
LAMBDA, HORIZON, EXACT = 0.7, 1.5, 0.614864864865
START, LOSS, FORMULA = Gaussian(-0.4, std=0.6), QuadraticLoss(np.array([1.3]), 2.0), "(x - 1.3)**2"


def line(comm: MPI.Comm, labels: int = 1, cells: int = 120) -> DensitySpace:
    return DensitySpace(box_mesh([-4.0], [4.0], [cells], comm=comm), 2, labels)


def squares(x: Floats) -> Floats:
    return np.asarray((x[:, 0] - 1.3) ** 2)


@pytest.mark.parametrize("loss", thinned([LOSS, FORMULA, squares], [FORMULA]), ids=["loss", "formula", "function"])
@pytest.mark.parametrize("projected", thinned([True, False], {True, False}, {True}))
def test_the_exact_value_brackets(comm: MPI.Comm, loss: Any, projected: bool) -> None:
    space = line(comm)
    rho0 = space.project(START) if projected else START
    problem = eulerian.IdealProblem(space, rho0, loss, LAMBDA, HORIZON)
    assert eulerian.hopf_lax(problem).value == pytest.approx(EXACT, rel=1e-5)
    solution = eulerian.solve_convex(problem, gap_tolerance=1e-2)
    assert 0.98 * EXACT < solution.dual < solution.primal < 1.02 * EXACT


@pytest.mark.two_ranks
@pytest.mark.parametrize("distance", [KullbackLeibler, SquaredDistance, FixedDensity])
def test_targets_are_shapes(comm: MPI.Comm, distance: Any) -> None:
    problem = IdealProblem(line(comm, cells=40), START, distance(Gaussian(0.4, std=0.6)), 0.7, 1.5, 8)
    assert problem.functional.is_constraint is (distance is FixedDensity)
    solution = eulerian.solve_convex(problem, gap_tolerance=2e-2, residual_tolerance=1e-3)
    assert solution.status == "converged"
    if distance is FixedDensity:  # all of it moves by 0.8
        assert solution.primal == pytest.approx(0.7 / 1.5 / 2 * 0.64, rel=0.03)


def test_a_certificate_of_a_problem_without_configuration(comm: MPI.Comm) -> None:
    costs, time = Costs(kinetic=LAMBDA, parameters=0.1), TimeGrid(HORIZON, 4)
    problem = eulerian.ControlProblem(line(comm, cells=40), Affine(1), START, LOSS, costs, time)
    found = eulerian.certify(problem, np.tile([-0.3, 0.9], (4, 1)))
    assert found.bound == "hopf_lax"
    assert found.ideal == pytest.approx(EXACT, rel=1e-4)
    parts = problem.parts
    assert found.gap == pytest.approx(parts["terminal"] + parts["kinetic"] - EXACT, rel=1e-3)


def test_labels(comm: MPI.Comm) -> None:
    space = line(comm, 2)
    rho0 = space.project({0: START, 1: Gaussian(0.4, std=0.6)}, masses=[1.0, 3.0])
    problem = IdealProblem(space, rho0, lambda x, label: (x[:, 0] - (1.3, -1.3)[label]) ** 2, LAMBDA, HORIZON)
    assert problem.functional.tells_labels_apart(space)
    assert eulerian.hopf_lax(problem).value == pytest.approx(EXACT, rel=1e-5)  # the same ways, mirrored


@pytest.mark.parametrize(
    ("numbers", "key"),
    [
        ({"kinetic": -1.0}, "kinetic"),
        ({"horizon": 0.0}, "horizon"),
        ({"slabs": 0}, "slabs"),
        ({"congestion": -0.1}, "congestion"),
        ({"entropy": np.nan}, "entropy"),
        ({"potential": "x + y"}, "potential"),
        ({"potential": 3.0}, "potential"),
        ({"terminal": 3.0}, "terminal"),
        ({"terminal": QuadraticLoss(np.zeros(2))}, "terminal.target"),
        ({"rho0": 3.0}, "rho0"),
    ],
)
def test_what_does_not_fit(comm: MPI.Comm, numbers: dict[str, Any], key: str) -> None:
    good: dict[str, Any] = {"rho0": START, "terminal": LOSS, "kinetic": LAMBDA}
    with pytest.raises(InputError) as refused:
        IdealProblem(line(comm, cells=8), **good | numbers)
    assert refused.value.key == key
