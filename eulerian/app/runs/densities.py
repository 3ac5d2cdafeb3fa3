"""Densities and velocities of a run, for ParaView and for the figures, and what figures show beside them."""

from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from eulerian.app.config import Term
from eulerian.app.runs.boundary_mass import mass_at_boundary
from eulerian.app.runs.cell_nodes import CellNodes, Gathering
from eulerian.app.runs.class_regions import ClassRegions
from eulerian.app.runs.files import BOUNDARY, CLASSES, TARGETS, TIMES
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.paraview import ParaviewWriter
from eulerian.app.runs.progress import Progress
from eulerian.app.runs.projections import ProjectionGathering
from eulerian.app.runs.snapshots import FIGURE_TIMES
from eulerian.app.runs.targets import Targets
from eulerian.app.runs.times import TimeTargets
from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError, EulerianError
from eulerian.base.parallel import warn
from eulerian.control.control import ControlProblem
from eulerian.objective.losses import PointLoss


@final
class DensityWriter:
    """Takes densities and velocities at increasing times, for ParaView and for the figures. **Collective**.

    Args:
        run: the folder.
        nodes: of the cells.
        horizon: T.
        densities: number of equally spaced times for ParaView, 0 for none.
        figure_times: the same for the figures, where they are wanted.

    Attributes:
        times: when something is wanted, sorted.
    """

    def __init__(
        self, run: RunFolder, nodes: CellNodes, horizon: float, densities: int, figure_times: int = FIGURE_TIMES
    ) -> None:
        self._run, self.nodes = run, nodes
        self._shown = frozenset(np.linspace(0.0, horizon, densities).tolist())
        self._drawn = frozenset(np.linspace(0.0, horizon, figure_times if run.figures else 0).tolist())
        self.times: list[float] = sorted(self._shown | self._drawn)
        self._paraview = ParaviewWriter(run.path, nodes)
        # In three dimensions figures show integrals along lines of sight: whole densities would fill the memory.
        flat = nodes.density_space.dim < 3
        self._gathering: Gathering | ProjectionGathering = Gathering(nodes) if flat else ProjectionGathering(nodes)

    def write(self, t: float, rho: Floats, v: Floats, potential: Callable[[], Floats] | None = None) -> None:
        """Take the densities at one of ``times``; arguments as for ``ParaviewWriter.write``.

        Raises:
            ComputationError: a file could not be written.
        """
        if t in self._shown:
            self._paraview.write(t, rho, v, None if potential is None else potential())
        if t in self._drawn:
            self._gathering.add(t, rho, v)

    def finish(self) -> None:
        """Save what the figures are drawn from.

        Raises:
            ComputationError: a file could not be written.
        """
        if self._drawn:
            self._run.write_figure_data(self._gathering.FILE, self._gathering.gathered())


def save_targets_and_classes(
    run: RunFolder, problem: ControlProblem, nodes: CellNodes, theta: Floats, terms: Sequence[Term]
) -> None:
    """Save what figures show of the targets of a flow, and of the classes that it tells apart. **Collective**.

    Args:
        run: the folder.
        problem: evaluated at ``theta``.
        nodes: of its cells.
        theta: with the readout, where one is trained.
        terms: of ρ₀.

    Raises:
        ComputationError: a file could not be written.
    """
    terminal, readout = problem.terminal, problem.terminal_readout(theta)
    save_targets(run, nodes, terminal.loss, terminal.target, readout)
    if problem.ends.later and problem.density_space.dim < 3:
        run.write_figure_data(TIMES, TimeTargets.gather(nodes, problem))
    try:
        classes = ClassRegions.measure(problem, theta, terms) if problem.parts else None
    except EulerianError as error:
        if isinstance(error, ComputationError):
            raise
        warn(run.comm, f"There is no figure of the classes: {error}")
        return
    run.write_figure_data(CLASSES, classes)


def save_targets(
    run: RunFolder, nodes: CellNodes, loss: PointLoss | None, density: Floats | None, readout: Floats
) -> None:
    """Save the targets of a loss, or a target density (n_cells, nd, K), if there are any. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    targets = Targets.gather(nodes, loss, density, readout)
    run.write_figure_data(TARGETS, None if targets is None or targets.empty else targets)


def warn_of_boundary_mass(run: RunFolder, problem: ControlProblem, progress: Progress) -> None:
    """Warn of mass at the boundary, and save what its figure is drawn from. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    contact = mass_at_boundary(problem)
    if contact is not None:
        progress.warn(contact.statement)
        if run.figures:
            run.write_figure_data(BOUNDARY, contact)
