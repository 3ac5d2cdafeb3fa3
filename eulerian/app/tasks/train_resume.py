"""Continuing a training: its checkpoint, and whether it belongs to the configuration."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mpi4py import MPI

from eulerian.app.build.network import SampledProblem
from eulerian.app.config import Config
from eulerian.app.config.field import IDEAL
from eulerian.app.config.levels import coarse_to_fine, iterations_of_a_level
from eulerian.app.config.read import read_tables
from eulerian.app.config.tables import changed_keys
from eulerian.app.runs.files import CHECKPOINT, CONFIG, HISTORY, LATEST, PREVIOUS, RESULT
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import Document, history_row
from eulerian.app.runs.train_checkpoint import Checkpoint, read_checkpoint
from eulerian.app.tasks.task import Task
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem

# Keys, and tables with all their keys, that may differ: when to stop, what is written, and how the same is computed.
_HARMLESS = (
    "optimiser.max_iterations",
    "optimiser.gradient_tolerance",
    "optimiser.stop",
    "solver.memory",
    "solver.disk",
    "solver.disk_directory",
    "ideal",
    "output",
)

# Tables that say what a run leaves beside its numbers, but for the keys that say where and how often.
_PRODUCTS = ("output.", "ideal.")
_NO_PRODUCTS = ("output.directory", "output.checkpoint_every")

# Keys that name files and folders.
_PLACES = ("file", "folder", "theta")

# The statuses of a run that did not come to its end.
_UNFINISHED = ("failed", "interrupted")


@final
@dataclass(frozen=True)
class FinishedRun:
    """A run that there is nothing to do for.

    Attributes:
        document: its result.
        statement: why there is nothing to do, and what would change that.
    """

    document: Document
    statement: str


def run_training[P: (ControlProblem, SampledProblem)](
    config: Config,
    comm: MPI.Comm | None,
    method: str,
    task_of: Callable[[Checkpoint | None], Task[P]],
    *,
    overwrite: bool,
    resume: bool,
    progress: Progress,
) -> Document:
    """Train from the start or from the last checkpoint; the contents of ``result.json``. **Collective**.

    Args:
        config: of the run.
        comm: who shares the work, everybody by default.
        method: ``densities`` or ``particles``.
        task_of: makes the task, of a checkpoint or of none.
        overwrite: replace a run that is in the folder.
        resume: continue it instead; of a finished run the result is returned, and nothing is done.
        progress: where messages go.

    Raises:
        InputError: as for ``find_checkpoint``.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    found = find_checkpoint(config, method, comm, overwrite=overwrite) if resume else None
    if isinstance(found, FinishedRun):
        progress.say(found.statement)
        return found.document
    rows = () if found is None else [history_row(record) for record in found.state.history]
    keep = () if found is None else (HISTORY, f"{CHECKPOINT}/{LATEST}", f"{CHECKPOINT}/{PREVIOUS}")
    task = task_of(found)
    return task.run(config, comm, overwrite=overwrite, progress=progress, resume=resume, keep=keep, history=rows)


def report_start(found: Checkpoint | None, comm: MPI.Comm, progress: Progress, *, resume: bool) -> None:
    """Say where a training continues; a missing checkpoint is a warning. Not collective."""
    if found is not None:
        progress.say(f"Going on after iteration {found.state.history[-1].iteration}.")
    elif resume:
        warn(comm, "There is no checkpoint to go on from: this run begins at the start.")


def find_checkpoint(config: Config, method: str, comm: MPI.Comm, *, overwrite: bool) -> Checkpoint | FinishedRun | None:
    """The checkpoint of the configuration's run folder; None where there is none yet. **Collective**.

    Args:
        config: of the run to be continued.
        method: ``densities`` or ``particles``.
        comm: who shares the work.
        overwrite: whether the user also wants the folder's run to be replaced, which is refused.

    Raises:
        InputError: both were wanted; the checkpoint is of another configuration, and the first key that differs is
            named; more iterations are done than wanted; it cannot be read; or the run is complete and has none.
    """
    folder = config.output.directory
    if overwrite:
        remedy = "Leave one of them out."
        raise InputError("goes on with the run that --overwrite would replace", key="--resume", remedy=remedy)

    def read() -> Checkpoint | FinishedRun | None:
        found = read_checkpoint(folder)
        if found is not None:
            _refuse_changes(found, config, method)
            levels = 1 if method == "particles" else len(coarse_to_fine(config))
            _refuse_fewer(found, config, levels)
            return _finished_training(found, config, levels) or found
        if (folder / RESULT).is_file():
            what, remedy = "holds a run without checkpoints", "Use --overwrite to start anew, or another folder."
            raise InputError(what, key="output.directory", value=str(folder), remedy=remedy)
        return None

    return on_root(comm, read)


def complete_result(config: Config, command: str) -> Document | None:
    """The result of a run that has come to its end and has left what the configuration wants. Not collective.

    Args:
        config: of the run, but that other figures or files may be wanted now.
        command: which has made it.
    """
    document = _result(config.output.directory)
    if document.get("command") != command or document.get("status", "failed") in _UNFINISHED:
        return None
    before, now = _earlier_tables(config.output.directory), tomllib.loads(config.to_toml())
    changed = changed_keys(before, now, lambda key: not key.startswith(_PRODUCTS) or key in _NO_PRODUCTS)
    return None if changed else document


def without_start(config: Config) -> Config:
    """The configuration of a continued run: a start that has to be computed is not needed any more."""
    if config.field.theta != IDEAL:
        return config
    return config.with_values("field", theta=None)


def _result(folder: Path) -> Document:
    """The result in a run folder; empty where there is none that can be read."""
    try:
        document = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _earlier_tables(folder: Path) -> dict[str, Any]:
    """The configuration that a run folder was last written for; empty where it cannot be read."""
    try:
        return read_tables(folder / CONFIG)
    except InputError:
        return {}


def _refuse_fewer(found: Checkpoint, config: Config, levels: int) -> None:
    """Refuse a limit that has been passed: what it would leave is worse than what is there."""
    wanted = config.optimiser.max_iterations
    limit = iterations_of_a_level(config, levels)
    state = found.state
    taken = [*(report.iterations for report in state.reports), state.descent.history[-1].iteration]
    # The last checkpoint may have been damaged, and the result be of later.
    recorded = _result(config.output.directory).get("iterations", 0)
    done = max(state.history[-1].iteration, recorded if isinstance(recorded, int) else 0)
    if max(taken) <= limit and done <= limit * levels:
        return
    what = f"{_count(done)} done already"
    if levels > 1:
        what += f", and each of {levels} levels may take half of it: up to {max(taken)} were taken"
    least = max(done, 2 * max(taken)) if levels > 1 else done
    remedy = f"To go on, set it to more than {least}; to start anew, use --overwrite or another folder."
    raise InputError(what, key="optimiser.max_iterations", value=wanted, remedy=remedy)


def _count(iterations: int) -> str:
    return "1 iteration is" if iterations == 1 else f"{iterations} iterations are"


def _finished_training(found: Checkpoint, config: Config, levels: int) -> FinishedRun | None:
    """The training's result where its end was reached and the configuration wants no more."""
    state, document = found.state, complete_result(config, "train")
    iterations = state.history[-1].iteration
    if document is None or document.get("iterations") != iterations or state.level < levels:
        return None
    taken = iterations if levels == 1 else state.descent.history[-1].iteration  # adapted meshes share the limit
    if taken >= iterations_of_a_level(config, levels):
        done = f"The run is finished: {_count(iterations)} done."
        return FinishedRun(document, f"{done} To go on, raise optimiser.max_iterations.")
    before, now = _earlier_tables(config.output.directory).get("optimiser", {}), config.optimiser
    tolerance, stop = before.get("gradient_tolerance"), before.get("stop", "gradient")
    if document["status"] != "converged" or tolerance is None or now.gradient_tolerance < tolerance:
        return None
    if now.stop != stop:  # the other rule may want more
        return None
    reason = document.get("reason", "it has converged")
    other = "" if stop == "gradient" else ', or set optimiser.stop to "gradient"'
    return FinishedRun(document, f"The run is finished: {reason}. To go on, lower optimiser.gradient_tolerance{other}.")


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
    """Whether a run may be continued with ``now`` instead of ``before``."""
    if any(key == name or key.startswith(f"{name}.") for name in _HARMLESS):
        return True
    # A folder may have moved. What is in a file shows in J, which is compared before the training continues.
    both = isinstance(before, str) and isinstance(now, str)
    return both and key.rsplit(".", 1)[-1] in _PLACES and Path(str(before)).name == Path(str(now)).name
