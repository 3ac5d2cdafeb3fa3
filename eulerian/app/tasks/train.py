"""`eulerian train`: minimise J, then say how far any flow could be better."""

import math
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from mpi4py import MPI

from eulerian.app.build.keys import configured_keys
from eulerian.app.build.training import build_training
from eulerian.app.config import Config
from eulerian.app.config.levels import coarse_to_fine
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import classification_table, headline, levels_table, parts_table
from eulerian.app.runs.result import Document, Outcome, classification
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.app.tasks.density_observer import DensityObserver
from eulerian.app.tasks.network_run import (
    build_on_own_mesh,
    finite_value,
    save_and_evaluate_best,
    save_mesh,
    storage_plan,
    training_outcome,
    warn_of_shortfall,
    with_output,
)
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.app.tasks.train_monitor import Start, monitored
from eulerian.app.tasks.train_resume import report_start, run_training, without_start
from eulerian.app.tasks.verify import verification
from eulerian.base.errors import EulerianError
from eulerian.control.control import ControlProblem
from eulerian.optimise import OptimiseResult
from eulerian.optimise.settings import VERIFIED

METHOD: Final = "densities"


def run_train(
    config: Config,
    comm: MPI.Comm | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """Minimise J; arguments, result and errors as for ``run_solve``. **Collective**.

    An optimiser that gives up raises nothing: the status is ``failed`` and the best iterate is written. When all is
    written the flow is compared with a lower bound for any flow, ``certificate`` in the result; without one
    ``no_certificate`` says why.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        overwrite: replace a run that is in ``output.directory``.
        resume: continue the run that is there, from its last checkpoint, on any number of ranks. Of a finished run
            the result is returned, and nothing is done.
        progress: where messages go; nowhere by default.
    """

    def task(found: Checkpoint | None) -> Task[ControlProblem]:
        def build_again(config: Config, comm: MPI.Comm) -> ControlProblem:
            return build_on_own_mesh(config if found is None else without_start(config), comm)

        def check(config: Config, problem: ControlProblem) -> None:
            if found is not None:
                build_training(config, problem, state=found.state).refuse_another()

        work = partial(_train, found=found, resume=resume)
        return Task("train", build_again, headline, work, _verification_and_certificate, check)

    return run_training(config, comm, METHOD, task, overwrite=overwrite, resume=resume, progress=progress)


def _train(context: RunContext[ControlProblem], found: Checkpoint | None, *, resume: bool) -> Outcome:
    problem, progress = context.problem, context.progress
    report_start(found, problem.comm, progress, resume=resume)
    started = time.perf_counter()
    if found is None:
        progress.say(storage_plan(problem, problem.initial_theta))
        start: Start = finite_value(problem, problem.initial_theta), problem.parts
    else:
        start = found.start
    training = build_training(context.config, problem, progress.say, None if found is None else found.state)
    save_mesh(context.folder, problem)
    levels = None if context.config.adapt is not None else len(coarse_to_fine(context.config))
    with monitored(
        context, METHOD, start, lambda: (training.state, training.carry), training.max_iterations, levels
    ) as monitor:
        result = training.run(monitor)
        monitor.finish()
        if monitor.interrupted:
            return monitor.interrupted_outcome()
        seconds = time.perf_counter() - started
        problem = training.problem  # the last mesh, where it was adapted
        context = replace(context, problem=problem)
        save_mesh(context.folder, problem)
        warn_of_shortfall(context.folder.comm, training.shortfall)
        observer = DensityObserver(context, result.theta)
        save_and_evaluate_best(context, result, observer.evaluate)
        reports = {"levels": [asdict(report) for report in result.levels]} if len(result.levels) > 1 else {}
        extra = {**reports, **_stop(context.config, result), **classification(problem, result.theta)}
        outcome = training_outcome(result, problem, seconds, extra)
        progress.say(
            levels_table(result.levels),
            parts_table({"start": start, "end": (outcome.total, outcome.parts)}),
            classification_table(outcome.extra),
        )
        return replace(with_output(outcome, observer.finish), problem=problem)


def _stop(config: Config, result: OptimiseResult) -> Document:
    """The key ``stop``, where the network's own J decides: which iterate is kept, and that J there as checked."""
    if config.optimiser.stop != VERIFIED:
        return {}
    checks = sum(record.verified is not None for record in result.history)
    return {"stop": {"rule": VERIFIED, "kept": result.kept, "verified": result.verified, "checks": checks}}


def _verification_and_certificate(context: RunContext[ControlProblem], document: Document) -> Document:
    """What the flow is worth by itself, and how far that is from the best. **Collective**."""
    found = verification(context, document)
    return {**found, **_certificate(context, document | found)}


def _certificate(context: RunContext[ControlProblem], document: Document) -> Document:
    """The distance of the flow to the best one, or why there is none; never an error of its own. **Collective**."""
    config, problem, progress = context.config, context.problem, context.progress
    if config.ideal.certificate == "none" or not problem.parts:
        return {}
    started = time.perf_counter()
    from eulerian.bounds.certificate import certify  # needs a good part of SciPy, which is slow to load

    try:
        with configured_keys(), progress.gaps(config.ideal.max_iterations) as observer:
            parts = (document["verified"] or {}).get("objective", {})
            known = {name: math.nan if value is None else value for name, value in parts.items()}
            certificate = certify(
                problem,
                bound=config.ideal.certificate,
                slabs=config.ideal.slabs(problem.n_layers),
                verified=known,
                callback=observer,
                **config.ideal.solver_options,
            )
    except EulerianError as error:
        reason = str(error)
    except Exception as error:
        if context.folder.comm.size > 1:  # the other ranks may be elsewhere
            raise
        reason = f"{type(error).__name__}: {error}"
    else:
        progress.say(certificate.statement)
        seconds = {**document["seconds"], "certificate": time.perf_counter() - started}
        return {"certificate": asdict(certificate), "seconds": seconds}
    progress.say(f"How far the best possible flow is from this one is not known: {reason}")
    return {"no_certificate": reason}
