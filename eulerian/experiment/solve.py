"""`eulerian solve`: one forward solve."""

import time
from dataclasses import replace

from mpi4py import MPI

from eulerian.builder import build
from eulerian.config import Config
from eulerian.control import ControlProblem
from eulerian.experiment.network import finite_value, with_fields
from eulerian.experiment.session import SILENT, Command, Session
from eulerian.output.progress import Progress
from eulerian.output.report import classification_table, headline, parts_table
from eulerian.output.result import Document, Outcome, classification


def run_solve(
    config: Config, comm: MPI.Comm | None = None, *, overwrite: bool = False, progress: Progress = SILENT
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
    return Command("solve", build, headline, _solve).run(config, comm, overwrite=overwrite, progress=progress)


def _solve(session: Session[ControlProblem]) -> Outcome:
    problem, theta = session.problem, session.problem.initial_theta
    started = time.perf_counter()
    total = finite_value(problem, theta)
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
    return replace(with_fields(session, theta, outcome), seconds_solve=seconds)
