"""`eulerian train`: minimise J, then say how far any flow could be better."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from mpi4py import MPI

from eulerian.app.build.keys import configured_keys
from eulerian.app.build.training import build_training
from eulerian.app.commands.command import SILENT, Command, Session
from eulerian.app.commands.network_run import finite_value, kept, storage_statement, training_outcome, with_fields
from eulerian.app.commands.problem_mesh import build_on_own_mesh, keep_mesh, warn_of_shortfall
from eulerian.app.commands.train_monitor import Start, followed
from eulerian.app.commands.train_resume import Finished, resumable, tell_resume_command, tell_start, without_start
from eulerian.app.commands.verification import verification
from eulerian.app.config import Config
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import classification_table, headline, levels_table, parts_table
from eulerian.app.runs.result import Document, Outcome, classification
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError
from eulerian.control.control import ControlProblem
from eulerian.optimise import OptimiseResult, TrainingState
from eulerian.optimise.stages import StagedTraining

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
    written the flow is held against a lower bound for any flow, ``certificate`` in the result; without one
    ``no_certificate`` says why.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        overwrite: replace a run that is in ``output.directory``.
        resume: go on with the run that is there, from its last checkpoint, on any number of ranks. Of a finished run
            the result is returned, and nothing is done.
        progress: where messages go; nowhere by default.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    found = resumable(config, METHOD, comm, overwrite=overwrite) if resume else None
    if isinstance(found, Finished):
        progress.say(found.statement)
        return found.document

    def build_again(config: Config, comm: MPI.Comm) -> ControlProblem:
        return build_on_own_mesh(config if found is None else without_start(config), comm)

    def work(session: Session[ControlProblem]) -> Outcome:
        tell_start(found, comm, progress, resume=resume)
        return _train(session, found)

    command = Command("train", build_again, headline, work, _verification_and_certificate)
    go_on = tell_resume_command(found)
    return command.run(config, comm, overwrite=overwrite, progress=progress, resume=resume, **go_on)


def _train(session: Session[ControlProblem], found: Checkpoint | None) -> Outcome:
    problem, progress = session.problem, session.progress
    started = time.perf_counter()
    if found is None:
        progress.say(storage_statement(problem, problem.initial_theta))
        start: Start = finite_value(problem, problem.initial_theta), problem.parts
    else:
        start = found.start
    training = build_training(session.config, problem, progress.say, None if found is None else found.state)
    keep_mesh(session.run, problem)
    state = partial(_state_of, training)
    with followed(session, METHOD, start, state, training.max_iterations) as follower:
        result = training.run(follower)
        follower.finish()
        if follower.interrupted:
            return follower.interrupted_outcome()
        seconds = time.perf_counter() - started
        problem = training.problem  # the last mesh, where it was adapted
        session = replace(session, problem=problem)
        keep_mesh(session.run, problem)
        warn_of_shortfall(session.run.comm, training.shortfall)
        with kept(session, result):
            problem.value(result.theta)
        extra = {**_levels(result), **classification(problem, result.theta)}
        outcome = training_outcome(result, problem, seconds, extra)
        progress.say(
            levels_table(result.levels),
            parts_table({"start": start, "end": (outcome.total, outcome.parts)}),
            classification_table(outcome.extra),
        )
        return replace(with_fields(session, result.theta, outcome), problem=problem)


def _state_of(training: StagedTraining) -> tuple[TrainingState, Callable[[Floats], Floats]]:
    return training.state, training.carry


def _levels(result: OptimiseResult) -> Document:
    """What each level took, where there are several."""
    return {"levels": [asdict(report) for report in result.levels]} if len(result.levels) > 1 else {}


def _verification_and_certificate(session: Session[ControlProblem], document: Document) -> Document:
    """What the flow is worth by itself, and how far that is from the best. **Collective**."""
    found = verification(session, document)
    return {**found, **_certificate(session, document | found)}


def _certificate(session: Session[ControlProblem], document: Document) -> Document:
    """The distance of the flow to the best one, or why there is none; never an error of its own. **Collective**."""
    config, problem, progress = session.config, session.problem, session.progress
    if config.ideal.certificate == "none" or not problem.parts:
        return {}
    started = time.perf_counter()
    from eulerian.ideal.certificate import certify  # stands on a good part of SciPy, which takes its time to load

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
        if session.run.comm.size > 1:  # the other ranks may be elsewhere
            raise
        reason = f"{type(error).__name__}: {error}"
    else:
        progress.say(certificate.statement)
        seconds = {**document["seconds"], "certificate": time.perf_counter() - started}
        return {"certificate": asdict(certificate), "seconds": seconds}
    progress.say(f"How far the best possible flow is from this one is not known: {reason}")
    return {"no_certificate": reason}
