"""Densities and velocity on every cell's own nodes: the form in which writers and figures want them."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from eulerian.app.runs.files import SNAPSHOTS
from eulerian.app.runs.snapshots import Snapshots
from eulerian.base.arrays import Floats
from eulerian.base.parallel import gather_rows
from eulerian.density.basis import VTK_EDGES, vtk_nodes
from eulerian.density.space import DensitySpace
from eulerian.transport.velocity_space import VelocitySpace


@final
@dataclass(frozen=True)
class CellNodes:
    """Nodes of this rank's owned cells: vertices, and for degree 2 edge midpoints, in VTK's order.

    Neighbouring cells do not share nodes, so that the jumps of a discontinuous density stay visible.

    Attributes:
        density_space: of the densities.
        velocity_space: of the velocity.
    """

    density_space: DensitySpace
    velocity_space: VelocitySpace

    @property
    def reference(self) -> Floats:
        """Nodes of the reference cell, (m, dim)."""
        return vtk_nodes(self.density_space.dim, self.density_space.degree)

    def points(self) -> Floats:
        """Physical nodes, (n_owned, m, dim); a vertex has the same bits in all its cells."""
        vertices = self.density_space.vertices
        if self.density_space.degree < 2:
            return vertices
        middles = [(vertices[:, i] + vertices[:, j]) / 2 for i, j in VTK_EDGES[self.density_space.dim]]
        return np.concatenate([vertices, np.stack(middles, axis=1)], axis=1)

    def density(self, rho: Floats) -> Floats:
        """Values (n_owned, m, K) of modal coefficients (n_cells, nd, K), limited to be non-negative at the nodes."""
        return self.density_space.evaluate(self.density_space.limited_at_nodes(rho), self.reference)

    def velocity(self, v: Floats) -> Floats:
        """Values (n_owned, m, V, dim) of a velocity (n_nodes, dim), V = 1, or of one per label (V, n_nodes, dim)."""
        fields = v[None] if v.ndim == 2 else v
        return np.stack([self.velocity_space.at(field, self.reference) for field in fields], axis=2)


@final
class Gathering:
    """Samples of all ranks on rank 0, as they come. All of it is **collective**.

    Args:
        nodes: of the cells.
    """

    FILE: ClassVar = SNAPSHOTS

    def __init__(self, nodes: CellNodes) -> None:
        self.nodes = nodes
        self._rows: list[tuple[float, Floats | None, Floats | None]] = []

    def add(self, t: float, rho: Floats, v: Floats) -> None:
        """One more sample, of a later time."""
        comm, nodes = self.nodes.density_space.comm, self.nodes
        density, velocity = (each.astype(np.float32) for each in (nodes.density(rho), nodes.velocity(v)))
        self._rows.append((t, gather_rows(comm, density), gather_rows(comm, velocity)))

    def gathered(self) -> Snapshots | None:
        """All samples; None on the other ranks."""
        points = gather_rows(self.nodes.density_space.comm, self.nodes.points())
        if points is None:
            return None
        times, density, velocity = zip(*self._rows, strict=True)
        return Snapshots(np.array(times), points, np.stack(density), np.stack(velocity))
