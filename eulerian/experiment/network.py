"""What the commands that evaluate a network share: J at a θ, its descent, and the files that show it."""

import math
from dataclasses import replace

from eulerian.arrays import Floats
from eulerian.config import Config
from eulerian.control import ControlProblem
from eulerian.errors import EulerianError, RejectedEvaluation
from eulerian.experiment.session import Session
from eulerian.optimise import OptimiseResult, Record, minimise
from eulerian.output.fields import write_figures, write_paraview
from eulerian.output.progress import Progress
from eulerian.output.result import Document, Outcome, history_row
from eulerian.output.run_folder import RunFolder
from eulerian.reduced import ReducedProblem


def storage_statement(problem: ControlProblem, theta: Floats) -> str:
    """What gradients at θ will keep and compute again, before anything is solved. **Collective**."""
    try:
        return problem.plan(theta).statement
    except RejectedEvaluation as rejection:
        return f"The adjoint's storage cannot be told: {rejection}"


def finite_value(problem: ReducedProblem, theta: Floats) -> float:
    """J(θ). **Collective**.

    Raises:
        RejectedEvaluation: it cannot be evaluated.
    """
    value = problem.value(theta)
    if not math.isfinite(value):
        raise RejectedEvaluation(f"J cannot be evaluated at the initial θ: {problem.rejection}")
    return value


def descend(run: RunFolder, config: Config, problem: ReducedProblem, progress: Progress) -> OptimiseResult:
    """Minimise J as the configuration says, with history and checkpoints in the run folder. **Collective**.

    Raises:
        InputError: J cannot be evaluated at the start, or PETSc refuses the method or an option.
    """
    optimiser, every = config.optimiser, config.output.checkpoint_every
    with progress.iterations(optimiser.max_iterations) as watch:

        def follow(record: Record) -> None:
            run.append_history(history_row(record))
            if every and record.iteration % every == 0:
                run.write_theta(*layers_and_readout(problem, problem.theta), checkpoint=True)
            watch(record)

        return minimise(
            problem,
            method=optimiser.method,
            petsc_options=optimiser.petsc_options,
            max_iterations=optimiser.max_iterations,
            gradient_tolerance=optimiser.gradient_tolerance,
            callback=follow,
        )


def training_outcome(result: OptimiseResult, problem: ReducedProblem, seconds: float, extra: Document) -> Outcome:
    """The outcome of a minimisation, for a problem that was evaluated last at its best θ."""
    return Outcome(
        "train",
        result.status,
        result.reason,
        result.value,
        problem.parts,
        result.iterations,
        result.gradient_norm,
        seconds_solve=seconds,
        extra=extra,
    )


def with_fields(session: Session[ControlProblem], theta: Floats, outcome: Outcome) -> Outcome:
    """The outcome, with θ, ParaView files and figures written; failed if they could not be. **Collective**."""
    try:
        session.run.write_theta(*layers_and_readout(session.problem, theta))
        write_paraview(session.run, session.problem, theta, session.config.output.densities)
        write_figures(session.run, session.problem, theta, session.progress)
    except EulerianError as error:
        return replace(outcome, status="failed", reason=f"{outcome.reason}; then the output failed: {error}")
    return outcome


def layers_and_readout(problem: ReducedProblem, theta: Floats) -> tuple[Floats, Floats | None]:
    """θ as (L, p), and the readout where one is trained."""
    layers, readout = problem.split(theta)
    return layers, readout if readout.size else None
