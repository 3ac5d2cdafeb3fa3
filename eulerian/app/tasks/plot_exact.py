"""`eulerian plot --exact`: densities for the figures, along characteristics instead of on the mesh."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.app.build.mixture import exact_density
from eulerian.app.runs.exact_densities import ExactDensities
from eulerian.app.runs.files import EXACT, FIGURES, SNAPSHOTS
from eulerian.app.runs.pixel_grid import pixel_centres, pixel_counts
from eulerian.app.runs.snapshots import FIGURE_TIMES, Snapshots
from eulerian.app.tasks.loaded_run import LoadedRun, load_trained
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import gather_rows, on_root
from eulerian.density.gathered import GatheredDensity
from eulerian.mesh.point_location import BoxRegion, MeshRegion
from eulerian.particles.characteristics import CharacteristicDensity, Region
from eulerian.particles.sample import share

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
    from eulerian.app.figures.maps import visible_window  # stands on Matplotlib: on rank 0 only

    window = visible_window(snapshots.density, snapshots.points[:, :3])
    counts = pixel_counts(window.lower, window.upper, _PIXELS[2])
    return _Frame(snapshots.times, window.lower, window.upper, counts)
