"""From the convex solution to the parameters of a free field."""

import numpy as np

from eulerian.base.arrays import Floats, Ints
from eulerian.base.parallel import sum_all
from eulerian.fields.nodal import Nodal
from eulerian.ideal.flow import ConvexFlow
from eulerian.transport.velocity_space import VelocitySpace

# Share of a label's mass that is spread over all nodes, so that a mean over labels is defined where there is no mass.
_THIN = 1e-12


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
    numbers, blocks = _numbers(field, velocity_space), max(field.n_labels, 1)
    sums = np.zeros((2, layers, blocks, *field.nodes.shape))  # of mass × velocity, and of mass
    for layer, velocity in enumerate(velocities):
        cell_mass = flow.linear_space.cell_mass(flow.density_at((layer + 0.5) * step))
        for label, mass in enumerate(_nodal_mass(cell_mass, velocity_space).T):
            block = label if field.n_labels else 0
            np.add.at(sums[0, layer, block], numbers, mass[:, None] * velocity[label])
            np.add.at(sums[1, layer, block], numbers, mass[:, None])
    momentum, mass = sum_all(velocity_space.density_space.comm, sums)
    return np.asarray((momentum / mass).reshape(layers, -1))


def _numbers(field: Nodal, velocity_space: VelocitySpace) -> Ints:
    """The field's number of every node of this rank, (n_nodes,): read off a velocity that is its own number."""
    theta = np.arange(field.n_params(field.dim), dtype=np.float64)
    first = field.value(theta, velocity_space.x, 0 if field.n_labels else None)[:, 0]
    return np.asarray(first / field.dim, dtype=np.int32)


def _nodal_mass(cell_mass: Floats, velocity_space: VelocitySpace) -> Floats:
    """Positive weights (n_nodes, K): the mass (n_owned, K) of this rank's cells around every node."""
    nodes_of_a_cell = velocity_space.cell_nodes.shape[1]
    around = velocity_space.scatter(np.repeat(cell_mass[:, None], nodes_of_a_cell, axis=1))
    return around + _THIN / max(len(around), 1)
