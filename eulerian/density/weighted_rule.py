"""Quadrature rules for integrals against a density: points with weights w = (weight of the rule) · ρ_y(x)."""

import math
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

    def points(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> DensityRule:
        """The points of some of the parts, as far as they carry mass."""
        x, density = self.x[rows].reshape(-1, self.x.shape[2]), self.density[rows].reshape(-1, self.density.shape[2])
        weights = density * self.weights[rows].reshape(-1, 1)
        heavy = weights.max(axis=1, initial=0.0) > _LEAST
        return DensityRule(x[heavy], weights[heavy], density[heavy])


def density_rules(
    space: DensitySpace,
    density: PointDensity,
    labels: Sequence[int],
    tolerance: float = TOLERANCE,
    largest: float = math.inf,
) -> tuple[DensityRule, DensityRule]:
    """A rule for integrals against the densities of some labels, and a coarser one for its error. **Collective**.

    The points are those of a rule of degree 4 (2) on the cells of the space, or on parts of them where the density is
    finer than the cells. Weights are scaled to the labels' exact masses.

    Args:
        space: whose cells cover the domain.
        density: of all labels.
        labels: those that share the points.
        tolerance: by how much of a cell's mean mass the two rules may differ on a part that is not cut.
        largest: extent along an axis of a part with mass that is not cut, for integrands that are finer than cells.

    Raises:
        EulerianError: the density cannot be evaluated; the same on all ranks.
    """
    mass, columns = density.mass, list(labels)
    per_cell = tolerance / space.mesh.topology.index_map(space.dim).size_global
    corners, fine, coarse = space.vertices, list[DensityRule](), list[DensityRule]()
    parts = 0
    for level in range(_MAX_LEVEL + 1):
        last = level == _MAX_LEVEL or parts * 2**space.dim > _MAX_PARTS
        with agreed(space.comm):
            rough = _resolve(density, columns, corners, per_cell, largest, fine, coarse, last=last)
        parts = space.comm.allreduce(len(rough)) * 2**space.dim
        if parts == 0:  # on all ranks: a rank without rough cells goes on as long as another one has some
            break
        corners = _halved(rough)
    return _joined(space, fine, mass[columns]), _joined(space, coarse, mass[columns])


def _resolve(
    density: PointDensity,
    columns: list[int],
    corners: Floats,
    tolerance: float,
    largest: float,
    fine: list[DensityRule],
    coarse: list[DensityRule],
    *,
    last: bool,
) -> Floats:
    """Add the points of both rules on those simplices (n, dim+1, dim) that resolve the density; give the others."""
    rough = [corners[:0]]
    for start in range(0, max(len(corners), 1), _BLOCK):
        block = corners[start : start + _BLOCK]
        one, other = (_sampled(density, columns, block, degree) for degree in (FINE, COARSE))
        apart = np.abs(one.integrals - other.integrals).max(axis=1, initial=0.0)
        wide = (np.ptp(block, axis=1).max(axis=1) > largest) & (one.integrals.max(axis=1, initial=0.0) > _LEAST)
        resolved = np.ones(len(block), dtype=bool) if last else (apart <= tolerance) & ~wide
        fine.append(one.points(resolved))
        coarse.append(other.points(resolved))
        rough.append(block[~resolved])
    return np.concatenate(rough)


def _joined(space: DensitySpace, parts: list[DensityRule], mass: Floats) -> DensityRule:
    """One rule of them all that gives the masses (k,). **Collective**."""
    x, weights, density = (np.concatenate([getattr(p, name) for p in parts]) for name in ("x", "weights", "density"))
    total = sum_all(space.comm, weights.sum(axis=0))
    return DensityRule(x, weights * (mass / np.where(total > 0.0, total, 1.0)), density)


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
