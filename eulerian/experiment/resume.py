"""Going on with a training that was broken off: its checkpoint, and whether it belongs to the configuration."""

import tomllib
from pathlib import Path
from typing import Any

from mpi4py import MPI

from eulerian.config import Config
from eulerian.config.changes import changed_keys
from eulerian.config.field import IDEAL
from eulerian.errors import InputError
from eulerian.output.checkpoint import Checkpoint, read_checkpoint
from eulerian.output.files import CHECKPOINT, HISTORY, LATEST, PREVIOUS, RESULT
from eulerian.output.result import history_row
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


def how_to_go_on(found: Checkpoint | None) -> dict[str, Any]:
    """What ``Command.run`` is to know of a checkpoint."""
    if found is None:
        return {}
    rows = [history_row(record) for record in found.state.history]
    return {"keep": (HISTORY, f"{CHECKPOINT}/{LATEST}", f"{CHECKPOINT}/{PREVIOUS}"), "history": rows}


def told(found: Checkpoint | None, *, resume: bool) -> str:
    """From where a training goes on, in words."""
    if found is not None:
        return f"Going on after iteration {found.state.history[-1].iteration}."
    return "There is no checkpoint to go on from: this run begins at the start." if resume else ""


def resumable(config: Config, method: str, comm: MPI.Comm, *, overwrite: bool) -> Checkpoint | None:
    """The checkpoint of the configuration's run folder; None where nothing was kept yet. **Collective**.

    Args:
        config: to go on with.
        method: ``densities`` or ``particles``.
        comm: who shares the work.
        overwrite: whether the user wants the folder's run to be replaced, which is no way to go on with it.

    Raises:
        InputError: both were wanted; the checkpoint is of another configuration, and the first key that differs is
            named; it cannot be read; or the run is complete and has none.
    """
    folder = config.output.directory
    if overwrite:
        remedy = "Leave one of them out."
        raise InputError("goes on with the run that --overwrite would replace", key="--resume", remedy=remedy)

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


def _refuse_changes(found: Checkpoint, config: Config, method: str) -> None:
    if found.method != method:
        raise InputError(
            f"the checkpoint is of a training on {found.method}",
            key="--method",
            value=method,
            remedy=f"Go on with --method {found.method}, or start anew with --overwrite.",
        )
    for key, before, now in changed_keys(tomllib.loads(found.config), tomllib.loads(config.to_toml())):
        if not _harmless(key, before, now):
            was = "was not set" if before is None else f"was {str(before)[:200]!r}"
            remedy = "Set it back, or start anew with --overwrite."
            what = f"{was} in the run that is to go on"
            raise InputError(what, key=key, value="nothing" if now is None else now, remedy=remedy)


def _harmless(key: str, before: object, now: object) -> bool:
    """Whether a run may go on with ``now`` instead of ``before``."""
    if any(key == name or key.startswith(f"{name}.") for name in _HARMLESS):
        return True
    # A folder may have moved. What is in a file shows in J, which is compared before the training goes on.
    both = isinstance(before, str) and isinstance(now, str)
    return both and key.rsplit(".", 1)[-1] in _PLACES and Path(str(before)).name == Path(str(now)).name
