"""Densities and velocities of a run, for ParaView and for the figures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eulerian.app.config import Term
from eulerian.app.runs.boundary_mass import mass_at_boundary
from eulerian.app.runs.cell_nodes import CellNodes, Gathering
from eulerian.app.runs.class_regions import ClassRegions
from eulerian.app.runs.files import BOUNDARY, CLASSES, FIGURES, TARGETS
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.paraview import ParaviewWriter
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.projections import ProjectionGathering
from eulerian.app.runs.snapshots import FIGURE_TIMES
from eulerian.app.runs.targets import Targets
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, EulerianError, FigureError, explained
from eulerian.base.parallel import on_root, warn
from eulerian.control.control import ControlProblem
from eulerian.objective.losses import PointLoss


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


def write_figures(
    run: RunFolder, problem: ControlProblem, theta: Floats, terms: Sequence[Term], progress: Progress
) -> None:
    """Every figure, and the data that they can be drawn from again; mass at the boundary is told. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    tell_boundary_mass(run, problem, progress)
    if not run.figures:
        return
    nodes = CellNodes(problem.density_space, problem.velocity_space)
    keep_aims(run, problem, nodes, theta, terms)
    draw_figures(run, nodes, problem.snapshots(theta, FIGURE_TIMES))


def keep_aims(run: RunFolder, problem: ControlProblem, nodes: CellNodes, theta: Floats, terms: Sequence[Term]) -> None:
    """Keep what figures show of the targets of a flow, and of the classes that it tells apart. **Collective**.

    Args:
        run: the folder.
        problem: evaluated at ``theta``.
        nodes: of its cells.
        theta: with the readout, where one is trained.
        terms: of ρ₀.

    Raises:
        ComputationError: a file could not be written.
    """
    terminal, readout = problem.terminal, problem.split(theta)[1]
    keep_targets(run, nodes, terminal.loss, getattr(terminal, "target", None), readout)
    try:
        classes = ClassRegions.measure(problem, theta, terms) if problem.parts else None
    except EulerianError as error:
        if isinstance(error, ComputationError):
            raise
        warn(run.comm, f"There is no figure of the classes: {error}")
        return

    def save() -> None:
        if classes is not None:
            classes.save(run.path / FIGURES / CLASSES)

    on_root(run.comm, save)


def keep_targets(
    run: RunFolder, nodes: CellNodes, loss: PointLoss | None, density: Floats | None, readout: Floats
) -> None:
    """Keep the targets of a loss, or a target density (n_cells, nd, K), if there are any. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    targets = Targets.gather(nodes, loss, density, readout)

    def save() -> None:
        if targets is not None and not targets.empty:
            targets.save(run.path / FIGURES / TARGETS)

    on_root(run.comm, save)


def tell_boundary_mass(run: RunFolder, problem: ControlProblem, progress: Progress) -> None:
    """Warn of mass at the boundary, and keep what its figure is drawn from. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    contact = mass_at_boundary(problem)
    if contact is not None:
        progress.say(f"Warning: {contact.statement}")
        if run.figures:
            on_root(run.comm, lambda: contact.save(run.path / FIGURES / BOUNDARY))


def draw_figures(run: RunFolder, nodes: CellNodes, samples: Iterable[tuple[float, Floats, Floats]]) -> None:
    """Keep samples (t, ρ, v) in the folder and draw every figure that it now holds the data of. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    gathering = gathering_of(nodes)
    for sample in samples if run.figures else ():
        gathering.add(*sample)
    draw_gathered(run, gathering)


def gathering_of(nodes: CellNodes) -> Gathering | ProjectionGathering:
    """What collects the samples (t, ρ, v) that figures are drawn from. Not collective."""
    return Gathering(nodes) if nodes.density_space.dim < 3 else ProjectionGathering(nodes)


def draw_gathered(run: RunFolder, gathering: Gathering | ProjectionGathering) -> None:
    """Keep samples and draw every figure that the folder now holds the data of. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if not run.figures:
        return
    found = gathering.gathered()

    def keep() -> None:
        if found is not None:
            found.save(run.path / FIGURES / found.FILE)

    on_root(run.comm, keep)
    draw_here(run)


def draw_yardsticks(run: RunFolder, document: Mapping[str, Any]) -> None:
    """Draw the history again with what a complete run's J is held against, if there is anything. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if document.get("certificate") or document.get("verified"):
        draw_here(run, only=("history",))


def draw_here(run: RunFolder, only: Collection[str] = ()) -> None:
    """Draw every figure that a run folder holds the data of; one that fails is a warning. **Collective**.

    Args:
        run: of which figures are wanted; else nothing is drawn.
        only: names of figures, or all of them.

    Raises:
        ComputationError: a file could not be written.
    """
    if not run.figures:
        return
    failures = on_root(run.comm, lambda: _failures_of_drawing(run.path, only))
    for text in failures:
        warn(run.comm, f"{text}. The run itself is complete; `eulerian plot {run.path}` draws it again")


def _failures_of_drawing(folder: Path, only: Collection[str]) -> list[str]:
    """Draw the figures of a run folder. Returns what could not be drawn, and why."""
    try:
        from eulerian.app.figures.draw import draw_run  # matplotlib takes its time to load: on rank 0 only
    except Exception as error:  # noqa: BLE001 - a library that does not load is no reason to lose a run
        return [f"No figure could be drawn: {explained(error)}"]
    try:
        draw_run(folder, only=only)
    except FigureError as error:
        return error.failures
    return []
