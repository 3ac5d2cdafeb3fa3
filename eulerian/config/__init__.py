"""The configuration: a TOML file becomes one typed, frozen, checked tree. Knows neither meshes nor MPI."""

from eulerian.config.checks import check_dimension, check_files, check_labels
from eulerian.config.density import (
    Box,
    Density,
    Domain,
    ExpressionTerm,
    GaussianTerm,
    ImageTerm,
    SamplesTerm,
    Term,
    UniformTerm,
)
from eulerian.config.field import AnyField, FreeField, LinearField, MlpField, PythonField
from eulerian.config.model import Config, Optimiser, Output, Solver
from eulerian.config.objective import (
    CrossEntropyTerminal,
    ExpressionTerminal,
    LogisticTerminal,
    Objective,
    QuadraticTerminal,
    Terminal,
)
from eulerian.config.read import parse_config, read_config

__all__ = [
    "AnyField",
    "Box",
    "Config",
    "CrossEntropyTerminal",
    "Density",
    "Domain",
    "ExpressionTerm",
    "ExpressionTerminal",
    "FreeField",
    "GaussianTerm",
    "ImageTerm",
    "LinearField",
    "LogisticTerminal",
    "MlpField",
    "Objective",
    "Optimiser",
    "Output",
    "PythonField",
    "QuadraticTerminal",
    "SamplesTerm",
    "Solver",
    "Term",
    "Terminal",
    "UniformTerm",
    "check_dimension",
    "check_files",
    "check_labels",
    "parse_config",
    "read_config",
]
