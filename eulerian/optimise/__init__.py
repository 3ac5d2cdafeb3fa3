"""Minimise J: one descent, what it remembers, and how both are carried to a finer problem."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
from eulerian.optimise.descent import Descent, Settings, minimise
from eulerian.optimise.lbfgs_pairs import Curvature
from eulerian.optimise.replay import DescentState
from eulerian.optimise.result import LevelReport, OptimiseResult, Record
from eulerian.optimise.tao import Method

__all__ = [
    "Curvature",
    "Descent",
    "DescentState",
    "LevelReport",
    "Method",
    "OptimiseResult",
    "Record",
    "Settings",
    "minimise",
]
