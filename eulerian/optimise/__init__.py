"""Minimise J: a descent, its state for resuming, and both on a sequence of meshes."""

from eulerian.base import parallel  # noqa: F401 - starts MPI, then PETSc, before anything here loads DOLFINx
from eulerian.optimise.descent import Descent, minimise
from eulerian.optimise.lbfgs_pairs import Curvature
from eulerian.optimise.replay import DescentState
from eulerian.optimise.result import History, LevelReport, OptimiseResult, Record
from eulerian.optimise.settings import Settings
from eulerian.optimise.stages import TrainingState
from eulerian.optimise.tao import Method

__all__ = [
    "Curvature",
    "Descent",
    "DescentState",
    "History",
    "LevelReport",
    "Method",
    "OptimiseResult",
    "Record",
    "Settings",
    "TrainingState",
    "minimise",
]
