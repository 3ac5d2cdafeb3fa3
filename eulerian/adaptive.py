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
from typing import final

from mpi4py import MPI

from eulerian.parallel import sum_all

# isort: split
import numpy as np

from eulerian.analysis.characteristics import Characteristics, Verification
from eulerian.analysis.jump_indicator import jump_indicator
from eulerian.arrays import Floats
from eulerian.builder import build, build_space
from eulerian.config import Adapt, Config, TargetTerminal
from eulerian.config.density import Terms
from eulerian.control import ControlProblem
from eulerian.errors import EulerianWarning, InputError, RejectedEvaluation
from eulerian.fields.base import VectorField
from eulerian.fields.free import Free
from eulerian.multilevel import cell_count
from eulerian.optimise.transfer import Transfer
from eulerian.space.density import DensitySpace
from eulerian.space.exact_density import ExactDensity
from eulerian.space.projection_error import projection_errors
from eulerian.space.refinement import coarse_mesh, refined
from eulerian.space.simplices import Simplices

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
        theta: the same as was given, in the shape of this problem's.
        verification: of the flow at θ.
        shortfall: what is not resolved and why it was left at that, in words; None where the tolerances hold.
        reports: of all meshes, the coarsest first.
    """

    problem: ControlProblem
    theta: Floats
    verification: Verification
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
    problem: ControlProblem,
    theta: Floats,
    tell: Tell = lambda _text: None,
    paths: Characteristics | None = None,
) -> AdaptedProblem:
    """Refine from the coarse mesh up until the flow of θ is resolved, or one of the limits is met. Collective.

    The same mesh on any number of ranks.

    Args:
        config: with ``[adapt]``.
        problem: of that configuration on some mesh, for which θ is.
        theta: where.
        tell: is told every mesh.
        paths: of the flow of θ, where they are known.

    Raises:
        RejectedEvaluation: J cannot be evaluated on the first mesh.
    """
    limits = _limits(config)
    mesh: Simplices | None = _data_mesh(config, problem.comm)
    reports: list[RefinementReport] = []
    found: tuple[ControlProblem, Floats, Verification] | None = None
    why = f"adapt.rounds = {limits.rounds} refinements were made"
    for number in range(limits.rounds + 1):
        if mesh is None:
            why = f"the next mesh has more than adapt.max_cells = {limits.max_cells} cells"
            break
        try:
            current, here = _on_mesh(config, problem, theta, mesh)
            # The velocity of a free field is another one on another mesh, and so are its paths.
            if paths is None or isinstance(current.field, Free):
                paths = Characteristics.of(current, here)
            found = current, here, paths.verify(current, here)
        except (InputError, RejectedEvaluation) as error:
            if found is None:
                raise
            why = f"the next mesh, of {len(mesh.cells)} cells, cannot be used: {error}"
            break
        reports.append(_report(current, found[2]))
        tell(_statement(reports[-1]))
        far = excess(limits, found[2])
        if far <= 1.0:
            return AdaptedProblem(*found, None, tuple(reports))
        if number < limits.rounds:
            times = current.density_space.dim if far > _FAR else 1
            finer = refined(current.density_space, jump_indicator(current), _BULK, times)
            mesh = finer if len(finer.cells) <= limits.max_cells else None
    assert found is not None
    shortfall = f"{misses(limits, found[2]) or 'the tolerances hold, but only just'}: {why}"
    return AdaptedProblem(*found, shortfall, tuple(reports))


def misses(limits: Adapt, verification: Verification) -> str:
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


def _excesses(limits: Adapt, verification: Verification) -> tuple[float, float]:
    """The errors of ρ(T) and of J in units of their tolerances; 0 for what is not known."""
    l1 = verification.density_l1
    density = 0.0 if l1 is None else float(np.max(l1)) / limits.density
    objective = verification.error / (limits.objective * (NATS if verification.logarithmic else 1.0))
    return density, objective if math.isfinite(objective) else 0.0


def excess(limits: Adapt, verification: Verification) -> float:
    """The larger of both errors in units of its tolerance, with a margin for the points of another verification."""
    return max(_excesses(limits, verification)) / _MARGIN


def _on_mesh(config: Config, problem: ControlProblem, theta: Floats, mesh: Simplices) -> tuple[ControlProblem, Floats]:
    """The problem on a mesh, evaluated at θ, and θ for it. Collective.

    Raises:
        InputError: there is no room for it.
        RejectedEvaluation: J cannot be evaluated there.
    """
    finer = rebuilt(config, problem, mesh)
    here = Transfer(problem, finer).theta(theta)
    if not math.isfinite(finer.value(here)):
        raise RejectedEvaluation(f"J cannot be evaluated there: {finer.rejection}")
    return finer, here


def rebuilt(config: Config, problem: ControlProblem, mesh: Simplices) -> ControlProblem:
    """A problem of the configuration on another mesh; what there is to warn of has been said. Collective."""
    field = None if isinstance(problem.field, Free) else problem.field
    with warnings.catch_warnings(action="ignore", category=EulerianWarning):
        return build(_without_start(config, problem), problem.comm, field, mesh=mesh)


def _without_start(config: Config, problem: ControlProblem) -> Config:
    """The velocities that a free field starts from are for the nodes of its first mesh."""
    if not isinstance(problem.field, Free):
        return config
    return config.model_copy(update={"field": config.field.model_copy(update={"theta": None})})


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
    rho, exact = ExactDensity.with_projection(space, terms, key)
    return projection_errors(space, rho, exact)


def _mixtures(config: Config) -> list[tuple[str, Terms]]:
    """What is projected on the mesh: ρ₀, and the target of a distance."""
    found = [("density.initial", config.density.initial)]
    terminal = config.objective.terminal
    if isinstance(terminal, TargetTerminal):
        found.append(("objective.terminal.target", terminal.target))
    return found


def _report(problem: ControlProblem, verification: Verification) -> RefinementReport:
    return RefinementReport(
        cell_count(problem), verification.mesh["total"], verification.density_l1, verification.error
    )


def _statement(report: RefinementReport) -> str:
    l1 = "" if report.density_l1 is None else f", that of ρ(T) in L¹ {100 * np.max(report.density_l1):.2g} %"
    return f"{report.cells} cells: J = {report.total:.8g}, its error {report.error:.2g}{l1}"
