"""Meshes that follow the densities: refined until ρ(T) and J are those of the flow itself, to a tolerance.

A mesh belongs to one θ. It begins coarse, and is refined where the density of that flow jumps, until the density by
characteristics says that it is good enough. It does not change in time, so that J and its gradient on it are what they
are on any mesh.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, final

import dolfinx
import numpy as np
from numpy.typing import ArrayLike

from eulerian.analysis.jump_indicator import jump_indicator
from eulerian.base.arrays import Floats, theta_array
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.base.parallel import sum_all, warn
from eulerian.base.words import percent
from eulerian.control.control import ControlProblem
from eulerian.mesh.refinement import refined
from eulerian.mesh.simplices import Simplices
from eulerian.optimise.stages import Say, cell_count, silent

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Characteristics, Verification  # with a good part of SciPy

type Build = Callable[[Simplices], ControlProblem]
type DataErrors = Callable[[Simplices], tuple[dolfinx.mesh.Mesh, Floats]]

# Of the sum of all indicators, marked at a time (Dörfler's bulk parameter).
_BULK = 0.6

# Errors above this many tolerances: marked cells are cut as often as there are dimensions, else once.
_FAR = 2.0

# The points by which a run is verified at its end are others.
_MARGIN = 0.95

# Of the tolerance, what the projections of ρ₀ and of the target may take; and of max_cells.
_SHARE_OF_DATA = 0.4
_CELLS_OF_DATA = 0.25

NATS = 5.0
"""What J with an entropy of ρ(T) may be off by, in nats, for each unit of ``objective``."""


@final
@dataclass(frozen=True)
class Tolerances:
    """How well a mesh is to resolve the flow, and at what cost.

    Attributes:
        density: L¹ error of ρ(T), by label and relative to its mass.
        objective: relative error of J.
        max_cells: a mesh with more cells is not made.
        rounds: refinements, at most.

    Raises:
        InputError: one of them is not positive.
    """

    density: float = 0.05
    objective: float = 1e-3
    max_cells: int = 200_000
    rounds: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise InputError("must be positive", key=f"adapt.{name}", value=value)


@final
@dataclass(frozen=True)
class RefinementReport:
    """One mesh on the way.

    Attributes:
        cells: that it has.
        total: J on it.
        density_l1: (K,) L¹ error of ρ(T), relative to each label's mass; None if it is not known.
        error: of J, as in ``Verification``.
    """

    cells: int
    total: float
    density_l1: Floats | None
    error: float

    @property
    def statement(self) -> str:
        """It in words."""
        l1 = "" if self.density_l1 is None else f", that of ρ(T) in L¹ {percent(float(np.max(self.density_l1)))}"
        return f"{self.cells} cells: J = {self.total:.8g}, its error {self.error:.2g}{l1}"


@final
@dataclass(frozen=True)
class AdaptedProblem:
    """A problem on the mesh that one of its θ wants; evaluated there.

    Attributes:
        problem: on that mesh.
        verification: of the flow at θ.
        shortfall: what is not resolved and why it was left at that, in words; None where the tolerances hold.
        reports: of all meshes, the coarsest first.
    """

    problem: ControlProblem
    verification: "Verification"
    shortfall: str | None
    reports: tuple[RefinementReport, ...]


def adapt(
    build: Build,
    mesh: Simplices,
    theta: ArrayLike,
    *,
    density: float = 0.05,
    objective: float = 1e-3,
    max_cells: int = 200_000,
    rounds: int = 8,
    say: Say = silent,
    paths: "Characteristics | None" = None,
) -> AdaptedProblem:
    """Refine a mesh until the flow of θ is resolved, or one of the limits is met. **Collective**.

    The mesh is the same on any number of ranks. Parameters must mean the same on every mesh: not those of ``Nodal``.
    Where a limit is met before the tolerances hold, an ``EulerianWarning`` says what is not resolved, and ``shortfall``
    of what is returned.

    Args:
        build: makes the problem on a mesh, collectively; ``mesh_from_simplices`` makes DOLFINx's mesh of it.
        mesh: to begin with, the same on all ranks: ``box_simplices``, ``read_simplices``, or ``Simplices`` of points
            and cells of your own.
        theta: where, of any mesh.
        density: the largest L¹ error of ρ(T), by label and relative to its mass.
        objective: the largest relative error of J.
        max_cells: a mesh with more cells is not made.
        rounds: refinements, at most.
        say: called with a line for every mesh.
        paths: of the flow of θ, where they are known.

    Raises:
        InputError: a tolerance is not positive, or the first problem cannot be built.
        RejectedEvaluation: J cannot be evaluated on the first mesh.
    """
    found = adapted(build, mesh, theta, Tolerances(density, objective, max_cells, rounds), say, paths)
    if found.shortfall is not None:
        warn(found.problem.comm, f"adapt came to an end before its tolerances held. {found.shortfall}")
    return found


def adapted(
    build: Build,
    mesh: Simplices,
    theta: ArrayLike,
    limits: Tolerances,
    say: Say = silent,
    paths: "Characteristics | None" = None,
) -> AdaptedProblem:
    """``adapt`` to given tolerances, which leaves it to its caller to warn. **Collective**."""
    from eulerian.analysis.characteristics import Characteristics

    theta, rounds, max_cells = theta_array(theta), limits.rounds, limits.max_cells
    reports: list[RefinementReport] = []
    found: tuple[ControlProblem, Verification] | None = None
    why = f"adapt.rounds = {rounds} refinements were made"
    for number in range(rounds + 1):
        try:  # also to build: there may be no room for the mesh, or no time step short enough
            current = _evaluated(build(mesh), theta)
            # The flow of θ does not depend on the mesh: its characteristics are computed once.
            paths = Characteristics.of(current, theta) if paths is None else paths
            found = current, paths.verify(current, theta)
        except (InputError, RejectedEvaluation) as error:
            if found is None:
                raise
            why = f"the next mesh, of {len(mesh.cells)} cells, cannot be used: {error}"
            break
        reports.append(_report(*found))
        say(reports[-1].statement)
        far = excess(limits, found[1])
        if far <= 1.0 or number == rounds:
            break
        mesh = _cut(mesh, current.density_space.mesh, jump_indicator(current), far)
        if len(mesh.cells) > max_cells:
            why = f"the next mesh has {len(mesh.cells)} cells (adapt.max_cells = {max_cells})"
            break
    assert found is not None
    missed = misses(limits, found[1])
    more = f". {found[1].wall_remark}" if found[1].wall_remark else ""
    return AdaptedProblem(*found, f"{missed}: {why}{more}" if missed else None, tuple(reports))


def resolve_data(mesh: Simplices, errors_on: DataErrors, limits: Tolerances) -> Simplices:
    """Refine a mesh until it holds ρ₀ and the densities of the objective, which no flow shows to an indicator.

    **Collective**. Of all that the tolerances allow, the data take a part only.

    Args:
        mesh: to begin with, known to all ranks.
        errors_on: makes DOLFINx's mesh of one and gives with it the ``projection_errors`` of all data on it, (number of
            data, n_owned, K).
        limits: of the flow.
    """
    for _ in range(2 * limits.rounds):
        distributed, errors = errors_on(mesh)
        worst = float(np.max(sum_all(distributed.comm, errors.sum(axis=1))))
        far = worst / (_SHARE_OF_DATA * limits.density)
        if far <= 1.0:
            break
        finer = _cut(mesh, distributed, errors.sum(axis=(0, 2)), far)
        if len(finer.cells) > _CELLS_OF_DATA * limits.max_cells:
            break
        mesh = finer
    return mesh


def misses(limits: Tolerances, verification: "Verification") -> str:
    """Which tolerance does not hold, with numbers; empty where both do. What is not known holds.

    The error of J is that of the verification: relative to its parts, in nats where it has an entropy of ρ(T).
    """
    density, objective = _excesses(limits, verification)
    found = []
    if density > 1.0:
        worst = percent(density * limits.density)
        found.append(f"ρ(T) is off by {worst} in L¹ (adapt.density = {limits.density:g})")
    if objective > 1.0:
        error = f"{verification.error:.2g} nats" if verification.logarithmic else percent(verification.error)
        found.append(f"J is off by {error} (adapt.objective = {limits.objective:g})")
    return " and ".join(found)


def excess(limits: Tolerances, verification: "Verification") -> float:
    """The larger of both errors in units of its tolerance, with a margin for the points of another verification."""
    return max(_excesses(limits, verification)) / _MARGIN


# -- inner workings --------------------------------------------------------------------------------------------------


def _excesses(limits: Tolerances, verification: "Verification") -> tuple[float, float]:
    """The errors of ρ(T) and of J in units of their tolerances; 0 for what is not known."""
    l1 = verification.density_l1
    density = 0.0 if l1 is None else float(np.max(l1)) / limits.density
    objective = verification.error / (limits.objective * (NATS if verification.logarithmic else 1.0))
    return density, objective if math.isfinite(objective) else 0.0


def _evaluated(problem: ControlProblem, theta: Floats) -> ControlProblem:
    """The problem, evaluated at θ. **Collective**.

    Raises:
        RejectedEvaluation: J cannot be evaluated there.
    """
    if not math.isfinite(problem.value(theta)):
        raise RejectedEvaluation(f"J cannot be evaluated there: {problem.rejection}")
    return problem


def _cut(mesh: Simplices, distributed: dolfinx.mesh.Mesh, indicator: Floats, far: float) -> Simplices:
    """The next mesh, where errors are ``far`` times the tolerance. **Collective**."""
    return refined(mesh, distributed, indicator, _BULK, distributed.topology.dim if far > _FAR else 1)


def _report(problem: ControlProblem, verification: "Verification") -> RefinementReport:
    return RefinementReport(
        cell_count(problem), verification.mesh["total"], verification.density_l1, verification.error
    )
