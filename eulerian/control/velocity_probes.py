"""How far a change of θ changes the velocity where the mass is: the mass as a few weighted points per layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel  # first: it starts MPI before dolfinx
from eulerian.base.arrays import Floats

if TYPE_CHECKING:
    from eulerian.control.control import ControlProblem

# Points per layer and group of labels, at most and at least. The metric only preconditions: on eight problems 100 and
# 400 points made no difference.
_POINTS, _LEAST_POINTS = 128, 16

# Bytes of derivatives of all layers: large networks are probed at fewer points, very large ones at none.
_LARGEST = 2**28

type _Words = NDArray[np.uint64]


@dataclass(frozen=True)
class _Probes:
    """Weighted points of one layer and group of labels.

    Attributes:
        x: (n, dim).
        weights: (n,), masses.
    """

    x: Floats
    weights: Floats


def velocity_matrices(problem: "ControlProblem") -> dict[int, Floats] | None:
    """The method of a ``ControlProblem``: see ``ReducedProblem``. **Collective**."""
    if not problem.layered.tells_theta_jacobian:
        return None
    theta, _ = problem.split(problem.theta)
    points = min(_POINTS, _LARGEST // (8 * problem.density_space.dim * len(problem.groups) * theta.size))
    if points < _LEAST_POINTS:
        return None
    comm, layers, probes = problem.comm, problem.n_layers, _probes(problem, points)
    # Every layer's matrix is made on one rank, so that all ranks hold the same bits.
    with parallel.agreed(comm, "the field"):
        mine = range(comm.rank, layers, comm.size)
        own = {layer: _matrix(problem, layer, theta[layer], probes[layer]) for layer in mine}
    if problem.layer_shape[0] == layers:
        return own
    # Tied layers share one row of θ, which changes the velocity in all of them: their matrices are stacked.
    together = [matrices for part in comm.allgather(own) for matrices in part.items()]
    stacked = np.concatenate([matrix for _, matrix in sorted(together, key=lambda item: item[0])]) / np.sqrt(layers)
    return {0: stacked} if comm.rank == 0 else {}


def _matrix(problem: "ControlProblem", layer: int, row: Floats, probes: list[_Probes]) -> Floats:
    """A (m, p) with |A δϑ|² = ∫ |δv|² dμ in a layer, ϑ in units of the box. Not collective."""
    parts = []
    for group, probe in zip(problem.groups, probes, strict=True):
        jacobian = problem.layered.theta_jacobian(layer, row, probe.x, group[0])
        if problem.units.layers is not None:
            jacobian = problem.units.layers.gradient(jacobian)
        parts.append((jacobian * np.sqrt(probe.weights)[:, None, None]).reshape(-1, row.size))
    return np.concatenate(parts)


def _probes(problem: "ControlProblem", points: int) -> list[list[_Probes]]:
    """Probes by layer and group, the same on all ranks. **Collective**."""
    space = problem.density_space
    cells = np.asarray(space.mesh.topology.original_cell_index[: space.n_owned], dtype=np.uint64)
    centroids = space.vertices.mean(axis=1)
    candidates: list[list[Floats]] = []
    for layer in range(problem.n_layers):
        ends = zip(problem.sweep.start(layer), problem.sweep.start(layer + 1), strict=True)
        masses = [0.5 * (space.cell_mass(before) + space.cell_mass(after)).sum(axis=1) for before, after in ends]
        candidates.append([_foremost(mass, cells, centroids, layer, points) for mass in masses])
    gathered = space.comm.allgather(candidates)
    return [
        [
            _drawn(np.concatenate([part[layer][group] for part in gathered]), points)
            for group in range(len(problem.groups))
        ]
        for layer in range(problem.n_layers)
    ]


def _foremost(mass: Floats, cells: _Words, centroids: Floats, layer: int, points: int) -> Floats:
    """This rank's cells of highest priority, (n, 2 + dim): priority, mass, centroid; one more than points wanted."""
    mass = np.maximum(mass, 0.0)  # without the limiter a cell's may be negative
    priority = mass / _uniform(cells, layer)
    first = np.argsort(-priority, kind="stable")[: points + 1]
    first = first[mass[first] > 0.0]
    return np.column_stack([priority[first], mass[first], centroids[first]])


def _drawn(table: Floats, points: int) -> _Probes:
    """Priority sampling: the weights estimate the mass of any region without bias.

    Source: Duffield, Lund & Thorup 2007, doi:10.1145/1314690.1314696.
    """
    # By all columns: equal priorities would else come in an order that depends on the partition.
    table = table[np.lexsort(table.T[::-1])[::-1]]
    threshold = table[points, 0] if len(table) > points else 0.0
    chosen = table[:points]
    return _Probes(np.ascontiguousarray(chosen[:, 2:]), np.maximum(chosen[:, 1], threshold))


def _uniform(cells: _Words, layer: int) -> Floats:
    """Numbers in (0, 1] that depend on the cell and the layer only, so that the draw is the same on any partition.

    Source: the mixing function SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).
    """
    z = (cells + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(layer * 0xD1342543DE82EF95 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-53
