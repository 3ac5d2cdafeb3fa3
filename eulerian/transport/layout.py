"""Densities as the compiled loops hold them: values at Lagrange nodes, eight cells side by side."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.arrays import Floats, Ints
from eulerian.space.density import DensitySpace
from eulerian.transport.element import NodalElement

# Cells side by side: one AVX-512 register of doubles, two of AVX2.
LANES = 8
_ALIGNMENT = 64

# Positions are 32-bit numbers in the compiled loops.
_LARGEST = 2**31


def aligned(shape: tuple[int, ...], dtype: type = np.float64) -> NDArray:  # type: ignore[type-arg]
    """An array of zeros that starts at a multiple of 64 bytes."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    block = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size].view(dtype).reshape(shape)


@final
class NodalLayout:
    """Between modal coefficients (n_cells, nd, columns) and batches (n_batches + ghosts, columns, nd, 8).

    Cell c is lane c mod 8 of batch c div 8; ghost cells begin a batch of their own. Lanes without a cell hold what they
    were filled with. Nothing here is collective.

    Args:
        space: of the densities.
        columns: how many densities move together.

    Attributes:
        element: the reference cell.
        n_batches: of owned cells.
        shape: of a density, with ghosts.
        owned_shape: without.
        places: (n_cells, nd) position of each node of a cell in a flat density, of its first column.
    """

    def __init__(self, space: DensitySpace, columns: int) -> None:
        self.space, self.columns = space, columns
        self.element = NodalElement.of(space)
        self.n_batches = -(-space.n_owned // LANES)
        ghosts = -(-(space.n_cells - space.n_owned) // LANES)
        self.shape = (self.n_batches + ghosts, columns, space.nd, LANES)
        self.owned_shape = (self.n_batches, *self.shape[1:])
        if np.prod(self.shape, dtype=np.int64) >= _LARGEST:
            raise MemoryError("more than 2³¹ numbers of one density on one rank: use more ranks")
        order = space.geometry.vertex_order
        self._nodes = self.element.places(order, self.element.nodes)
        self._to_nodes = self.element.modal_to_nodal
        self._to_modes = np.linalg.inv(self._to_nodes)
        cells = np.arange(space.n_cells)
        cells[space.n_owned :] += self.n_batches * LANES - space.n_owned
        batch, lane = np.divmod(cells, LANES)
        self._batch, self._lane = batch, lane
        first = batch * (columns * space.nd * LANES) + lane
        self.places: Ints = (first[:, None] + LANES * np.arange(space.nd)).astype(np.int32)

    def zeros(self) -> Floats:
        """The zero density in batches."""
        return aligned(self.shape)

    def pack(self, rho: Floats, *, fill: float = 0.0) -> Floats:
        """Batches of modal coefficients (n_cells or n_owned, nd, columns); the lanes without a cell are ``fill``."""
        n = len(rho)
        values = np.matmul(self._to_nodes, rho)
        values = np.take_along_axis(values, self._nodes[:n, :, None], axis=1)
        packed = self.zeros()
        if fill:
            packed[...] = fill
        packed[self._batch[:n], :, :, self._lane[:n]] = np.swapaxes(values, 1, 2)
        return packed

    def unpack(self, packed: Floats) -> Floats:
        """Modal coefficients (n_cells, nd, columns) of the owned cells; those of ghosts are zero."""
        n = self.space.n_owned
        ours = np.swapaxes(packed[self._batch[:n], :, :, self._lane[:n]], 1, 2)
        values = np.empty_like(ours)
        np.put_along_axis(values, self._nodes[:n, :, None], ours, axis=1)
        rho = np.zeros((self.space.n_cells, self.space.nd, self.columns))
        np.matmul(self._to_modes, values, out=rho[:n])
        return rho

    def pack_derivative(self, derivative: Floats) -> Floats:
        """The function that represents a derivative by modal coefficients in L², in batches; shapes as in ``pack``."""
        return self.pack(derivative / self.space.geometry.det[: len(derivative), None, None])

    def unpack_derivative(self, packed: Floats) -> Floats:
        """The inverse of ``pack_derivative`` on owned cells; ghosts are zero."""
        return self.unpack(packed) * self.space.geometry.det[:, None, None]

    def across(self) -> Ints:
        """Where the nodes of each facet stand in the neighbour, (n_batches, dim+1, nodes, 8), of the first column.

        At the boundary, and for lanes without a cell, they are the own ones.
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
        lanes = np.arange(self.n_batches * LANES)
        padded = lanes // LANES * (self.columns * space.nd * LANES) + lanes % LANES
        result = padded[:, None, None] + np.zeros((1, *found.shape[1:]), dtype=np.int64)
        result[:n] = found
        batched = result.reshape(self.n_batches, LANES, *found.shape[1:])
        return np.ascontiguousarray(np.moveaxis(batched, 1, 3), dtype=np.int32)
