"""The numbers of a run, as ``result.json`` holds them."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, final

import numpy as np

from eulerian.analysis.classification import classify
from eulerian.app.build.network import SampledProblem
from eulerian.app.runs.boundary_mass import boundary_warnings
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.ideal.problem import IdealProblem
from eulerian.objective.parts import part_names
from eulerian.optimise import Record

if TYPE_CHECKING:
    from eulerian.ideal.dynamic_ot import ConvexSolution

type Document = dict[str, Any]


@final
@dataclass(frozen=True)
class Outcome:
    """What a command adds to what the problem itself knows.

    Attributes:
        command: ``solve``, ``train``, ``verify``, ...
        status: ``converged`` or ``max_iterations`` of a minimisation, ``done`` of other commands, else ``failed`` or
            ``interrupted``.
        reason: one sentence on that.
        total: J at the point reported; NaN where it could not be evaluated.
        parts: J by name at the same point.
        iterations: of the optimiser.
        gradient_norm: L²(0,T) norm of ∇J at the same point; NaN where no gradient was asked for.
        seconds_setup: from configuration to control problem.
        seconds_solve: the command's own work.
        extra: further keys of the document, such as ``verify``.
        problem: that this was found for, where it is not the one that the command began with.
    """

    command: str
    status: str
    reason: str
    total: float = math.nan
    parts: Mapping[str, float] = field(default_factory=dict)
    iterations: int = 0
    gradient_norm: float = math.nan
    seconds_setup: float = math.nan
    seconds_solve: float = math.nan
    extra: Mapping[str, Any] = field(default_factory=dict)
    problem: Any = None


def describe(outcome: Outcome, problem: ControlProblem | IdealProblem | SampledProblem | None, ranks: int) -> Document:
    """The document of a run. **Collective** if there is a problem.

    Every key of the interface is there; what is unknown (no problem was built, nothing was evaluated) is NaN or None.
    ``mesh.dofs`` counts the density's degrees of freedom per label (cells × dofs per cell); ``mesh.h_*`` are the
    smallest and the largest diameter (longest edge) of a cell.
    """
    document: Document = {
        "status": outcome.status,
        "reason": outcome.reason,
        "command": outcome.command,
        "objective": {"total": outcome.total, **{name: outcome.parts.get(name, math.nan) for name in part_names()}},
        "iterations": outcome.iterations,
        "evaluations": 0,
        "rejected_evaluations": 0,
        "gradient_norm": outcome.gradient_norm,
        "mass": dict.fromkeys(("initial", "final", "relative_error", "boundary")),
        "density": dict.fromkeys(("min", "max")),
        "moments": dict.fromkeys(("mean", "covariance")),
        "time": dict.fromkeys(("layers", "steps_per_layer", "horizon")),
        "mesh": dict.fromkeys(("dimension", "cells", "dofs", "h_min", "h_max")),
        "ranks": ranks,
        "seconds": {"setup": outcome.seconds_setup, "solve": outcome.seconds_solve, "forward": None, "gradient": None},
        "versions": versions(),
        "warnings": [],
        "verified": None,
        "resolved": None,
    }
    if problem is not None:
        for key, found in problem.describe().items():
            document[key] = document[key] | found if isinstance(found, Mapping) else found
        document["warnings"] += boundary_warnings(problem)
    return document | dict(outcome.extra)


def history_row(record: Record) -> dict[str, float | None]:
    """One iteration as a line of ``history.csv``."""
    return {
        "iteration": record.iteration,
        "total": record.total,
        **{name: record.parts.get(name, math.nan) for name in part_names()},
        "gradient_norm": record.gradient_norm,
        "evaluations": record.evaluations,
        "seconds": record.seconds,
        "level": record.level,
        "verified": record.verified,
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("eulerian", "dolfinx", "petsc4py", "numpy")
    return {name: str(import_module(name).__version__) for name in names} | {"python": platform.python_version()}


def classification(problem: ControlProblem, theta: Floats) -> Document:
    """Mass that lies where the terminal loss takes it for its own label, of ρ₀ and of ρ(T). **Collective**.

    Args:
        problem: evaluated at ``theta``.
        theta: with the readout, where one is trained.

    Returns:
        One key for ``result.json``; none where the loss does not tell labels apart, or J could not be evaluated.
    """
    if not problem.parts:
        return {}
    space, terminal = problem.density_space, problem.terminal
    before = classify(space, terminal, problem.initial_density, terminal.initial_readout())
    after = classify(space, terminal, problem.final_density, problem.terminal_readout(theta))
    if before is None and after is None:
        return {}
    return {
        "classification": {
            name: None if found is None else {"accuracy": found.accuracy, "correct": found.correct}
            for name, found in (("initial", before), ("final", after))
        }
    }


def ideal_statistics(problem: IdealProblem, solution: "ConvexSolution") -> Document:
    """The keys ``mass``, ``density`` and ``moments`` of a convex solution. **Collective**.

    ``mass.boundary`` is the largest at the ends of the time slabs, ``density`` holds the extrema over all of them.
    """
    space = solution.flow.linear_space
    densities = [solution.flow.density_at(t) for t in np.linspace(0.0, problem.horizon, problem.slabs + 1)]
    extrema = [space.extrema(rho) for rho in densities]
    before, after = problem.space.mass(problem.rho0), space.mass(densities[-1])
    mean, covariance = space.mean_and_covariance(densities[-1])
    return {
        "mass": {
            "initial": before,
            "final": after,
            "relative_error": float(np.max(np.abs(after - before) / before)),
            "boundary": max(space.boundary_mass(rho) for rho in densities),
        },
        "density": {"min": min(low for low, _ in extrema), "max": max(high for _, high in extrema)},
        "moments": {"mean": mean, "covariance": covariance},
    }
