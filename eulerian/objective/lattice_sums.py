"""Sums Σ_j m_j exp(−|x_i − y_j|²/(2ω²)) over many points, by way of a lattice: separable, without a mesh, no libraries.

A Gaussian kernel is the convolution of two narrower ones, and the trapezoidal rule integrates that to all digits:

    exp(−|x − y|²/(2ω²)) = (2/(πω²))^{d/2} ∫ g(x − z) g(z − y) dz = Σ_z f_z(x) f_z(y) (1 + O(e^{−π²ω²/(2h²)})),

g(r) = exp(−|r|²/ω²), z on a lattice of spacing h, f_z(x) = (2h²/(πω²))^{d/4} g(x − z). So a density acts by the numbers
c_z = ∫f_z ρ alone, and ∬kρρ = |c|², which is never negative. (The trapezoidal rule: Trefethen & Weideman 2014,
doi:10.1137/130932132.) Points are taken tile by tile. In a tile f_z is a product of polynomials to all digits, whose
degrees follow from the tile's size, so that sums over its points are products of matrices (n, degree + 1).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Self, final

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError

TOLERANCE = 1e-11
"""Of a kernel's value, relative to its largest one: of the rule, and of what is left out far from a point."""

MOST_NODES = 2**20
"""Of a lattice: its numbers are summed up over all ranks every time."""

_DIGITS = math.log(1.0 / TOLERANCE)
_SPACING = math.pi / math.sqrt(2.0 * _DIGITS)  # of nodes, in kernel widths
_MARGIN = math.sqrt(0.5 * _DIGITS)  # about a box: beyond it f_z(x) f_z(y) is below the tolerance for x, y in the box
_REACH = math.sqrt(_DIGITS)  # about a tile: beyond it f_z(x) is

# What decides how large tiles are: multiplications and tiles per second, about.
_PRODUCTS, _TILES = 3e9, 1e4

_KEPT = 2**27  # bytes of polynomials' values that are kept for points that stay where they are
_NUMBERS = 2**20  # in a matrix at a time


@final
@dataclass(frozen=True)
class Lattice:
    """The nodes h·(first + j), 0 ≤ j < shape, that serve for points in a box.

    Boxes of one width have parts of the same infinite lattice: which of them is taken does not matter.

    Attributes:
        width: ω of the kernel.
        first: by axis.
        shape: by axis.
    """

    width: float
    first: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, low: Floats, high: Floats, width: float, key: str = "width") -> Self:
        """For points from ``low`` to ``high``, (d,) both.

        Raises:
            InputError: the box is too large for the width.
        """
        spacing, margin = _SPACING * width, _MARGIN * width
        first, last = np.floor((low - margin) / spacing), np.ceil((high + margin) / spacing)
        shape = last - first + 1.0
        if not np.prod(shape) <= MOST_NODES:
            sides = ", ".join(f"{side:.3g}" for side in high - low)
            what = f"is too small beside a box of sides {sides}: it takes {np.prod(shape):.3g} nodes to sum it up"
            raise InputError(what, key=key, value=width, remedy=f"Take a wider kernel: {MOST_NODES} are the most.")
        return cls(width, tuple(map(int, first)), tuple(map(int, shape)))

    @property
    def size(self) -> int:
        """Number of nodes."""
        return math.prod(self.shape)

    @property
    def blur(self) -> float:
        """Standard deviation of f_z as a density."""
        return self.width / math.sqrt(2.0)

    @property
    def integral(self) -> float:
        """∫f_z: c_z of a density is this times what the density is, blurred, at the node z."""
        return float((_FACTOR * math.sqrt(math.pi) * self.width) ** len(self.shape))

    @property
    def nodes(self) -> Floats:
        """(size, d), in the order of sums."""
        axes = [self.along(axis) for axis in range(len(self.shape))]
        return np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)

    def along(self, axis: int) -> Floats:
        """Coordinates of the nodes along an axis."""
        first = float(self.first[axis])
        return _SPACING * self.width * np.arange(first, first + self.shape[axis])

    def box_of(self, sizes: Floats, share: float) -> tuple[Floats, Floats]:
        """Corners (d,) of the box of the nodes where numbers (size,) are above a share of the largest one."""
        kept = self.nodes[sizes > share * sizes.max()]
        return kept.min(axis=0), kept.max(axis=0)


_FACTOR = (2.0 * _SPACING**2 / math.pi) ** 0.25


@final
@dataclass(frozen=True)
class _Axis:
    """All tiles along one axis, k of them.

    Attributes:
        factors: (k, r, nodes) the factor of f_z that belongs to the axis, in Chebyshev polynomials of every tile.
        slopes: (k, r, nodes) its derivative.
        windows: by tile, the nodes that matter to it; factors of others are zero.
    """

    factors: Floats
    slopes: Floats
    windows: list[slice]

    @classmethod
    def of(cls, lattice: Lattice, axis: int, low: float, side: float, count: int) -> Self:
        """From ``low`` on, so many tiles of a length."""
        nodes, reach, r = lattice.along(axis), _REACH * lattice.width, _terms(0.5 * side / lattice.width)
        places, starts = chebyshev.chebpts1(r), low + side * np.arange(count)
        x = starts[:, None] + 0.5 * side * (1.0 + places)
        ends = [
            (int(i), int(j)) for i, j in np.searchsorted(nodes, np.stack([starts - reach, starts + side + reach], 1))
        ]
        values = np.zeros((count, r, len(nodes)))
        for k, (i, j) in enumerate(ends):
            values[k, :, i:j] = _FACTOR * np.exp(-(((x[k, :, None] - nodes[i:j]) / lattice.width) ** 2))
        # Chebyshev polynomials are orthogonal at these points.
        to_polynomials = (2.0 / r) * chebyshev.chebvander(places, r - 1).T
        to_polynomials[0] *= 0.5
        factors = to_polynomials @ values
        slopes = np.zeros_like(factors)
        if r > 1:
            slopes[:, : r - 1] = np.moveaxis(chebyshev.chebder(np.moveaxis(factors, 1, 0), scl=2.0 / side), 0, 1)
        return cls(factors, slopes, [slice(*pair) for pair in ends])

    def to_nodes(self, table: Floats) -> Floats:
        """Sums by the tiles' polynomials (m, k, r, …) as those by the nodes (m, …, nodes)."""
        result = np.zeros((len(table), *table.shape[3:], self.factors.shape[2]))
        for k, window in enumerate(self.windows):
            result[..., window] += np.tensordot(table[:, k], self.factors[k, :, window], axes=(1, 0))
        return result

    def to_polynomials(self, table: Floats, matrix: Floats) -> Floats:
        """What belongs to the nodes (m, nodes, …) in the polynomials (m, …, k, r) of factors or slopes."""
        result = np.empty((len(table), *table.shape[2:], *matrix.shape[:2]))
        for k, window in enumerate(self.windows):
            result[..., k, :] = np.tensordot(table[:, window], matrix[k, :, window], axes=(1, 1))
        return result


@final
@dataclass(frozen=True)
class _Block:
    """Some of the points of a tile.

    Attributes:
        rows: of x.
        tile: by axis.
        places: (n, d) where they are in it, from −1 to 1.
    """

    rows: NDArray[np.intp]
    tile: tuple[int, ...]
    places: Floats


@final
class LatticeSums:
    """Sums over points that stay where they are, which are this rank's. Nothing is collective.

    Law: ⟨dual, sums(m)⟩ = ⟨m, potential(dual)⟩ for all dual (size,) and m (n,).

    Args:
        lattice: for a box that all points are in.
        x: (n, d).
    """

    def __init__(self, lattice: Lattice, x: Floats) -> None:
        self._lattice, self._points = lattice, x.shape
        self._axes: list[_Axis] = []
        self._slabs: list[list[_Block]] = []
        if len(x):
            self._axes, self._slabs = _tiled(lattice, x)
        self._terms = [axis.factors.shape[1] for axis in self._axes]
        self._keep = 8 * len(x) * sum(self._terms) <= _KEPT

    def sums(self, masses: Floats) -> Floats:
        """c_z = Σ_j m_j f_z(x_j), (size,), of masses (n,)."""
        result = np.zeros(self._lattice.shape)
        for slab, of_blocks in zip(self._slabs, self._polynomials(), strict=True):
            table = np.zeros(self._slab_shape)
            for block, (*others, last) in zip(slab, of_blocks, strict=True):
                left = masses[block.rows, None]
                for each in others:
                    left = (left[:, :, None] * each[:, None, :]).reshape(len(left), -1)
                table[_in_slab(block)] += (left.T @ last).reshape(self._terms)
            first, *more = self._axes
            k = slab[0].tile[0]
            for axis in more:
                table = axis.to_nodes(table)
            window = first.windows[k]
            result[window] += np.tensordot(first.factors[k, :, window], table, axes=(0, 0))
        return result.ravel()

    def potential(self, dual: Floats) -> Floats:
        """Σ_z dual_z f_z(x), (n,)."""
        return self._evaluated(dual, [axis.factors for axis in self._axes])

    def gradient(self, dual: Floats) -> Floats:
        """Its gradient, (n, d)."""
        columns = [
            self._evaluated(dual, [axis.slopes if j == i else axis.factors for j, axis in enumerate(self._axes)])
            for i in range(self._points[1])
        ]
        return np.stack(columns, axis=1)

    def _evaluated(self, dual: Floats, matrices: Sequence[Floats]) -> Floats:
        """Σ_z dual_z times products of the factors' polynomials, or of their derivatives', at the points; (n,)."""
        result, nodes = np.empty(self._points[0]), dual.reshape(self._lattice.shape)
        for slab, of_blocks in zip(self._slabs, self._polynomials(), strict=True):
            k = slab[0].tile[0]
            window = self._axes[0].windows[k]
            table = np.tensordot(matrices[0][k, :, window], nodes[window], axes=(1, 0))
            for axis, matrix in zip(self._axes[1:], matrices[1:], strict=True):
                table = axis.to_polynomials(table, matrix)
            for block, polynomials in zip(slab, of_blocks, strict=True):
                result[block.rows] = _contracted(table[_in_slab(block)], polynomials)
        return result

    @property
    def _slab_shape(self) -> list[int]:
        """Polynomials of the tiles of one place along the first axis: (r, tiles, r, tiles, r)."""
        first, *more = (axis.factors.shape for axis in self._axes)
        return [first[1], *(number for count, terms, _ in more for number in (count, terms))]

    def _polynomials(self) -> Iterable[Iterable[list[Floats]]]:
        """Those of Chebyshev at the points, by slab and block: by axis (n, r)."""
        return self._kept if self._keep else (map(self._of_block, slab) for slab in self._slabs)

    @cached_property
    def _kept(self) -> list[list[list[Floats]]]:
        return [[self._of_block(block) for block in slab] for slab in self._slabs]

    def _of_block(self, block: _Block) -> list[Floats]:
        columns = zip(block.places.T, self._terms, strict=True)
        return [chebyshev.chebvander(places, terms - 1) for places, terms in columns]


def _in_slab(block: _Block) -> tuple[int | slice, ...]:
    """Where the polynomials of a block's tile are in its slab."""
    return (slice(None), *(index for t in block.tile[1:] for index in (t, slice(None))))


def _tiled(lattice: Lattice, x: Floats) -> tuple[list[_Axis], list[list[_Block]]]:
    """Tiles along the axes; points (n, d) in blocks, so that no matrix is large, by the place of their tile."""
    low, extent = x.min(axis=0), np.ptp(x, axis=0)
    counts = _tiles(extent / lattice.width, len(x))
    sides = np.maximum(extent / counts, 1e-3 * lattice.width)  # many points may have the same coordinate
    cuts = zip(low.tolist(), sides.tolist(), counts.tolist(), strict=True)
    axes = [_Axis.of(lattice, i, *cut) for i, cut in enumerate(cuts)]
    tile = np.minimum((x - low) // sides, counts - 1).astype(np.intp)
    number = np.ravel_multi_index(tuple(tile.T), tuple(counts))
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    step = max(_NUMBERS // math.prod(axis.factors.shape[1] for axis in axes[:-1]), 16)
    slabs: dict[int, list[_Block]] = {}
    for rows in np.split(order, starts[1:]):
        place = tile[rows[0]]
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            block = _Block(some, tuple(place.tolist()), 2.0 * ((x[some] - low) / sides - place) - 1.0)
            slabs.setdefault(int(place[0]), []).append(block)
    return axes, list(slabs.values())


def _tiles(widths: Floats, n: int) -> NDArray[np.intp]:
    """Into how many tiles to cut a box of n points along each axis, whose extent is in widths of the kernel, (d,)."""

    def seconds(counts: NDArray[np.intp]) -> float:
        terms = np.array([_terms(0.5 * side) for side in widths / counts])
        nodes = np.minimum(widths + 2.0 * _MARGIN, widths / counts + 2.0 * _REACH) / _SPACING
        products = n * float(np.prod(terms)) + float(np.prod(counts * terms)) * float(nodes.max())
        return products / _PRODUCTS + min(float(np.prod(counts)), n) / _TILES

    # Not wider: derivatives of polynomials of high degree lose digits.
    choices = [np.maximum(np.ceil(widths / side), 1).astype(np.intp) for side in (0.5, 1.0, 2.0, 4.0, 8.0)]
    return min(choices, key=seconds)


@cache
def _terms(half: float) -> int:
    """How many Chebyshev polynomials a factor takes on an interval of half a length, in widths of the kernel.

    On Bernstein's ellipse of parameter ϱ it is at most exp(half² (ϱ − 1/ϱ)²/4), so n terms leave out no more than
    4/(ϱ − 1) ϱ^(1−n) times that, for every ϱ > 1.
    """
    parameters = 1.0 + np.geomspace(1e-2, 1e4, 400)
    bound = half**2 * (parameters - 1.0 / parameters) ** 2 / 4.0 + np.log(4.0 / (parameters - 1.0))
    return 1 + math.ceil(float(np.min((bound + _DIGITS) / np.log(parameters))))


def _contracted(table: Floats, factors: Sequence[Floats]) -> Floats:
    """Σ table[j₁, …, j_d] factor₁[n, j₁] … factor_d[n, j_d], (n,)."""
    first, *others = factors
    rest = first @ table.reshape(len(table), -1)
    for factor in others:
        rest = np.matmul(factor[:, None, :], rest.reshape(len(first), factor.shape[1], -1))[:, 0]
    return np.asarray(rest[:, 0])
