"""Checks across sections: every vector against the space dimension, every readout against the number of labels."""

from collections.abc import Iterator
from pathlib import Path

from eulerian.app.config.density import Term, Terms
from eulerian.app.config.field import PythonField
from eulerian.app.config.model import Config
from eulerian.app.config.objective import (
    CrossEntropyTerminal,
    LogisticTerminal,
    LossTerminal,
    TargetTerminal,
)
from eulerian.base.errors import GMSH_SAVES, InputError
from eulerian.base.formula import Expression

VARIABLES = ("x", "y", "z")
TARGET = "objective.terminal.target"


_MESHED = f"mesh what the file is the boundary of ({GMSH_SAVES.format('domain')})."


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
                f"has {_entries(length, noun)}, but the domain has dimension {dim}{_held(config, dim)}",
                key=key,
                value=value,
                remedy=f"Give {dim}." if length < dim or not _held(config, dim) else f"Give {dim}, or {_MESHED}",
            )
    for key, term in _terms(config):
        if term.only_dimension not in (None, dim):
            what = f"pictures need dimension {term.only_dimension}, not {dim}{_held(config, dim)}"
            raise InputError(what, key=f"{key}.kind", value=term.kind, remedy="Use another kind.")
    for key, formula, extra in _formulas(config):
        try:
            Expression.parse(formula, VARIABLES[:dim] + extra, key)
        except InputError as error:
            what = f"{error.what}; the domain has dimension {dim}{_held(config, dim)}"
            raise InputError(what, key=error.key, value=error.value, remedy=error.remedy) from error


def _held(config: Config, dim: int) -> str:
    """What a mesh file of too low a dimension does not hold, in brackets."""
    if config.domain.file is None or dim == 3:
        return ""
    held = "lines, no triangles" if dim == 1 else "triangles, no tetrahedra"
    return f" ({Path(config.domain.file).name} holds only {held})"


def _mixtures(config: Config) -> Iterator[tuple[str, Terms]]:
    """Every mixture of density terms, with its key."""
    yield "density.initial", config.density.initial
    terminal = config.objective.terminal
    if isinstance(terminal, TargetTerminal):
        yield TARGET, terminal.target


def _terms(config: Config) -> Iterator[tuple[str, Term]]:
    """Every density term, with its key."""
    for key, terms in _mixtures(config):
        for index, term in enumerate(terms):
            yield f"{key}.{index}", term


def _lengths(config: Config) -> Iterator[tuple[str, int, object, str]]:
    """Everything that has one entry per axis: key, length, value, and what the entries are."""
    if config.domain.box is not None:
        yield "domain.box.lower", len(config.domain.box.lower), config.domain.box.lower, "entry"
    for key, term in _terms(config):
        for name in ("mean", "lower", "upper", "columns"):
            value = getattr(term, name, None)
            if value is not None:
                yield f"{key}.{name}", len(value), value, "entry"
    if config.particles.columns is not None:
        yield "particles.columns", len(config.particles.columns), config.particles.columns, "entry"
    if not isinstance(config.objective.terminal, TargetTerminal):  # its target is a mixture, not a point
        yield from _loss_lengths(config.objective.terminal)


def _loss_lengths(terminal: LossTerminal) -> Iterator[tuple[str, int, object, str]]:
    """The same for a terminal loss."""
    for name in ("target", "direction"):
        value = getattr(terminal, name, None)
        if value is not None:
            yield f"objective.terminal.{name}", len(value), value, "entry"
    for name in ("targets", "weights"):
        value = getattr(terminal, name, None)
        if value is not None:
            yield f"objective.terminal.{name}", len(value[0]), value, "column"


def _formulas(config: Config) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every formula: key, text, and the names it may use besides coordinates."""
    for key, term in _terms(config):
        for name, text in term.formulas:
            yield f"{key}.{name}", text, ()
    if config.objective.potential is not None:
        yield "objective.potential", config.objective.potential, ()
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
        case TargetTerminal():
            if terminal.n_labels is not None:
                check_target_labels(terminal.n_labels, n_labels)
            return
    for name in ("targets", "weights", "bias"):
        value = getattr(terminal, name, None)
        if value is not None and len(value) != n_labels:
            what = f"has {_entries(len(value))}, but there {_are(n_labels)}"
            raise InputError(what, key=f"{where}.{name}", value=value, remedy="Give one per label.")


def check_target_labels(n_target: int, n_labels: int) -> None:
    """Hold the number of labels of a target density against that of the initial one.

    Raises:
        InputError: they differ.
    """
    if n_target != n_labels:
        what = f"has {n_target} label{'' if n_target == 1 else 's'}, but in density.initial there {_are(n_labels)}"
        raise InputError(what, key=TARGET, remedy="Give the target terms for the same labels.")


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
    for key, term in _terms(config):
        if (file := getattr(term, "file", None)) is not None:
            yield f"{key}.file", file
    if config.particles.file is not None:
        yield "particles.file", config.particles.file
    if isinstance(config.field.theta, Path):
        yield "field.theta", config.field.theta
