"""Checks across sections: every vector against the space dimension, every readout against the number of labels."""

from collections.abc import Iterator
from pathlib import Path

from eulerian.config.density import ImageTerm, SamplesTerm
from eulerian.config.field import PythonField
from eulerian.config.model import Config
from eulerian.config.objective import CrossEntropyTerminal, LogisticTerminal
from eulerian.errors import InputError
from eulerian.expression import Expression

VARIABLES = ("x", "y", "z")


def check_dimension(config: Config, dim: int) -> None:
    """Hold every vector and formula of the configuration against the dimension of space.

    Args:
        config: the configuration.
        dim: 1, 2 or 3.

    Raises:
        InputError: names the first key that does not fit.
    """
    for key, length, value, noun in _lengths(config):
        if length != dim:
            raise InputError(
                f"has {_entries(length, noun)}, but the domain has dimension {dim}",
                key=key,
                value=value,
                remedy=f"Give {dim}.",
            )
    for index, term in enumerate(config.density.initial):
        if isinstance(term, ImageTerm) and dim != 2:
            key = f"density.initial.{index}.kind"
            raise InputError(
                f"pictures need dimension 2, not {dim}", key=key, value="image", remedy="Use another kind."
            )
    for key, formula, extra in _formulas(config):
        Expression.parse(formula, VARIABLES[:dim] + extra, key)


def _lengths(config: Config) -> Iterator[tuple[str, int, object, str]]:
    """Everything that has one entry per axis: key, length, value, and what the entries are."""
    if config.domain.box is not None:
        yield "domain.box.lower", len(config.domain.box.lower), config.domain.box.lower, "entry"
    for index, term in enumerate(config.density.initial):
        for name in ("mean", "lower", "upper", "columns"):
            value = getattr(term, name, None)
            if value is not None:
                yield f"density.initial.{index}.{name}", len(value), value, "entry"
    for name in ("target", "direction"):
        value = getattr(config.objective.terminal, name, None)
        if value is not None:
            yield f"objective.terminal.{name}", len(value), value, "entry"
    for name in ("targets", "weights"):
        value = getattr(config.objective.terminal, name, None)
        if value is not None:
            yield f"objective.terminal.{name}", len(value[0]), value, "column"


def _formulas(config: Config) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every formula: key, text, and the names it may use besides coordinates."""
    for index, term in enumerate(config.density.initial):
        if term.kind == "expression":
            yield f"density.initial.{index}.value", term.value, ()
    if config.objective.terminal.kind == "expression":
        yield "objective.terminal.value", config.objective.terminal.value, ("label",)


def check_labels(config: Config, n_labels: int) -> None:
    """Hold the terminal loss against the number of labels.

    Args:
        config: the configuration.
        n_labels: K.

    Raises:
        InputError: names the first key that does not fit.
    """
    where, terminal = "objective.terminal", config.objective.terminal
    match terminal:
        case LogisticTerminal() if n_labels != 2:
            remedy = "Use cross_entropy, or label the terms of density.initial 0 and 1."
            what = f"needs two labels, but there {_are(n_labels)}"
            raise InputError(what, key=f"{where}.kind", value="logistic", remedy=remedy)
        case CrossEntropyTerminal() if n_labels < 2:
            remedy = "Label the terms of density.initial 0, 1, …"
            what = f"needs at least two labels, but there {_are(n_labels)}"
            raise InputError(what, key=f"{where}.kind", value="cross_entropy", remedy=remedy)
    for name in ("targets", "weights", "bias"):
        value = getattr(terminal, name, None)
        if value is not None and len(value) != n_labels:
            what = f"has {_entries(len(value))}, but there {_are(n_labels)}"
            raise InputError(what, key=f"{where}.{name}", value=value, remedy="Give one per label.")


def _entries(count: int, noun: str = "entry") -> str:
    plural = {"entry": "entries", "column": "columns"}[noun]
    return f"{count} {noun if count == 1 else plural}"


def _are(n_labels: int) -> str:
    return "is 1 label" if n_labels == 1 else f"are {n_labels} labels"


def check_files(config: Config) -> None:
    """Make sure that the files and folders that the configuration names exist.

    Raises:
        InputError: names the key and the path of the first that does not.
    """
    for key, path in _files(config):
        try:
            what = "is a folder, not a file" if path.is_dir() else None if path.exists() else "there is no such file"
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            what = f"cannot be looked at ({error.strerror})"
        if what:
            remedy = "Paths are relative to the folder of the TOML file."
            raise InputError(what, key=key, value=str(path), remedy=remedy)
    if isinstance(config.field, PythonField) and not config.field.folder.is_dir():
        folder, remedy = str(config.field.folder), "It is the folder that holds the module of field.object."
        raise InputError("there is no such folder", key="field.folder", value=folder, remedy=remedy)


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    if config.domain.file is not None:
        yield "domain.file", config.domain.file
    for index, term in enumerate(config.density.initial):
        if isinstance(term, SamplesTerm | ImageTerm):
            yield f"density.initial.{index}.file", term.file
    if isinstance(config.field.theta, Path):
        yield "field.theta", config.field.theta
