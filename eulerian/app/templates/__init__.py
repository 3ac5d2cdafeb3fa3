"""Configurations to start from, with the meshes and data that they need; ``eulerian init`` copies them."""

import os
import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from eulerian.base.errors import InputError


def available() -> tuple[str, ...]:
    """The names of the templates, sorted."""
    return tuple(sorted(folder.name for folder in files(__package__).iterdir() if _is_template(folder)))


def headline(name: str) -> str:
    """What a template is, in one line: the first one of its configuration."""
    return files(__package__).joinpath(name, f"{name}.toml").read_text("utf-8").splitlines()[0].removeprefix("# ")


def copy_template(name: str, target_folder: str | Path, overwrite: bool = False) -> list[Path]:
    """Copy the files of one template into a folder. Not collective: for one rank.

    Args:
        name: one of ``available()``.
        target_folder: created where it is missing.
        overwrite: replace files that are there already.

    Returns:
        The files that were written, the configuration first.

    Raises:
        InputError: for an unknown name, files that exist already, or a folder that cannot be written to; the folder
            is untouched in the first two cases.
    """
    if name not in available():
        raise InputError("unknown template", key="template", value=name, remedy=f"Known: {', '.join(available())}.")
    sources = sorted(_sources(name), key=lambda file: (not file.name.endswith(".toml"), file.name))
    folder = Path(target_folder)
    targets = [folder / source.name for source in sources]
    present = [target for target in targets if os.path.lexists(target)]
    if present and not overwrite:
        names = ", ".join(target.name for target in present)
        remedy = "Take another folder, or allow overwriting."
        raise InputError(f"{names} would be overwritten", key="folder", value=str(folder), remedy=remedy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            _replace(target, source.read_bytes())
    except OSError as error:
        what = f"the template cannot be written ({error.strerror})"
        raise InputError(what, key="folder", value=str(folder), remedy="Take another folder.") from None
    return targets


def suggested_command(configuration: Path) -> str:
    """The command that a template's first lines name: ``train`` for most of them."""
    found = re.search(rf"^#\s+eulerian (\w+) {re.escape(configuration.name)}", configuration.read_text("utf-8"), re.M)
    return found[1] if found else "train"


def _sources(name: str) -> Iterator[Traversable]:
    """The files of a template: those of its folder, and the mesh that it names, which others may share."""
    folder = files(__package__).joinpath(name)
    yield from (file for file in folder.iterdir() if file.is_file())
    mesh = tomllib.loads(folder.joinpath(f"{name}.toml").read_text("utf-8"))["domain"].get("file")
    if mesh is not None:
        yield files(__package__).joinpath("meshes", mesh)


def _is_template(folder: Traversable) -> bool:
    return folder.is_dir() and folder.joinpath(f"{folder.name}.toml").is_file()


def _replace(target: Path, content: bytes) -> None:
    # Complete or not at all; and a symbolic link is replaced, not followed to where it points.
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
