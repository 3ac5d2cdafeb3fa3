"""`eulerian solve` and `eulerian train` with `--method particles`."""

import time
from functools import partial
from pathlib import Path
from typing import Final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.network import SampledProblem, build_sampled_problem
from eulerian.app.build.particles import particle_problem, refuse_training_on_particles, sample_of
from eulerian.app.build.training import descent_settings
from eulerian.app.config import Config
from eulerian.app.runs.particles import LEVEL, particle_document, particle_table, save_paths
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import particle_headline, parts_table
from eulerian.app.runs.result import Document, Outcome
from eulerian.app.runs.train_checkpoint import Checkpoint
from eulerian.app.tasks.drawing import draw_figures
from eulerian.app.tasks.network_run import (
    finite_value,
    layers_and_readout,
    save_and_evaluate_best,
    training_outcome,
    warn_of_rest,
    with_output,
)
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.app.tasks.theta_option import ThetaSource
from eulerian.app.tasks.train_monitor import Start, monitored
from eulerian.app.tasks.train_resume import report_start, run_training
from eulerian.base.arrays import Floats
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
    given = ThetaSource.of(config, theta, comm)
    task = Task("solve", partial(given.build, build_sampled_problem), particle_headline, partial(_solve, given=given))
    return task.run(given.config, comm, overwrite=overwrite, progress=progress)


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
    of these is reported too.
    """

    def task(found: Checkpoint | None) -> Task[SampledProblem]:
        def check(_: Config, sampled: SampledProblem) -> None:
            if found is not None:
                found.state.descent.refuse_another(sampled.problem)

        work = partial(_train, found=found, resume=resume)
        return Task("train", _build_to_train, particle_headline, work, check=check)

    return run_training(config, comm, METHOD, task, overwrite=overwrite, resume=resume, progress=progress)


def _build_to_train(config: Config, comm: MPI.Comm) -> SampledProblem:
    refuse_training_on_particles(config)
    return build_sampled_problem(config, comm)


def _solve(context: RunContext[SampledProblem], given: ThetaSource) -> Outcome:
    problem, theta = context.problem.problem, context.problem.problem.initial_theta
    context.progress.say(given.description)
    started = time.perf_counter()
    total = finite_value(problem, theta, given.name)
    seconds = time.perf_counter() - started
    warn_of_rest(problem, context.config, "The particles stay where they are")
    document = {**given.document, **particle_document(context.problem, context.config.particles)}
    context.progress.say(parts_table({given.title: (total, problem.parts)}), particle_table(document))
    reason = f"particles moved at {given.name}"
    outcome = Outcome("solve", "done", reason, total, problem.parts, seconds_solve=seconds, extra=document)
    return _with_files(context, theta, outcome)


def _train(context: RunContext[SampledProblem], found: Checkpoint | None, *, resume: bool) -> Outcome:
    problem, optimiser = context.problem.problem, context.config.optimiser
    report_start(found, problem.comm, context.progress, resume=resume)
    started = time.perf_counter()
    if found is None:
        start: Start = finite_value(problem, problem.initial_theta), problem.parts
    else:
        start = found.start
    descent = Descent(problem, descent_settings(context.config), state=None if found is None else found.state.descent)
    with monitored(
        context, METHOD, start, lambda: (TrainingState(1, descent.state), lambda theta: theta), optimiser.max_iterations
    ) as monitor:
        result = descent.run(monitor)
        monitor.finish()
        if monitor.interrupted:
            return monitor.interrupted_outcome()
        return _trained(context, start, result, time.perf_counter() - started)


def _trained(context: RunContext[SampledProblem], start: Start, result: OptimiseResult, seconds: float) -> Outcome:
    """What a training that has come to its end leaves. Collective."""
    problem = context.problem.problem
    document: Document = {}

    def evaluate() -> None:
        problem.value_and_gradient(result.theta)
        found = particle_document(context.problem, context.config.particles)
        error = problem.gradient_norm(problem.gradient_interval())
        found["particles"] |= {"gradient_error": error, "fresh": _fresh(context, result.theta)}
        document.update(found)
        context.progress.say(
            parts_table({"start": start, "end": (result.value, problem.parts)}), particle_table(document)
        )

    save_and_evaluate_best(context, result, evaluate)
    outcome = training_outcome(result, problem, seconds, {**document, "no_certificate": _NO_BOUND})
    return _with_files(context, result.theta, outcome)


def _fresh(context: RunContext[SampledProblem], theta: Floats) -> Document | None:
    """J on particles of another seed, or nothing where the particles are a file's. Collective."""
    config, sampled = context.config, context.problem
    if config.particles.file is not None:
        return None
    seed = config.particles.seed + 1
    sample = sample_of(config.with_values("particles", seed=seed), sampled.initial, sampled.problem.comm)
    start = np.ascontiguousarray(sampled.problem.split(theta)[0][: sampled.problem.layer_shape[0]])
    problem = particle_problem(config, sampled.space, sampled.problem.field, start, sample)
    return {"total": problem.value(theta), "interval": problem.interval("total", LEVEL), "seed": seed}


def _with_files(context: RunContext[SampledProblem], theta: Floats, outcome: Outcome) -> Outcome:
    """The outcome, with θ and the figures written; failed if they could not be. **Collective**."""
    folder, sampled = context.folder, context.problem

    def write() -> None:
        parameters = layers_and_readout(sampled.problem, theta)
        folder.write_theta(*parameters)
        save_paths(folder, sampled, parameters[0])
        draw_figures(folder, without=("history",))

    return with_output(outcome, write)
