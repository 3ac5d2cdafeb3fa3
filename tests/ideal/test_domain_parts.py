"""Domains of several parts: each has a problem of its own, and mass stays where it is."""

import math
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from archipelago import archipelago
from problems import projected
from thinning import thinned

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, EulerianWarning, InputError
from eulerian.density.space import DensitySpace
from eulerian.ideal.continuity import MomentumProblem
from eulerian.ideal.domain_parts import domain_parts
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.functionals import (
    FixedFunctional,
    Functional,
    KullbackLeiblerFunctional,
    LinearFunctional,
    SquaredDistanceFunctional,
)
from eulerian.ideal.part_flow import PartFlow
from eulerian.ideal.problem import IdealProblem
from eulerian.ideal.space_time import SpaceTime
from eulerian.mesh.create import inspect

FAR = 3.0  # from one part to the next


def density(space: DensitySpace, bump: Callable[[Floats], Floats]) -> Floats:
    """The projection of a formula of x (n, q, dim)."""
    rule = space.quadrature(4)
    rho = projected(space, bump(rule.points)[..., None], rule)
    space.limit(rho)
    return rho


def bumps(places: dict[float, float], width: float = 0.15) -> Callable[[Floats], Floats]:
    """Bumps of given masses, up to a factor, at places along x and in the middle of y."""

    def value(x: Floats) -> Floats:
        y = np.sum((x[..., 1:] - 0.5) ** 2, axis=-1)
        return sum(m * np.exp(-((x[..., 0] - c) ** 2 + y) / (2 * width**2)) for c, m in places.items())  # type: ignore[return-value]

    return value


type Costs = dict[str, float]
RUNNING: Costs = {"congestion": 0.05, "entropy": 0.01}


def functional(kind: str, target: Floats) -> Functional:
    if kind == "linear":  # the same in every part
        return LinearFunctional(lambda x: (np.mod(x[:, :1], FAR) - 0.7) ** 2)
    return {"fixed": FixedFunctional, "kl": KullbackLeiblerFunctional, "l2": SquaredDistanceFunctional}[kind](target)


def solve(space: DensitySpace, kind: str, begin: Floats, end: Floats, costs: Costs) -> ConvexSolution:
    problem = IdealProblem(space, begin, functional(kind, end), 0.5, 1.0, 6, **costs)
    return solve_convex(problem, gap_tolerance=2e-3, residual_tolerance=2e-4, max_iterations=3000)


@pytest.mark.parametrize(
    "costs",
    [pytest.param({}, id="plain", marks=pytest.mark.two_ranks), pytest.param(RUNNING, id="running")],
)
@pytest.mark.parametrize("kind", thinned(["fixed", "linear", "kl", "l2"], {"kl"}))
@pytest.mark.parametrize("dim", [1, 2])
def test_two_parts_are_worth_what_they_are_worth_alone(
    comm: MPI.Comm, tmp_path: Path, dim: int, kind: str, costs: Costs
) -> None:
    single = archipelago(comm, tmp_path, dim, [[0, 0, 0]])
    both = archipelago(comm, tmp_path, dim, [[0, 0, 0], [FAR, 0, 0]])
    alone = solve(single, kind, density(single, bumps({0.4: 1.0})), density(single, bumps({0.6: 1.0})), costs)
    begin, end = (density(both, bumps({x: 1.0, x + FAR: 1.0})) for x in (0.4, 0.6))
    together = solve(both, kind, begin, end, costs)
    assert together.status == alone.status == "converged"
    size = sum(abs(part) for part in alone.parts.values())
    assert together.primal == pytest.approx(2 * alone.primal, abs=6e-3 * size)
    assert together.dual == pytest.approx(2 * alone.dual, abs=6e-3 * size)
    assert together.primal >= together.dual - 1e-9 * size
    np.testing.assert_allclose(both.mass(begin), 2 * single.mass(density(single, bumps({0.4: 1.0}))))


def test_what_holds_no_mass_costs_nothing_and_stays(comm: MPI.Comm, tmp_path: Path) -> None:
    single = archipelago(comm, tmp_path, 2, [[0, 0, 0]])
    both = archipelago(comm, tmp_path, 2, [[0, 0, 0], [FAR, 0, 0]])
    alone, there = (
        solve(space, "fixed", density(space, bumps({0.4: 1.0}, 0.1)), density(space, bumps({0.6: 1.0}, 0.1)), {})
        for space in (single, both)
    )
    assert there.status == "converged"
    assert there.primal == pytest.approx(alone.primal, rel=4e-3)
    far = there.flow.grid.x[:, 0] > 2.0
    assert not there.flow.density[far].any()
    assert not there.flow.potential[far].any()


def test_a_fixed_target_in_another_part_is_refused(comm: MPI.Comm, tmp_path: Path) -> None:
    space = archipelago(comm, tmp_path, 2, [[0, 0, 0], [FAR, 0, 0]])
    begin, end = density(space, bumps({0.4: 1.0, 0.4 + FAR: 1.0})), density(space, bumps({0.6: 1.2, 0.6 + FAR: 0.8}))
    end *= float(space.mass(begin)[0] / space.mass(end)[0])
    with pytest.raises(
        InputError, match=r"not connected: part 1 .*area 1\) has mass .* its target .*; part 2"
    ) as error:
        solve(space, "fixed", begin, end, {})
    assert error.value.key == "terminal.target"
    with (
        pytest.warns(EulerianWarning, match="belong to other parts") if comm.rank == 0 else pytest.MonkeyPatch.context()
    ):
        found = solve(space, "kl", begin, end, {})
    assert found.status == "converged"
    assert math.isfinite(found.primal)


@pytest.mark.two_ranks
def test_a_difference_that_is_hardly_there_is_scaled_away(comm: MPI.Comm, tmp_path: Path) -> None:
    space = archipelago(comm, tmp_path, 1, [[0, 0, 0], [FAR, 0, 0]])
    begin = density(space, bumps({0.4: 1.0, 0.4 + FAR: 1.0}))
    end = density(space, bumps({0.6: 1.0001, 0.6 + FAR: 0.9999}))
    end *= float(space.mass(begin)[0] / space.mass(end)[0])
    with pytest.warns(EulerianWarning, match="are scaled") if comm.rank == 0 else pytest.MonkeyPatch.context():
        found = solve(space, "fixed", begin, end, {})
    assert found.status == "converged"


@pytest.mark.parametrize(("dim", "corner"), [(2, [1, 1, 0]), (2, [FAR, 0, 0]), (1, [FAR, 0, 0])])
def test_parts_have_names_and_all_of_the_domain(comm: MPI.Comm, tmp_path: Path, dim: int, corner: list[float]) -> None:
    """Also where they touch in a vertex, which no mass passes."""
    space = archipelago(comm, tmp_path, dim, [corner, [0, 0, 0]])
    assert inspect(tmp_path / "parts2.vtu").parts == 2
    grid = SpaceTime(space, 2, 1.0)
    parts = domain_parts(grid)
    assert [part.number for part in parts] == [1, 2]
    assert "[0, 1]" in parts[0].name
    for part in parts:
        assert part.grid.volume == pytest.approx(1.0)
        assert part.grid.sum(part.grid.own_masses) == pytest.approx(1.0)
        np.testing.assert_array_equal(part.grid.x, grid.x[part.nodes])
        everybody = part.grid.gather_vertices(part.grid.x)
        assert len(everybody) == part.grid.n_global
        np.testing.assert_allclose(everybody[part.grid.numbers], part.grid.x, atol=1e-12)
        ones = part.grid.own_masses.copy()
        part.grid.accumulate(ones)
        np.testing.assert_allclose(ones, part.grid.masses)
    assert sum(len(part.nodes) for part in parts) == grid.n_nodes


def test_a_dual_value_without_bound_is_told(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = archipelago(comm, tmp_path, 1, [[0, 0, 0]])
    begin, end = density(space, bumps({0.4: 1.0})), density(space, bumps({0.6: 1.0}))
    monkeypatch.setattr(PartFlow, "_dearest", lambda *_: -1.0)
    with pytest.raises(ComputationError, match="grows beyond what any flow can cost"):
        solve(space, "fixed", begin, end, {})


def test_without_a_feasible_flow_it_has_failed(comm: MPI.Comm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = archipelago(comm, tmp_path, 1, [[0, 0, 0]])
    begin, end = density(space, bumps({0.4: 1.0})), density(space, bumps({0.6: 1.0}))
    monkeypatch.setattr(MomentumProblem, "_cost", lambda *_: math.inf)
    problem = IdealProblem(space, begin, FixedFunctional(end), 0.5, 1.0, 6)
    found = solve_convex(problem, max_iterations=30)
    assert found.status == "failed"
    assert found.primal == math.inf
    assert "no flow" in found.reason
