"""Configurations to start from, with the meshes and data that they need; ``eulerian init`` copies them."""

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import final

from eulerian.base.errors import InputError

_LEAST_MINUTES = 5


def available() -> tuple[str, ...]:
    """The names of the templates, sorted."""
    return tuple(sorted(folder.name for folder in files(__package__).iterdir() if _is_template(folder)))


def headline(name: str) -> str:
    """What a template is, in one line: the first one of its configuration."""
    return files(__package__).joinpath(name, f"{name}.toml").read_text("utf-8").splitlines()[0].removeprefix("# ")


@final
@dataclass(frozen=True)
class Job:
    """What a job for Slurm asks for.

    Attributes:
        ranks: MPI ranks.
        time: its limit, as Slurm writes it: minutes, ``HH:MM:SS`` or ``DAYS-HH:MM:SS``.
    """

    ranks: int = 4
    time: str = "04:00:00"

    def script(self, name: str) -> str:
        """The job that runs a template; it ends in order before its limit, and goes on when it starts again.

        Raises:
            InputError: for less than one rank, a time that Slurm does not know, or too little of it.
        """
        if self.ranks < 1:
            raise InputError("must be a whole number >= 1", key="--ranks", value=self.ranks)
        if _minutes(self.time) < _LEAST_MINUTES:
            what, remedy = f"must be at least {_LEAST_MINUTES} minutes", "The run is told to end two minutes before."
            raise InputError(what, key="--time", value=self.time, remedy=remedy)
        text = files(__package__).joinpath(name, f"{name}.toml").read_text("utf-8")
        known = {
            "NAME": name,
            "RANKS": str(self.ranks),
            "TIME": self.time,
            "COMMAND": _command(text, f"{name}.toml"),
            "RUN": shlex.quote(tomllib.loads(text)["output"]["directory"]),
        }
        script = files(__package__).joinpath("job.slurm").read_text("utf-8")
        return re.sub(r"@([A-Z]+)@", lambda found: known[found[1]], script)


def copy_template(name: str, target_folder: str | Path, overwrite: bool = False, job: Job | None = None) -> list[Path]:
    """Copy the files of one template into a folder. Not collective: for one rank.

    Args:
        name: one of ``available()``.
        target_folder: created where it is missing.
        overwrite: replace files that are there already.
        job: also write a job script for Slurm.

    Returns:
        The files that were written, the configuration first, a job script last.

    Raises:
        InputError: for an unknown name, a job that cannot be, files that exist already (data that another template
            has left there may, if they are the same), or a folder that cannot be written to; the folder is untouched
            but in the last case.
    """
    if name not in available():
        raise InputError("unknown template", key="template", value=name, remedy=f"Known: {', '.join(available())}.")
    sources = sorted(_sources(name), key=lambda file: (not file.name.endswith(".toml"), file.name))
    folder = Path(target_folder)
    contents = {folder / source.name: source.read_bytes() for source in sources}
    if job is not None:
        contents[folder / f"{name}.slurm"] = job.script(name).encode()
    targets = list(contents)
    data = {target for target in targets if target.suffix not in {".toml", ".slurm"}}
    present = [target for target in targets if os.path.lexists(target)]
    present = [target for target in present if target not in data or not _is(target, contents[target])]
    if present and not overwrite:
        names = ", ".join(target.name for target in present)
        remedy = "Take another folder, or allow overwriting."
        raise InputError(f"{names} would be overwritten", key="folder", value=str(folder), remedy=remedy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, content in contents.items():
            _replace(target, content)
    except OSError as error:
        what = f"the template cannot be written ({error.strerror})"
        raise InputError(what, key="folder", value=str(folder), remedy="Take another folder.") from None
    return targets


def suggested_command(configuration: Path) -> str:
    """The command that a template's first lines name: ``train`` for most of them."""
    return _command(configuration.read_text("utf-8"), configuration.name)


def _command(text: str, file: str) -> str:
    found = re.search(rf"^#\s+eulerian (\w+) {re.escape(file)}", text, re.M)
    return found[1] if found else "train"


def _minutes(time: str) -> float:
    """A time limit as Slurm reads it.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d\d?){0,2})", time, re.ASCII)
    fields = [int(field) for field in found["fields"].split(":")] if found else []
    if not found or max(fields[1:], default=0) > 59:
        remedy = "Write minutes, HH:MM:SS or DAYS-HH:MM:SS."
        raise InputError("is no time limit of Slurm's", key="--time", value=time, remedy=remedy)
    if found["days"] is None and len(fields) < 3:
        minutes, seconds = [*fields, 0][:2]
        return minutes + seconds / 60.0
    hours, minutes, seconds = [*fields, 0, 0][:3]
    return 24 * 60 * int(found["days"] or 0) + 60 * hours + minutes + seconds / 60.0


def _sources(name: str) -> Iterator[Traversable]:
    """The files of a template: those of its folder, and the mesh that it names, which others may share."""
    folder = files(__package__).joinpath(name)
    yield from (file for file in folder.iterdir() if file.is_file())
    mesh = tomllib.loads(folder.joinpath(f"{name}.toml").read_text("utf-8"))["domain"].get("file")
    if mesh is not None:
        yield files(__package__).joinpath("meshes", mesh)


def _is_template(folder: Traversable) -> bool:
    return folder.is_dir() and folder.joinpath(f"{folder.name}.toml").is_file()


def _is(target: Path, content: bytes) -> bool:
    """Whether a file is there already, with this content."""
    try:
        return not target.is_symlink() and target.read_bytes() == content
    except OSError:
        return False


def _replace(target: Path, content: bytes) -> None:
    # Complete or not at all; and a symbolic link is replaced, not followed to where it points.
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
