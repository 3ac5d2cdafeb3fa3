"""Brackets of the continuous problem: exact values lie inside, whatever the mesh; what is said of them is true."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from exact_values import boxes, divergence, on_a_line, squared_distance_on_a_line, transport
from paths import MESHES

import eulerian
from eulerian.app.build.mesh import create_mesh
from eulerian.app.config import Domain
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.bounds.continuous import ContinuousBounds
from eulerian.density.shapes import Formula, Gaussian, Uniform
from eulerian.density.space import DensitySpace
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.create import box_mesh
from eulerian.objective.distances import FixedDensity, KullbackLeibler, SquaredDistance
from eulerian.objective.losses import LogisticLoss, QuadraticLoss


def inside(bounds: ContinuousBounds, exact: float, slack: float = 1e-6) -> None:
    """The exact value is in the bracket, up to what the walls cut off the densities' tails."""
    assert bounds.lower - bounds.error - slack * abs(exact) <= exact
    assert exact <= bounds.upper + bounds.error + slack * abs(exact)
    assert bounds.lower <= bounds.upper + bounds.error


# -- losses: Hopf–Lax ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """A problem on a line whose value is known to all digits."""

    loss: Any
    start: Any
    kinetic: float
    horizon: float
    exact: float
    labels: int = 1


HALVES = {y: Formula(f"exp(-x**2/2)*heaviside({'-x' if y == 0 else 'x'})") for y in range(2)}
WIDE = Gaussian(0.25, std=0.8)
LOSSES = {
    "Q1a": Loss(QuadraticLoss(np.array([1.3]), 2.0), Gaussian(-0.4, std=0.6), 0.7, 1.5, 0.614864864865),
    "Q2": Loss("0.8*x", Gaussian(-0.4, std=0.6), 0.7, 1.5, -0.32 - 1.5 * 0.64 / 1.4),
    "W1": Loss("1.5*min((x - 1.2)**2, (x + 1.2)**2)", WIDE, 0.7, 1.5, 0.108304028949),
    "W2 kink": Loss("(x**2 - 1)**2/4", WIDE, 0.7, 1.5, 0.0670953218169),
    "W2": Loss("(x**2 - 1)**2/4", WIDE, 2.0, 1.0, 0.139699239381),
    "C1": Loss(LogisticLoss(np.array([1.0]), 0.0), HALVES, 0.7, 1.5, 0.320731684268, 2),
}


@pytest.mark.parametrize("case", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("cells", [16, 40])
def test_losses(comm: MPI.Comm, case: Loss, cells: int) -> None:
    space = DensitySpace(box_mesh([-8.0], [8.0], [cells], comm), 1, case.labels)
    bounds = eulerian.continuous_bounds(IdealProblem(space, case.start, case.loss, case.kinetic, case.horizon))
    assert (bounds.origin, bounds.is_bound, bounds.reason) == ("hopf_lax", True, "")
    assert bounds.hopf_lax is not None
    inside(bounds, case.exact, 1e-10)
    assert bounds.lower == bounds.upper == pytest.approx(case.exact, rel=1e-8)


def test_a_loss_in_the_plane(comm: MPI.Comm) -> None:
    """Q1b."""
    space = DensitySpace(box_mesh([-3.5, -2.7], [2.5, 3.3], [12, 12], comm), 1)
    loss, start = QuadraticLoss(np.array([1.0, -0.5]), 1.0), Gaussian([-0.5, 0.3], std=0.5)
    inside(eulerian.continuous_bounds(IdealProblem(space, start, loss, 0.5)), 0.565, 1e-7)


# -- targets: transforms ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A problem with a target density whose value is known."""

    distance: Callable[[Any], Any]
    start: Any
    goal: Any
    alpha: float
    exact: float
    box: tuple[list[float], list[float], list[int]]
    width: float = 1e-4
    error: float = 1e-4


def turned(first: float, second: float, angle: float) -> Floats:
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(axes @ np.diag([first**2, second**2]) @ axes.T)


def mixture(x: Floats) -> Floats:
    return np.asarray(np.exp(-2.0 * (x + 1.5) ** 2) + 2.0 * np.exp(-8.0 * (x - 1.5) ** 2))


LINE, OFF = ([-4.0], [4.0], [16]), ([90.0], [106.0], [24])
PLANE, LONG = ([-3.0, -3.0], [3.0, 3.0], [16, 16]), ([-3.0, -20.0], [3.0, 20.0], [4, 24])
G, P = Gaussian(-0.4, std=0.4), Gaussian([-0.5, 0.3], std=[0.4, 0.2])
P1 = Gaussian([0.8, -0.5], std=[0.2, 0.35])
TURNED, TURNED1 = Gaussian([-0.5, 0.3], turned(0.4, 0.2, 0.6)), Gaussian([0.4, 0.2], turned(0.25, 0.3, 0.6))
BOX, BOX1 = ([-2.1, -1.3], [0.4, 0.3]), ([-0.7, -1.1], [2.2, 1.9])
TWO = [Gaussian(-1.5, std=0.5), Gaussian(1.5, std=0.25)]


def box(corners: tuple[list[float], list[float]]) -> tuple[Floats, Floats]:
    return np.array(corners[0]), np.array(corners[1])


def kl(start: Gaussian, goal: Gaussian, alpha: float, where: tuple[list[float], list[float], list[int]]) -> Target:
    return Target(KullbackLeibler, start, goal, alpha, divergence(alpha, start, goal), where)


def fixed(start: Gaussian, goal: Gaussian, alpha: float, where: tuple[list[float], list[float], list[int]]) -> Target:
    return Target(FixedDensity, start, goal, alpha, transport(alpha, start, goal), where)


TARGETS = {
    "kl": kl(G, Gaussian(0.8, std=0.3), 0.467, LINE),
    "kl stiff": kl(G, Gaussian(0.8, std=0.3), 300.0, LINE),
    "kl soft": kl(G, Gaussian(0.8, std=0.3), 1e-3, LINE),
    "kl far away": kl(Gaussian(95.0, std=0.7), Gaussian(101.0, std=0.3), 2.0, OFF),
    "kl narrow": kl(Gaussian(-2.5, std=0.05), Gaussian(2.5, std=0.05), 0.3, ([-4.0], [4.0], [4])),
    "kl in the plane": kl(P, P1, 0.5, PLANE),
    "kl turned": kl(TURNED, TURNED1, 0.5, PLANE),
    "kl in a long box": kl(P, Gaussian([0.5, 3.0], std=[0.2, 0.3]), 0.05, LONG),
    "fixed": fixed(G, Gaussian(0.8, std=0.3), 0.467, LINE),
    "fixed narrow": fixed(Gaussian(-2.5, std=0.05), Gaussian(2.0, std=0.2), 30.0, ([-4.0], [4.0], [4])),
    "fixed in the plane": fixed(P, P1, 0.5, PLANE),
    "fixed turned": fixed(TURNED, TURNED1, 0.5, PLANE),
    "boxes": Target(
        FixedDensity,
        Uniform(-2.1, 0.4),
        Uniform(0.7, 1.2),
        0.8,
        boxes(0.8, box(([-2.1], [0.4])), box(([0.7], [1.2]))),
        LINE,
        1e-2,
        1e-2,
    ),
    "boxes in the plane": Target(
        FixedDensity,
        Uniform(*BOX),
        Uniform(*BOX1),
        0.8,
        boxes(0.8, box(BOX), box(BOX1)),
        ([-3.0, -3.0], [3.0, 3.0], [4, 4]),
        2e-2,
        2e-2,
    ),
    "two hills": Target(
        FixedDensity,
        G,
        TWO,
        0.5,
        on_a_line(0.5, -4.0, 4.0, lambda x: G.values(x[:, None]), mixture),
        LINE,
        6e-2,  # a map that tears
    ),
    "hills are joined": Target(
        FixedDensity, TWO, G, 0.5, on_a_line(0.5, -4.0, 4.0, lambda x: G.values(x[:, None]), mixture), LINE, 3e-2
    ),
    "l2": Target(
        SquaredDistance,
        Gaussian(-0.4, std=0.5),
        Gaussian(0.8, std=0.4),
        0.467,
        squared_distance_on_a_line(0.467, -4.0, 4.0, Gaussian(-0.4, std=0.5), Gaussian(0.8, std=0.4), 200),
        LINE,
        3e-2,
    ),
}


def target_problem(comm: MPI.Comm, case: Target) -> IdealProblem:
    space = DensitySpace(box_mesh(*case.box, comm), 1)
    return IdealProblem(space, case.start, case.distance(case.goal), 1.7 * case.alpha, 1.7)


@pytest.mark.two_ranks
@pytest.mark.parametrize("case", TARGETS.values(), ids=TARGETS)
def test_targets(comm: MPI.Comm, case: Target) -> None:
    bounds = eulerian.continuous_bounds(target_problem(comm, case))
    assert (bounds.origin, bounds.is_bound, bounds.reason) == ("transform", True, "")
    inside(bounds, case.exact, 5e-4 if case.distance is SquaredDistance else 2e-5)  # an upper bound is the reference
    assert bounds.error <= case.error * case.exact
    assert bounds.upper - bounds.lower <= case.width * case.exact
    assert len(set(comm.allgather((bounds.lower, bounds.upper, bounds.error)))) == 1


@pytest.mark.parametrize("name", ["kl", "kl turned", "boxes", "two hills"])
def test_the_same_on_any_number_of_ranks(comm: MPI.Comm, name: str) -> None:
    here, alone = (eulerian.continuous_bounds(target_problem(ranks, TARGETS[name])) for ranks in (comm, MPI.COMM_SELF))
    assert here.lower == pytest.approx(alone.lower, rel=1e-6)
    assert here.upper == pytest.approx(alone.upper, rel=1e-5)


@pytest.mark.two_ranks
@pytest.mark.parametrize("distance", [KullbackLeibler, FixedDensity])
def test_labels_of_unequal_masses(comm: MPI.Comm, distance: Any) -> None:
    """Each has a problem of its own, with its share of the costs."""
    space, masses = DensitySpace(box_mesh([-4.0], [4.0], [20], comm), 1, 3), np.array([0.1, 0.65, 0.25])
    starts = {0: Gaussian(-1.0, std=0.3), 1: Gaussian(0.0, std=0.4), 2: Gaussian(1.0, std=0.2)}
    goals = {0: Gaussian(0.5, std=0.4), 1: Gaussian(0.3, std=0.2), 2: Gaussian(-1.2, std=0.3)}
    start, goal = (space.project(shapes, masses=masses) for shapes in (starts, goals))
    one = divergence if distance is KullbackLeibler else transport
    exact = sum(masses[y] * one(0.4, starts[y], goals[y]) for y in range(3))
    bounds = eulerian.continuous_bounds(IdealProblem(space, start, distance(goal), 0.4))
    inside(bounds, exact)
    assert bounds.upper - bounds.lower <= 1e-3 * exact


@pytest.mark.two_ranks
@pytest.mark.parametrize("distance", [KullbackLeibler, FixedDensity])
def test_on_a_disk(comm: MPI.Comm, distance: Any) -> None:
    space = DensitySpace(create_mesh(comm, Domain(file=str(MESHES / "disk.msh"))), 0)
    start, goal = Gaussian([-0.3, 0.2], std=0.08), Gaussian([0.2, -0.3], std=[0.1, 0.06])
    exact = (divergence if distance is KullbackLeibler else transport)(2.0, start, goal)
    bounds = eulerian.continuous_bounds(IdealProblem(space, start, distance(goal), 2.0))
    inside(bounds, exact)
    assert bounds.upper - bounds.lower <= 1e-3 * exact


def test_nothing_to_do(comm: MPI.Comm) -> None:
    """The value is 0, and no share of it is an error."""
    space = DensitySpace(box_mesh([-4.0], [4.0], [32], comm), 1)
    bounds = eulerian.continuous_bounds(IdealProblem(space, G, KullbackLeibler(G), 0.5))
    assert bounds.lower == pytest.approx(0.0, abs=1e-8)
    assert -1e-8 <= bounds.upper <= 1e-5


# -- estimates: the convex solver ------------------------------------------------------------------------------------

SETTINGS: Any = {"gap_tolerance": 5e-3, "residual_tolerance": 1e-3}


def test_running_costs_are_estimated(comm: MPI.Comm) -> None:
    """With a potential that is constant the value is that without it, plus a constant."""
    space = DensitySpace(box_mesh([-4.0], [4.0], [64], comm), 1)
    loss, start = QuadraticLoss(np.array([1.3]), 2.0), Gaussian(-0.4, std=0.6)
    bounds = eulerian.continuous_bounds(IdealProblem(space, start, loss, 0.7, 1.5, potential="0.2"), **SETTINGS)
    assert (bounds.origin, bounds.is_bound) == ("convex", False)
    assert "running costs" in bounds.reason
    assert bounds.upper == math.inf
    assert abs(bounds.lower - 0.614864864865 - 0.3) <= bounds.error <= 0.05
    assert "an estimate of lower ≤ J* ≤ upper: " in bounds.statement
    assert "… unknown ± " in bounds.statement
    assert bounds.document["upper"] is None


def test_where_there_is_no_second_mesh(comm: MPI.Comm) -> None:
    space = DensitySpace(box_mesh([-4.0], [4.0], [40], comm), 1)
    known = space.project(Gaussian(-0.4, std=0.6)).coefficients
    bounds = eulerian.continuous_bounds(IdealProblem(space, known, "x**2", 0.7, 1.5, 8, potential="x"), **SETTINGS)
    assert math.isnan(bounds.error)
    assert "running costs of the density" in bounds.reason
    assert "; there is no second mesh: is known on one mesh only" in bounds.reason
    assert ", of unknown error (" in bounds.statement
    assert bounds.document["error"] is None


def test_without_kinetic_energy(comm: MPI.Comm) -> None:
    space = DensitySpace(box_mesh([-4.0], [4.0], [20], comm), 1)
    with pytest.raises(InputError) as caught:
        eulerian.continuous_bounds(IdealProblem(space, G, KullbackLeibler(Gaussian(0.4, std=0.4)), 0.0))
    assert caught.value.key == "kinetic"
