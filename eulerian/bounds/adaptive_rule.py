"""∫f dρ of a function with kinks that is costly to evaluate: cells are cut where two rules disagree about it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import PointDensity
from eulerian.mesh.simplices import Simplices, halve_edges

FINE, COARSE = {1: 9, 2: 6, 3: 5}, {1: 5, 2: 4, 3: 3}
"""Exactness of the rule, and of the one that tells its error, by dimension."""

MOST_POINTS = {1: 100_000, 2: 150_000, 3: 60_000}
"""No cells are cut beyond so many points, over all ranks and with those of the coarse rules."""

_DEEPEST = {1: 40, 2: 16, 3: 10}  # cuts of one cell
# A threshold must not be one of the numbers that are held against it: regular meshes have many of the same.
_ODD = 1.2373021

type Mask = NDArray[np.bool_]
type Integrand = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Points (n, dim) and their masses (n, K) to f (n, K), and to whatever else is known of the points, (n, K, m)."""


@final
@dataclass(frozen=True)
class AdaptiveRule:
    """∫f_y dρ_y ≈ Σ_i w_iy f_iy: this rank's points; the error is the same on all ranks.

    Attributes:
        x: (n, dim).
        masses: (n, K) w, over all ranks the labels' masses.
        values: (n, K) f.
        others: (n, K, m) what else the integrand knows.
        error: the sum over all parts of cells of what the two rules differ by, an upper estimate.
    """

    x: Floats
    masses: Floats
    values: Floats
    others: Floats
    error: float


@dataclass(frozen=True)
class _Parts:
    """Simplices (n, dim+1, dim) with the points of the rule on them, and their integrals.

    Attributes:
        corners: of the simplices.
        depth: (n,) how often they were cut.
        x: (n, q, dim).
        masses: (n, q, K).
        values: (n, q, K).
        others: (n, q, K, m).
        off: (n, K, 2) coarse rule minus fine rule, of ∫ρ and ∫fρ.
    """

    corners: Floats
    depth: NDArray[np.int64]
    x: Floats
    masses: Floats
    values: Floats
    others: Floats
    off: Floats

    def where(self, rows: Mask) -> "_Parts":
        """Some of them."""
        return _Parts(*(getattr(self, f.name)[rows] for f in fields(self)))

    def with_more(self, more: "_Parts") -> "_Parts":
        """These and others."""
        return _Parts(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)))

    def halved(self) -> tuple[Floats, NDArray[np.int64]]:
        """Corners and depth of the 2^dim parts that each is cut into."""
        n, vertices, dim = self.corners.shape
        if not n:
            return self.corners, self.depth
        halves = halve_edges(
            Simplices.untagged(self.corners.reshape(-1, dim), np.arange(n * vertices).reshape(n, vertices))
        )
        found = np.asarray(halves.points[halves.cells])
        return found, np.repeat(self.depth + 1, 2**dim)


def adaptive_rule(
    space: DensitySpace, density: PointDensity, integrand: Integrand, tolerance: float, absolute: float = 0.0
) -> AdaptiveRule:
    """Points for ∫f_y dρ_y, summed over the labels. **Collective**.

    The parts of cells whose rules differ most are cut until all differences together are below the tolerance, or there
    are MOST_POINTS.

    Args:
        space: whose cells cover the domain.
        density: of all labels, evaluated without communication; may be negative somewhere.
        integrand: f, evaluated without communication.
        tolerance: relative to Σ_y ∫|f_y ρ_y|.
        absolute: an error that is small enough in any case.

    Raises:
        EulerianError: a function cannot be evaluated; the same on all ranks.
    """
    comm, dim = space.comm, space.dim
    mass = density.mass
    corners, depth = space.vertices, np.zeros(space.n_owned, dtype=np.int64)
    with parallel.agreed(comm):
        parts = _sampled(space, density, integrand, corners, depth)
    points = [len(basis.interior_rule(dim, degree).weights) for degree in (FINE[dim], COARSE[dim])]
    left = (MOST_POINTS[dim] - sum(points) * comm.allreduce(len(corners))) // (2**dim * sum(points))
    mean, size = _mean_and_size(comm, parts)
    limit = max(tolerance * size, absolute)
    while True:
        apart = _apart(parts, mean)
        threshold, count = _threshold(comm, np.where(parts.depth < _DEEPEST[dim], apart, 0.0), limit, left)
        if not count:
            break
        left -= count
        rough = (apart > threshold) & (parts.depth < _DEEPEST[dim])
        with parallel.agreed(comm):
            finer = _sampled(space, density, integrand, *parts.where(rough).halved())
            parts = parts.where(~rough).with_more(finer)
    total = parallel.sum_all(comm, parts.masses.sum(axis=(0, 1)))
    scale = np.divide(mass, total, where=total != 0.0, out=np.ones_like(mass))
    left_over = float(parallel.sum_all(comm, np.array([_apart(parts, mean).sum()]))[0])
    # A density that the points miss is seen by its mass.
    error = left_over + float(np.abs(mean) @ np.abs(mass - total))
    x, masses, values, others = (
        a.reshape(-1, *a.shape[2:]) for a in (parts.x, parts.masses, parts.values, parts.others)
    )
    return AdaptiveRule(x, masses * scale, values, others, error)


def _apart(parts: _Parts, mean: Floats) -> Floats:
    """By how much the two rules differ on each part about ∫(f − mean)dρ, for the rest is known; (n,)."""
    return np.asarray(np.abs(parts.off[..., 1] - mean * parts.off[..., 0]).sum(axis=1))


def _mean_and_size(comm: MPI.Comm, parts: _Parts) -> tuple[Floats, float]:
    """The labels' mean f (K,), and Σ∫|fρ|. Collective."""
    products = parts.masses * parts.values
    local = np.stack([parts.masses.sum(axis=(0, 1)), products.sum(axis=(0, 1)), np.abs(products).sum(axis=(0, 1))])
    mass, integral, size = parallel.sum_all(comm, local)
    return np.divide(integral, mass, where=mass != 0.0, out=np.zeros_like(mass)), float(size.sum())


def _threshold(comm: MPI.Comm, apart: Floats, tolerance: float, most: int) -> tuple[float, int]:
    """What is above it is to be cut: the rest is half the tolerance; and how many that are. Collective."""
    everyone = np.sort(np.concatenate(comm.allgather(apart)))
    if everyone.sum() <= tolerance or most <= 0:
        return np.inf, 0
    first = max(int(np.searchsorted(np.cumsum(everyone), 0.5 * tolerance)), len(everyone) - most)
    level = max(float(everyone[min(first, len(everyone) - 1)]), 1e-300)
    threshold = _ODD * 2.0 ** np.floor(np.log2(level / _ODD))
    while (count := int(np.sum(everyone > threshold))) > most:
        threshold *= 2.0
    return threshold, count


def _sampled(
    space: DensitySpace, density: PointDensity, integrand: Integrand, corners: Floats, depth: NDArray[np.int64]
) -> _Parts:
    """The points of both rules on simplices (n, dim+1, dim); those of the coarse one are forgotten."""
    dim, det = space.dim, np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1]))
    rules = [basis.interior_rule(dim, degree) for degree in (FINE[dim], COARSE[dim])]
    x = [basis.physical_points(corners, rule.points).reshape(-1, dim) for rule in rules]
    weights = [(det[:, None] * rule.weights).ravel() for rule in rules]
    both = np.concatenate(x)
    masses = density.values(both) * np.concatenate(weights)[:, None]
    values, others = integrand(both, masses)
    n, q, r = len(corners), *(len(rule.weights) for rule in rules)
    fine = [a[: n * q].reshape(n, q, *a.shape[1:]) for a in (both, masses, values, others)]
    coarse = [a[n * q :].reshape(n, r, *a.shape[1:]) for a in (masses, values)]
    less = np.stack([coarse[0], coarse[0] * coarse[1]], axis=-1).sum(axis=1)
    more = np.stack([fine[1], fine[1] * fine[2]], axis=-1).sum(axis=1)
    off = less - more
    return _Parts(corners, depth, fine[0], fine[1], fine[2], fine[3], off)
