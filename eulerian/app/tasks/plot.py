"""`eulerian plot --animate` and `--exact`: a moving picture of a run, and its densities along characteristics."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.mixture import exact_density
from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.files import ANIMATION, EXACT, FIGURES, SNAPSHOTS
from eulerian.app.runs.pixel_grid import pixel_centres, pixel_counts
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.snapshots import FIGURE_TIMES, ExactDensities, Snapshots
from eulerian.app.tasks.drawing import drawing
from eulerian.app.tasks.loaded_run import LoadedRun, load_trained
from eulerian.app.tasks.task import SILENT
from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import InputError, RejectedEvaluation
from eulerian.base.parallel import gather_rows, on_root
from eulerian.control.control import ControlProblem
from eulerian.density.gathered import GatheredDensity
from eulerian.density.sampling import draw_points
from eulerian.mesh.point_location import BoxRegion, MeshRegion
from eulerian.particles.characteristics import CharacteristicDensity, Region
from eulerian.particles.flow import carry
from eulerian.particles.sample import share

MOST_FRAMES, MOST_PARTICLES, FASTEST = 600, 20_000, 50  # viewers slow down what is faster


def run_animate(
    folder: Path,
    comm: MPI.Comm | None = None,
    *,
    frames: int = 60,
    particles: int | None = None,
    fps: float = 15.0,
    python: bool = True,
    progress: Progress = SILENT,
) -> Path:
    """Solve a run's flow again and write ``figures/animation.gif``; rank 0 draws. **Collective**.

    Particles are Sobol points of ρ₀, carried by the same velocity. Where the density cannot be solved for (a flow that
    was trained on particles may need too many time steps) the particles are shown alone. In three dimensions the
    picture shows the integral of the density along z.

    Args:
        folder: of a run of ``train``, ``solve``, ``verify`` or ``ideal``.
        comm: who shares the work, everybody by default.
        frames: equally spaced times, from 2 to 600.
        particles: their number, 0 for none; 300 by default, on a line 60.
        fps: frames per second, up to 50.
        python: the run's field may be Python code of the user's.
        progress: where messages go.

    Raises:
        InputError: the run cannot be used, or a number is out of range.
        ComputationError: the forward solve fails and there are no particles, or the file cannot be written.
        FigureError: it cannot be drawn.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    for key, value, low, high in (
        ("--frames", frames, 2, MOST_FRAMES),
        ("--particles", particles or 0, 0, MOST_PARTICLES),
        ("--fps", fps, 1, FASTEST),
    ):
        if not low <= value <= high:
            remedy = f"Give one from {low} to {high}."
            raise InputError(f"is a number from {low} to {high}", key=key, value=value, remedy=remedy)
    run = load_trained(folder, comm, python=python)
    problem = run.problem
    if particles is None:
        particles = max(60 if problem.density_space.dim == 1 else 300, problem.density_space.n_labels)
    if 0 < particles < problem.density_space.n_labels:
        what = f"every one of the {problem.density_space.n_labels} labels needs a particle"
        raise InputError(what, key="--particles", value=particles, remedy="Give more, or 0 for none.")
    times = np.linspace(0.0, problem.horizon, frames)
    positions, labels = _particles(run, times, particles, comm)
    points, density = _densities(run, frames, progress, alone=not particles)
    if problem.density_space.dim == 3:
        progress.say("Three dimensions: the animation shows x and y, and the density integrated along z.")
    path = folder / FIGURES / ANIMATION

    def draw() -> None:
        assert points is not None
        film = points, density, positions, labels, run.classes
        with drawing(f"{path} could not be drawn"):
            from eulerian.app.figures.animation import write_animation
            from eulerian.app.figures.animation_figure import AnimationData  # Matplotlib is slow to load

            write_animation(path, AnimationData(times, *film), fps)

    on_root(comm, draw)
    return path


def _particles(run: LoadedRun, times: Floats, count: int, comm: MPI.Comm) -> tuple[Floats, Ints]:
    """Positions (n, P, dim) at all times and labels (P,), on rank 0; elsewhere nothing. Collective."""
    problem, dim = run.problem, run.problem.density_space.dim
    nothing = np.zeros((len(times), 0, dim)), np.zeros(0, dtype=np.int32)
    if not count:
        return nothing
    field = run.field_anywhere(with_density=False)
    start = GatheredDensity.gather(problem.density_space, problem.initial_density)
    # On rank 0 alone: error control then sees the same points on any number of ranks.
    found: list[tuple[Floats, Ints]] = []

    def work() -> None:
        drawn = draw_points(start, count, method="sobol", seed=run.config.particles.seed)
        found.append((carry(field, run.layers, drawn.x, drawn.labels, times, run.scheme), drawn.labels))

    on_root(comm, work)
    return found[0] if found else nothing


def _densities(run: LoadedRun, count: int, progress: Progress, *, alone: bool) -> tuple[Floats | None, Floats]:
    """Nodes (N, m, dim) and densities (n, N, m, K) on rank 0; zero where they cannot be solved for. Collective.

    Raises:
        RejectedEvaluation: they cannot be solved for, and would be ``alone`` in the picture.
    """
    problem: ControlProblem = run.problem
    nodes, comm = CellNodes(problem.density_space, problem.velocity_space), problem.comm
    points = gather_rows(comm, nodes.points())
    try:
        samples = problem.snapshots(run.theta, count)
    except RejectedEvaluation as reason:
        if alone:
            raise
        progress.say(f"Particles only, for the densities cannot be solved for: {reason}")
        shape = (0, 0) if points is None else points.shape[:2]
        return points, np.zeros((count, *shape, problem.density_space.n_labels), dtype=np.float32)
    rows = [gather_rows(comm, nodes.density(rho).astype(np.float32)) for _, rho, _ in samples]
    return points, np.stack([row for row in rows if row is not None]) if points is not None else np.zeros(0)


_PIXELS = {1: 1200, 2: 300}  # along the longer side, by dimension
_STEPS = 2  # of RK4 in a layer: what that leaves out is far below what an eye can see


@final
@dataclass(frozen=True)
class _Frame:
    """What the figures of a run show: times (n,), a window with corners (dim,), and its pixels."""

    times: Floats
    lower: Floats
    upper: Floats
    counts: tuple[int, ...]


def save_exact_densities(folder: Path, comm: MPI.Comm | None = None, *, python: bool = True) -> Path:
    """Evaluate a run's densities along characteristics where its figures show them, and keep them. **Collective**.

    ``eulerian plot`` draws them from then on, beside those of the mesh.

    Args:
        folder: of a run of ``train``, ``solve``, ``verify`` or ``ideal`` that has figures.
        comm: who shares the work, everybody by default.
        python: the run's field may be Python code of the user's.

    Returns:
        The file that holds them.

    Raises:
        InputError: the run cannot be used: it has three dimensions, no figures, or a field without a Jacobian.
        ComputationError: the file cannot be written.
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    run = load_trained(folder, comm, python=python)
    dim = run.problem.density_space.dim
    if dim not in _PIXELS:
        what, remedy = "densities along characteristics are drawn in one and two dimensions only", "Leave it out."
        raise InputError(what, key="--exact", remedy=remedy)
    density = _density(run)
    frame = on_root(comm, lambda: _frame(folder, dim))
    pixels = pixel_centres(frame.lower, frame.upper, frame.counts).reshape(-1, dim)
    mine = pixels[share(len(pixels), comm)]
    rows = [gather_rows(comm, density.values(t, mine, comm).astype(np.float32)) for t in frame.times.tolist()]
    path = folder / FIGURES / EXACT

    def save() -> None:
        values = np.stack([row for row in rows if row is not None])
        shaped = values.reshape(len(frame.times), *frame.counts, -1)
        ExactDensities(frame.times, frame.lower, frame.upper, shaped).save(path)

    on_root(comm, save)
    return path


def _density(run: LoadedRun) -> CharacteristicDensity:
    """Collective."""
    space, box = run.problem.density_space, run.config.domain.box
    initial = exact_density(space, run.config.density.initial)
    field = run.field_anywhere()
    if box is not None:
        region: Region = BoxRegion(np.array(box.lower), np.array(box.upper))
    else:
        region = MeshRegion(GatheredDensity.gather(space, run.problem.initial_density).finder)
    return CharacteristicDensity(initial.values, field, run.layers, run.config.field.horizon, _STEPS, region)


def _frame(folder: Path, dim: int) -> _Frame:
    """What figures show, from what they are drawn from. Not collective.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    path = folder / FIGURES / SNAPSHOTS
    if not path.is_file():
        what, remedy = "the run has no figures of densities", "Run it again with output.figures = true."
        raise InputError(what, key="--exact", value=str(folder), remedy=remedy)
    snapshots = Snapshots.load(path).thinned(FIGURE_TIMES)
    if dim == 1:
        x = snapshots.points
        return _Frame(snapshots.times, x.min(axis=(0, 1)), x.max(axis=(0, 1)), (_PIXELS[1],))
    from eulerian.app.figures.maps import visible_window  # needs Matplotlib: on rank 0 only

    window = visible_window(snapshots.density, snapshots.points[:, :3])
    counts = pixel_counts(window.lower, window.upper, _PIXELS[2])
    return _Frame(snapshots.times, window.lower, window.upper, counts)
