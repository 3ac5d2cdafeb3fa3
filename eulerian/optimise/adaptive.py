"""Meshes that follow the densities: refined until ρ(T) and J are those of the flow itself, to a tolerance.

A mesh belongs to one θ. It begins coarse, resolves ρ₀ and the target, and is then refined where the density of that
flow jumps, until the density by characteristics says that it is good enough. It does not change in time, so that J and
its gradient on it are what they are on any mesh.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from mpi4py import MPI

import numpy as np

from eulerian.analysis.jump_indicator import jump_indicator
from eulerian.app.build.mixture import density_and_exact
from eulerian.app.build.network import build, build_space
from eulerian.app.config import Adapt, Config, TargetTerminal
from eulerian.app.config.density import Terms
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianWarning, InputError, RejectedEvaluation
from eulerian.base.parallel import sum_all
from eulerian.control.control import ControlProblem
from eulerian.density.projection_error import projection_errors
from eulerian.density.space import DensitySpace
from eulerian.fields.base import VectorField
from eulerian.mesh.refinement import coarse_mesh, refined
from eulerian.mesh.simplices import Simplices
from eulerian.optimise.multilevel import cell_count

if TYPE_CHECKING:
    from eulerian.analysis.characteristics import Characteristics, Verification  # with a good part of SciPy

type Tell = Callable[[str], None]

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
"""What J with an entropy of ρ(T) may be off by, in nats, for each unit of ``adapt.objective``."""


@final
@dataclass(frozen=True)
class RefinementReport:
    """One mesh on the way.

    Attributes:
        cells: that it has.
        total: J on it.
        density_l1: (K,) L¹ error of ρ(T), relative to each label's mass; None if it is not known.
        error: of J, as ``Verification`` tells it.
    """

    cells: int
    total: float
    density_l1: Floats | None
    error: float


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


def start_problem(
    config: Config, comm: MPI.Comm | None = None, field: VectorField | None = None, *, theta_file: Path | None = None
) -> ControlProblem:
    """The problem of a configuration with ``[adapt]`` on a coarse mesh that resolves its data. Collective.

    Arguments and errors as for ``build``.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    return build(config, comm, field, theta_file=theta_file, mesh=_data_mesh(config, comm))


def adapt(
    config: Config,
    start: ControlProblem,
    theta: Floats,
    tell: Tell = lambda _text: None,
    paths: "Characteristics | None" = None,
) -> AdaptedProblem:
    """Refine the mesh of the start until the flow of θ is resolved, or one of the limits is met. Collective.

    The same mesh on any number of ranks.

    Args:
        config: with ``[adapt]``.
        start: its ``start_problem``.
        theta: where.
        tell: is told every mesh.
        paths: of the flow of θ, where they are known.

    Raises:
        RejectedEvaluation: J cannot be evaluated on the first mesh.
    """
    from eulerian.analysis.characteristics import Characteristics

    limits, mesh = _limits(config), start.density_space.simplices
    assert mesh is not None
    reports: list[RefinementReport] = []
    found: tuple[ControlProblem, Verification] | None = None
    why = f"adapt.rounds = {limits.rounds} refinements were made"
    for number in range(limits.rounds + 1):
        try:
            current = _evaluated(config, start, theta, mesh)
            paths = Characteristics.of(current, theta) if paths is None else paths
            found = current, paths.verify(current, theta)
        except (InputError, RejectedEvaluation) as error:
            if found is None:
                raise
            why = f"the next mesh, of {len(mesh.cells)} cells, cannot be used: {error}"
            break
        reports.append(_report(*found))
        tell(_statement(reports[-1]))
        far = excess(limits, found[1])
        if far <= 1.0 or number == limits.rounds:
            break
        times = current.density_space.dim if far > _FAR else 1
        mesh = refined(current.density_space, jump_indicator(current), _BULK, times)
        if len(mesh.cells) > limits.max_cells:
            why = f"the next mesh has {len(mesh.cells)} cells (adapt.max_cells = {limits.max_cells})"
            break
    assert found is not None
    missed = misses(limits, found[1])
    return AdaptedProblem(*found, f"{missed}: {why}" if missed else None, tuple(reports))


def misses(limits: Adapt, verification: "Verification") -> str:
    """Which tolerance does not hold, with numbers; empty where both do. What is not known holds.

    The error of J is told as a verification tells it: relative to its parts, in nats where it has an entropy of ρ(T).
    """
    density, objective = _excesses(limits, verification)
    found = []
    if density > 1.0:
        worst = 100 * density * limits.density
        found.append(f"ρ(T) is resolved to {worst:.2g} % in L¹ (adapt.density = {limits.density:g})")
    if objective > 1.0:
        error = f"{verification.error:.2g} nats" if verification.logarithmic else f"{100 * verification.error:.2g} %"
        found.append(f"J is resolved to {error} (adapt.objective = {limits.objective:g})")
    return " and ".join(found)


# -- inner workings --------------------------------------------------------------------------------------------------


def _limits(config: Config) -> Adapt:
    assert config.adapt is not None, "for configurations with [adapt]"
    return config.adapt


def _excesses(limits: Adapt, verification: "Verification") -> tuple[float, float]:
    """The errors of ρ(T) and of J in units of their tolerances; 0 for what is not known."""
    l1 = verification.density_l1
    density = 0.0 if l1 is None else float(np.max(l1)) / limits.density
    objective = verification.error / (limits.objective * (NATS if verification.logarithmic else 1.0))
    return density, objective if math.isfinite(objective) else 0.0


def excess(limits: Adapt, verification: "Verification") -> float:
    """The larger of both errors in units of its tolerance, with a margin for the points of another verification."""
    return max(_excesses(limits, verification)) / _MARGIN


def _evaluated(config: Config, start: ControlProblem, theta: Floats, mesh: Simplices) -> ControlProblem:
    """The problem on a mesh, evaluated at θ. Collective.

    Raises:
        InputError: there is no room for it.
        RejectedEvaluation: J cannot be evaluated there.
    """
    problem = rebuilt(config, start, mesh)
    if not math.isfinite(problem.value(theta)):
        raise RejectedEvaluation(f"J cannot be evaluated there: {problem.rejection}")
    return problem


def rebuilt(config: Config, problem: ControlProblem, mesh: Simplices) -> ControlProblem:
    """A problem of the configuration on another mesh; what there is to warn of has been said. Collective."""
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):
        return build(config, problem.comm, problem.field, mesh=mesh)


def _data_mesh(config: Config, comm: MPI.Comm) -> Simplices:
    """The coarse mesh, refined until it holds ρ₀ and the target density. Collective."""
    limits, mixtures = _limits(config), list(_mixtures(config))
    mesh = coarse_mesh(comm, config.domain)
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):  # `build` tells them
        for _ in range(2 * limits.rounds):
            space, _ = build_space(config, comm, mesh)
            errors = np.stack([_data_errors(space, terms, key) for key, terms in mixtures])
            excess = float(np.max(sum_all(comm, errors.sum(axis=1)))) / (_SHARE_OF_DATA * limits.density)
            if excess <= 1.0:
                break
            finer = refined(space, errors.sum(axis=(0, 2)), _BULK, space.dim if excess > _FAR else 1)
            if len(finer.cells) > _CELLS_OF_DATA * limits.max_cells:
                break
            mesh = finer
    return mesh


def _data_errors(space: DensitySpace, terms: Terms, key: str) -> Floats:
    rho, exact = density_and_exact(space, terms, key)
    return projection_errors(space, rho, exact)


def _mixtures(config: Config) -> list[tuple[str, Terms]]:
    """What is projected on the mesh: ρ₀, and the target of a distance."""
    found = [("density.initial", config.density.initial)]
    terminal = config.objective.terminal
    if isinstance(terminal, TargetTerminal):
        found.append(("objective.terminal.target", terminal.target))
    return found


def _report(problem: ControlProblem, verification: "Verification") -> RefinementReport:
    return RefinementReport(
        cell_count(problem), verification.mesh["total"], verification.density_l1, verification.error
    )


def _statement(report: RefinementReport) -> str:
    l1 = "" if report.density_l1 is None else f", that of ρ(T) in L¹ {100 * np.max(report.density_l1):.2g} %"
    return f"{report.cells} cells: J = {report.total:.8g}, its error {report.error:.2g}{l1}"
