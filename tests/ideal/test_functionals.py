"""Terminal functionals and their conjugates: Fenchel pairs, proximal maps, best shifts, what is refused."""

from collections.abc import Callable

from mpi4py import MPI

import numpy as np
import pytest
import scipy.optimize
from discrete import discretise, everywhere
from problems import random_density, warped_mesh

from eulerian.app.build.network import build_ideal
from eulerian.app.config import parse_config
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.shapes import Formula
from eulerian.density.space import DensitySpace
from eulerian.ideal.functionals import (
    FixedFunctional,
    Functional,
    KullbackLeiblerFunctional,
    LinearFunctional,
    SquaredDistanceFunctional,
    functional_of,
)
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.vertex_functionals import VertexFunctional
from eulerian.objective.losses import CrossEntropyLoss, FormulaLoss, QuadraticLoss
from eulerian.objective.terminal import KullbackLeiblerLoss, LinearLoss, SquaredDistanceLoss

KINDS = ("linear", "kl", "l2")


def make(comm: MPI.Comm, kind: str, dim: int = 2) -> tuple[SpaceTime, VertexFunctional, Floats]:
    """A functional of a density that is empty in places, and ℓ or ρ* at the vertices."""
    space = DensitySpace(warped_mesh(comm, dim), 0)
    grid = SpaceTime(space, 2, 1.0)
    if kind == "linear":
        functional: Functional = LinearFunctional(lambda x: np.sin(3.0 * x[:, :1]) + x[:, -1:])
        return (
            grid,
            functional.at_vertices(grid, 0, grid.masses),
            grid.of_owners(np.sin(3.0 * grid.x[:, 0]) + grid.x[:, -1]),
        )
    rho = random_density(space, 1, 5)
    # a half of the domain is empty, vertices included
    rho[np.abs(space.geometry.vertices.mean(axis=1)[:, 0] + 0.4) < 0.45] = 0.0
    functional = {"kl": KullbackLeiblerFunctional, "l2": SquaredDistanceFunctional}[kind](rho)
    target = grid.load(rho, 0) / grid.masses
    assert 0.05 * len(target) < np.sum(target == 0.0) < 0.95 * len(target) or comm.size > 1
    return grid, functional.at_vertices(grid, 0, grid.masses), target


def vertex_noise(grid: SpaceTime, seed: int, low: float = -1.0, high: float = 1.0) -> Floats:
    """Uniform numbers at the vertices, by their global numbers."""
    return np.asarray(np.random.default_rng(seed).uniform(low, high, grid.n_global)[grid.numbers])


def formulas(kind: str, data: Floats, delta: float) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    """f and the maximiser of w ρ − f(ρ), vertex by vertex, written out."""
    if kind == "l2":
        return lambda rho: 0.5 * (rho - data) ** 2, lambda w: np.maximum(w + data, 0.0)

    def divergence(rho: Floats) -> Floats:
        return np.asarray((rho + delta) * np.log((rho + delta) / (data + delta)) - rho + data)

    return divergence, lambda w: np.maximum((data + delta) * np.exp(w) - delta, 0.0)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["kl", "l2"])
def test_young(comm: MPI.Comm, kind: str, dim: int) -> None:
    grid, functional, data = make(comm, kind, dim)
    f, best = formulas(kind, data, grid.space.floor)
    masses = everywhere(grid, grid.masses)
    for seed in range(3):
        w = vertex_noise(grid, seed, -2.0, 2.0)
        at_best = best(w)
        assert functional.value(at_best) == pytest.approx(float(masses @ everywhere(grid, f(at_best))), rel=1e-12)
        equal = grid.integrate(w * at_best) - functional.value(at_best)
        assert functional.conjugate(w) == pytest.approx(equal, rel=1e-11)
        for other in range(5):
            rho = at_best * (1.0 + 0.5 * vertex_noise(grid, 10 + other))
            assert grid.integrate(w * rho) - functional.value(rho) <= functional.conjugate(w) + 1e-12
            rho = rho + vertex_noise(grid, 20 + other, 0.0, 0.3)  # also where the target is empty
            assert grid.integrate(w * rho) - functional.value(rho) <= functional.conjugate(w) + 1e-12


def test_young_of_a_loss(comm: MPI.Comm) -> None:
    grid, functional, loss = make(comm, "linear")
    rho = vertex_noise(grid, 1, 0.0, 1.0)
    below = loss - vertex_noise(grid, 2, 0.0, 1.0)
    assert functional.value(rho) == pytest.approx(grid.integrate(loss * rho), rel=1e-14)
    assert functional.conjugate(below) == 0.0
    assert grid.integrate(below * rho) <= functional.value(rho)
    assert functional.conjugate(loss) == pytest.approx(grid.integrate(loss * rho) - functional.value(rho), abs=1e-13)


def test_mass_outside_of_the_target_is_dear(comm: MPI.Comm) -> None:
    grid, functional, target = make(comm, "kl")
    delta = grid.space.floor
    assert functional.value(target) == pytest.approx(0.0, abs=1e-14)
    nothing = grid.integrate(target + delta * np.log(delta / (target + delta)))
    assert functional.value(np.zeros_like(target)) == pytest.approx(nothing, rel=1e-12)
    empty = target == 0.0
    more = functional.value(target + 0.1 * empty) / grid.integrate(0.1 * empty)
    assert more == pytest.approx((1.0 + 10.0 * delta) * np.log1p(0.1 / delta) - 1.0, rel=1e-12)
    # Below the logarithm of the floor nothing is charged: F* levels off at -F(0).
    least = np.log(delta / (target + delta))
    for below in (0.0, 1.0, 700.0):
        assert functional.conjugate(least - below) == pytest.approx(-nothing, rel=1e-9)


@pytest.mark.parametrize("kind", ["kl", "l2"])
def test_what_is_trained_is_what_the_bound_is_for(comm: MPI.Comm, kind: str) -> None:
    """The functionals of densities on meshes and at vertices agree on densities that are constant."""
    space = DensitySpace(warped_mesh(comm, 2), 1)
    grid = SpaceTime(space, 2, 1.0)
    rho = space.project(Formula("1")).coefficients
    for factor in (0.0, 0.3, 1.7):
        target = factor * rho
        on_mesh = {"kl": KullbackLeiblerLoss, "l2": SquaredDistanceLoss}[kind](space, target)
        functional = {"kl": KullbackLeiblerFunctional, "l2": SquaredDistanceFunctional}[kind](target).at_vertices(
            grid, 0, grid.masses
        )
        value = on_mesh.evaluate(rho, np.zeros(0)).value
        assert functional.value(grid.load(rho, 0) / grid.masses) == pytest.approx(value, rel=1e-10)
        assert value > 1e-3


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_proximal_map(comm: MPI.Comm, kind: str, scale: float) -> None:
    # weight (z − w) is a density that w charges: the maximiser of wρ − f(ρ).
    grid, functional, data = make(comm, kind)
    weight = scale * vertex_noise(grid, 1, 0.5, 2.0)
    z = vertex_noise(grid, 2, -3.0, 3.0)
    w = functional.proximal(z, weight)
    rho = weight * (z - w)
    if kind == "linear":
        assert np.all(w <= data)
        assert np.all(rho >= 0.0)
        assert np.all((rho == 0.0) | (w == data))
        return
    expected = formulas(kind, data, grid.space.floor)[1](w)
    np.testing.assert_allclose(rho, expected, rtol=1e-9, atol=1e-14 * (1.0 + scale) * 10.0)


@pytest.mark.parametrize("kind", KINDS)
def test_moreau(comm: MPI.Comm, kind: str) -> None:
    """The distance of z to the proximal point, as a density, minimises f + weight/2 (ρ/weight - z)²."""
    grid, functional, data = make(comm, kind, 1)
    weight, z = vertex_noise(grid, 1, 0.5, 2.0), vertex_noise(grid, 2, -3.0, 3.0)
    best = weight * (z - functional.proximal(z, weight))
    f = (lambda rho: data * rho) if kind == "linear" else formulas(kind, data, grid.space.floor)[0]

    def cost(rho: Floats) -> Floats:
        return f(rho) + 0.5 * weight * (rho / weight - z) ** 2

    for rho in np.linspace(0.0, 8.0, 2001):
        assert np.all(cost(np.full_like(best, rho)) >= cost(np.maximum(best, 0.0)) - 1e-12)
    assert np.min(best, initial=0.0) >= -1e-13


@pytest.mark.parametrize("mass", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("kind", KINDS)
def test_shift_is_the_best_constant(comm: MPI.Comm, kind: str, mass: float) -> None:
    grid, functional, data = make(comm, kind)
    w = vertex_noise(grid, 3, -1.0, 1.0)
    c = functional.shift(w, mass)
    if kind == "linear":  # the least that makes w ≤ ℓ
        assert grid.max(w - c - data) == pytest.approx(0.0, abs=1e-14)
        return

    def loss(constant: float) -> float:
        return constant * mass + functional.conjugate(w - constant)

    wanted = formulas(kind, data, grid.space.floor)[1](w - c)
    assert grid.integrate(wanted) == pytest.approx(mass, rel=1e-10)
    for step in (1e-3, 0.1, 1.0):
        assert min(loss(c - step), loss(c + step)) >= loss(c) - 1e-12 * abs(loss(c))


def test_shift_of_large_potentials(comm: MPI.Comm) -> None:
    for kind in ("kl", "l2"):
        grid, functional, data = make(comm, kind)
        w = 1e4 * vertex_noise(grid, 3) + 1e6
        c = functional.shift(w, 1.0)
        assert grid.integrate(formulas(kind, data, grid.space.floor)[1](w - c)) == pytest.approx(1.0, rel=1e-6)


def test_shift_is_where_another_search_finds_it(comm: MPI.Comm) -> None:
    grid, functional, _ = make(comm, "l2", 1)
    w = vertex_noise(grid, 4)
    found = scipy.optimize.minimize_scalar(lambda c: 0.3 * c + functional.conjugate(w - c), bounds=(-5.0, 5.0))
    assert functional.shift(w, 0.3) == pytest.approx(found.x, abs=1e-4)


# -- of what a problem is asked to make small --------------------------------------------------------------------------


def test_of_functionals_on_the_mesh(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 2)
    target = random_density(space, 2, 3)
    for on_mesh, kind in (
        (KullbackLeiblerLoss, KullbackLeiblerFunctional),
        (SquaredDistanceLoss, SquaredDistanceFunctional),
    ):
        functional = functional_of(on_mesh(space, target), space)
        assert type(functional) is kind
        assert functional.target is target
        assert functional.loss is None
        assert not functional.is_constraint
    fixed = FixedFunctional(target)
    assert functional_of(fixed, space) is fixed
    assert fixed.is_constraint


def test_of_losses(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 2)
    grid, loss = SpaceTime(space, 2, 1.0), QuadraticLoss(np.array([[0.1, 0.2], [0.3, 0.4]]), 3.0)
    for terminal in (loss, LinearLoss(space, loss)):
        linear = functional_of(terminal, space)
        assert linear.loss is not None
        assert linear.point_loss is not None
        np.testing.assert_array_equal(linear.point_loss.goals, loss.targets)
        assert linear.target is None
        x = np.array([[0.5, -0.5]])
        np.testing.assert_allclose(linear.loss(x), [[1.5 * (0.16 + 0.49), 1.5 * (0.04 + 0.81)]], rtol=1e-14)
        for y in range(2):
            rho = vertex_noise(grid, y, 0.0, 1.0)
            value = linear.at_vertices(grid, y, grid.masses).value(rho)
            assert value == pytest.approx(grid.integrate(linear.loss(grid.x)[:, y] * rho), rel=1e-13)


def test_which_functionals_tell_labels_apart(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 2)
    for targets, apart in (([[0.1, 0.2], [0.3, 0.4]], True), ([[0.1, 0.2], [0.1, 0.2]], False)):
        assert functional_of(QuadraticLoss(np.array(targets), 1.0), space).tells_labels_apart(space) is apart
    assert FixedFunctional(space.zeros()).tells_labels_apart(space)


def test_what_is_refused(comm: MPI.Comm) -> None:
    space = DensitySpace(warped_mesh(comm, 2), 1, 2)
    trained = CrossEntropyLoss(np.eye(2), np.zeros(2), trained=True)
    with pytest.raises(InputError, match="not trained"):
        functional_of(trained, space)
    assert functional_of(trained, space, np.arange(6.0)).loss is not None
    with pytest.raises(InputError, match="not finite"):
        functional_of(FormulaLoss("log(x)"), space)
    with pytest.raises(InputError, match="nothing that can be a terminal cost"):
        functional_of(3.0, space)


def build_with(comm: MPI.Comm, kind: str, *terms: str) -> None:
    text = f"""
[domain]
box = {{ lower = [-1.0], upper = [1.0], cells = [8] }}
[[density.initial]]
kind = "uniform"
lower = [-1.0]
upper = [0.0]
[[density.initial]]
kind = "uniform"
lower = [0.0]
upper = [1.0]
label = 1
[field]
kind = "free"
layers = 2
[objective]
kinetic = 1.0
terminal = {{ kind = "{kind}", target = [{", ".join(terms)}] }}
"""
    build_ideal(parse_config(text, "."), comm)


def test_what_a_configuration_is_refused(comm: MPI.Comm) -> None:
    near = '{kind="gaussian", mean=[0.1], std=0.2}'
    with pytest.raises(InputError, match="has 1 label, but") as refused:
        build_with(comm, "kl", near)
    assert refused.value.key == "objective.terminal.target"
    with pytest.raises(InputError, match="100 % of its mass lies outside") as refused:
        build_with(comm, "fixed", near, '{kind="gaussian", mean=[40.0], std=0.1, label=1}')
    assert refused.value.key == "objective.terminal.target.1"
    with pytest.raises(InputError, match="every label must have the same mass") as refused:
        build_with(comm, "fixed", near, '{kind="gaussian", mean=[0.1], std=0.2, label=1, weight=2.0}')
    assert refused.value.key == "objective.terminal.target"


def test_masses_of_the_vertices_are_those_of_the_hats(comm: MPI.Comm) -> None:
    grid = make(comm, "l2")[0]
    np.testing.assert_allclose(everywhere(grid, grid.masses), discretise(grid).masses, rtol=1e-12)
