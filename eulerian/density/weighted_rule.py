"""Quadrature rules for integrals against a density: points with weights w = (weight of the rule) · ρ_y(x)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from typing import Protocol, final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.parallel import agreed, sum_all
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.simplices import Simplices, halve_edges

FINE, COARSE = 4, 2
"""Exactness of the rule and of the one that it is compared with on the same parts of cells."""

# Cells are cut where the two rules differ by more than this share of the mean mass of a cell: where ρ jumps, or is
# finer than the mesh. A smooth density that the mesh resolves is cut nowhere.
TOLERANCE = 1e-2
_MAX_LEVEL = 5
_MAX_PARTS = 4_000_000  # over all ranks: with more of them cells are cut no further
_INWARD, _CORNER = 1e-9, 0.1  # where corners are looked at; the share of a part that is nearer to one than all points
_BLOCK = 2**14  # cells at a time
_LEAST = 1e-12  # points of less mass, of 1 altogether, are left out: they change no sum, and each costs a path


class PointDensity(Protocol):
    """Densities of all labels as functions."""

    def values(self, x: Floats) -> Floats:
        """ρ_y(x), (n, K), at points x (n, dim)."""
        ...

    @property
    def mass(self) -> Floats:
        """∫ρ_y over the domain, (K,)."""
        ...


@final
@dataclass(frozen=True)
class DensityRule:
    """∫ f(x) ρ_y(x) dx ≈ Σ_i w_iy f(x_i): this rank's points.

    Attributes:
        x: (n, dim).
        weights: (n, k) ≥ 0, for k labels; over all ranks they sum up to the labels' masses.
        density: (n, k) ρ_y(x_i).
        missed: (k,) the share of the labels' masses that the weights were scaled by: what jumps of ρ cost the rule.
    """

    x: Floats
    weights: Floats
    density: Floats
    missed: Floats


type _Points = tuple[Floats, Floats, Floats]
"""Points with weights and densities, not yet scaled."""


@final
@dataclass(frozen=True)
class _Sampled:
    """Some parts of cells, with a density at the points of a rule on each of them: (n, q, dim), (n, q), (n, q, k)."""

    x: Floats
    weights: Floats
    density: Floats

    @property
    def integrals(self) -> Floats:
        """Of each part and label, (n, k)."""
        return np.asarray(np.einsum("nq,nqk->nk", self.weights, self.density))

    def points(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> _Points:
        """The points of some of the parts, as far as they carry mass."""
        x, density = self.x[rows].reshape(-1, self.x.shape[2]), self.density[rows].reshape(-1, self.density.shape[2])
        weights = density * self.weights[rows].reshape(-1, 1)
        heavy = weights.max(axis=1, initial=0.0) > _LEAST
        return x[heavy], weights[heavy], density[heavy]


def density_rules(
    space: DensitySpace,
    density: PointDensity,
    labels: Sequence[int],
    tolerance: float = TOLERANCE,
    largest: float = math.inf,
    jumps: float | None = None,
) -> tuple[DensityRule, DensityRule]:
    """A rule for integrals against the densities of some labels, and a coarser one for its error. **Collective**.

    The points are those of a rule of degree 4 (2) on the cells of the space, or on parts of them where the density is
    finer than the cells. Weights are scaled to the labels' exact masses.

    Args:
        space: whose cells cover the domain.
        density: of all labels.
        labels: those that share the points.
        tolerance: by how much of a cell's mean mass the two rules may differ on a cell, or on its parts along a jump.
        largest: extent along an axis of a part with mass that is not cut, for integrands that are finer than cells.
        jumps: extent along an axis of the parts that are left where ρ jumps. Then jumps are looked for near corners
            too, where neither rule has a point, and ``largest`` holds for parts without mass as well: it may hide
            between the points. None: what the rules do not see is left, and edges are halved at most five times.

    Raises:
        EulerianError: the density cannot be evaluated; the same on all ranks.
    """
    mass, columns = density.mass, list(labels)
    per_cell = tolerance / space.mesh.topology.index_map(space.dim).size_global
    corners, fine, coarse = space.vertices, list[_Points](), list[_Points]()
    parts, levels = 0, _levels(space, jumps)
    for level in range(levels + 1):
        last = level == levels or parts * 2**space.dim > _MAX_PARTS
        with agreed(space.comm):
            # A jump that runs through a cell runs through so many of its parts, and what these miss may add up. (In
            # space there would be too many to be that careful.)
            along = 2.0**level if jumps is not None and space.dim == 2 else 1.0
            rough = _resolve(
                density, columns, corners, per_cell / along, largest, fine, coarse, last=last, jumps=jumps is not None
            )
        parts = space.comm.allreduce(len(rough)) * 2**space.dim
        if parts == 0:  # on all ranks: a rank without rough cells goes on as long as another one has some
            break
        corners = _halved(rough)
    return _joined(space, fine, mass[columns]), _joined(space, coarse, mass[columns])


def _levels(space: DensitySpace, jumps: float | None) -> int:
    """How often edges are halved at most. Collective."""
    if jumps is None:
        return _MAX_LEVEL
    widest = max(space.comm.allgather(float(np.ptp(space.vertices, axis=1).max(initial=0.0))))
    return max(int(np.ceil(np.log2(widest / jumps))), 1)


def _resolve(
    density: PointDensity,
    columns: list[int],
    corners: Floats,
    tolerance: float,
    largest: float,
    fine: list[_Points],
    coarse: list[_Points],
    *,
    last: bool,
    jumps: bool,
) -> Floats:
    """Add the points of both rules on those simplices (n, dim+1, dim) that resolve the density; give the others."""
    rough = [corners[:0]]
    for start in range(0, max(len(corners), 1), _BLOCK):
        block = corners[start : start + _BLOCK]
        one, other = (_sampled(density, columns, block, degree) for degree in (FINE, COARSE))
        apart = np.abs(one.integrals - other.integrals).max(axis=1, initial=0.0)
        if jumps and not last:
            apart = np.maximum(apart, _missed_at_corners(density, columns, block, one))
        wide = np.ptp(block, axis=1).max(axis=1) > largest
        if not jumps:
            wide &= one.integrals.max(axis=1, initial=0.0) > _LEAST
        resolved = np.ones(len(block), dtype=bool) if last else (apart <= tolerance) & ~wide
        fine.append(one.points(resolved))
        coarse.append(other.points(resolved))
        rough.append(block[~resolved])
    return np.concatenate(rough)


def _missed_at_corners(density: PointDensity, columns: list[int], corners: Floats, sampled: _Sampled) -> Floats:
    """What simplices (n, dim+1, dim) lack by jumps between a corner and the points, where no rule sees them; (n,)."""
    dim = corners.shape[2]
    inside = corners + _INWARD * (corners.mean(axis=1, keepdims=True) - corners)
    values = np.maximum(density.values(inside.reshape(-1, dim))[:, columns], 0.0)
    expected = np.einsum("cq,nqk->nck", _to_corners(dim), sampled.density)
    surprise = np.abs(values.reshape(expected.shape) - expected).max(axis=(1, 2), initial=0.0)
    return np.asarray(_CORNER * sampled.weights.sum(axis=1) * surprise)


@cache
def _to_corners(dim: int) -> Floats:
    """From values at a simplex's points to those at its corners, exact for polynomials of degree 2: (dim+1, q)."""
    corners = np.vstack([np.zeros(dim), np.eye(dim)])
    at_points, at_corners = (_monomials(x) for x in (basis.quadrature_rule(dim, FINE).points, corners))
    return np.asarray(at_corners @ np.linalg.pinv(at_points))


def _monomials(x: Floats) -> Floats:
    """1, x_i and x_i x_j at points (n, dim)."""
    products = [x[:, i] * x[:, j] for i, j in combinations_with_replacement(range(x.shape[1]), 2)]
    return np.column_stack([np.ones(len(x)), x, *products])


def _joined(space: DensitySpace, parts: list[_Points], mass: Floats) -> DensityRule:
    """One rule of them all that gives the masses (k,). **Collective**."""
    x, weights, density = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    total = sum_all(space.comm, weights.sum(axis=0))
    missed = np.abs(mass - total) / np.where(mass > 0.0, mass, 1.0)
    return DensityRule(x, weights * (mass / np.where(total > 0.0, total, 1.0)), density, missed)


def _sampled(density: PointDensity, columns: list[int], corners: Floats, degree: int) -> _Sampled:
    """A density at the points of a rule on simplices (n, dim+1, dim)."""
    dim = corners.shape[2]
    rule = basis.quadrature_rule(dim, degree)
    x = basis.physical_points(corners, rule.points)
    weights = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1]))[:, None] * rule.weights
    values = density.values(x.reshape(-1, dim))[:, columns]
    return _Sampled(x, weights, np.maximum(values, 0.0).reshape(*weights.shape, len(columns)))


def _halved(corners: Floats) -> Floats:
    """The parts (2^dim n, dim+1, dim) of simplices whose edges are halved."""
    n, vertices, dim = corners.shape
    cells = np.arange(n * vertices).reshape(n, vertices)
    halves = halve_edges(Simplices.untagged(corners.reshape(-1, dim), cells))
    return np.asarray(halves.points[halves.cells])
