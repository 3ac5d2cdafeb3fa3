"""Minimise J: one descent, what it remembers, and how both are carried to a finer problem."""

from eulerian.optimise.curvature import Curvature
from eulerian.optimise.descent import Descent, Settings, minimise
from eulerian.optimise.records import LevelReport, OptimiseResult, Record
from eulerian.optimise.state import DescentState
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
