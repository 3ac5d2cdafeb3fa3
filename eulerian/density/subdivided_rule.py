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


def physical_points(vertices: Floats, points: Floats) -> Floats:
    """Points (q, dim) of the reference cell in cells of given vertices (n, dim+1, dim): (n, q, dim)."""
    return np.asarray(vertices[:, :1] + points @ (vertices[:, 1:] - vertices[:, :1]))


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
    while True:
        points = space.comm.allreduce(float(np.sum(size * 2.0 ** (space.dim * levels))))
        deepest = space.comm.allreduce(int(levels.max(initial=0)), MPI.MAX)
        if points <= _MAX_POINTS or deepest == 0:
            return levels
        levels = np.minimum(levels, deepest - 1)


def _rule(dim: int, level: int) -> tuple[Floats, Floats]:
    """Points (n, dim) and weights (n,) on the reference cell, cut into 2^(dim level) parts."""
    rule = basis.quadrature_rule(dim, _DEGREE)
    none = np.empty(0, dtype=np.int32)
    cells, facets = np.arange(dim + 1)[None], np.empty((0, dim), dtype=np.int64)
    parts = Simplices(basis.reference_vertices(dim), cells, None, facets, none)
    for _ in range(level):
        parts = halve_edges(parts)
    corners = parts.points[parts.cells]
    edges = corners[:, 1:] - corners[:, :1]
    points = corners[:, :1] + rule.points @ edges
    weights = np.abs(np.linalg.det(edges))[:, None] * rule.weights
    return points.reshape(-1, dim), weights.ravel()
