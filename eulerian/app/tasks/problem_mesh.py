"""The problem of a configuration on the mesh that it is to have: fixed, coarse at first, or that of an earlier run."""

from pathlib import Path

from mpi4py import MPI

from eulerian.app.build.network import build
from eulerian.app.build.training import adapt_mesh, start_problem
from eulerian.app.config import Config
from eulerian.app.runs.adapted_mesh import read_mesh
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.result import Document
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem
from eulerian.optimise.adaptive import AdaptedProblem


def build_on_own_mesh(config: Config, comm: MPI.Comm, run: Path | None = None) -> ControlProblem:
    """The problem where a command begins; arguments and errors as for ``build``. **Collective**.

    Args:
        config: of the command. With ``[adapt]`` the mesh is a coarse one, but for what ``run`` says.
        comm: who shares the work.
        run: a run of the same configuration that is gone on with; its mesh is taken, if it has one.
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
