"""`eulerian solve`: one forward solve."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from mpi4py import MPI

from eulerian.app.build.training import adapt_mesh
from eulerian.app.config import Config
from eulerian.app.runs.files import CHECKPOINT, DENSITIES, MESH
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import classification_table, headline, parts_table
from eulerian.app.runs.result import Document, Outcome, classification
from eulerian.app.tasks.density_observer import DensityObserver
from eulerian.app.tasks.network_run import (
    adaptation_document,
    build_on_own_mesh,
    layers_and_readout,
    rejected_at_start,
    save_mesh,
    warn_of_rest,
    warn_of_shortfall,
    with_output,
)
from eulerian.app.tasks.solve_restart import EarlierSolve
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.app.tasks.train_resume import complete_result
from eulerian.app.tasks.verify import verification
from eulerian.base.errors import InputError, collected_warnings
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem


def run_solve(
    config: Config,
    comm: MPI.Comm | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    restart: Path | None = None,
    at: float | None = None,
    theta: Path | None = None,
    progress: Progress = SILENT,
) -> Document:
    """One forward solve at the initial θ, or at that of a run; the contents of ``result.json``. **Collective**.

    Continued, on any number of ranks, it ends as if it had never stopped: on one process to the last bit.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        overwrite: replace a run that is in ``output.directory``.
        resume: continue the solve that is there, from the last densities that it has saved. Of a complete one the
            result is returned, and nothing is done.
        restart: start from the densities that the solve in another run folder has saved.
        at: with ``restart``, from the last ones not after this time.
        theta: a run folder or an ``.npz`` file, whose θ and readout are taken instead of the configuration's start. An
            earlier solve that is continued must have had the same.
        progress: where messages go; nowhere by default.

    Raises:
        InputError: the configuration does not fit, also not to the earlier solve, or the run folder may not be written.
        ComputationError: the computation failed; ``result.json`` says so too.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    given = ThetaSource.of(config, theta, comm)
    earlier = _earlier(given.config, comm, overwrite, resume, restart, at)
    earlier_run = None if earlier is None else earlier.folder.parent

    def build_fitting(config: Config, comm: MPI.Comm) -> ControlProblem:
        problem = given.build(partial(build_on_own_mesh, run=earlier_run), config, comm)
        if earlier is not None:
            earlier.fit(problem)
        return problem

    complete = on_root(comm, lambda: complete_result(given.config, "solve")) if resume else None
    if complete is not None:
        with collected_warnings(progress.warn):
            build_fitting(given.config, comm)  # its files may hold other things by now
        progress.say("The run is finished: the solve has come to its end. To do it again, use --overwrite.")
        return complete
    work = partial(_solve, given=given, earlier=earlier)
    task = Task("solve", build_fitting, headline, work, verification)
    keep = (f"{CHECKPOINT}/{DENSITIES}", MESH) if resume else ()
    return task.run(given.config, comm, overwrite=overwrite, progress=progress, resume=resume, keep=keep)


def _earlier(
    config: Config, comm: MPI.Comm, overwrite: bool, resume: bool, restart: Path | None, at: float | None
) -> EarlierSolve | None:
    """The solve to be continued, if any. Collective."""
    if at is not None and restart is None:
        raise InputError("belongs to --restart", key="--at", remedy="Add --restart RUN.")
    if resume and (overwrite or restart is not None):
        other = "--overwrite" if overwrite else "--restart"
        raise InputError(f"goes on with the run that is in the folder, and {other} does not", key="--resume")
    if resume:
        return EarlierSolve.to_resume(comm, config)
    return None if restart is None else EarlierSolve.to_restart(comm, config, restart, at)


def _solve(context: RunContext[ControlProblem], given: ThetaSource, earlier: EarlierSolve | None) -> Outcome:
    problem, progress = context.problem, context.progress
    progress.say(given.description)
    _report_start(context, earlier)
    started = time.perf_counter()
    context, extra = _on_adapted_mesh(context, earlier)
    problem = context.problem
    theta = problem.initial_theta
    if earlier is not None and earlier.theta is not None:
        theta = earlier.theta.reshape(theta.shape)
    checkpoints = context.config.output.checkpoint_every != 0
    with progress.steps() as advance:
        observer = DensityObserver(context, theta, checkpoints=checkpoints, earlier=earlier, advance=advance)
        total = observer.evaluate()
    rejected_at_start(problem, total, given.name)
    warn_of_rest(problem, context.config, "ρ(T) is ρ₀")
    seconds = time.perf_counter() - started
    outcome = Outcome(
        "solve",
        "done",
        f"solved forward at {given.name}",
        total,
        problem.parts,
        extra={**given.document, **extra, **classification(problem, theta)},
        problem=problem,
    )
    progress.say(parts_table({given.title: (total, problem.parts)}), classification_table(outcome.extra))

    def write() -> None:
        context.folder.write_theta(*layers_and_readout(problem, theta))
        observer.finish()

    return replace(with_output(outcome, write), seconds_solve=seconds)


def _on_adapted_mesh(
    context: RunContext[ControlProblem], earlier: EarlierSolve | None
) -> tuple[RunContext[ControlProblem], Document]:
    """The context on the mesh that its θ wants, and the keys that describe it. Collective.

    A solve that is continued has its mesh already.
    """
    problem, config = context.problem, context.config
    extra: Document = {}
    if config.adapt is not None and (earlier is None or not earlier.headers):
        found = adapt_mesh(config, problem, problem.initial_theta, context.progress.say)
        context, extra = replace(context, problem=found.problem), adaptation_document(found)
        warn_of_shortfall(context.folder.comm, found.shortfall)
    save_mesh(context.folder, context.problem)
    return context, extra


def _report_start(context: RunContext[ControlProblem], earlier: EarlierSolve | None) -> None:
    """Say where the solve continues; that nothing was saved is a warning. Not collective."""
    if earlier is None:
        return
    context.progress.say(*(f"Left out: {why}" for why in earlier.damaged))
    if not earlier.headers:
        warn(context.folder.comm, f"{earlier.folder} holds nothing to go on from: this solve begins at t = 0")
        return
    last = earlier.headers[max(earlier.headers)]
    context.progress.say(f"Goes on at t = {last.time:.6g}, after time step {last.step}, from {earlier.folder}")
