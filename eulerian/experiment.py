"""From a configuration to a run folder: solve, train, verify. Every function here is collective."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.analysis.verify import Verification, verify
from eulerian.arrays import Floats
from eulerian.builder import build
from eulerian.config import Config
from eulerian.control import ControlProblem
from eulerian.errors import ComputationError, EulerianError, RejectedEvaluation
from eulerian.optimise import Record, minimise
from eulerian.output.fields import write_figures, write_paraview
from eulerian.output.progress import Progress
from eulerian.output.report import classification_table, files_line, headline, laws_table, parts_table
from eulerian.output.result import Document, Outcome, classification, describe, history_row, plain
from eulerian.output.run_folder import RunFolder

# What `verify` lets pass: the laws hold to rounding, the Taylor remainder falls by four when the step is halved.
LEAST_TAYLOR_RATE = 1.8
LARGEST_DOT_ERROR = 1e-9
LARGEST_MASS_ERROR = 1e-11
LEAST_DENSITY = -1e-11

_SILENT = Progress()


@final
@dataclass(frozen=True)
class Session:
    """What every command works with.

    Attributes:
        config: the configuration.
        run: the folder, started.
        problem: built.
        progress: where messages go.
    """

    config: Config
    run: RunFolder
    problem: ControlProblem
    progress: Progress


def run_solve(
    config: Config, comm: MPI.Comm | None = None, *, overwrite: bool = False, progress: Progress = _SILENT
) -> Document:
    """One forward solve at the initial θ; the contents of ``result.json``. **Collective**.

    Args:
        config: from ``read_config``.
        comm: who shares the work, everybody by default.
        overwrite: replace a run that is in ``output.directory``.
        progress: where messages go; nowhere by default.

    Raises:
        InputError: the configuration does not fit, or the run folder may not be written.
        ComputationError: the computation failed; ``result.json`` says so too.
    """
    return _run("solve", config, comm, overwrite, progress, _solve)


def run_train(
    config: Config, comm: MPI.Comm | None = None, *, overwrite: bool = False, progress: Progress = _SILENT
) -> Document:
    """Minimise J; arguments, result and errors as for ``run_solve``. **Collective**.

    An optimiser that gives up raises nothing: the status is ``failed`` and the best iterate is written.
    """
    return _run("train", config, comm, overwrite, progress, _train)


def run_verify(
    config: Config, comm: MPI.Comm | None = None, *, overwrite: bool = False, progress: Progress = _SILENT
) -> Document:
    """Check gradient, mass and positivity at the initial θ; otherwise as ``run_solve``. **Collective**.

    A law that does not hold raises nothing: the status is ``failed`` and the reason names it.
    """
    return _run("verify", config, comm, overwrite, progress, _verify)


def _run(
    command: str,
    config: Config,
    comm: MPI.Comm | None,
    overwrite: bool,
    progress: Progress,
    work: Callable[[Session], Outcome],
) -> Document:
    """Claim the folder, build, work, and leave a ``result.json`` whatever happens once the input has proved right."""
    comm = MPI.COMM_WORLD if comm is None else comm
    run = RunFolder.claim(comm, config.output.directory, overwrite)
    started = time.perf_counter()
    try:
        problem = build(config, comm)
    except ComputationError as error:
        run.start(config.to_toml())
        run.write_result(describe(Outcome(command, "failed", str(error)), None, comm.size))
        raise
    seconds_setup = time.perf_counter() - started
    run.start(config.to_toml())
    progress.say(headline(config, problem))
    with _failure_told(run, command, problem):
        outcome = replace(work(Session(config, run, problem, progress)), seconds_setup=seconds_setup)
    document: Document = comm.bcast(plain(describe(outcome, problem, comm.size)), 0)  # clocks differ between ranks
    run.write_result(document)
    progress.say(f"{outcome.status}: {outcome.reason}\n{files_line(run)}")
    return document


@contextmanager
def _failure_told(run: RunFolder, command: str, problem: ControlProblem) -> Iterator[None]:
    """Leave a ``result.json`` that names the error when the work breaks off."""
    try:
        yield
    except EulerianError as error:
        run.write_result(describe(Outcome(command, "failed", str(error)), problem, run.comm.size))
        raise
    except (Exception, KeyboardInterrupt) as error:
        if run.comm.size == 1:  # else the other ranks may be elsewhere, and the job is aborted
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            run.write_result(describe(Outcome(command, "failed", reason), None, 1))
        raise


def _solve(session: Session) -> Outcome:
    problem, theta = session.problem, session.problem.initial_theta
    started = time.perf_counter()
    total = _value(problem, theta)
    seconds = time.perf_counter() - started
    outcome = Outcome(
        "solve",
        "converged",
        "solved forward at the initial θ",
        total,
        problem.parts,
        extra=classification(problem, theta),
    )
    session.progress.say(parts_table({"J at θ₀": (total, problem.parts)}), classification_table(outcome.extra))
    return replace(_with_fields(session, theta, outcome), seconds_solve=seconds)


def _train(session: Session) -> Outcome:
    problem, optimiser = session.problem, session.config.optimiser
    every = session.config.output.checkpoint_every
    started = time.perf_counter()
    _value(problem, problem.initial_theta)
    with session.progress.iterations(optimiser.max_iterations) as watch:

        def follow(record: Record) -> None:
            session.run.append_history(history_row(record))
            if every and record.iteration % every == 0:
                session.run.write_theta(*_layers_and_readout(problem, problem.theta), checkpoint=True)
            watch(record)

        result = minimise(
            problem,
            method=optimiser.method,
            petsc_options=optimiser.petsc_options,
            max_iterations=optimiser.max_iterations,
            gradient_tolerance=optimiser.gradient_tolerance,
            callback=follow,
        )
    seconds = time.perf_counter() - started
    problem.value(result.theta)
    outcome = Outcome(
        "train",
        result.status,
        result.reason,
        result.value,
        problem.parts,
        result.iterations,
        result.gradient_norm,
        seconds_solve=seconds,
        extra=classification(problem, result.theta),
    )
    first = result.history[0]
    session.progress.say(
        parts_table({"start": (first.total, first.parts), "end": (outcome.total, outcome.parts)}),
        classification_table(outcome.extra),
    )
    return _with_fields(session, result.theta, outcome)


def _verify(session: Session) -> Outcome:
    problem, theta = session.problem, session.problem.initial_theta
    started = time.perf_counter()
    _value(problem, theta)
    laws = verify(problem, theta, np.random.default_rng(session.config.field.seed))
    seconds = time.perf_counter() - started
    total, gradient = problem.value_and_gradient(theta)
    broken = _broken_laws(laws)
    session.run.write_theta(*_layers_and_readout(problem, theta))
    session.progress.say(laws_table(laws))
    return Outcome(
        "verify",
        "failed" if broken else "converged",
        "; ".join(broken) or "gradient, adjoint, mass and positivity hold",
        total,
        problem.parts,
        gradient_norm=problem.gradient_norm(gradient),
        seconds_solve=seconds,
        extra={"verify": asdict(laws)},
    )


def _broken_laws(laws: Verification) -> list[str]:
    """What does not hold, in words; NaN holds nothing."""
    found = []
    rate = min(laws.taylor_rates, default=math.nan)
    if not rate >= LEAST_TAYLOR_RATE:
        found.append(
            f"the Taylor rate {rate:.3g} is below {LEAST_TAYLOR_RATE}: the gradient is wrong, or J is not smooth"
        )
    if not laws.dot_error <= LARGEST_DOT_ERROR:
        found.append(f"the adjoint misses the dot product by {laws.dot_error:.2e}")
    if not laws.mass_error <= LARGEST_MASS_ERROR:
        found.append(f"the mass changes by {laws.mass_error:.2e}")
    if not laws.min_density >= LEAST_DENSITY:
        found.append(f"the density falls to {laws.min_density:.2e}")
    return found


def _value(problem: ControlProblem, theta: Floats) -> float:
    """J(θ).

    Raises:
        RejectedEvaluation: it cannot be evaluated.
    """
    value = problem.value(theta)
    if not math.isfinite(value):
        raise RejectedEvaluation(f"J cannot be evaluated at the initial θ: {problem.rejection}")
    return value


def _with_fields(session: Session, theta: Floats, outcome: Outcome) -> Outcome:
    """The outcome, with θ, ParaView files and figures written; marked as failed if they could not be."""
    try:
        session.run.write_theta(*_layers_and_readout(session.problem, theta))
        write_paraview(session.run, session.problem, theta, session.config.output.densities)
        write_figures(session.run, session.problem, theta, session.progress)
    except EulerianError as error:
        return replace(outcome, status="failed", reason=f"{outcome.reason}; then the output failed: {error}")
    return outcome


def _layers_and_readout(problem: ControlProblem, theta: Floats) -> tuple[Floats, Floats | None]:
    layers, readout = problem.split(theta)
    return layers, readout if readout.size else None
