"""Quadrature of densities that are finer than cells: rules on cells that are cut until they are fine enough."""

from collections.abc import Iterator, Sequence

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.simplices import Indices, Simplices, halve_edges

_DEGREE = 8  # exactness of the rule on each part of a cell
_JUMP_LEVEL = 2  # a cell is halved so often where a profile may jump
_MAX_LEVEL = 5
_MAX_POINTS = 2e7  # evaluations of one profile, over all ranks
_BLOCK = 2**18  # evaluations at a time


def subdivided_rules(
    space: DensitySpace, scales: Sequence[float], cells: Indices
) -> Iterator[tuple[Indices, Floats, Floats]]:
    """A rule for what is smooth below some lengths, on cells that are halved until they are as small. Collective.

    Args:
        space: whose owned cells they are.
        scales: those lengths, 0 for what may jump.
        cells: (n,) owned ones.

    Returns:
        A few cells at a time, their points (q, dim) on the reference cell and weights (q,).
    """
    levels = _levels(space, scales, cells)
    for level in np.unique(levels).tolist():
        points, weights = _rule(space.dim, level)
        chosen, step = cells[levels == level], max(1, _BLOCK // len(points))
        for start in range(0, len(chosen), step):
            yield chosen[start : start + step], points, weights


def _levels(space: DensitySpace, scales: Sequence[float], cells: Indices) -> Indices:
    """How often to halve each of the cells, (n,). Collective."""
    vertices = space.vertices
    edges = vertices[cells][:, :, None] - vertices[cells][:, None]
    diameters = np.sqrt((edges**2).sum(axis=-1).max(axis=(1, 2), initial=0.0))
    levels = np.zeros(len(cells), dtype=np.int64)
    for scale in scales:
        if scale > 0:  # a cell that is just so large must not be halved once more for a last bit
            halvings = np.ceil(np.log2(np.maximum(diameters / scale, 1.0)) - 1e-9)
            levels = np.maximum(levels, np.clip(halvings, 0, _MAX_LEVEL).astype(np.int64))
        else:
            levels = np.maximum(levels, _JUMP_LEVEL)
    size = len(_rule(space.dim, 0)[1])
    # Sums and maxima over all ranks: which cells are cut how often must not depend on how they are distributed.
    while True:
        points = space.comm.allreduce(float(np.sum(size * 2.0 ** (space.dim * levels))))
        deepest = space.comm.allreduce(int(levels.max(initial=0)), MPI.MAX)
        if points <= _MAX_POINTS or deepest == 0:
            return levels
        levels = np.minimum(levels, deepest - 1)


def _rule(dim: int, level: int) -> tuple[Floats, Floats]:
    """Points (n, dim) and weights (n,) on the reference cell, cut into 2^(dim level) parts."""
    rule = basis.quadrature_rule(dim, _DEGREE)
    parts = Simplices.untagged(basis.reference_vertices(dim), np.arange(dim + 1)[None])
    for _ in range(level):
        parts = halve_edges(parts)
    corners = parts.points[parts.cells]
    weights = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1]))[:, None] * rule.weights
    return basis.physical_points(corners, rule.points).reshape(-1, dim), weights.ravel()
