"""How long a step may be: von Neumann's analysis of the operator on a lattice, for the constants of the schemes.

On a lattice and for a constant velocity the operator is a convolution, whose symbols are small matrices; a step is
stable where the scheme's polynomial takes all their eigenvalues into the unit circle. Sheared and stretched lattices
have the same symbols, at another direction of the velocity.
"""

from itertools import product

from mpi4py import MPI

import dolfinx
import numpy as np
import pytest

from eulerian.base.arrays import Floats
from eulerian.density.space import DensitySpace
from eulerian.transport.operator import TransportOperator
from eulerian.transport.reference import blocks
from eulerian.transport.ssp import SSPScheme
from eulerian.transport.velocity_space import VelocitySpace

BOXES = 3  # per side: the one in the middle has all its neighbours
WAVES = {1: 64, 2: 24, 3: 8}  # wave numbers per direction
DIRECTIONS = {
    1: [[1.0]],
    2: [[np.cos(angle), np.sin(angle)] for angle in np.linspace(0.0, np.pi, 9)],
    3: [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.6, -0.5, 0.3], [-0.1, 0.2, 0.9]],
}


def lattice(dim: int) -> dolfinx.mesh.Mesh:
    ends = [np.zeros(dim), np.ones(dim)]
    if dim == 1:
        return dolfinx.mesh.create_interval(MPI.COMM_SELF, BOXES, [0.0, 1.0])
    make = dolfinx.mesh.create_rectangle if dim == 2 else dolfinx.mesh.create_box
    return make(MPI.COMM_SELF, ends, [BOXES] * dim)


def symbols(space: DensitySpace, velocity: Floats) -> tuple[Floats, float]:
    """Eigenvalues of all symbols, and the largest outflow rate of a cell."""
    dim, nd = space.dim, space.nd
    velocities = VelocitySpace(space)
    v = np.tile(velocity, (len(velocities.x), 1))
    entries, neighbours = blocks(space, velocities, v, 0.0), space.geometry.neighbours
    middles = BOXES * dolfinx.mesh.compute_midpoints(space.mesh, dim, np.arange(space.n_cells, dtype=np.int32))[:, :dim]
    box = np.floor(middles + 1e-9).astype(int)
    kinds = np.unique(np.round(middles - box, 6), axis=0, return_inverse=True)[1].ravel()
    central = np.flatnonzero(np.all(box == BOXES // 2, axis=1))
    numbers = 2.0 * np.pi * np.arange(WAVES[dim]) / WAVES[dim]
    found = []
    for wave in product(numbers, repeat=dim):
        symbol = np.zeros((len(central) * nd, len(central) * nd), dtype=complex)
        for cell in central:
            for slot, other in enumerate([cell, *neighbours[cell]]):
                rows, columns = (slice(kinds[c] * nd, (kinds[c] + 1) * nd) for c in (cell, other))
                symbol[rows, columns] += entries[cell, slot] * np.exp(1j * np.dot(wave, box[other] - box[cell]))
        found.append(np.linalg.eigvals(symbol))
    operator = TransportOperator(space, velocities)
    operator.scheme.stability, operator.scheme.coefficient = 1.0, 1e9  # the rate is that of stability alone
    return np.concatenate(found), operator.set_velocity(v)


def amplification(scheme: SSPScheme, z: Floats) -> float:
    """The largest |R(z)| for a step that multiplies by R(z)."""
    r = np.ones_like(z)
    for alpha in scheme.alpha:
        r = alpha + (1.0 - alpha) * (1.0 + z / scheme.coefficient) * r
    return float(np.abs(r).max())


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_constants_of_stability(comm: MPI.Comm, dim: int, degree: int) -> None:
    """Steps of 1/(stability × outflow rate) are stable in all directions; in the worst ones, half as long again not."""
    if comm.size > 1:
        pytest.skip("small matrices, on one rank")
    scheme, space = SSPScheme.of(dim, degree), DensitySpace(lattice(dim), degree)
    worst = 0.0
    for direction in DIRECTIONS[dim]:
        eigenvalues, outflow = symbols(space, np.array(direction))
        step = 1.0 / (scheme.stability * outflow)
        assert amplification(scheme, step * eigenvalues) <= 1.0 + 1e-9, direction
        worst = max(worst, amplification(scheme, 1.5 * step * eigenvalues))
    assert worst > 1.05
