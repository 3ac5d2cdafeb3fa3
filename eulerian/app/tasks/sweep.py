"""`eulerian sweep`: runs of one command for all combinations of some keys' values, one after the other."""

import gc
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

from mpi4py import MPI

from eulerian.app.config import Combination, Combinations, Config, read_config
from eulerian.app.config.read import read_tables
from eulerian.app.config.tables import changed_keys
from eulerian.app.runs.files import CHECKPOINT, CONFIG, DENSITIES, LATEST, LOG, PREVIOUS, SWEEP, is_run
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.pace import Pace, in_words
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.run_log import logged_run
from eulerian.app.runs.run_table import COLUMNS, TableRow, run_row
from eulerian.app.runs.sweep_table import COMPLETE, WAITING, SweepRecord, column
from eulerian.app.tasks.drawing import draw_figures
from eulerian.app.tasks.task import SILENT
from eulerian.app.tasks.theta_option import READ_INTO
from eulerian.base import signals
from eulerian.base.errors import ComputationError, EulerianError, InputError, collected_warnings, explained
from eulerian.base.parallel import all_here, on_root

type State = Literal["new", "again", "resume", "kept"]

# What may differ in a sweep that goes on: what is written, and how the same is computed.
_HARMLESS = ("output.", "solver.memory", "solver.disk")
_ANEW = "Set it back, sweep into another folder with --output, or start anew with --overwrite."

_THETA = ("solve", "verify", "compare")
_METHODS = ("train", "solve")


@final
@dataclass(frozen=True)
class SweepPlan:
    """What is to be done.

    Attributes:
        command: of every run: train, solve, ideal, verify or compare.
        method: of ``train`` and ``solve``: ``densities`` or ``particles``.
        theta: for ``solve``, ``verify`` and ``compare``, as there.
        output: the folder of all runs; None for ``output.directory`` with ``_sweep`` behind it.
        overwrite: replace runs that are there, instead of keeping and continuing them.
        python: fields may be Python code of the user's.
    """

    command: str = "train"
    method: str = "densities"
    theta: Path | None = None
    output: Path | None = None
    overwrite: bool = False
    python: bool = True


@final
@dataclass(frozen=True)
class _Member:
    """One run of a sweep: its combination, its configuration, and what is there of it."""

    combination: Combination
    config: Config
    state: State


def run_sweep(
    config: Path,
    settings: Sequence[str],
    comm: MPI.Comm | None = None,
    *,
    plan: SweepPlan | None = None,
    progress: Progress = SILENT,
    run_progress: Progress = SILENT,
) -> SweepRecord:
    """Make a run for every combination of values, or go on with those that are there. **Collective**.

    All configurations are checked before the first run. What has come to its end is kept; what was interrupted goes on
    from its checkpoint, or is done again. A run that fails is told, and the next one begins. After each run the table
    is in the sweep's folder, as ``sweep.json`` and ``sweep.csv``.

    Args:
        config: a TOML file.
        settings: ``KEY=VALUE,VALUE,…``, see ``Combinations``.
        comm: who shares the work, everybody by default: all ranks make the same runs together.
        plan: which command, and where.
        progress: where messages of the sweep go; nowhere by default.
        run_progress: where those of its runs go.

    Raises:
        InputError: a key or a value is wrong; a run that is there is of another configuration or command; the folder
            holds other things.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    plan = SweepPlan() if plan is None else plan
    _check(plan)
    folder, members, record = on_root(comm, lambda: _prepare(config, settings, plan))
    on_root(comm, lambda: _begin(folder, record, plan))
    with logged_run(comm, "sweep", progress.warn) as log, collected_warnings(progress.warn):
        log.start(folder)
        sweep = _Sweep(comm, plan, folder, members, record, progress, run_progress)
        interrupted = sweep.run()
        if progress.speaks:
            progress.say(record.table.for_terminal())
        if interrupted:
            progress.say(f"interrupted by {interrupted}: the same command goes on from here")
        else:
            draw_figures(RunFolder(comm, folder, figures=members[0].config.output.figures), only=("sweep",))
    return record


@final
@dataclass
class _Sweep:
    """The runs, one after the other; all of it is collective.

    Attributes:
        comm: who shares the work.
        plan: what is done.
        folder: of the sweep.
        members: the runs.
        record: whose rows are replaced as the runs end.
        progress: of the sweep.
        run_progress: of the runs.
    """

    comm: MPI.Comm
    plan: SweepPlan
    folder: Path
    members: Sequence[_Member]
    record: SweepRecord
    progress: Progress
    run_progress: Progress

    def run(self) -> str | None:
        """All that is not done yet; the signal that has ended it, if there was one."""
        pace, done = Pace(), 0
        pace.mark(0)
        left = sum(member.state != "kept" for member in self.members)
        meeting = self.comm.Dup()  # its own, as in Task
        interrupted = None
        for number, member in enumerate(self.members):
            head = f"[{number + 1}/{len(self.members)}] {member.combination.name}"
            if member.state == "kept":
                self.progress.say(f"{head}: kept, it is finished")
                continue
            interrupted = signals.asked()
            if interrupted:
                break
            self.progress.say(f"{head}{': goes on' if member.state == 'resume' else ''}")
            error = self._attempt(member, meeting)
            row = on_root(self.comm, lambda member=member, error=error: _row(member, error))  # type: ignore[misc]
            self.record.rows[number] = row
            self._save()
            done += 1
            pace.mark(done)
            seconds = pace.seconds(left)
            to_go = f"   about {in_words(seconds)} to go" if seconds else ""
            self.progress.say(f"    {_sentence(row)}{to_go}")
            self._clean()
            if row["status"] == "interrupted":
                interrupted = signals.asked() or "a signal"
                break
        meeting.Free()
        return interrupted

    def _attempt(self, member: _Member, meeting: MPI.Comm) -> str:
        """Make a run; why it failed, if it did. An error that some ranks do not have is raised."""
        try:
            self._command(member)()
        except Exception as error:
            if getattr(error, "alone", False) or not all_here(meeting):
                setattr(error, "alone", True)  # noqa: B010 - whoever reports it need not wait once more
                raise
            return str(error) if isinstance(error, EulerianError) else explained(error)
        return ""

    def _command(self, member: _Member) -> Callable[[], Any]:
        from eulerian.app import tasks

        plan, options = self.plan, dict[str, Any]()
        if member.state == "resume":
            options["resume"] = True
        if plan.theta is not None:
            options["theta"] = plan.theta
        name = f"run_{plan.command}" + ("_particles" if plan.method == "particles" else "")
        overwrite = member.state == "again"
        run = getattr(tasks, name)
        return partial(run, member.config, self.comm, overwrite=overwrite, progress=self.run_progress, **options)

    def _save(self) -> None:
        """Write the table; a full disk is a warning, for the runs may be elsewhere or smaller."""
        try:
            on_root(self.comm, lambda: self.record.save(self.folder))
        except ComputationError as error:
            self.progress.warn(f"{error}. The sweep goes on")

    def _clean(self) -> None:
        """Free what a run has left, on all ranks at the same point: to destroy PETSc's objects is collective."""
        from petsc4py import PETSc  # not before eulerian.base.parallel, which starts it

        gc.collect()
        self.comm.barrier()
        PETSc.garbage_cleanup(self.comm)


# -- before the first run: on one rank -------------------------------------------------------------------------------


def _check(plan: SweepPlan) -> None:
    if plan.theta is not None and plan.command not in _THETA:
        raise InputError(f"`{plan.command}` takes no θ", key="--theta", remedy=f"{', '.join(_THETA)} do.")
    if plan.method != "densities" and plan.command not in _METHODS:
        raise InputError(f"`{plan.command}` has no methods", key="--method", remedy=f"{' and '.join(_METHODS)} have.")


def _prepare(path: Path, settings: Sequence[str], plan: SweepPlan) -> tuple[Path, list[_Member], SweepRecord]:
    """The sweep's folder, its runs with what is there of them, and their table. Nothing is changed."""
    found = Combinations.of(settings)
    if "output.directory" in found.keys:
        remedy = "Give the folder of the sweep with --output; its runs have names made of their values."
        raise InputError("is no key to be swept", key="--set output.directory", remedy=remedy)
    folder = plan.output or _beside(_read(path, found.all[0], None, plan).output.directory)
    configs = [_read(path, combination, folder / combination.name, plan) for combination in found.all]
    theta = None if plan.theta is None else str(plan.theta)
    record = SweepRecord(plan.command, plan.method, theta, found.keys, [])
    _check_folder(folder, record, plan)
    members = [
        _Member(combination, config, _state(config, plan))
        for combination, config in zip(found.all, configs, strict=True)
    ]
    return folder, members, replace(record, rows=[_row(member) for member in members])


def _beside(run: Path) -> Path:
    return run.with_name(f"{run.name}_sweep")


def _read(path: Path, combination: Combination, output: Path | None, plan: SweepPlan) -> Config:
    try:
        return read_config(path, combination.overrides, output=output, python=plan.python)
    except InputError as error:
        where = f"{error.what} (with {combination.name})"
        raise InputError(where, key=error.key, value=error.value, remedy=error.remedy) from None


def _check_folder(folder: Path, record: SweepRecord, plan: SweepPlan) -> None:
    """Raise InputError unless the folder is new, or holds this sweep."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", key="--output", value=str(folder), remedy="Choose another.")
    if not (folder / SWEEP).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            what = "the folder holds other things than a sweep; nothing in it was touched"
            raise InputError(what, key="--output", value=str(folder), remedy="Choose another.")
        return
    if plan.overwrite:
        return
    before = SweepRecord.load(folder)
    for name, option in (("command", "--command"), ("method", "--method"), ("theta", "--theta")):
        was, now = getattr(before, name), getattr(record, name)
        if was != now:
            what = f"was {'not given' if was is None else was} in the sweep that is in {folder}"
            raise InputError(what, key=option, value=now, remedy=_ANEW)


def _state(config: Config, plan: SweepPlan) -> State:
    """What is to be done with the run of a configuration.

    Raises:
        InputError: there is one of another configuration or another command, or something else.
    """
    run = config.output.directory
    if not is_run(run):
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            what = "there is something else than a run; nothing in it was touched"
            raise InputError(what, key="--output", value=str(run), remedy="Sweep into another folder.")
        return "new"
    if plan.overwrite:
        return "again"
    before, now = read_tables(run / CONFIG), tomllib.loads(config.to_toml())

    def harmless(key: str) -> bool:
        return key.startswith(_HARMLESS) or (plan.theta is not None and READ_INTO.match(key) is not None)

    for key, old, new in changed_keys(before, now, harmless):
        was = "was not set" if old is None else f"was {str(old)[:200]!r}"
        raise InputError(f"{was} in {run}", key=key, value="nothing" if new is None else new, remedy=_ANEW)
    row = run_row(run, "")
    if row["command"] not in (None, plan.command):
        raise InputError(f"{run} holds a run of `{row['command']}`", key="--command", value=plan.command, remedy=_ANEW)
    if row["status"] in COMPLETE:
        return "kept"
    return "resume" if _can_go_on(run, plan) else "again"


def _can_go_on(run: Path, plan: SweepPlan) -> bool:
    """Whether a run that has not come to its end has kept what it needs to go on."""
    if plan.command == "train":
        return any((run / CHECKPOINT / name).is_file() for name in (LATEST, PREVIOUS))
    return plan.command == "solve" and plan.method == "densities" and any((run / CHECKPOINT).glob(DENSITIES))


def _row(member: _Member, error: str = "") -> TableRow:
    """How a run stands, with its values."""
    run, name = member.config.output.directory, member.combination.name
    row = run_row(run, name) if is_run(run) else {**dict.fromkeys(COLUMNS), "name": name, "status": WAITING}
    if error:
        row |= {"status": "failed", "reason": error}
    return row | {column(key): value for key, value in member.combination.values.items()}


def _begin(folder: Path, record: SweepRecord, plan: SweepPlan) -> None:
    """Make the folder, with a table of what is there already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if plan.overwrite:
            (folder / LOG).unlink(missing_ok=True)
    except OSError as error:
        what = f"the folder cannot be written ({error.strerror or error})"
        raise InputError(what, key="--output", value=str(folder), remedy="Choose another.") from error
    record.save(folder)


def _sentence(row: TableRow) -> str:
    """How a run went, in a line."""
    if row["status"] not in COMPLETE:
        return f"{row['status']}: {' '.join(str(row['reason']).split())[:300]}"
    found = f"{row['status']}: J = {row['objective']:.8g}" if row["objective"] is not None else row["status"]
    own = "" if row["verified"] is None else f", {row['verified']:.8g} for the network itself"
    warned = f" ({row['warnings']} warning{'s' if row['warnings'] > 1 else ''})" if row["warnings"] else ""
    return f"{found}{own}{warned}"
