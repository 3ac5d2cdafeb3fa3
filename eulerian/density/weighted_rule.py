"""Quadrature rules for integrals against a density: points with weights w = (weight of the rule) · ρ_y(x)."""

from collections.abc import Sequence
from dataclasses import dataclass
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
_BLOCK = 2**14  # cells at a time
_LEAST = 1e-12  # of the whole mass: points of less are left out


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
    """

    x: Floats
    weights: Floats
    density: Floats


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

    def points(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "_Points":
        """The points of some of the parts, as far as they carry mass."""
        x, density = self.x[rows].reshape(-1, self.x.shape[2]), self.density[rows].reshape(-1, self.density.shape[2])
        weights = density * self.weights[rows].reshape(-1, 1)
        kept = weights.max(axis=1, initial=0.0) > _LEAST
        return _Points(x[kept], weights[kept], density[kept])


@final
@dataclass(frozen=True)
class _Points:
    """Points (n, dim) that carry mass, with weights and densities (n, k)."""

    x: Floats
    weights: Floats
    density: Floats

    @classmethod
    def none(cls, dim: int, k: int) -> "_Points":
        """No points."""
        return cls(np.empty((0, dim)), np.empty((0, k)), np.empty((0, k)))

    def joined(self, *others: "_Points") -> "_Points":
        """These and more."""
        every = (self, *others)
        return _Points(
            *(np.concatenate([getattr(each, name) for each in every]) for name in ("x", "weights", "density"))
        )

    def scaled(self, space: DensitySpace, mass: Floats) -> DensityRule:
        """The points as a rule that gives the masses (k,). Collective."""
        total = sum_all(space.comm, self.weights.sum(axis=0))
        weights = self.weights * (mass / np.where(total > 0.0, total, 1.0))
        return DensityRule(np.ascontiguousarray(self.x), weights, self.density)


def density_rules(
    space: DensitySpace, density: PointDensity, labels: Sequence[int], tolerance: float = TOLERANCE
) -> tuple[DensityRule, DensityRule]:
    """A rule for integrals against the densities of some labels, and a coarser one for its error. **Collective**.

    The points are those of a rule of degree 4 (2) on the cells of the space, or on parts of them where the density is
    finer than the cells. Weights are scaled to the labels' exact masses.

    Args:
        space: whose cells cover the domain.
        density: of all labels.
        labels: those that share the points.
        tolerance: by how much of a cell's mean mass the two rules may differ on a part that is not cut.

    Raises:
        EulerianError: the density cannot be evaluated; the same on all ranks.
    """
    mass, columns = density.mass, list(labels)
    per_cell = tolerance / space.mesh.topology.index_map(space.dim).size_global
    corners, points = space.vertices, (_Points.none(space.dim, len(columns)), _Points.none(space.dim, len(columns)))
    parts = 0
    for level in range(_MAX_LEVEL + 1):
        last = level == _MAX_LEVEL or parts * 2**space.dim > _MAX_PARTS
        with agreed(space.comm):
            *found, rough = _resolved(density, columns, corners, per_cell, last=last)
        points = points[0].joined(found[0]), points[1].joined(found[1])
        parts = space.comm.allreduce(len(rough)) * 2**space.dim
        if parts == 0:
            break
        corners = _halved(rough)
    return points[0].scaled(space, mass[columns]), points[1].scaled(space, mass[columns])


def _resolved(
    density: PointDensity, columns: list[int], corners: Floats, tolerance: float, *, last: bool
) -> tuple["_Points", "_Points", Floats]:
    """Points of both rules on those simplices (n, dim+1, dim) that resolve the density, and the others."""
    fine, coarse, rough = [], [], [corners[:0]]
    for start in range(0, max(len(corners), 1), _BLOCK):
        block = corners[start : start + _BLOCK]
        pair = [_sampled(density, columns, block, degree) for degree in (FINE, COARSE)]
        apart = np.abs(pair[0].integrals - pair[1].integrals).max(axis=1, initial=0.0)
        kept = np.ones(len(block), dtype=bool) if last else apart <= tolerance
        fine.append(pair[0].points(kept))
        coarse.append(pair[1].points(kept))
        rough.append(block[~kept])
    return fine[0].joined(*fine[1:]), coarse[0].joined(*coarse[1:]), np.concatenate(rough)


def _sampled(density: PointDensity, columns: list[int], corners: Floats, degree: int) -> _Sampled:
    """A density at the points of a rule on simplices (n, dim+1, dim)."""
    dim = corners.shape[2]
    rule = basis.quadrature_rule(dim, degree)
    edges = corners[:, 1:] - corners[:, :1]
    x = corners[:, :1] + rule.points @ edges
    weights = np.abs(np.linalg.det(edges))[:, None] * rule.weights
    values = density.values(x.reshape(-1, dim))[:, columns]
    return _Sampled(x, weights, np.maximum(values, 0.0).reshape(*weights.shape, len(columns)))


def _halved(corners: Floats) -> Floats:
    """The parts (2^dim n, dim+1, dim) of simplices whose edges are halved."""
    n, vertices, dim = corners.shape
    facets, tags = np.empty((0, dim), dtype=np.int64), np.empty(0, dtype=np.int32)
    cells = np.arange(n * vertices).reshape(n, vertices)
    halves = halve_edges(Simplices(corners.reshape(-1, dim), cells, None, facets, tags))
    return np.asarray(halves.points[halves.cells])
