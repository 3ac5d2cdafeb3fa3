"""Quadrature rules for integrals against a density: points with weights w = (weight of the rule) · ρ_y(x)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from eulerian.parallel import agreed, sum_all

# isort: split
import numpy as np

from eulerian.arrays import Floats
from eulerian.space import basis
from eulerian.space.density import DensitySpace
from eulerian.space.simplices import Simplices, halve_edges

FINE, COARSE = 4, 2
"""Exactness of the rule and of the one that it is compared with on the same parts of cells."""

# Cells are cut where the two rules differ by more than this share of the mean mass of a cell: where ρ jumps, or is
# finer than the mesh. A smooth density that the mesh resolves is cut nowhere.
_TOLERANCE = 1e-2
_MAX_LEVEL = 5
_MAX_PARTS = 2_000_000  # over all ranks
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

    def chosen(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "_Sampled":
        """Some of the parts."""
        return _Sampled(self.x[rows], self.weights[rows], self.density[rows])


def density_rules(space: DensitySpace, density: PointDensity, labels: Sequence[int]) -> tuple[DensityRule, DensityRule]:
    """A rule for integrals against the densities of some labels, and a coarser one for its error. **Collective**.

    The points are those of a rule of degree 4 (2) on the cells of the space, or on parts of them where the density is
    finer than the cells. Weights are scaled to the labels' exact masses.

    Args:
        space: whose cells cover the domain.
        density: of all labels.
        labels: those that share the points.

    Raises:
        EulerianError: the density cannot be evaluated; the same on all ranks.
    """
    mass, columns = density.mass, list(labels)
    cells = space.mesh.topology.index_map(space.dim).size_global
    corners, found = space.vertices, []
    for level in range(_MAX_LEVEL + 1):
        with agreed(space.comm):
            fine, coarse = (_sampled(density, columns, corners, degree) for degree in (FINE, COARSE))
        apart = np.abs(fine.integrals - coarse.integrals).max(axis=1, initial=0.0)
        rough = apart > _TOLERANCE / cells
        parts = space.comm.allreduce(int(np.count_nonzero(rough))) * 2**space.dim
        if level == _MAX_LEVEL or not 0 < parts <= _MAX_PARTS:
            found.append((fine, coarse))
            break
        found.append((fine.chosen(~rough), coarse.chosen(~rough)))
        corners = _halved(corners[rough])
    rules = [_joined(space, pieces, mass[columns]) for pieces in zip(*found, strict=True)]
    return rules[0], rules[1]


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


def _joined(space: DensitySpace, pieces: Sequence[_Sampled], mass: Floats) -> DensityRule:
    """All points that carry mass, scaled to the masses (k,). Collective."""
    x = np.concatenate([piece.x.reshape(-1, space.dim) for piece in pieces])
    density = np.concatenate([piece.density.reshape(-1, len(mass)) for piece in pieces])
    weights = density * np.concatenate([piece.weights.ravel() for piece in pieces])[:, None]
    kept = weights.max(axis=1, initial=0.0) > _LEAST
    x, density, weights = x[kept], density[kept], weights[kept]
    total = sum_all(space.comm, weights.sum(axis=0))
    return DensityRule(np.ascontiguousarray(x), weights * (mass / np.where(total > 0.0, total, 1.0)), density)
