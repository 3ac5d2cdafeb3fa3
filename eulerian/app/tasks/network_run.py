"""What the commands that evaluate a network share: its problem on the right mesh, J at a θ, and the output."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpi4py import MPI

from eulerian.app.build.network import SampledProblem, build
from eulerian.app.build.training import adapt_mesh, start_problem
from eulerian.app.config import Config
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.result import Document, Outcome
from eulerian.app.runs.run_files import read_mesh
from eulerian.app.tasks.task import RunContext
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError, RejectedEvaluation
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem
from eulerian.control.reduced import ReducedProblem
from eulerian.fields.frame import Frame, frame_of
from eulerian.optimise import OptimiseResult
from eulerian.optimise.adaptive import AdaptedProblem

if TYPE_CHECKING:
    from eulerian.particles.problem import ParticleProblem  # with a good part of SciPy


def storage_plan(problem: ControlProblem, theta: Floats) -> str:
    """What gradients at θ will keep and compute again, before anything is solved. **Collective**."""
    try:
        return problem.plan(theta).statement
    except RejectedEvaluation as rejection:
        return f"The adjoint's storage cannot be told: {rejection}"


def finite_value(problem: ReducedProblem, theta: Floats, where: str = "the initial θ") -> float:
    """J(θ), with ``where`` in words. **Collective**.

    Raises:
        RejectedEvaluation: it cannot be evaluated.
    """
    value = problem.value(theta)
    rejected_at_start(problem, value, where)
    return value


def rejected_at_start(problem: ReducedProblem, value: float, where: str = "the initial θ") -> None:
    """Raise RejectedEvaluation if the first value of J is not finite."""
    if not math.isfinite(value):
        raise RejectedEvaluation(f"J cannot be evaluated at {where}: {problem.rejection}")


def warn_of_rest(problem: ReducedProblem, config: Config, result: str) -> None:
    """Warn if the velocity of the last evaluation is 0 everywhere. **Collective**.

    Args:
        problem: evaluated.
        config: of the run; knows what the user can do about it.
        result: what this means for the command's result.
    """
    if not problem.at_rest:
        return
    remedy = "Name a trained run with --theta RUN"
    if config.field.theta is not None:
        remedy = "Name a run whose flow moves something with --theta RUN, or change field.theta"
    elif config.field.code is not None:
        remedy += ", or let the field start from parameters that move something"
    elif config.field.zero_init:
        remedy += ", or set field.zero_init = false to start from a random velocity"
    warn(problem.comm, f"nothing moves at this θ: the velocity is 0 everywhere. {result}. {remedy}.")


def save_and_evaluate_best[P: (ControlProblem, SampledProblem)](
    context: RunContext[P], result: OptimiseResult, evaluate: Callable[[], object]
) -> None:
    """Write the best θ, then ``evaluate`` J there for the report. **Collective**.

    After a failure J may not be evaluable there again: then its errors are ignored.
    """
    problem = context.problem.reduced
    context.folder.write_theta(*layers_and_readout(problem, result.theta))
    try:
        evaluate()
    except EulerianError:
        if result.status != "failed":
            raise
        problem.forget()


def training_outcome(result: OptimiseResult, problem: ReducedProblem, seconds: float, extra: Document) -> Outcome:
    """The outcome of a minimisation, for a problem that was evaluated last at its best θ, if it could be."""
    return Outcome(
        "train",
        result.status,
        result.reason,
        result.value,
        problem.parts or result.parts,
        result.iterations,
        result.gradient_norm,
        seconds_solve=seconds,
        extra=extra,
    )


def with_output(outcome: Outcome, write: Callable[[], None]) -> Outcome:
    """The outcome, once everything is written; failed if that failed. **Collective**."""
    try:
        write()
    except EulerianError as error:
        return replace(outcome, status="failed", reason=f"{outcome.reason}; then the output failed: {error}")
    return outcome


def layers_and_readout(
    problem: "ControlProblem | ParticleProblem", theta: Floats
) -> tuple[Floats, Floats | None, Frame | None]:
    """What a ``theta.npz`` holds: θ as (L, p), the readout where one is trained, and the frame of a network."""
    layers, readout = problem.split(theta)
    return layers, readout if readout.size else None, frame_of(problem.layered.field)


def build_on_own_mesh(config: Config, comm: MPI.Comm, run: Path | None = None) -> ControlProblem:
    """The problem where a command begins; arguments and errors as for ``build``. **Collective**.

    Args:
        config: of the command. With ``[adapt]`` the mesh is a coarse one, but for what ``run`` says.
        comm: who shares the work.
        run: a run of the same configuration that is continued; its mesh is taken, if it has one.
    """
    if config.adapt is None:
        return build(config, comm)
    mesh = None if run is None else on_root(comm, lambda: read_mesh(run))
    return start_problem(config, comm) if mesh is None else build(config, comm, mesh=mesh)


def build_on_adapted_mesh(config: Config, comm: MPI.Comm) -> ControlProblem:
    """The problem on the mesh that its initial θ wants; arguments and errors as for ``build``. **Collective**."""
    if config.adapt is None:
        return build(config, comm)
    problem = start_problem(config, comm)
    found = adapt_mesh(config, problem, problem.initial_theta)
    warn_of_shortfall(comm, found.shortfall)
    return found.problem


def save_mesh(run: RunFolder, problem: ControlProblem) -> None:
    """Write the mesh of a problem into its run folder, if it is not the one of the configuration. **Collective**."""
    if problem.density_space.simplices is not None:
        run.write_mesh(problem.density_space.simplices)


def warn_of_shortfall(comm: MPI.Comm, shortfall: str | None) -> None:
    """Warn of what an adapted mesh does not resolve. Not collective."""
    if shortfall is not None:
        warn(comm, f"[adapt] came to an end before its tolerances held. {shortfall}")


def adaptation_document(found: AdaptedProblem) -> Document:
    """The key ``adapt`` of ``result.json``: every mesh on the way."""
    rows = [
        {
            "cells": each.cells,
            "objective": each.total,
            "error": each.error,
            "density_l1": each.density_l1,
        }
        for each in found.reports
    ]
    return {"adapt": {"meshes": rows}}
