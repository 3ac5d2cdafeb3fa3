"""Sums Σ_j m_j exp(−|x_i − y_j|²/(2ω²)) over many points, by way of a lattice: separable, without a mesh, no libraries.

A Gaussian kernel is the convolution of two narrower ones, and the trapezoidal rule integrates that to all digits:

    exp(−|x − y|²/(2ω²)) = (2/(πω²))^{d/2} ∫ g(x − z) g(z − y) dz = Σ_z f_z(x) f_z(y) (1 + O(e^{−π²ω²/(2h²)})),

g(r) = exp(−|r|²/ω²), z on a lattice of spacing h, f_z(x) = (2h²/(πω²))^{d/4} g(x − z). So a density acts by the numbers
c_z = ∫f_z ρ alone, and ∬kρρ = |c|², which is never negative. (The trapezoidal rule: Trefethen & Weideman 2014,
doi:10.1137/130932132.) Points are taken tile by tile. In a tile f_z is a product of polynomials to all digits, whose
degrees follow from the tile's size, so that sums over its points are products of matrices (n, degree + 1).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
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
_PRODUCTS, _TILES = 3e9, 5e3

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
    """A tile along one axis.

    Attributes:
        window: the nodes that matter to it.
        factors: (r, nodes) the factor of f_z there that belongs to the axis, in Chebyshev polynomials.
        slopes: (r, nodes) its derivative.
    """

    window: slice
    factors: Floats
    slopes: Floats

    @classmethod
    def of(cls, lattice: Lattice, axis: int, low: float, side: float, r: int) -> Self:
        """From ``low`` on, with polynomials of degree r − 1."""
        nodes, reach = lattice.along(axis), _REACH * lattice.width
        window = slice(*np.searchsorted(nodes, [low - reach, low + side + reach]))
        places = chebyshev.chebpts1(r)
        x = low + 0.5 * side * (1.0 + places)
        values = _FACTOR * np.exp(-(((x[:, None] - nodes[window]) / lattice.width) ** 2))
        # Chebyshev polynomials are orthogonal at these points.
        factors = (2.0 / r) * chebyshev.chebvander(places, r - 1).T @ values
        factors[0] *= 0.5
        slopes = np.zeros_like(factors)
        slopes[: r - 1] = chebyshev.chebder(factors, scl=2.0 / side) if r > 1 else slopes[:0]
        return cls(window, factors, slopes)


@final
@dataclass(frozen=True)
class _Block:
    """Some of the points of a tile.

    Attributes:
        rows: of x.
        axes: the tile.
        places: (n, d) where they are in it, from −1 to 1.
    """

    rows: NDArray[np.intp]
    axes: list[_Axis]
    places: Floats

    @property
    def windows(self) -> tuple[slice, ...]:
        """Nodes that matter."""
        return tuple(axis.window for axis in self.axes)

    def polynomials(self) -> list[Floats]:
        """By axis, those of Chebyshev at the points, (n, r)."""
        columns = zip(self.places.T, self.axes, strict=True)
        return [chebyshev.chebvander(places, len(axis.factors) - 1) for places, axis in columns]


@final
class LatticeSums:
    """Sums over points that stay where they are, which are this rank's. Nothing is collective.

    Law: ⟨dual, sums(m)⟩ = ⟨m, potential(dual)⟩ for all dual (size,) and m (n,).

    Args:
        lattice: for a box that all points are in.
        x: (n, d).
    """

    def __init__(self, lattice: Lattice, x: Floats) -> None:
        self._lattice, self._shape = lattice, x.shape
        self._blocks = list(_blocks(lattice, x)) if len(x) else []
        numbers = sum(len(block.rows) * len(axis.factors) for block in self._blocks for axis in block.axes)
        self._keep = 8 * numbers <= _KEPT

    def sums(self, masses: Floats) -> Floats:
        """c_z = Σ_j m_j f_z(x_j), (size,), of masses (n,)."""
        result = np.zeros(self._lattice.shape)
        for block, polynomials in zip(self._blocks, self._polynomials(), strict=True):
            *others, last = polynomials
            left = masses[block.rows, None]
            for each in others:
                left = (left[:, :, None] * each[:, None, :]).reshape(len(left), -1)
            table = (left.T @ last).reshape([each.shape[1] for each in polynomials])
            result[block.windows] += _along_axes(table, [axis.factors for axis in block.axes])
        return result.ravel()

    def potential(self, dual: Floats) -> Floats:
        """Σ_z dual_z f_z(x), (n,)."""
        result, table = np.empty(self._shape[0]), dual.reshape(self._lattice.shape)
        for block, polynomials in zip(self._blocks, self._polynomials(), strict=True):
            to_polynomials = [axis.factors.T for axis in block.axes]
            result[block.rows] = _contracted(_along_axes(table[block.windows], to_polynomials), polynomials)
        return result

    def gradient(self, dual: Floats) -> Floats:
        """Its gradient, (n, d)."""
        result, table = np.empty(self._shape), dual.reshape(self._lattice.shape)
        for block, polynomials in zip(self._blocks, self._polynomials(), strict=True):
            for i in range(self._shape[1]):
                matrices = [(axis.slopes if j == i else axis.factors).T for j, axis in enumerate(block.axes)]
                result[block.rows, i] = _contracted(_along_axes(table[block.windows], matrices), polynomials)
        return result

    def _polynomials(self) -> Iterable[list[Floats]]:
        """Of the points, by block."""
        return self._kept if self._keep else (block.polynomials() for block in self._blocks)

    @cached_property
    def _kept(self) -> list[list[Floats]]:
        return [block.polynomials() for block in self._blocks]


def _blocks(lattice: Lattice, x: Floats) -> Iterator[_Block]:
    """Points (n, d) tile by tile, so that no matrix of a block is large."""
    low, extent = x.min(axis=0), np.ptp(x, axis=0)
    counts = _tiles(extent / lattice.width, len(x))
    sides = np.maximum(extent / counts, 1e-3 * lattice.width)  # many points may have the same coordinate
    degrees = [_terms(0.5 * side / lattice.width) for side in sides]
    tile = np.minimum((x - low) // sides, counts - 1).astype(np.intp)
    number = np.ravel_multi_index(tuple(tile.T), tuple(counts))
    order = np.argsort(number, kind="stable")
    present, starts = np.unique(number[order], return_index=True)
    axis_of = cache(lambda i, k: _Axis.of(lattice, i, float(low[i] + k * sides[i]), float(sides[i]), degrees[i]))
    step = max(_NUMBERS // math.prod(degrees[:-1]), 16)
    for which, rows in zip(present, np.split(order, starts[1:]), strict=True):
        place = np.array(np.unravel_index(which, tuple(counts)))
        axes = [axis_of(i, int(k)) for i, k in enumerate(place)]
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            yield _Block(some, axes, 2.0 * ((x[some] - low) / sides - place) - 1.0)


def _tiles(widths: Floats, n: int) -> NDArray[np.intp]:
    """Into how many tiles to cut a box of n points along each axis, whose extent is in widths of the kernel, (d,)."""

    def seconds(counts: NDArray[np.intp]) -> float:
        terms = math.prod(_terms(0.5 * side) for side in widths / counts)
        return n * terms / _PRODUCTS + min(float(np.prod(counts)), n) / _TILES

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


def _along_axes(table: Floats, matrices: Sequence[Floats]) -> Floats:
    """A table with a matrix (its length, another one) applied along every axis."""
    for matrix in matrices:  # each goes to the end, so that the next one is in front
        table = np.tensordot(table, matrix, axes=(0, 0))
    return table


def _contracted(table: Floats, factors: Sequence[Floats]) -> Floats:
    """Σ table[j₁, …, j_d] factor₁[n, j₁] … factor_d[n, j_d], (n,)."""
    first, *others = factors
    rest = first @ table.reshape(len(table), -1)
    for factor in others:
        rest = np.matmul(factor[:, None, :], rest.reshape(len(first), factor.shape[1], -1))[:, 0]
    return np.asarray(rest[:, 0])
