"""Densities as the compiled loops hold them: values at Lagrange nodes, eight side by side."""

import math
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats, Ints
from eulerian.density.space import DensitySpace
from eulerian.transport.element import NodalElement

# Numbers side by side: one AVX-512 register of doubles, two of AVX2.
LANES = 8
_ALIGNMENT = 64

# Positions are 32-bit numbers in the compiled loops.
_LARGEST = 2**31


def aligned(shape: tuple[int, ...], dtype: type = np.float64) -> NDArray:  # type: ignore[type-arg]
    """An array of zeros that starts at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    block = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size].view(dtype).reshape(shape)


def in_blocks(rows: NDArray[Any]) -> NDArray[Any]:
    """Cells' rows (n, ...) eight cells side by side, (blocks, ..., 8), with zeros behind the last one."""
    blocks = -(-len(rows) // LANES)
    padded = np.zeros((blocks * LANES, *rows.shape[1:]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    return np.ascontiguousarray(np.moveaxis(padded.reshape(blocks, LANES, *rows.shape[1:]), 1, -1))


@final
class NodalLayout:
    """Between modal coefficients (n_cells, nd, columns) and batches (n_batches + ghosts, groups, nd, 8).

    A batch has 8/width cells, and its lanes hold ``width`` columns of each: columns that move together share what they
    need and lie side by side where neighbours look for them. Ghost cells begin a batch of their own. Lanes without a
    cell hold what they were filled with, those without a column zeros. Nothing here is collective.

    Args:
        space: of the densities.
        columns: how many densities move together.

    Attributes:
        element: the reference cell.
        width: columns side by side, a power of two.
        groups: how many such there are.
        cells: cells of a batch.
        sums: numbers that hold the sums over columns of a batch.
        n_batches: of owned cells.
        shape: of a density, with ghosts.
        owned_shape: without.
        places: (n_cells, nd) position of each node of a cell in a flat density, of its first group.
    """

    def __init__(self, space: DensitySpace, columns: int) -> None:
        self.space, self.columns = space, columns
        self.element = NodalElement.of(space)
        self.width = min(LANES, 1 << (columns - 1).bit_length())  # the next power of two, so that lanes divide evenly
        self.groups, self.cells = -(-columns // self.width), LANES // self.width
        self.sums = 1 if self.cells == 1 else LANES
        self.n_batches = -(-space.n_owned // self.cells)
        ghosts = -(-(space.n_cells - space.n_owned) // self.cells)
        self.shape = (self.n_batches + ghosts, self.groups, space.nd, LANES)
        self.owned_shape = (self.n_batches, *self.shape[1:])
        if np.prod(self.shape, dtype=np.int64) >= _LARGEST:
            raise MemoryError("more than 2³¹ numbers of one density on one rank: use more ranks")
        order = space.geometry.vertex_order
        self._nodes = self.element.places(order, self.element.nodes)
        self._to_nodes = self.element.modal_to_nodal
        self._to_modes = np.linalg.inv(self._to_nodes)
        cells = np.arange(space.n_cells)
        # Ghosts begin a batch of their own: the loops run over owned cells only, whole batches at a time.
        cells[space.n_owned :] += self.n_batches * self.cells - space.n_owned
        batch, place = np.divmod(cells, self.cells)
        first = batch * (self.groups * space.nd * LANES) + place * self.width
        self.places: Ints = (first[:, None] + LANES * np.arange(space.nd)).astype(np.int32)

    def zeros(self) -> Floats:
        """The zero density in batches."""
        return aligned(self.shape)

    def pack(self, rho: Floats, *, fill: float = 0.0) -> Floats:
        """Batches of modal coefficients (n_cells or n_owned, nd, columns); the lanes without a cell are ``fill``."""
        values = _mixed(rho, self._to_nodes)
        return self.pack_nodes(np.take_along_axis(values, self._nodes[: len(rho), :, None], axis=1), fill=fill)

    def unpack(self, packed: Floats) -> Floats:
        """Modal coefficients (n_cells, nd, columns) of the owned cells; those of ghosts are zero."""
        n = self.space.n_owned
        ours = self.unpack_nodes(packed)
        values = np.empty_like(ours)
        np.put_along_axis(values, self._nodes[:n, :, None], ours, axis=1)
        rho = np.zeros((self.space.n_cells, self.space.nd, self.columns))
        rho[:n] = _mixed(values, self._to_modes)
        return rho

    def pack_nodes(self, values: Floats, *, fill: float = 0.0) -> Floats:
        """Batches of values (n_cells or n_owned, nd, columns) at our nodes, to the last bit."""
        n, split = self.space.n_owned, self.n_batches * self.cells
        # Lanes without a cell are filled, too: zeros there would be empty cells, which the limiter looks into.
        by_cell = np.full((self.shape[0] * self.cells, self.space.nd, self.groups * self.width), fill)
        by_cell[..., self.columns :] = 0.0
        by_cell[:n, :, : self.columns] = values[:n]
        by_cell[split : split + len(values) - n, :, : self.columns] = values[n:]
        packed = self.zeros()
        target = self._by_cell(packed)
        target[...] = by_cell.reshape(target.shape)
        return packed

    def unpack_nodes(self, packed: Floats) -> Floats:
        """The inverse of ``pack_nodes`` on owned cells: (n_owned, nd, columns)."""
        by_cell = self._by_cell(packed[: self.n_batches])
        rows = by_cell.reshape(-1, self.space.nd, self.groups * self.width)
        return rows[: self.space.n_owned, :, : self.columns]

    def pack_derivative(self, derivative: Floats) -> Floats:
        """The function that represents a derivative by modal coefficients in L², in batches; shapes as in ``pack``."""
        return self.pack(derivative / self.space.geometry.det[: len(derivative), None, None])

    def unpack_derivative(self, packed: Floats) -> Floats:
        """The inverse of ``pack_derivative`` on owned cells; ghosts are zero."""
        return self.unpack(packed) * self.space.geometry.det[:, None, None]

    def pack_shared(self, derivative: Floats) -> Floats:
        """``pack_derivative`` of (n_owned, nd) that all columns have: (n_batches + 1, nd, cells)."""
        n, nd = self.space.n_owned, self.space.nd
        values = _times(derivative / self.space.geometry.det[:n, None], self._to_nodes)
        # The loops load eight numbers where a batch has fewer cells: the last load must not leave the array.
        packed = aligned((self.n_batches + 1, nd, self.cells))
        by_cell = packed.swapaxes(1, 2)
        ours, whole = values.ravel().take(self._ours), n // self.cells
        by_cell[:whole] = ours[: whole * self.cells].reshape(whole, self.cells, nd)
        by_cell[whole, : n - whole * self.cells] = ours[whole * self.cells :]
        return packed

    def zero_totals(self, orders: int | None = None) -> Floats:
        """Zero sums over columns, for ``unpack_totals``; by lane, or one number where a batch is one cell.

        With ``orders`` that many of them, (orders, ...).
        """
        shape = (self.n_batches, self.space.nd, self.sums)
        return aligned(shape if orders is None else (orders, *shape))

    def unpack_totals(self, sums: Floats) -> Floats:
        """Modal coefficients (n_owned, nd) of the sum over columns."""
        ours = self.split_totals(sums).sum(axis=2)
        return _times(ours.ravel().take(self._theirs), self._to_modes)

    @cached_property
    def _ours(self) -> NDArray[np.intp]:
        """(n_owned, nd): where each of our nodes is in a flat array of Basix' nodes."""
        n, nd = self.space.n_owned, self.space.nd
        return np.asarray(nd * np.arange(n)[:, None] + self._nodes[:n], dtype=np.intp)

    @cached_property
    def _theirs(self) -> NDArray[np.intp]:
        """(n_owned, nd): the inverse of ``_ours``."""
        n, nd = self.space.n_owned, self.space.nd
        return np.asarray(nd * np.arange(n)[:, None] + np.argsort(self._nodes[:n], axis=1), dtype=np.intp)

    @property
    def shares(self) -> int:
        """How many numbers a cell's sum over columns consists of."""
        return 1 if self.cells == 1 else self.columns

    def split_totals(self, sums: Floats) -> Floats:
        """Sums over columns as the loops leave them, by cell: (n_owned, nd, shares)."""
        rows = self._totals_by_cell(sums).reshape(-1, self.space.nd, self.sums // self.cells)
        return rows[: self.space.n_owned, :, : self.shares]

    def join_totals(self, by_cell: Floats) -> Floats:
        """The inverse of ``split_totals``."""
        sums = self.zero_totals()
        target = self._totals_by_cell(sums)
        rows = np.zeros(target.shape).reshape(-1, *target.shape[2:])
        rows[: self.space.n_owned, :, : self.shares] = by_cell
        target[...] = rows.reshape(target.shape)
        return sums

    def _totals_by_cell(self, sums: Floats) -> Floats:
        """A view (batches, cells, nd, lanes)."""
        return sums.reshape(self.n_batches, self.space.nd, self.cells, self.sums // self.cells).swapaxes(1, 2)

    def around(self) -> tuple[Ints, Ints, NDArray[np.uint8]]:
        """Which batches hold neighbours of a batch's cells.

        Returns:
            (n_batches + 1,) where each batch's part of the list begins; the list; (n_batches,) whether a neighbour is a
            ghost.
        """
        n = self.space.n_owned
        neighbours = self.space.geometry.neighbours[:n]
        own, facets = np.nonzero(neighbours >= 0)
        pairs = np.column_stack([own, neighbours[own, facets]])
        at_ghosts = np.zeros(self.n_batches, dtype=np.uint8)
        at_ghosts[pairs[pairs[:, 1] >= n, 0] // self.cells] = 1
        batches = pairs[pairs[:, 1] < n] // self.cells
        found = np.unique(batches[batches[:, 0] != batches[:, 1]], axis=0)
        begin = np.searchsorted(found[:, 0], np.arange(self.n_batches + 1))
        return begin.astype(np.int32), np.ascontiguousarray(found[:, 1], dtype=np.int32), at_ghosts

    def across(self) -> Ints:
        """Positions of the nodes of each facet in the neighbour, (n_batches, dim+1, nodes, cells), of the first group.

        At the boundary they are the own ones: what flows in there has the factor 0, and the loops need no branch.
        """
        space, geometry = self.space, self.space.geometry
        n, order = space.n_owned, geometry.vertex_order
        facet_nodes = self.element.facet_nodes(self.element.nodes)
        own = self.places[:n, facet_nodes]
        number = np.argsort(order, axis=1)  # our number of Basix' vertices, and so of the facets opposite them
        cells = np.take_along_axis(geometry.neighbours[:n], order[:n], axis=1)
        facets = np.take_along_axis(geometry.neighbour_facets[:n], order[:n], axis=1)
        inside = cells >= 0
        there = np.where(inside, cells, 0)
        nodes = facet_nodes[number[there, facets]]
        found = np.where(inside[..., None], self.places[there[..., None], nodes], own)
        result = np.zeros((self.n_batches * self.cells, *found.shape[1:]), dtype=np.int32)
        result[:n] = found
        batched = result.reshape(self.n_batches, self.cells, *found.shape[1:])
        return np.ascontiguousarray(np.moveaxis(batched, 1, 3))

    def _by_cell(self, packed: Floats) -> Floats:
        """A view (batches, cells, nd, groups, width)."""
        split = packed.reshape(len(packed), self.groups, self.space.nd, self.cells, self.width)
        return split.transpose(0, 3, 2, 1, 4)


def _mixed(rows: Floats, matrix: Floats) -> Floats:
    """A small matrix times (n, nd, columns), cell by cell; one product for all cells where there is one column."""
    return (rows[:, :, 0] @ matrix.T)[:, :, None] if rows.shape[2] == 1 else np.matmul(matrix, rows)


def _times(rows: Floats, matrix: Floats) -> Floats:
    """Rows (n, nd) times the transpose of a small matrix, with the same rounding however many rows there are."""
    return np.asarray(np.einsum("ci,ji->cj", rows, matrix))  # no product of a BLAS, whose order is its own
