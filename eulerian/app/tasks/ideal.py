"""`eulerian ideal`: the best that any velocity could do."""

import time
from dataclasses import asdict, replace

from mpi4py import MPI

from eulerian.app.build.keys import configured_keys
from eulerian.app.build.network import build_ideal
from eulerian.app.config import Config
from eulerian.app.runs.ideal_densities import keep_ideal_targets, write_ideal_figures, write_ideal_paraview
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import ideal_headline, ideal_table
from eulerian.app.runs.result import Document, Outcome, ideal_statistics
from eulerian.app.tasks.task import SILENT, Command, Session
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError, InputError
from eulerian.fields.nodal import Nodal
from eulerian.ideal.domain_parts import domain_parts, require_masses
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.flow import nodal_theta
from eulerian.ideal.hopf_lax import HopfLax, try_hopf_lax
from eulerian.ideal.problem import GapRecord, IdealProblem
from eulerian.ideal.space_time import SpaceTime
from eulerian.objective.parts import part_names
from eulerian.transport.velocity_space import VelocitySpace


def run_ideal(
    config: Config, comm: MPI.Comm | None = None, *, overwrite: bool = False, progress: Progress = SILENT
) -> Document:
    """Minimise over all velocities; arguments, result and errors as for ``run_solve``. **Collective**.

    The field of the configuration is not made: only its layers and its horizon count.
    """
    command = Command("ideal", _build, ideal_headline, _ideal)
    return command.run(config, comm, overwrite=overwrite, progress=progress)


@configured_keys()
def _build(config: Config, comm: MPI.Comm) -> IdealProblem:
    problem = build_ideal(config, comm)
    if problem.kinetic <= 0.0:
        found, _ = try_hopf_lax(problem)
        value = f"; the infimum of J is {found.value:.10g} (Hopf–Lax), and no flow attains it" if found else ""
        raise InputError(
            f"without kinetic energy the best velocities are not determined{value}",
            key="objective.kinetic",
            value=problem.kinetic,
            remedy="Give a positive weight.",
        )
    if problem.functional.is_constraint:  # before anything is written; of the others the solver only warns
        require_masses(problem, domain_parts(SpaceTime(problem.space, problem.slabs, problem.horizon)))
    return problem


@configured_keys()
def _ideal(session: Session[IdealProblem]) -> Outcome:
    problem, settings = session.problem, session.config.ideal
    started = time.perf_counter()
    exact, reason = try_hopf_lax(problem)
    session.progress.say(f"Hopf–Lax: J = {exact.value:.10g}" if exact else f"Hopf–Lax does not apply: {reason}")
    with session.progress.gaps(settings.max_iterations) as observer:

        def follow(record: GapRecord) -> None:
            session.run.append_gap(asdict(record))
            observer(record)

        solution = solve_convex(problem, callback=follow, **settings.solver_options)
    outcome = Outcome(
        "ideal",
        solution.status,
        solution.reason,
        solution.primal,
        dict.fromkeys(part_names(), 0.0) | dict(solution.parts),
        solution.iterations,
        seconds_solve=time.perf_counter() - started,
        extra={"ideal": _numbers(problem, solution, exact), **ideal_statistics(problem, solution)},
    )
    session.progress.say(ideal_table(solution, exact))
    return _with_fields(session, solution, exact, outcome)


def _numbers(problem: IdealProblem, solution: ConvexSolution, exact: HopfLax | None) -> Document:
    names = ("primal", "dual", "gap", "relative_gap", "residual", "iterations", "together")
    return {
        "hopf_lax": exact.value if exact else None,
        **{name: getattr(solution, name) for name in names},
        "layers": problem.slabs,
    }


def _with_fields(
    session: Session[IdealProblem], solution: ConvexSolution, exact: HopfLax | None, outcome: Outcome
) -> Outcome:
    """The outcome, with θ, ParaView files and figures written; failed if they could not be. **Collective**."""
    run, output = session.run, session.config.output
    try:
        run.write_theta(_theta(session, solution))
        write_ideal_paraview(run, solution.flow, output.densities)
        keep_ideal_targets(run, session.problem)
        write_ideal_figures(run, solution.flow, exact)
    except EulerianError as error:
        return replace(outcome, status="failed", reason=f"{outcome.reason}; then the output failed: {error}")
    return outcome


def _theta(session: Session[IdealProblem], solution: ConvexSolution) -> Floats:
    """The velocities as parameters of a free field, label-dependent if there are labels."""
    space = session.problem.space
    velocity_space = VelocitySpace(space)
    field = Nodal(velocity_space.all_nodes(), n_labels=space.n_labels if space.n_labels > 1 else 0)
    return nodal_theta(solution.flow, field, velocity_space, session.config.field.layers)
