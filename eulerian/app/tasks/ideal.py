"""`eulerian ideal`: the best that any velocity could do."""

import time
from dataclasses import asdict
from functools import partial

from mpi4py import MPI

import numpy as np

from eulerian.app.build.free_flow import with_flow_cost
from eulerian.app.build.keys import configured_keys
from eulerian.app.build.network import build_ideal
from eulerian.app.config import Config
from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.densities import DensityWriter, save_targets
from eulerian.app.runs.files import FIGURES, TRAJECTORIES, write_arrays
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.report import ideal_headline, ideal_table
from eulerian.app.runs.result import Document, Outcome, ideal_statistics
from eulerian.app.runs.snapshots import FIGURE_TIMES
from eulerian.app.tasks.drawing import draw_figures
from eulerian.app.tasks.network_run import with_output
from eulerian.app.tasks.task import SILENT, RunContext, Task
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root
from eulerian.bounds.bracket import ContinuousBounds
from eulerian.bounds.continuous import continuous_bounds
from eulerian.bounds.hopf_lax import HopfLax, try_hopf_lax
from eulerian.bounds.paths import flow_paths, straight_paths
from eulerian.fields.nodal import Nodal
from eulerian.ideal.domain_parts import domain_parts, require_masses
from eulerian.ideal.dynamic_ot import ConvexSolution, solve_convex
from eulerian.ideal.flow import ConvexFlow, nodal_theta
from eulerian.ideal.problem import GapRecord, IdealProblem
from eulerian.ideal.space_time import SpaceTime
from eulerian.objective.parts import part_names
from eulerian.transport.velocity_space import VelocitySpace

_TIMES_ON_A_LINE = 61  # in the picture of a density over space and time


def run_ideal(
    config: Config, comm: MPI.Comm | None = None, *, overwrite: bool = False, progress: Progress = SILENT
) -> Document:
    """Minimise over all velocities; arguments, result and errors as for ``run_solve``. **Collective**.

    The field of the configuration is not made: only its layers and its horizon count.
    """
    task = Task("ideal", _build, ideal_headline, _ideal)
    return task.run(config, comm, overwrite=overwrite, progress=progress)


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
def _ideal(context: RunContext[IdealProblem]) -> Outcome:
    problem, settings = context.problem, context.config.ideal
    started = time.perf_counter()
    with context.progress.gaps(settings.max_iterations) as observer:

        def follow(record: GapRecord) -> None:
            context.folder.append_gap(asdict(record))
            observer(record)

        solution = solve_convex(problem, callback=follow, **settings.solver_options)
        seconds = time.perf_counter() - started
        bounds = continuous_bounds(problem, solution, **settings.solver_options)
    bounds = with_flow_cost(context.config, problem, solution, bounds)
    exact = bounds.hopf_lax
    outcome = Outcome(
        "ideal",
        solution.status,
        solution.reason,
        solution.primal,
        dict.fromkeys(part_names(), 0.0) | dict(solution.parts),
        solution.iterations,
        seconds_solve=seconds,
        extra={"ideal": _numbers(problem, solution, bounds), **ideal_statistics(problem, solution)},
    )
    context.progress.say(ideal_table(solution, bounds))
    return _with_fields(context, solution, exact, outcome)


def _numbers(problem: IdealProblem, solution: ConvexSolution, bounds: ContinuousBounds) -> Document:
    names = ("primal", "dual", "gap", "relative_gap", "residual", "iterations", "together")
    return {
        "hopf_lax": bounds.hopf_lax.value if bounds.hopf_lax else None,
        "continuous": bounds.document,
        **{name: getattr(solution, name) for name in names},
        "layers": problem.slabs,
    }


def _with_fields(
    context: RunContext[IdealProblem], solution: ConvexSolution, exact: HopfLax | None, outcome: Outcome
) -> Outcome:
    """The outcome, with θ, ParaView files and figures written; failed if they could not be. **Collective**."""

    def write() -> None:
        context.folder.write_theta(_theta(context, solution))
        write_densities(context, solution.flow)
        if context.folder.figures:
            _save_targets(context)
            paths = flow_paths(solution.flow) if exact is None else straight_paths(exact, solution.flow)
            file = context.folder.path / FIGURES / TRAJECTORIES
            on_root(context.folder.comm, lambda: write_arrays(file, paths._asdict()))
        draw_figures(context.folder)

    return with_output(outcome, write)


def write_densities(context: RunContext[IdealProblem], flow: ConvexFlow) -> None:
    """Densities, velocities and potentials of a convex flow, for ParaView and for the figures. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    nodes = CellNodes(flow.linear_space, VelocitySpace(flow.linear_space))
    figure_times = _TIMES_ON_A_LINE if flow.grid.dim == 1 else FIGURE_TIMES
    count = context.config.output.densities
    writer = DensityWriter(context.folder, nodes, flow.grid.horizon, count, figure_times)
    for t in writer.times:
        velocities = flow.velocity_at(t, nodes.velocity_space)
        v = velocities if len(velocities) > 1 else velocities[0]
        writer.write(t, flow.density_at(t), v, partial(flow.potential_at, t))
    writer.finish()


def _save_targets(context: RunContext[IdealProblem]) -> None:
    """Collective."""
    space, functional = context.problem.space, context.problem.functional
    nodes = CellNodes(space, VelocitySpace(space))
    save_targets(context.folder, nodes, functional.point_loss, functional.target, np.zeros(0))


def _theta(context: RunContext[IdealProblem], solution: ConvexSolution) -> Floats:
    """The velocities as parameters of a free field, label-dependent if there are labels."""
    space = context.problem.space
    velocity_space = VelocitySpace(space)
    field = Nodal(velocity_space.all_nodes(), n_labels=space.n_labels if space.n_labels > 1 else 0)
    return nodal_theta(solution.flow, field, velocity_space, context.config.field.layers)
