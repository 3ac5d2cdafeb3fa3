"""Checks across sections: every vector against the space dimension, every readout against the number of labels."""

from collections.abc import Iterator
from pathlib import Path

from eulerian.app.config.code import CodeSection
from eulerian.app.config.density import Term, Terms
from eulerian.app.config.functionals import KEY as TERMINAL
from eulerian.app.config.model import Config
from eulerian.base.errors import GMSH_SAVES, InputError
from eulerian.base.formula import COORDINATES, Expression
from eulerian.objective.point_loss import entries

TARGET = f"{TERMINAL}.target"


_MESHED = f"mesh what the file is the boundary of ({GMSH_SAVES.format('domain')})."


def check_dimension(config: Config, dim: int) -> None:
    """Check every vector and formula of the configuration against the dimension of space.

    Args:
        config: the configuration.
        dim: 1, 2 or 3.

    Raises:
        InputError: names the first key that does not fit.
    """
    for key, length, value, noun in _lengths(config):
        if length != dim:
            raise InputError(
                f"has {entries(length, noun)}, but the domain has dimension {dim}{_held(config, dim)}",
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
            Expression.parse(formula, COORDINATES[:dim] + extra, key)
        except InputError as error:
            what = f"{error.what}; the domain has dimension {dim}{_held(config, dim)}"
            raise InputError(what, key=error.key, value=error.value, remedy=error.remedy) from error


def _held(config: Config, dim: int) -> str:
    """What a mesh file of too low a dimension does not hold, in brackets."""
    if config.domain.file is None or dim == 3:
        return ""
    held = "lines, no triangles" if dim == 1 else "triangles, no tetrahedra"
    return f" ({Path(config.domain.file).name} holds only {held})"


def mixtures(config: Config) -> Iterator[tuple[str, Terms]]:
    """Every mixture of density terms, with its key."""
    yield "density.initial", config.density.initial
    for key, cost in config.objective.end_costs:
        if cost.mixture:
            yield f"{key}.target", cost.mixture


def _terms(config: Config) -> Iterator[tuple[str, Term]]:
    """Every density term, with its key."""
    for key, terms in mixtures(config):
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
    for key, cost in config.objective.end_costs:
        for name, length, value, noun in cost.lengths():
            yield f"{key}.{name}", length, value, noun


def _formulas(config: Config) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every formula: key, text, and the names it may use besides coordinates."""
    for key, term in _terms(config):
        for name, text in term.formulas:
            yield f"{key}.{name}", text, ()
    if (potential := config.objective.potential_formula) is not None:
        yield "objective.potential", potential, ()
    for key, cost in config.objective.end_costs:
        for name, text in cost.formulas:
            yield f"{key}.{name}", text, ("label",)


def check_labels(config: Config, n_labels: int) -> None:
    """Check the costs at the end and at given times against the number of labels.

    Args:
        config: the configuration.
        n_labels: K.

    Raises:
        InputError: names the first key that does not fit.
    """
    for key, cost in config.objective.end_costs:
        cost.check_labels(n_labels, key)


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
    for key, section in code_sections(config):
        if not section.folder.is_dir():
            folder, remedy = str(section.folder), f"It is the folder that holds the module of {key}.object."
            raise InputError("there is no such folder", key=f"{key}.folder", value=folder, remedy=remedy)


def code_sections(config: Config) -> Iterator[tuple[str, CodeSection]]:
    """Every table that names code of the user's, with its key."""
    objective = config.objective
    tables = [("field", config.field), *_terms(config), *objective.end_costs]
    for key, table in (*tables, ("objective.potential", objective.potential)):
        if isinstance(table, CodeSection):
            yield key, table


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
