"""What the convex problem finds, at any time and on any space: densities, velocities, potentials."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.parallel import sum_all
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.fields.nodal import Nodal
from eulerian.ideal.space_time import SpaceTime
from eulerian.transport.nodal_interpolant import node_numbers
from eulerian.transport.velocity_space import VelocitySpace

# Share of a label's mass that is spread over all nodes, so that a mean over labels is defined where there is no mass.
_THIN = 1e-12


@dataclass(frozen=True)
class ConvexFlow:
    """Densities at the vertices, piecewise linear in space, with the potential whose gradient drives them, v = −∇φ/λ.

    Attributes:
        grid: the space-time.
        kinetic_weight: λ.
        initial: (n_nodes, K) ρ_0 at the vertices.
        density: (n_nodes, L, K) values on the slabs.
        final: (n_nodes, K) values at T.
        potential: (n_nodes, L + 1, K) feasible φ.
    """

    grid: SpaceTime
    kinetic_weight: float
    initial: Floats
    density: Floats
    final: Floats
    potential: Floats

    @cached_property
    def linear_space(self) -> DensitySpace:
        """The space of densities of degree 1 on the same mesh. Collective."""
        return DensitySpace(self.grid.space.mesh, 1, self.grid.space.n_labels)

    def density_at(self, t: float) -> Floats:
        """ρ(t) in ``linear_space``, (n_cells, nd, K). Collective.

        Linear in time between ρ_0, the middles of the slabs and ρ(T).
        """
        middles = 0.5 * (self.grid.times[1:] + self.grid.times[:-1])
        knots = np.concatenate([[0.0], middles, [self.grid.horizon]])
        values = np.concatenate([self.initial[:, None], self.density, self.final[:, None]], axis=1)
        space = self.linear_space
        to_modes = np.linalg.inv(basis.legendre(space.dim, 1, basis.reference_vertices(space.dim)))
        # Vertex values determine the linear function of a cell, and so its modes.
        corners = _at(knots, values, t)[self.grid.cell_nodes]
        return np.ascontiguousarray(np.einsum("iv,cvk->cik", to_modes, corners))

    def potential_at(self, t: float) -> Floats:
        """φ(t) at the corners of the owned cells, (n_owned, dim+1, K); linear in time."""
        return _at(self.grid.times, self.potential, t)[self.grid.nodes]

    def velocity_at(self, t: float, velocity_space: VelocitySpace) -> Floats:
        """Velocity v(t) = −∇φ/λ at the nodes of a velocity space on the same mesh, (K, n_nodes, dim). Collective.

        At the vertices the mean of the cells around, linear between them.
        """
        potential = _at(self.grid.times, self.potential, t)
        at_vertices = self.grid.vertex_gradients(potential)[self.grid.cell_nodes] / -self.kinetic_weight
        degree, dim = velocity_space.degree, self.grid.dim
        table = basis.lagrange(dim, 1, basis.lagrange_points(dim, degree))
        values = np.einsum("ai,cidk->kcad", table, at_vertices, optimize=True)
        result = np.zeros((potential.shape[1], velocity_space.n_nodes, dim))
        result[:, velocity_space.cell_nodes] = values  # cells that share a node give it the same value
        return result

    def velocities(self, velocity_space: VelocitySpace, layers: int) -> Floats:
        """The velocities at the middles of equal layers, (layers, K, n_nodes, dim): θ of a free field. Collective."""
        middles = (np.arange(layers) + 0.5) * self.grid.horizon / layers
        return np.stack([self.velocity_at(float(t), velocity_space) for t in middles])


def _at(knots: Floats, values: ArrayLike, t: float) -> Floats:
    """Linear interpolation in time, the second axis of values (n, m, K)."""
    table = np.asarray(values)
    index = int(np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2))
    share = float(np.clip((t - knots[index]) / (knots[index + 1] - knots[index]), 0.0, 1.0))
    return np.asarray((1.0 - share) * table[:, index] + share * table[:, index + 1])


def nodal_theta(flow: ConvexFlow, field: Nodal, velocity_space: VelocitySpace, layers: int) -> Floats:
    """θ (L, p) of a free field that moves as the convex solution does. **Collective**.

    A field that does not see the label gets Σ_y ρ_y v_y / Σ_y ρ_y: the one velocity that carries the same momentum.

    Args:
        flow: on the same mesh.
        field: of the nodes of ``velocity_space``; with the flow's labels if it distinguishes any.
        velocity_space: where velocities are evaluated.
        layers: L, of equal length, with θ constant on each.
    """
    velocities = flow.velocities(velocity_space, layers)
    step = flow.grid.horizon / layers
    numbers, blocks = node_numbers(field, velocity_space.x), max(field.n_labels, 1)
    sums = np.zeros((2, layers, blocks, *field.nodes.shape))  # of mass × velocity, and of mass
    for layer, velocity in enumerate(velocities):
        cell_mass = flow.linear_space.cell_mass(flow.density_at((layer + 0.5) * step))
        for label, mass in enumerate(_nodal_mass(cell_mass, velocity_space).T):
            block = label if field.n_labels else 0
            np.add.at(sums[0, layer, block], numbers, mass[:, None] * velocity[label])
            np.add.at(sums[1, layer, block], numbers, mass[:, None])
    momentum, mass = sum_all(velocity_space.density_space.comm, sums)
    return np.asarray((momentum / mass).reshape(layers, -1))


def _nodal_mass(cell_mass: Floats, velocity_space: VelocitySpace) -> Floats:
    """Positive weights (n_nodes, K): the mass (n_owned, K) of this rank's cells around every node."""
    nodes_of_a_cell = velocity_space.cell_nodes.shape[1]
    around = velocity_space.scatter(np.repeat(cell_mass[:, None], nodes_of_a_cell, axis=1))
    return around + _THIN / max(len(around), 1)
