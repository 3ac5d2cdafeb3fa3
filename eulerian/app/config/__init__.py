"""The configuration: a TOML file becomes one typed, frozen, checked tree. Knows neither meshes nor MPI."""

from eulerian.app.config.checks import check_dimension, check_files, check_labels
from eulerian.app.config.combinations import Combination, Combinations
from eulerian.app.config.density import (
    Density,
    ExpressionTerm,
    GaussianTerm,
    ImageTerm,
    SamplesTerm,
    Term,
    UniformTerm,
)
from eulerian.app.config.domain import Box, Domain
from eulerian.app.config.field import AnyField, FreeField, LinearField, MlpField, PythonField
from eulerian.app.config.functionals import (
    FixedTerminal,
    KlTerminal,
    L2Terminal,
    TargetTerminal,
    check_target_labels,
)
from eulerian.app.config.losses import (
    CrossEntropyTerminal,
    ExpressionTerminal,
    LogisticTerminal,
    QuadraticTerminal,
)
from eulerian.app.config.model import Adapt, Config, Ideal, Output, Solver
from eulerian.app.config.objective import Objective, Terminal
from eulerian.app.config.optimiser import Optimiser
from eulerian.app.config.particles import Particles
from eulerian.app.config.read import as_config, parse_config, read_config

__all__ = [
    "Adapt",
    "AnyField",
    "Box",
    "Combination",
    "Combinations",
    "Config",
    "CrossEntropyTerminal",
    "Density",
    "Domain",
    "ExpressionTerm",
    "ExpressionTerminal",
    "FixedTerminal",
    "FreeField",
    "GaussianTerm",
    "Ideal",
    "ImageTerm",
    "KlTerminal",
    "L2Terminal",
    "LinearField",
    "LogisticTerminal",
    "MlpField",
    "Objective",
    "Optimiser",
    "Output",
    "Particles",
    "PythonField",
    "QuadraticTerminal",
    "SamplesTerm",
    "Solver",
    "TargetTerminal",
    "Term",
    "Terminal",
    "UniformTerm",
    "as_config",
    "check_dimension",
    "check_files",
    "check_labels",
    "check_target_labels",
    "parse_config",
    "read_config",
]
