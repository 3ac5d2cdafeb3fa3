"""The bound of a potential against brute force, its gradient by differences, and what climbing makes of it."""

from mpi4py import MPI

import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.bounds.conjugate_gradients import conjugate_gradients
from eulerian.bounds.dual_ascent import DualAscent, Source
from eulerian.bounds.grid_search import LossTable
from eulerian.bounds.splines import SplineSpace
from eulerian.ideal.final_costs import DomainRule, FinalCost, FixedCost, SquaredDistanceCost

pytestmark = pytest.mark.two_ranks  # points are shared out, whatever the mesh is cut into

LOWER, UPPER, SIDE = -1.0, 1.5, {1: 400, 2: 24}
SPACES = {
    1: SplineSpace(np.array([LOWER]), np.array([UPPER]), (6,)),
    2: SplineSpace(np.array([LOWER] * 2), np.array([UPPER] * 2), (4, 3)),
}
ALPHA = 0.9
dims = pytest.mark.parametrize("dim", SPACES)
kinds = pytest.mark.parametrize("kind", ["fixed", "l2"])


def grid(dim: int, count: int) -> Floats:
    axis = LOWER + (np.arange(count) + 0.5) * (UPPER - LOWER) / count
    return np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)


def normal(x: Floats, mean: float, std: float) -> Floats:
    values = np.exp(-np.sum((x - mean) ** 2, axis=1) / (2.0 * std**2))
    return np.asarray(values / values.sum())


def problem(comm: MPI.Comm, dim: int, kind: str) -> DualAscent:
    """With the points dealt out to the ranks, the last one of which has no source."""
    x = grid(dim, SIDE[dim])
    own, sources = x[comm.rank :: comm.size], x[comm.rank :: max(comm.size - 1, 1)]
    if comm.size > 1 and comm.rank == comm.size - 1:
        sources = x[:0]
    volume = (UPPER - LOWER) ** dim / len(x)
    at = {tuple(point): weight for point, weight in zip(x, normal(x, 0.0, 0.3), strict=True)}
    weights = np.array([at[tuple(point)] for point in sources])
    density = normal(x, 0.4, 0.2)[comm.rank :: comm.size] / volume
    rule = DomainRule(own, np.full(len(own), volume), density, 0.0, comm)
    cost: FinalCost = FixedCost(rule, 1.0) if kind == "fixed" else SquaredDistanceCost(rule, 1.0)
    return DualAscent(SPACES[dim], ALPHA, Source(sources, weights), cost, comm)


def some(dim: int, size: float) -> Floats:
    return size * np.random.default_rng(dim).standard_normal(SPACES[dim].size)


@dims
@pytest.mark.parametrize("size", [0.1, 2.0])
def test_the_bound_of_a_potential(dim: int, size: float) -> None:
    """min_z {φ(z) + α/2 |x − z|²} by brute force, for potentials with one minimum and with several."""
    comm = MPI.COMM_SELF
    c, x, space = some(dim, size), grid(dim, SIDE[dim]), SPACES[dim]
    fine = np.linspace(LOWER, UPPER, {1: 20001, 2: 201}[dim])
    z = np.stack(np.meshgrid(*[fine] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    phi = space.design(z).values(c)
    lowest = np.array([np.min(phi + 0.5 * ALPHA * np.sum((point - z) ** 2, axis=1)) for point in x])
    weights, ascent = normal(x, 0.0, 0.3), problem(comm, dim, "fixed")
    value, reached = ascent.evaluate(c)
    goal = normal(x, 0.4, 0.2) @ space.design(x).values(c)
    # The grid's minimum is too high by its spacing squared.
    assert value == pytest.approx(weights @ lowest - goal, abs={1: 1e-7, 2: 5e-3}[dim] * max(size, 1.0))
    assert value <= weights @ lowest - goal + 1e-12
    assert reached.min() >= LOWER
    assert reached.max() <= UPPER


@dims
@kinds
def test_gradient(comm: MPI.Comm, dim: int, kind: str) -> None:
    ascent, c, step = problem(comm, dim, kind), some(dim, 0.1), 1e-5
    now = ascent._evaluate(c, ascent._source.x, 8)
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(len(c))
        ahead, behind = (ascent.evaluate(c + sign * step * direction)[0] for sign in (1, -1))
        assert (ahead - behind) / (2 * step) == pytest.approx(now.gradient @ direction, abs=1e-6)


@dims
@kinds
def test_climbing(comm: MPI.Comm, dim: int, kind: str) -> None:
    """The bound is concave: nowhere else in the space of splines is a better one, up to what climbing stops at."""
    ascent = problem(comm, dim, kind)
    start = np.zeros(SPACES[dim].size)
    best = ascent.run(start, 1e-12)[0].coefficients
    value = ascent.evaluate(best)[0]
    assert value > ascent.evaluate(start)[0] + 1e-2
    for seed in range(6):
        direction = np.random.default_rng(seed).standard_normal(len(best))
        for step in (1e-3, 0.1, -0.1):
            assert ascent.evaluate(best + step * direction)[0] <= value + 1e-6
    assert len(set(comm.allgather(best.tobytes()))) == 1
    assert len(set(comm.allgather(value))) == 1


@dims
@kinds
def test_a_potential_is_worth_the_same_on_any_number_of_ranks(comm: MPI.Comm, dim: int, kind: str) -> None:
    """A rank without points goes along."""
    one, other = (problem(ranks, dim, kind).evaluate(some(dim, 0.5))[0] for ranks in (comm, MPI.COMM_SELF))
    assert one == pytest.approx(other, rel=1e-10)


@pytest.mark.parametrize(("dim", "kind"), [(1, "fixed"), (2, "fixed"), (1, "l2")])
def test_climbing_leads_to_the_same_place(comm: MPI.Comm, dim: int, kind: str) -> None:
    """On any number of ranks."""
    values = []
    for ranks in (comm, MPI.COMM_SELF):
        ascent = problem(ranks, dim, kind)
        values.append(ascent.evaluate(ascent.run(np.zeros(SPACES[dim].size), 1e-9)[0].coefficients)[0])
    assert values[0] == pytest.approx(values[1], rel=1e-7)


@dims
def test_the_nearest_minimisers_of_a_grid(dim: int) -> None:
    """Those of the grid points nearest to the points, by brute force."""
    rng, n = np.random.default_rng(4), 17
    axes = tuple(np.linspace(-1.0, 1.0 + 0.3 * axis, n) for axis in range(dim))
    table, z = rng.uniform(0.0, 1.0, (n,) * dim), np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    x = np.stack([rng.uniform(axis[2], axis[-3], 30) for axis in axes], axis=1)
    found = LossTable(axes, table).minimise(x, 1.7).nearest(x)
    nearest = [np.abs(column[:, None] - axis).argmin(axis=1) for axis, column in zip(axes, x.T, strict=True)]
    rounded = np.stack([axis[i] for axis, i in zip(axes, nearest, strict=True)], axis=1)
    for start, end in zip(rounded, found, strict=True):
        costs = table.ravel() + 0.85 * np.sum((start - z) ** 2, axis=1)
        assert end == pytest.approx(z[costs.argmin()], abs=1e-12)


def test_conjugate_gradients(comm: MPI.Comm) -> None:
    """A singular matrix with a right-hand side in its range; no more iterations than allowed."""
    rng = np.random.default_rng(5)
    root = rng.standard_normal((20, 30))
    root[:, :3] = 0.0
    matrix = root.T @ root
    b = matrix @ rng.standard_normal(30)
    diagonal = np.maximum(np.diag(matrix), 1.0)
    found = conjugate_gradients(comm, lambda v: matrix @ v, b, diagonal, 1e-10, 200)
    assert matrix @ found == pytest.approx(b, abs=1e-7 * np.abs(b).max())
    assert not conjugate_gradients(comm, lambda v: matrix @ v, b, diagonal, 1e-10, 0).any()
    assert not conjugate_gradients(comm, lambda v: matrix @ v, 0.0 * b, diagonal, 1e-10, 9).any()
