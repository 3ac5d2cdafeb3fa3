"""Minimise J: one descent, what it remembers, and how both are carried to a finer problem."""

from eulerian.optimise.curvature import Curvature
from eulerian.optimise.records import LevelReport, OptimiseResult, Record
from eulerian.optimise.tao import minimise

__all__ = ["Curvature", "LevelReport", "OptimiseResult", "Record", "minimise"]
