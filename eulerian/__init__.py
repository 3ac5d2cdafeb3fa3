"""Train ODE-Nets on densities: an Eulerian solver for the controlled continuity equation.

Public names are loaded on first use, so that ``import eulerian`` costs nothing and starts neither MPI nor PETSc.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Config": "app.config",
    "read_config": "app.config",
    "ControlProblem": "control.control",
    "Costs": "objective.costs",
    "TimeGrid": "transport.trajectory",
    "PointLoss": "objective.losses",
    "QuadraticLoss": "objective.losses",
    "LogisticLoss": "objective.losses",
    "CrossEntropyLoss": "objective.losses",
    "FormulaLoss": "objective.losses",
    "FunctionLoss": "objective.losses",
    "KullbackLeibler": "objective.distances",
    "SquaredDistance": "objective.distances",
    "FixedDensity": "objective.distances",
    "ParticleProblem": "particles.problem",
    "OptimiseResult": "optimise",
    "minimise": "optimise",
    "train": "optimise.multilevel",
    "adapt": "optimise.adaptive",
    "start_problem": "app.build.training",
    "build": "app.build.network",
    "build_ideal": "app.build.network",
    "build_particles": "app.build.network",
    "IdealProblem": "ideal.problem",
    "certify": "ideal.certificate",
    "hopf_lax": "ideal.hopf_lax",
    "solve_convex": "ideal.dynamic_ot",
    "Linear": "fields",
    "Mlp": "fields",
    "Nodal": "fields",
    "VectorField": "fields",
    "velocity_nodes": "transport.velocity_space",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"eulerian.{_PUBLIC[name]}"), name)
    if name in ("jax", "torch"):  # rooms that need an extra, so that nothing imports them but who names them
        return import_module(f"eulerian.{name}")
    raise AttributeError(f"module 'eulerian' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
