"""What the convex problem finds, at any time and on any space: densities, velocities, potentials."""

from dataclasses import dataclass
from functools import cached_property

from eulerian import parallel  # noqa: F401 - starts MPI before dolfinx
from eulerian.arrays import Floats

# isort: split
import numpy as np
from numpy.typing import ArrayLike

from eulerian.ideal.space_time import SpaceTime
from eulerian.space import basis
from eulerian.space.density import DensitySpace
from eulerian.space.velocity import VelocitySpace


@dataclass(frozen=True)
class ConvexFlow:
    """Densities on cells and slabs with the potential whose gradient drives them, v = −∇φ/λ.

    Attributes:
        grid: the space-time.
        kinetic_weight: λ.
        initial: (n_owned, K) cell means of ρ_0.
        density: (n_owned, L, K) cell values on the slabs.
        final: (n_owned, K) cell values at T.
        potential: (n_nodes, L + 1, K) feasible φ at the vertices of the owned cells.
    """

    grid: SpaceTime
    kinetic_weight: float
    initial: Floats
    density: Floats
    final: Floats
    potential: Floats

    @cached_property
    def zero_space(self) -> DensitySpace:
        """The space of cell-wise constant densities on the same mesh. Collective."""
        return DensitySpace(self.grid.space.mesh, 0, self.grid.space.n_labels)

    def density_at(self, t: float) -> Floats:
        """ρ(t) in ``zero_space``, (n_cells, 1, K): linear in time between ρ_0, the slabs' middles and ρ(T). Collective."""
        middles = 0.5 * (self.grid.times[1:] + self.grid.times[:-1])
        knots = np.concatenate([[0.0], middles, [self.grid.horizon]])
        values = np.concatenate([self.initial[:, None], self.density, self.final[:, None]], axis=1)
        rho = self.zero_space.zeros()
        rho[: self.zero_space.n_owned, 0] = _at(knots, values, t) / self.zero_space.phi0
        self.zero_space.update_ghosts(rho)
        return rho

    def potential_at(self, t: float) -> Floats:
        """φ(t) at the corners of the owned cells, (n_owned, dim+1, K); linear in time."""
        return _at(self.grid.times, self.potential, t)[self.grid.nodes]

    def velocity_at(self, t: float, velocity_space: VelocitySpace) -> Floats:
        """v(t) = −∇φ/λ at the nodes of a velocity space on the same mesh, (K, n_nodes, dim). Collective.

        At the vertices the mean of the cells around, linear between them.
        """
        return self._nodal(_at(self.grid.times, self.potential, t), velocity_space)

    def velocities(self, velocity_space: VelocitySpace, layers: int) -> Floats:
        """v at the middles of equal layers, (layers, K, n_nodes, dim): θ of a free field. Collective."""
        middles = (np.arange(layers) + 0.5) * self.grid.horizon / layers
        return np.stack([self.velocity_at(float(t), velocity_space) for t in middles])

    def _nodal(self, potential: Floats, velocity_space: VelocitySpace) -> Floats:
        """−∇φ/λ of vertex values (n_nodes, K)."""
        at_vertices = self.grid.vertex_gradients(potential)[self.grid.cell_numbers] / -self.kinetic_weight
        degree, dim = velocity_space.degree, self.grid.dim
        table = basis.lagrange(dim, 1, basis.lagrange_points(dim, degree))
        values = np.einsum("ai,cidk->kcad", table, at_vertices, optimize=True)
        result = np.zeros((potential.shape[1], velocity_space.n_nodes, dim))
        result[:, velocity_space.cell_nodes] = values
        return result


def _at(knots: Floats, values: ArrayLike, t: float) -> Floats:
    """Linear interpolation in time, the second axis of values (n, m, K)."""
    table = np.asarray(values)
    index = int(np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2))
    share = float(np.clip((t - knots[index]) / (knots[index + 1] - knots[index]), 0.0, 1.0))
    return np.asarray((1.0 - share) * table[:, index] + share * table[:, index + 1])
