"""`eulerian sample`: points drawn from the density that a run ends with, or new data, drawn from its target."""

from pathlib import Path
from typing import Literal

from mpi4py import MPI

import numpy as np

from eulerian.app.build.memory import total_memory
from eulerian.app.runs.point_tables import claim_table, write_table
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import Document
from eulerian.app.runs.run_files import require_run
from eulerian.app.tasks.loaded_run import LoadedRun, load_trained
from eulerian.app.tasks.moved_points import logarithm, require_finite
from eulerian.app.tasks.task import SILENT
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.memory_limits import MemoryNeed, require_memory
from eulerian.base.parallel import agreed, gather_rows, on_root
from eulerian.density.gathered import GatheredDensity
from eulerian.density.sampling import Draw, Method, draw_points
from eulerian.particles.flow import carry_back, carry_density
from eulerian.particles.sample import share

type Source = Literal["flow", "target"]

_POINT = 200.0  # bytes for a point and its line of the table, at least


def run_sample(
    folder: Path,
    count: int,
    comm: MPI.Comm | None = None,
    *,
    seed: int = 0,
    method: Method = "random",
    source: Source = "flow",
    output: Path | None = None,
    overwrite: bool = False,
    python: bool = True,
    progress: Progress = SILENT,
) -> Document:
    """Draw points from ρ(T) of a run, which is solved for again, and write them to a table. **Collective**.

    The table has coordinates, label, and the logarithm of the total density Σ_y ρ_y(T). Labels get points in proportion
    to their masses, at least one each. The points are the same on any number of ranks.

    From the target ρ* of a run with kl or l2 the points are drawn at time T and carried back to time 0: new data, of
    the model's own density, the target's pulled back through the flow, whose logarithm the table has.

    Args:
        folder: of the run.
        count: number of points.
        comm: who shares the work, everybody by default.
        seed: of the points.
        method: independent points, or scrambled Sobol points.
        source: ρ(T), or the target.
        output: the table; ``sampled.csv``, of the target ``generated.csv``, in the run folder by default.
        overwrite: replace the table, if it exists.
        python: the run's field may be Python code of the user's.
        progress: where messages go.

    Raises:
        InputError: the run cannot be used, there are fewer points than labels, or the table exists.
        ComputationError: the forward solve fails, or points are carried to infinity.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    table = folder / ("sampled.csv" if source == "flow" else "generated.csv") if output is None else output
    on_root(comm, lambda: require_run(folder))
    on_root(comm, lambda: claim_table(table, overwrite))
    if count < 1:
        raise InputError("at least one point is drawn", key="-n", value=count, remedy="Give a gathered number >= 1.")
    if seed < 0:
        raise InputError("is a gathered number >= 0", key="--seed", value=seed, remedy="Leave it out for 0.")
    purpose, remedy = f"{count} points and their table", "Draw fewer."
    require_memory([MemoryNeed(float(count) * _POINT, purpose, "-n", count, remedy)], total_memory(comm))
    run = load_trained(folder, comm, python=python)
    gathered = GatheredDensity.gather(run.problem.density_space, _final_density(run, source)).non_negative()
    mine = share(count, comm)
    with agreed(comm):
        points = draw_points(gathered, count, method=method, seed=seed, start=mine.start, stop=mine.stop)
    # At a cell's rim rounding may find a point in no cell; then its own label's density, known from the draw, is left.
    x, log_density = points.x, np.log(np.maximum(gathered.values(points.x).sum(axis=1), np.exp(points.log_density)))
    if source == "target":
        x, log_density = _pulled_back(run, gathered, points, log_density, comm)
    numbers = gather_rows(comm, np.column_stack([x, points.labels, log_density]))

    def write() -> None:
        assert numbers is not None
        labels = [run.classes[int(label)] for label in numbers[:, -2]]
        names = [*run.axes, run.label_name, "log_density"]
        write_table(table, names, [*numbers[:, :-2].T, labels, numbers[:, -1]])

    on_root(comm, write)
    noun = "point" if count == 1 else "points"
    origin = "ρ(T)" if source == "flow" else "the target, pulled back to t = 0,"
    progress.say(f"{count} {method} {noun} of {origin} written to {table}")
    return {"command": "sample", "from": source, "run": str(folder), "output": str(table), "points": count}


def _final_density(run: LoadedRun, source: Source) -> Floats:
    """What is drawn from at time T, (n_cells, nd, K). Collective.

    Raises:
        InputError: the run has no target density.
    """
    if source == "flow":
        return run.problem.carry(run.theta, run.problem.initial_density)
    target = run.problem.terminal.target
    if target is None:
        kind = run.config.objective.terminal.kind
        what, remedy = f"a run with objective.terminal.kind = {kind!r} has no target density", "Leave it out."
        raise InputError(what, key="--from", value=source, remedy=remedy)
    return target


def _pulled_back(
    run: LoadedRun, target: GatheredDensity, points: Draw, log_density: Floats, comm: MPI.Comm
) -> tuple[Floats, Floats]:
    """Where points (n, dim) of time T come from, and the logarithm (n,) of the target pulled back there. Collective.

    Args:
        run: whose flow it is.
        target: ρ*.
        points: of time T.
        log_density: (n,) of all labels' target at the points.
        comm: who shares them.
    """
    field = run.field_anywhere()
    x, change = carry_back(field, run.layers, points.x, points.labels, run.scheme, comm)
    require_finite(x, comm)
    if not field.label_dependent:
        return x, log_density - change
    logs = np.empty((len(x), target.n_labels))  # every label has a flow of its own, and its target is pulled by that
    for label in range(target.n_labels):
        end, other = carry_density(field, run.layers, x, np.full(len(x), label), run.scheme, comm)
        logs[:, label] = logarithm(target.values(end)[:, label]) - other
    own = points.log_density - change  # not by the way there and back, and known also at the rim of a cell
    logs[np.arange(len(x)), points.labels] = own
    return x, np.asarray(np.logaddexp.reduce(logs, axis=1))
