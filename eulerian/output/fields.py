"""Densities and velocities of a run, for ParaView and for the figures."""

from collections.abc import Iterable

from eulerian.arrays import Floats
from eulerian.control import ControlProblem
from eulerian.errors import FigureError, explained
from eulerian.output.files import BOUNDARY, FIGURES, SNAPSHOTS
from eulerian.output.paraview import ParaviewWriter
from eulerian.output.progress import Progress
from eulerian.output.run_folder import RunFolder
from eulerian.output.sampling import CellNodes
from eulerian.output.snapshots import Snapshots
from eulerian.output.wall_contact import wall_contact
from eulerian.parallel import on_root, warn

FIGURE_TIMES = 5


def write_paraview(run: RunFolder, problem: ControlProblem, theta: Floats, count: int) -> None:
    """``densities.pvd`` with ``count`` equally spaced times; nothing if that is 0. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if count == 0:
        return
    writer = ParaviewWriter(run.path, CellNodes(problem.density_space, problem.velocity_space))
    for sample in problem.snapshots(theta, count):
        writer.write(*sample)


def write_figures(run: RunFolder, problem: ControlProblem, theta: Floats, progress: Progress) -> None:
    """Every figure, and the data that they can be drawn from again; mass at the boundary is told. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    tell_wall_contact(run, problem, progress)
    nodes = CellNodes(problem.density_space, problem.velocity_space)
    draw_figures(run, nodes, problem.snapshots(theta, FIGURE_TIMES), progress)


def tell_wall_contact(run: RunFolder, problem: ControlProblem, progress: Progress) -> None:
    """Warn of mass at the boundary, and keep what its figure is drawn from. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    contact = wall_contact(problem)
    if contact is not None:
        progress.say(f"Warning: {contact.statement}")
        on_root(run.comm, lambda: contact.save(run.path / FIGURES / BOUNDARY))


def draw_figures(
    run: RunFolder, nodes: CellNodes, samples: Iterable[tuple[float, Floats, Floats]], progress: Progress
) -> None:
    """Keep samples (t, ρ, v) in the folder and draw every figure that it now holds the data of. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    flat = nodes.density_space.dim < 3
    draw_gathered(run, nodes.gather(samples) if flat else None, progress, flat=flat)


def draw_gathered(run: RunFolder, snapshots: Snapshots | None, progress: Progress, *, flat: bool) -> None:
    """Keep snapshots, which are on rank 0, and draw; none of the densities unless they are ``flat``. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if not flat:
        progress.say("No picture of the densities in three dimensions: open densities.pvd in ParaView.")

    def keep() -> None:
        if snapshots is not None:
            snapshots.save(run.path / FIGURES / SNAPSHOTS)

    on_root(run.comm, keep)
    draw_here(run)


def draw_here(run: RunFolder) -> None:
    """Draw every figure that a run folder holds the data of; one that fails is a warning. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """

    def draw() -> list[str]:
        try:
            from eulerian.output.plots import draw_run  # matplotlib takes its time to load: on rank 0 only
        except Exception as error:  # noqa: BLE001 - a library that does not load is no reason to lose a run
            return [f"No figure could be drawn: {explained(error)}"]
        try:
            draw_run(run.path)
        except FigureError as error:
            return error.failures
        return []

    failures = on_root(run.comm, draw)
    for text in failures:
        warn(run.comm, f"{text}. The run itself is complete; `eulerian plot {run.path}` draws it again")
