"""Points drawn from a density, at random or as Sobol points, the same on any number of ranks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from eulerian.base.arrays import Floats, Ints
from eulerian.base.errors import InputError
from eulerian.density.cell_quantiles import cell_quantiles
from eulerian.density.cell_tree import CellTree
from eulerian.density.gathered import GatheredDensity

type Method = Literal["random", "sobol"]

_BITS = 53  # of a Sobol point: the tree of cells uses up many of them
_BLOCK = 4096  # points at a time: their tables stay in the cache


@final
@dataclass(frozen=True)
class Draw:
    """Points with the weights that make them a discrete measure close to the density.

    Attributes:
        x: (n, dim).
        labels: (n,) int.
        weights: (n,) > 0; those of a whole draw sum to 1, those of a label to its share of the mass.
        log_density: (n,) log ρ_label(x), finite.
        replicate: (n,) int, which of the independent replicates a point belongs to.
    """

    x: Floats
    labels: Ints
    weights: Floats
    log_density: Floats
    replicate: Ints


def draw_points(
    gathered: GatheredDensity,
    n: int,
    *,
    method: Method = "random",
    seed: int = 0,
    replicates: int = 1,
    start: int = 0,
    stop: int | None = None,
) -> Draw:
    """Points number ``start`` to ``stop`` of a draw of n points from the densities of all labels.

    A cell is found by ``CellTree``, the place in it by ``cell_quantiles``. Points come replicate by replicate and
    inside label by label. Labels are strata: they get numbers of points in proportion to their masses in every
    replicate (at least one each), and weights make the shares exact. Sobol points are scrambled (Owen 1997,
    doi:10.1214/aos/1031594731); they are at their best where a label's number of points in a replicate is a power of
    two.

    Args:
        gathered: where it is negative, ``non_negative`` is drawn from.
        n: number of points over all replicates and labels.
        method: independent points, or Sobol points.
        seed: of the points; all replicates and labels are independent.
        replicates: how many independent sets of points.
        start: first point wanted, for a rank that needs a share only.
        stop: end of the points wanted, n by default.

    Raises:
        InputError: n is too small, or the density has no mass.
    """
    gathered = gathered.non_negative()
    counts = _counts(gathered.mass, n, replicates)
    stop = n if stop is None else stop
    pieces = list(_pieces(counts, start, stop))
    size = sum(last - first for *_, first, last in pieces)
    result = Draw(
        np.empty((size, gathered.dim)),
        np.empty(size, dtype=np.int32),
        np.empty(size),
        np.empty(size),
        np.empty(size, dtype=np.int32),
    )
    centroids = gathered.vertices.mean(axis=1)
    trees = {y: CellTree(centroids, gathered.cell_mass[:, y]) for y in {label for _, label, *_ in pieces}}
    shares, at = gathered.mass / gathered.mass.sum(), 0
    for replicate, label, first, last in pieces:
        u = _cube(gathered.dim, int(counts[replicate, label]), method, (seed, replicate, label))[first:last]
        part = slice(at, at := at + last - first)
        result.x[part], result.log_density[part] = _warped(gathered, label, trees[label], u)
        result.labels[part], result.replicate[part] = label, replicate
        result.weights[part] = shares[label] / (replicates * counts[replicate, label])
    return result


def _counts(mass: Floats, n: int, replicates: int) -> Ints:
    """How many points every replicate has of each label, (replicates, K)."""
    filled = np.flatnonzero(mass > 0.0)
    if not len(filled):
        raise InputError("the density has no mass to draw points from", key="density")
    if replicates < 1 or n < replicates * len(filled):
        raise InputError(
            f"{replicates} replicates of {len(filled)} labels need {max(replicates, 1) * len(filled)} points at least",
            key="count",
            value=n,
            remedy="Ask for more points or for fewer replicates.",
        )
    result = np.zeros((replicates, len(mass)), dtype=np.int32)
    sizes = np.diff(np.linspace(0, n, replicates + 1).astype(int))
    for row, size in zip(result, sizes, strict=True):
        row[filled] = _apportioned(mass[filled], int(size))
    return result


def _apportioned(mass: Floats, size: int) -> Ints:
    """Integers ≥ 1 of sum ``size``, in proportion to masses, by largest remainders."""
    quota = np.round(mass / mass.sum() * size, 10)  # equal masses tie, although their last bits depend on the mesh
    numbers = np.maximum(np.floor(quota), 1).astype(np.int32)
    while (rest := size - int(numbers.sum())) != 0:
        excess = quota - numbers
        if rest > 0:
            numbers[np.argmax(excess)] += 1
        else:
            numbers[np.argmin(np.where(numbers > 1, excess, np.inf))] -= 1
    return numbers


def _pieces(counts: Ints, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Replicate, label, and the first and last of its points, of what lies between start and stop."""
    at = 0
    for (replicate, label), count in np.ndenumerate(counts):
        first, last = max(start - at, 0), min(stop - at, int(count))
        at += int(count)
        if first < last:
            yield replicate, label, first, last


def _cube(dim: int, n: int, method: Method, seed: tuple[int, ...]) -> Floats:
    """Points (n, dim) of the open unit cube."""
    rng = np.random.default_rng(seed)
    if method == "random":
        return rng.random((n, dim))
    from scipy.stats import qmc  # takes most of a second to load: only where it is needed

    # A power of two of them, because SciPy warns of anything else.
    return qmc.Sobol(dim, bits=_BITS, rng=rng).random_base2((n - 1).bit_length())[:n]


def _warped(gathered: GatheredDensity, label: int, tree: CellTree, u: Floats) -> tuple[Floats, Floats]:
    """Points (n, dim) of a label's density and its logarithm there, for points u (n, dim) of the unit cube."""
    x, density = np.empty_like(u), np.empty(len(u))
    for first in range(0, len(u), _BLOCK):
        part = slice(first, first + _BLOCK)
        cells, rest = tree.choose(u[part])
        modes = gathered.coefficients[cells, :, label]
        # Relative to the mean: products of the coefficients of nearly empty cells would underflow.
        reference = cell_quantiles(gathered.dim, gathered.degree, modes / modes[:, :1], rest)
        corners = gathered.vertices[cells]
        x[part] = corners[:, 0] + np.einsum("nk,nkd->nd", reference, corners[:, 1:] - corners[:, :1])
        density[part] = gathered.values_in(cells, reference)[:, label]
    return x, np.log(np.maximum(density, np.finfo(float).tiny))  # finite, even where rounding gives a density of 0
