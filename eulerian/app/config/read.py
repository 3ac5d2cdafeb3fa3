"""From a TOML file to a checked configuration."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eulerian.app.config.checks import check_dimension, check_files, check_labels, code_sections
from eulerian.app.config.messages import input_error
from eulerian.app.config.model import Config
from eulerian.app.config.tables import apply_overrides, plain_tables
from eulerian.base.errors import InputError

_MAX_BYTES = 4 * 1024**2  # takes the reader of TOML a few seconds; large θ belongs into a file

# It takes time that grows with the square of the number of parts of a key.
_LONG_KEY = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){40}")


def read_config(
    path: str | Path, overrides: Sequence[str] = (), *, output: str | Path | None = None, python: bool = True
) -> Config:
    """Read a configuration from a TOML file and check it. Not collective.

    Args:
        path: the file; relative paths inside it are relative to its folder.
        overrides: ``KEY=VALUE``, each replacing one key.
        output: replaces ``output.directory``.
        python: what a configuration names may be Python code of the user's.

    Raises:
        InputError: for a missing or unreadable file, wrong syntax, unknown keys and wrong values; names the key.
    """
    return parse_config(read_tables(Path(path)), Path(path).parent, overrides, output=output, python=python)


def read_tables(file: Path) -> dict[str, Any]:
    """The tables of a TOML file, unchecked. Not collective.

    Raises:
        InputError: for a missing or unreadable file and wrong syntax.
    """
    return _parse_toml(_read_text(file), str(file))


def parse_config(
    source: str | Mapping[str, Any],
    base: str | Path = ".",
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    python: bool = True,
) -> Config:
    """Check a configuration that is already a text or nested tables. Not collective.

    Args:
        source: TOML, or what it would be read as; there arrays may stand for lists.
        base: the folder that relative paths start from.
        overrides: ``KEY=VALUE``, each replacing one key.
        output: replaces ``output.directory``.
        python: what it names may be Python code of the user's, which is run; else nothing in a configuration ever is.

    Raises:
        InputError: for wrong syntax, unknown keys and wrong values; names the key.
    """
    tables = _parse_toml(source, "configuration") if isinstance(source, str) else plain_tables(source)
    data = apply_overrides(tables, overrides)
    if output is not None:
        data = apply_overrides(data, [])
        section = data.setdefault("output", {})
        if isinstance(section, dict):
            section["directory"] = str(output)
    try:
        config = Config.model_validate(data, context={"base": Path(base).absolute()})
    except ValidationError as error:
        raise input_error(error, data) from None
    for key, _ in () if python else code_sections(config):
        what, remedy = "Python code is forbidden here", "Leave --no-python out where you trust the configuration."
        raise InputError(what, key=f"{key}.kind", value="python", remedy=remedy)
    if config.domain.box is not None:
        check_dimension(config, config.domain.box.dim)
    if config.n_labels is not None:
        check_labels(config, config.n_labels)
    check_files(config)
    return config


def as_config(source: Config | Mapping[str, Any]) -> Config:
    """A configuration that is one already, or whose tables are. Errors as for ``parse_config``. Not collective."""
    return source if isinstance(source, Config) else parse_config(source)


def _read_text(file: Path) -> str:
    try:
        if file.is_dir():
            raise InputError("is a folder, not a configuration file", key=str(file), remedy="Name a file in it.")
        if not file.is_file():
            raise InputError("there is no such configuration file", key=str(file), remedy="`eulerian init` makes one.")
        if file.stat().st_size > _MAX_BYTES:
            what = f"is too large for a configuration file: {file.stat().st_size} bytes, more than {_MAX_BYTES}"
            raise InputError(what, key=str(file), remedy="Put parameters into an .npz file, see field.theta.")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"is not a UTF-8 text (byte {error.start})"
        raise InputError(what, key=str(file), remedy="A configuration is a TOML file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read ({reason})", key=str(file), remedy="Name another file.") from None


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    if long := _LONG_KEY.search(text):
        raise InputError("a key has too many parts", key=name, value=long[0], remedy="Keys have at most five.")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError("the TOML is nested too deeply", key=name, remedy="Tables have at most five levels.") from None
    except ValueError as error:  # TOMLDecodeError, and integers that are too long for Python
        place = re.search(r"at line (\d+)", str(error))
        line = text.splitlines()[int(place[1]) - 1 : int(place[1])] if place else []
        remedy = "Texts are in quotes, lists in [ ], one key per line."
        raise InputError(f"TOML syntax: {error}", key=name, value=line[0] if line else None, remedy=remedy) from None
