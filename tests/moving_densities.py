"""Small spaces and moving densities for the tests of writers and figures."""

from collections.abc import Iterable, Iterator

from mpi4py import MPI

import dolfinx
import numpy as np
from problems import projected

from eulerian.app.runs.cell_nodes import CellNodes, Gathering
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.velocity_space import VelocitySpace


def cell_nodes(comm: MPI.Comm, dim: int, degree: int, n_labels: int, n: int = 4) -> CellNodes:
    ghosts = dolfinx.mesh.GhostMode.shared_facet
    if dim == 1:
        mesh = dolfinx.mesh.create_interval(comm, 3 * n, [-1.0, 1.0], ghost_mode=ghosts)
    elif dim == 2:
        mesh = dolfinx.mesh.create_rectangle(comm, [[-1.0, -1.0], [1.0, 1.0]], [n, n], ghost_mode=ghosts)
    else:
        mesh = dolfinx.mesh.create_box(comm, [[-1.0] * 3, [1.0] * 3], [n, n, n], ghost_mode=ghosts)
    space = DensitySpace(mesh, degree, n_labels)
    return CellNodes(space, VelocitySpace(space))


def linear_samples(
    nodes: CellNodes, times: list[float], label_dependent: bool = False
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Density 2 + k + t x₀ (its projection for degree 0) and velocity (k + 1)(t + x)."""
    space, x = nodes.density_space, nodes.velocity_space.x
    rule = space.quadrature(4)
    for t in times:
        values = [2.0 + k + t * rule.points[:, :, 0] for k in range(space.n_labels)]
        v = t + x
        if label_dependent:
            v = np.stack([(k + 1) * v for k in range(space.n_labels)])
        yield t, projected(space, np.stack(values, axis=2), rule), v


def gathered(nodes: CellNodes, samples: Iterable[tuple[float, Floats, Floats]]) -> Snapshots | None:
    """Samples (t, rho, v) of all ranks on rank 0; None elsewhere. Collective."""
    gathering = Gathering(nodes)
    for sample in samples:
        gathering.add(*sample)
    return gathering.gathered()
