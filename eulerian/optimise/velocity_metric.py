"""The mass as a few weighted points: where a velocity matters, and so how far a change of θ goes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel  # first: it starts MPI before dolfinx
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.control.reduced import ReducedProblem
from eulerian.optimise.metric import LowRankScaling, Metric, low_rank_scaling

# Points per layer and group of labels, at most and at least. The metric only preconditions: on eight problems 100 and
# 400 points made no difference.
_POINTS, _LEAST_POINTS = 128, 16

# Bytes of derivatives of all layers: large networks are probed at fewer points, very large ones at none.
_LARGEST = 2**28

# Added to the metric on its diagonal, relative to its trace: parameters that move no mass must not run away, and mass
# must not go straight for the nearest wall. With 1e-3 networks got caught on the near side of a corridor, with 1e-2
# and more never; from 1e-1 on most of the metric's advantage is gone.
DAMPING = 2e-2

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


def velocity_metric(problem: ReducedProblem) -> Metric | None:
    """The inner product ∫∫ |δv|² dμ dt of changes δθ, v being linearised at the last evaluation, plus a little |δθ|².

    Near a minimum the second derivative of J is much like it, because J is a smooth functional of the velocity where
    the mass is, while equally large changes of different parameters may change the velocity very unequally. In this
    metric steepest descent is the natural gradient (Amari 1998, doi:10.1162/089976698300017746). **Collective**.

    Returns:
        None where the problem has no densities on a mesh or the field cannot tell its derivatives by θ.
    """
    if not isinstance(problem, ControlProblem):
        return None
    if not problem.layered.tells_theta_jacobian:
        return None
    theta, _ = problem.split(problem.theta)
    comm, layers = problem.comm, problem.n_layers
    points = min(_POINTS, _LARGEST // (8 * problem.density_space.dim * len(problem.groups) * theta.size))
    if points < _LEAST_POINTS:
        return None
    probes = _probes(problem, points)
    # Every layer's matrix is made on one rank, so that all ranks hold the same bits.
    with parallel.agreed(comm, "the field"):
        mine = {
            layer: _rows(problem, layer, theta[layer], probes[layer]) for layer in range(comm.rank, layers, comm.size)
        }
    if problem.layer_shape[0] < layers:
        together = [rows for part in comm.allgather(mine) for rows in part.items()]
        joined = np.concatenate([rows for _, rows in sorted(together, key=lambda item: item[0])]) / np.sqrt(layers)
        mine = {0: joined} if comm.rank == 0 else {}
    count = problem.layer_shape[0]
    trace = comm.allreduce(sum(float(np.sum(rows**2)) for rows in mine.values())) / count
    if not 0.0 < trace < np.inf:
        return None
    stretches = {layer: low_rank_scaling(rows, DAMPING * trace) for layer, rows in mine.items()}
    whole = {layer: stretch for part in comm.allgather(stretches) for layer, stretch in part.items()}
    rows = tuple[LowRankScaling, ...](whole[layer] for layer in range(count))
    return Metric(problem.scaling, rows, problem.units)


def _rows(problem: ControlProblem, layer: int, row: Floats, probes: list[_Probes]) -> Floats:
    """A (m, p) with |A δϑ|² = ∫ |δv|² dμ in a layer, ϑ in units of the box. Not collective."""
    parts = []
    for group, probe in zip(problem.groups, probes, strict=True):
        jacobian = problem.layered.theta_jacobian(layer, row, probe.x, group[0])
        if problem.units.layers is not None:
            jacobian = problem.units.layers.gradient(jacobian)
        parts.append((jacobian * np.sqrt(probe.weights)[:, None, None]).reshape(-1, row.size))
    return np.concatenate(parts)


def _probes(problem: ControlProblem, points: int) -> list[list[_Probes]]:
    """Probes by layer and group, the same on all ranks. Collective."""
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
    mass = np.maximum(mass, 0.0)
    priority = mass / _uniform(cells, layer)
    first = np.argsort(-priority, kind="stable")[: points + 1]
    first = first[mass[first] > 0.0]
    return np.column_stack([priority[first], mass[first], centroids[first]])


def _drawn(table: Floats, points: int) -> _Probes:
    """Priority sampling: the weights estimate the mass of any region without bias.

    Source: Duffield, Lund & Thorup 2007, doi:10.1145/1314690.1314696.
    """
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
