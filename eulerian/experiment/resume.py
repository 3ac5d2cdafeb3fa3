"""Going on with a training that was broken off: its checkpoint, and whether it belongs to the configuration."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mpi4py import MPI

from eulerian.config import Config
from eulerian.config.field import IDEAL
from eulerian.errors import InputError
from eulerian.output.checkpoint import Checkpoint, read_checkpoint
from eulerian.output.files import RESULT
from eulerian.output.progress import Progress
from eulerian.output.result import history_row
from eulerian.output.run_folder import RunFolder
from eulerian.parallel import on_root

# Keys, and tables with all their keys, that may differ: when to stop, what is written, and how the same is computed.
_HARMLESS = (
    "optimiser.max_iterations",
    "optimiser.gradient_tolerance",
    "solver.memory",
    "solver.disk",
    "solver.disk_directory",
    "ideal",
    "output",
)

# Keys that name files and folders.
_PLACES = ("file", "folder", "theta")


def resumable(config: Config, method: str, comm: MPI.Comm) -> Checkpoint | None:
    """The checkpoint of the configuration's run folder; None where nothing was kept yet. **Collective**.

    Args:
        config: to go on with.
        method: ``densities`` or ``particles``.
        comm: who shares the work.

    Raises:
        InputError: the checkpoint is of another configuration, and names the first key that differs; or it cannot be
            read; or the run is complete and has none.
    """
    folder = config.output.directory

    def read() -> Checkpoint | None:
        found = read_checkpoint(folder)
        if found is not None:
            _refuse_changes(found, config, method)
        elif (folder / RESULT).is_file():
            what, remedy = "holds a run without checkpoints", "Use --overwrite to start anew, or another folder."
            raise InputError(what, key="output.directory", value=str(folder), remedy=remedy)
        return found

    return on_root(comm, read)


def without_start(config: Config) -> Config:
    """The configuration for going on: a start that has to be computed is not needed any more."""
    if config.field.theta != IDEAL:
        return config
    return config.model_copy(update={"field": config.field.model_copy(update={"theta": None})})


def beginning(
    config: Config, found: Checkpoint | None, progress: Progress, *, resume: bool
) -> Callable[[RunFolder], None]:
    """What prepares the folder of a training, new or gone on with; it is collective.

    Args:
        config: of the training.
        found: its checkpoint.
        progress: where messages go.
        resume: whether one was looked for.
    """

    def begin(run: RunFolder) -> None:
        if found is None:
            run.start(config.to_toml())
            progress.say("There is no checkpoint to go on from: this run begins at the start." if resume else "")
            return
        history = found.state.history
        run.go_on(config.to_toml(), [history_row(record) for record in history])
        progress.say(f"Going on after iteration {history[-1].iteration}.")

    return begin


def _refuse_changes(found: Checkpoint, config: Config, method: str) -> None:
    if found.method != method:
        raise InputError(
            f"the checkpoint is of a training on {found.method}",
            key="--method",
            value=method,
            remedy=f"Go on with --method {found.method}, or start anew with --overwrite.",
        )
    before = dict(_flat(tomllib.loads(found.config)))
    now = dict(_flat(tomllib.loads(config.to_toml())))
    for key in sorted(before | now):
        if _harmless(key, before.get(key), now.get(key)):
            continue
        was = f"was {str(before[key])[:200]!r}" if key in before else "was not set"
        remedy = "Set it back, or start anew with --overwrite."
        raise InputError(f"{was} in the run that is to go on", key=key, value=now.get(key, "nothing"), remedy=remedy)


def _harmless(key: str, before: object, now: object) -> bool:
    """Whether a run may go on with ``now`` instead of ``before``."""
    if before == now or any(key == name or key.startswith(f"{name}.") for name in _HARMLESS):
        return True
    # A folder may have moved. What is in a file shows in J, which is compared before the training goes on.
    both = isinstance(before, str) and isinstance(now, str)
    return both and key.rsplit(".", 1)[-1] in _PLACES and Path(str(before)).name == Path(str(now)).name


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for name, value in tables.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                yield from _flat(item, f"{key}.{index}.")
        else:
            yield key, value
