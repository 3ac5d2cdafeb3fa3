"""Densities, velocities and potentials of a convex flow, for ParaView and for the figures."""

from collections.abc import Iterator

import numpy as np

from eulerian.app.runs.cell_nodes import CellNodes
from eulerian.app.runs.densities import draw_figures, keep_targets
from eulerian.app.runs.files import FIGURES, TRAJECTORIES, write_arrays
from eulerian.app.runs.folder import RunFolder
from eulerian.app.runs.paraview import ParaviewWriter
from eulerian.app.runs.snapshots import FIGURE_TIMES
from eulerian.base.arrays import Floats
from eulerian.base.parallel import on_root
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.hopf_lax import HopfLax
from eulerian.ideal.paths import flow_paths, straight_paths
from eulerian.ideal.problem import IdealProblem
from eulerian.transport.velocity_space import VelocitySpace

_TIMES_ON_A_LINE = 61  # in the picture of a density over space and time


def write_ideal_paraview(run: RunFolder, flow: ConvexFlow, count: int) -> None:
    """``densities.pvd`` with ``count`` equally spaced times; nothing if that is 0. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if count == 0:
        return
    nodes = _nodes(flow)
    writer = ParaviewWriter(run.path, nodes)
    for t, rho, v in _samples(flow, nodes, count):
        writer.write(t, rho, v, flow.potential_at(t))


def keep_ideal_targets(run: RunFolder, problem: IdealProblem) -> None:
    """Keep the targets of an idealised problem for the figures. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if not run.figures:
        return
    nodes, functional = CellNodes(problem.space, VelocitySpace(problem.space)), problem.functional
    keep_targets(run, nodes, functional.point_loss, functional.target, np.zeros(0))


def write_ideal_figures(run: RunFolder, flow: ConvexFlow, exact: HopfLax | None) -> None:
    """Every figure, and the data that they can be drawn from again. **Collective**.

    Raises:
        ComputationError: a file could not be written.
    """
    if not run.figures:
        return
    paths = flow_paths(flow) if exact is None else straight_paths(exact, flow)
    on_root(run.comm, lambda: write_arrays(run.path / FIGURES / TRAJECTORIES, paths._asdict()))
    nodes = _nodes(flow)
    count = _TIMES_ON_A_LINE if flow.grid.dim == 1 else FIGURE_TIMES
    draw_figures(run, nodes, _samples(flow, nodes, count))


def _nodes(flow: ConvexFlow) -> CellNodes:
    """Collective."""
    return CellNodes(flow.linear_space, VelocitySpace(flow.linear_space))


def _samples(flow: ConvexFlow, nodes: CellNodes, count: int) -> Iterator[tuple[float, Floats, Floats]]:
    """(t, ρ, v) as ``ControlProblem.snapshots`` has them, one velocity per label if there are several. Collective."""
    for t in np.linspace(0.0, flow.grid.horizon, count).tolist():
        velocities = flow.velocity_at(t, nodes.velocity_space)
        yield t, flow.density_at(t), velocities if len(velocities) > 1 else velocities[0]
