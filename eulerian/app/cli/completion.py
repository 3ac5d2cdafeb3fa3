"""What a shell is answered that asks how a command line may go on. Loaded only then."""

import argparse
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import argcomplete

from eulerian.app.cli.parser import command_parsers

type Answers = Iterable[str] | Mapping[str, str]
type Completer = Callable[..., Answers]

# Beside a run folder, what else may be given for it.
_THETA = ".npz"


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that has set ``_ARGCOMPLETE``, and end the process."""
    for command in command_parsers(parser).values():
        for action in command._actions:
            completer = _completer(action)
            if completer is not None:
                vars(action)["completer"] = completer  # where argcomplete looks for it
    argcomplete.autocomplete(parser, always_complete_options=False)  # options where a dash is there


def _completer(action: argparse.Action) -> Completer | None:
    """What can stand for an argument, by what it is called; None for any file, or for one of its choices."""
    if action.choices is not None:
        return None
    if action.type in (int, float):
        return lambda **_: ()
    name = str(action.metavar)
    if name.startswith("KEY="):
        return _settings
    known: dict[str, Completer] = {
        "CONFIG.toml": lambda prefix, **_: _paths(prefix, lambda path: path.suffix == ".toml"),
        "RUN": lambda prefix, **_: _paths(prefix, _is_run),
        "TEMPLATE": lambda **_: _templates(),
        "COLUMN": lambda **_: _columns(),
        **dict.fromkeys(("DIR", "DIRECTORY", "FOLDER"), lambda prefix, **_: _paths(prefix, lambda _: False)),
        **dict.fromkeys(("A,B", "C", "HH:MM:SS"), lambda **_: ()),
    }
    if name == "RUN" and action.dest == "theta":
        return lambda prefix, **_: _paths(prefix, lambda path: _is_run(path) or path.suffix == _THETA)
    return known.get(name)


def _paths(prefix: str, wanted: Callable[[Path], bool]) -> Iterator[str]:
    """Files and folders that are wanted, and the folders in which there may be others."""
    folder, start = os.path.split(prefix)
    try:
        found = sorted(Path(folder or ".").expanduser().iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            name = os.path.join(folder, path.name)
            if wanted(path):
                yield name
            elif path.is_dir():
                yield f"{name}/"


def _is_run(path: Path) -> bool:
    return (path / "result.json").is_file()


def _templates() -> Mapping[str, str]:
    from eulerian.app.templates import available, headline

    return {name: headline(name) for name in available()}


def _columns() -> Answers:
    from eulerian.app.runs.run_table import COLUMNS

    return tuple(COLUMNS)


def _settings(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Mapping[str, str]:
    """Keys of the configuration that has been named, or of any; behind the sign the values, where these are few."""
    from eulerian.app.config.keys import known_keys

    tables = _tables(getattr(parsed_args, "config", None))
    keys = {found.key: found for found in known_keys(tables)}
    if parsed_args.name == "push":
        keys = {key: found for key, found in keys.items() if key.startswith("particles.")}
    key, equals, _value = prefix.partition("=")
    if not equals:
        return {f"{key}=": found.description for key, found in keys.items()}
    values = keys[key].values if key in keys else ()
    return {f"{key}={value}": keys[key].description for value in values}


def _tables(config: Path | None) -> Mapping[str, Any] | None:
    """What a file says as far as it can be read."""
    if config is None:
        return None
    try:
        return tomllib.loads(config.expanduser().read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
