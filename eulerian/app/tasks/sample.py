"""`eulerian sample`: points drawn from the density that the flow of a run ends with."""

from pathlib import Path

from mpi4py import MPI

import numpy as np

from eulerian.app.build.memory import total_memory
from eulerian.app.runs.point_tables import claim_table, write_table
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.result import Document
from eulerian.app.runs.run_files import require_run
from eulerian.app.tasks.loaded_run import load_trained
from eulerian.app.tasks.task import SILENT
from eulerian.base.errors import InputError
from eulerian.base.memory_limits import MemoryNeed, require_memory
from eulerian.base.parallel import agreed, gather_rows, on_root
from eulerian.density.gathered import GatheredDensity
from eulerian.density.sampling import Method, draw_points
from eulerian.particles.sample import share

_POINT = 200.0  # bytes for a point and its line of the table, at least


def run_sample(
    folder: Path,
    count: int,
    comm: MPI.Comm | None = None,
    *,
    seed: int = 0,
    method: Method = "random",
    output: Path | None = None,
    overwrite: bool = False,
    python: bool = True,
    progress: Progress = SILENT,
) -> Document:
    """Draw points from ρ(T) of a run, which is solved for again, and write them to a table. **Collective**.

    The table has coordinates, label, and the logarithm of the total density Σ_y ρ_y(T). Labels get points in proportion
    to their masses, at least one each. The points are the same on any number of ranks.

    Args:
        folder: of the run.
        count: number of points.
        comm: who shares the work, everybody by default.
        seed: of the points.
        method: independent points, or scrambled Sobol points.
        output: the table; ``sampled.csv`` in the run folder by default.
        overwrite: replace the table, if it exists.
        python: the run's field may be Python code of the user's.
        progress: where messages go.

    Raises:
        InputError: the run cannot be used, there are fewer points than labels, or the table exists.
        ComputationError: the forward solve fails.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    table = folder / "sampled.csv" if output is None else output
    on_root(comm, lambda: require_run(folder))
    on_root(comm, lambda: claim_table(table, overwrite))
    if count < 1:
        raise InputError("at least one point is drawn", key="-n", value=count, remedy="Give a whole number >= 1.")
    if seed < 0:
        raise InputError("is a whole number >= 0", key="--seed", value=seed, remedy="Leave it out for 0.")
    purpose, remedy = f"{count} points and their table", "Draw fewer."
    require_memory([MemoryNeed(float(count) * _POINT, purpose, "-n", count, remedy)], total_memory(comm))
    run = load_trained(folder, comm, python=python)
    problem = run.problem
    whole = GatheredDensity.gather(
        problem.density_space, problem.carry(run.theta, problem.initial_density)
    ).non_negative()
    mine = share(count, comm)
    with agreed(comm):
        points = draw_points(whole, count, method=method, seed=seed, start=mine.start, stop=mine.stop)
        log_density = np.log(np.maximum(whole.values(points.x).sum(axis=1), np.exp(points.log_density)))
    numbers = gather_rows(comm, np.column_stack([points.x, points.labels, log_density]))

    def write() -> None:
        assert numbers is not None
        labels = [run.classes[int(label)] for label in numbers[:, -2]]
        names = [*run.axes, run.label_name, "log_density"]
        write_table(table, names, [*numbers[:, :-2].T, labels, numbers[:, -1]])

    on_root(comm, write)
    noun = "point" if count == 1 else "points"
    progress.say(f"{count} {method} {noun} of ρ(T) written to {table}")
    return {"command": "sample", "run": str(folder), "output": str(table), "points": count}
