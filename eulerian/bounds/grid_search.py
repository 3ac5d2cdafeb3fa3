"""Where to look for min_z {ℓ(z) + α/2 |x − z|²}: exhaustive search on a grid, for all x at once.

The minimum over a grid of z separates into one (min, +) product per axis (distance transforms; Felzenszwalb &
Huttenlocher 2012, doi:10.4086/toc.2012.v008a019), taken along the lower envelopes of parabolas by compiled loops
(``min_plus.c``): no property of ℓ is used.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.jit import Library
from eulerian.bounds.convexity import ConvexDomain

type Indices = NDArray[np.int64]

LIBRARY = Library(Path(__file__).with_name("min_plus.c"), "lines_t")
at = LIBRARY.pointer

POINTS_PER_AXIS = {1: 4097, 2: 513, 3: 65}
# A wrong choice between two minima, for want of resolution, is right again for an x that is a little nearer to the
# better one: the minimisers of places around x, so many cells away, are candidates too.
_AROUND = {1: (0, 2, 8, 32, 128), 2: (0, 2, 8), 3: (0, 2)}
_APART = 2.5  # cells between two minimisers that are worth following both


@dataclass(frozen=True)
class Candidates:
    """Minimisers on the grid for places around points x, the best one first.

    Attributes:
        z: (n, C, dim).
        values: (n, C) ℓ(z) + α/2 |x − z|², +∞ where a candidate is not worth following.
    """

    z: Floats
    values: Floats


@dataclass(frozen=True)
class LossTable:
    """One loss on a grid of the bounding box.

    Attributes:
        axes: coordinates of the grid, one array per axis.
        values: (N_1, .., N_dim), +∞ outside the domain.
    """

    axes: tuple[Floats, ...]
    values: Floats

    @property
    def spacing(self) -> Floats:
        """Distance of neighbours along each axis, (dim,)."""
        return np.array([axis[1] - axis[0] for axis in self.axes])

    def cells(self, x: Floats) -> Indices:
        """The grid cells around points (n, dim), as the indices of their lower corners (n, dim)."""
        lower = np.array([axis[0] for axis in self.axes])
        sizes = np.array(self.values.shape)
        return np.asarray(np.clip(np.floor((x - lower) / self.spacing).astype(np.int64), 0, sizes - 2))

    def minimise(self, x: Floats, stiffness: float) -> "GridMinimisers":
        """The minimisers for α = ``stiffness`` at all grid points of a box around the points x (n ≥ 1, dim)."""
        cells, reach = self.cells(x), _AROUND[x.shape[1]][-1]
        first = np.maximum(cells.min(axis=0) - reach, 0)
        last = np.minimum(cells.max(axis=0) + 1 + reach, np.array(self.values.shape) - 1)
        chosen, table = [], self.values
        for direction, axis in enumerate(self.axes):
            start = axis[first[direction] : last[direction] + 1]
            lines = np.moveaxis(table, direction, -1)
            values, best = min_plus(np.ascontiguousarray(lines).reshape(-1, len(axis)), axis, start, 0.5 * stiffness)
            shape = (*lines.shape[:-1], len(start))
            table = np.moveaxis(values.reshape(shape), -1, direction)
            chosen.append(np.moveaxis(best.reshape(shape), -1, direction))
        return GridMinimisers(self, stiffness, first, tuple(chosen))


@dataclass(frozen=True)
class GridMinimisers:
    """Where on the grid ℓ(z) + α/2 |x − z|² is least, for x in a box of grid points.

    Attributes:
        table: ℓ.
        stiffness: α.
        first: (dim,) grid indices of the box's lower corner.
        chosen: per axis the argmin along it, indexed by x along the axes up to this one and by z along the later ones.
    """

    table: LossTable
    stiffness: float
    first: Indices
    chosen: tuple[Indices, ...]

    def candidates(self, x: Floats) -> Candidates:
        """The minimisers of places around points x (n, dim) of the box, as far as they are worth following.

        Among them are the corners of the grid cell around x, which see both sides of a kink of φ inside it.
        """
        dim, table = x.shape[1], self.table
        # Both corners of a cell, and places around them at growing distances.
        shifts = np.array([c for r in _AROUND[dim] for c in product((-r, 1 + r), repeat=dim)])
        places = np.clip(table.cells(x)[:, None] + shifts, 0, np.array(table.values.shape) - 1) - self.first
        index = list(np.moveaxis(places, -1, 0))
        for direction in reversed(range(dim)):  # which line was best is known along the last axis first
            index[direction] = self.chosen[direction][tuple(index)]
        nodes = np.stack(index, axis=-1)
        z, values = self._evaluate(x[:, None], nodes)
        order = np.argsort(values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        z, nodes = (np.take_along_axis(array, order[..., None], axis=1) for array in (z, nodes))
        _drop_close(z / table.spacing, values)
        point, later = np.nonzero(np.isfinite(values[:, 1:]))
        # Between grid points a candidate may be better by what the values change there, not by more.
        gain = self._variation(x[point], nodes[point, later + 1])
        hopeless = values[point, later + 1] - gain > values[point, 0]
        values[point[hopeless], later[hopeless] + 1] = np.inf
        number = max(1, int(np.isfinite(values).sum(axis=1).max()))
        order = np.argsort(values, axis=1, kind="stable")[:, :number]
        return Candidates(np.take_along_axis(z, order[..., None], axis=1), np.take_along_axis(values, order, axis=1))

    def nearest(self, x: Floats) -> Floats:
        """The minimisers on the grid for the grid points nearest to points x (n, dim) of the box: (n, dim)."""
        table, places = self.table, self.table.cells(x)
        lower = np.stack([axis[i] for axis, i in zip(table.axes, places.T, strict=True)], axis=-1)
        index = list((places + (x - lower > 0.5 * table.spacing) - self.first).T)
        for direction in reversed(range(x.shape[1])):
            index[direction] = self.chosen[direction][tuple(index)]
        return np.stack([axis[i] for axis, i in zip(table.axes, index, strict=True)], axis=-1)

    def _evaluate(self, x: Floats, nodes: Indices) -> tuple[Floats, Floats]:
        """Coordinates z (.., dim) of grid points (.., dim) and ℓ(z) + α/2 |x − z|² (..)."""
        index = np.moveaxis(nodes, -1, 0)
        z = np.stack([axis[i] for axis, i in zip(self.table.axes, index, strict=True)], axis=-1)
        away = x - z
        return z, self.table.values[tuple(index)] + 0.5 * self.stiffness * np.einsum("...i,...i->...", away, away)

    def _variation(self, x: Floats, nodes: Indices) -> Floats:
        """Change of the values from grid points (n, dim) to their neighbours: what a closer look may gain, (n,)."""
        _, here = self._evaluate(x, nodes)
        total, highest = np.zeros(len(x)), np.array(self.table.values.shape) - 1
        for unit in np.eye(x.shape[1], dtype=np.int64):
            sides = [self._evaluate(x, np.clip(nodes + sign * unit, 0, highest))[1] for sign in (-1, 1)]
            changes = [np.where(np.isfinite(side), np.abs(side - here), 0.0) for side in sides]
            total += np.maximum(*changes)
        return total


def tabulation_grid(domain: ConvexDomain) -> tuple[tuple[Floats, ...], Floats, NDArray[np.bool_]]:
    """The grid of a domain's bounding box: its axes, its points (N, dim), and which of them are inside, (N,)."""
    number = POINTS_PER_AXIS[domain.dim]
    axes = tuple(np.linspace(low, high, number) for low, high in zip(domain.lower, domain.upper, strict=True))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, domain.dim)
    return axes, points, domain.contains(points)


def min_plus(lines: Floats, z: Floats, x: Floats, half: float) -> tuple[Floats, Indices]:
    """min_j {lines[l, j] + half (x_i − z_j)²} and its j, both (n_lines, M), for ascending z (N,) and x (M,).

    Raises:
        ComputationError: there is no working C compiler.
        MemoryError: there is no memory.
    """
    n_lines, places = len(lines), len(x)
    values, chosen = np.empty((n_lines, places)), np.empty((n_lines, places), dtype=np.int32)
    functions = LIBRARY.load(MPI.COMM_SELF)
    z, x = np.ascontiguousarray(z), np.ascontiguousarray(x)
    fields = {"lines": n_lines, "size": len(z), "places": places, "half": half}
    arrays = {"values": at(lines), "z": at(z), "x": at(x)}
    if functions.min_plus(LIBRARY.ffi.new("lines_t *", fields | arrays), at(values), at(chosen)):
        raise MemoryError(f"no memory for a line of {len(z)} points")
    return values, chosen.astype(np.int64)


def _drop_close(z: Floats, values: Floats) -> None:
    """Drop candidates (n, C, dim), in cells, from the best to the worst, close to a better one; in place."""
    places = np.ascontiguousarray(np.moveaxis(z, 0, -1))
    for later in range(1, values.shape[1]):
        near = np.zeros(len(z), dtype=bool)
        for better in range(later):
            near |= np.isfinite(values[:, better]) & (np.abs(places[better] - places[later]).max(axis=0) < _APART)
        values[near, later] = np.inf
