"""`eulerian solve` and `eulerian train` with `--method particles`."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.network import SampledProblem, build_sampled_problem
from eulerian.app.build.particles import particle_problem, refuse_training_on_particles, sample_of
from eulerian.app.build.training import descent_settings
from eulerian.app.commands.command import SILENT, Command, Session
from eulerian.app.commands.network_run import finite_value, kept, layers_and_readout, training_outcome, warn_of_rest
from eulerian.app.commands.theta_option import GivenTheta
from eulerian.app.commands.train_monitor import Start, followed
from eulerian.app.commands.train_resume import Finished, resumable, tell_resume_command, tell_start
from eulerian.app.config import Config
from eulerian.app.runs.densities import draw_here
from eulerian.app.runs.particle_result import LEVEL, keep_paths, particle_document, particle_table
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import particle_headline, parts_table
from eulerian.app.runs.result import Document, Outcome
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError
from eulerian.optimise import Descent, OptimiseResult, TrainingState

METHOD: Final = "particles"

_NO_BOUND = (
    "the lower bound is one for the density and not for a sample of it; `eulerian compare --theta RUN` tells how far "
    "apart particles and densities are"
)


def run_solve_particles(
    config: Config,
    comm: MPI.Comm | None = None,
    *,
    theta: Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """J on particles at one θ; arguments, result and errors as for ``run_solve``. **Collective**."""
    given = GivenTheta.of(config, theta, comm)
    command = Command(
        "solve", partial(given.build, build_sampled_problem), particle_headline, partial(_solve, given=given)
    )
    return command.run(given.config, comm, overwrite=overwrite, progress=progress)


def run_train_particles(
    config: Config,
    comm: MPI.Comm | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """Minimise J on particles; arguments, result and errors as for ``run_train``. **Collective**.

    J of the particles that were trained on is too small on average: where they were drawn, others are drawn too, and J
    of these is told beside it.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    found = resumable(config, METHOD, comm, overwrite=overwrite) if resume else None
    if isinstance(found, Finished):
        progress.say(found.statement)
        return found.document

    def work(session: Session[SampledProblem]) -> Outcome:
        tell_start(found, comm, progress, resume=resume)
        return _train(session, found)

    command = Command("train", _build_to_train, particle_headline, work)
    go_on = tell_resume_command(found)
    return command.run(config, comm, overwrite=overwrite, progress=progress, resume=resume, **go_on)


def _build_to_train(config: Config, comm: MPI.Comm) -> SampledProblem:
    refuse_training_on_particles(config)
    return build_sampled_problem(config, comm)


def _solve(session: Session[SampledProblem], given: GivenTheta) -> Outcome:
    problem, theta = session.problem.problem, session.problem.problem.initial_theta
    session.progress.say(given.told)
    started = time.perf_counter()
    total = finite_value(problem, theta, given.name)
    seconds = time.perf_counter() - started
    warn_of_rest(problem, session.config, "The particles stay where they are")
    document = {**given.document, **particle_document(session.problem, session.config.particles)}
    session.progress.say(parts_table({given.title: (total, problem.parts)}), particle_table(document))
    reason = f"particles moved at {given.name}"
    outcome = Outcome("solve", "done", reason, total, problem.parts, seconds_solve=seconds, extra=document)
    return _with_files(session, theta, outcome)


def _train(session: Session[SampledProblem], found: Checkpoint | None) -> Outcome:
    problem, optimiser = session.problem.problem, session.config.optimiser
    started = time.perf_counter()
    if found is None:
        start: Start = finite_value(problem, problem.initial_theta), problem.parts
    else:
        start = found.start
    descent = Descent(problem, descent_settings(session.config), state=None if found is None else found.state.descent)

    def state() -> tuple[TrainingState, Callable[[Floats], Floats]]:
        return TrainingState(1, descent.state), lambda theta: theta

    with followed(session, METHOD, start, state, optimiser.max_iterations) as follower:
        result = descent.run(follower)
        follower.finish()
        if follower.interrupted:
            return follower.interrupted_outcome()
        return _trained(session, start, result, time.perf_counter() - started)


def _trained(session: Session[SampledProblem], start: Start, result: OptimiseResult, seconds: float) -> Outcome:
    """What a training that has come to its end leaves. Collective."""
    problem = session.problem.problem
    document: Document = {}
    with kept(session, result):
        problem.value_and_gradient(result.theta)
        document = particle_document(session.problem, session.config.particles)
        document["particles"] |= {
            "gradient_error": problem.gradient_norm(problem.gradient_interval()),
            "fresh": _fresh(session, result.theta),
        }
        session.progress.say(
            parts_table({"start": start, "end": (result.value, problem.parts)}), particle_table(document)
        )
    outcome = training_outcome(result, problem, seconds, {**document, "no_certificate": _NO_BOUND})
    return _with_files(session, result.theta, outcome)


def _fresh(session: Session[SampledProblem], theta: Floats) -> Document | None:
    """J on particles of another seed, or nothing where the particles are a file's. Collective."""
    config, sampled = session.config, session.problem
    if config.particles.file is not None:
        return None
    others = config.particles.model_copy(update={"seed": config.particles.seed + 1})
    sample = sample_of(config.model_copy(update={"particles": others}), sampled.initial, sampled.problem.comm)
    start = np.ascontiguousarray(sampled.problem.split(theta)[0][: sampled.problem.layer_shape[0]])
    problem = particle_problem(config, sampled.space, sampled.problem.field, start, sample)
    return {"total": problem.value(theta), "interval": problem.interval("total", LEVEL), "seed": others.seed}


def _with_files(session: Session[SampledProblem], theta: Floats, outcome: Outcome) -> Outcome:
    """The outcome, with θ and the figures written; failed if they could not be. **Collective**."""
    run, problem = session.run, session.problem.problem
    try:
        parameters = layers_and_readout(problem, theta)
        run.write_theta(*parameters)
        keep_paths(run, session.problem, parameters[0])
        draw_here(run)
    except EulerianError as error:
        return replace(outcome, status="failed", reason=f"{outcome.reason}; then the output failed: {error}")
    return outcome
