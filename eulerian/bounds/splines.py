"""Tensor products of cubic B-splines on a box: twice continuously differentiable functions with few coefficients."""

from dataclasses import dataclass
from functools import reduce
from itertools import combinations_with_replacement
from typing import NamedTuple, Self, final

import numpy as np
from scipy.sparse import csr_array

from eulerian.base.arrays import Floats
from eulerian.bounds.grid_search import Indices

# The four cubic pieces that overlap a knot interval, as polynomials in the place 0 ≤ s ≤ 1 inside it: a row for each of
# the powers s⁰..s³, a column for each piece (de Boor, A Practical Guide to Splines, 1978); and its derivatives.
_PIECES = np.array([[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]]) / 6.0
_DERIVATIVE = np.diag([1.0, 2.0, 3.0], 1)
_TABLES = np.hstack([_PIECES, _DERIVATIVE @ _PIECES, _DERIVATIVE @ _DERIVATIVE @ _PIECES])
# What a spline has for coefficients when its intervals are halved: those at old places and those between them.
_OLD, _BETWEEN = np.array([1.0, 6.0, 1.0]) / 8.0, np.array([1.0, 1.0]) / 2.0


class Jets(NamedTuple):
    """A function at points: values (n,), gradients (n, dim) and second derivatives (n, dim, dim)."""

    value: Floats
    gradient: Floats
    hessian: Floats


@final
@dataclass(frozen=True)
class SplineSpace:
    """Cubic splines on a box that is cut into equal intervals along each axis. Points outside count as the nearest.

    Attributes:
        lower: (dim,) corner of the box.
        upper: (dim,).
        intervals: how many along each axis, (dim,).
    """

    lower: Floats
    upper: Floats
    intervals: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Of the box."""
        return len(self.intervals)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an array of coefficients."""
        return tuple(n + 3 for n in self.intervals)

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return int(np.prod(self.shape))

    @property
    def width(self) -> Floats:
        """Of the intervals, (dim,)."""
        return np.asarray((self.upper - self.lower) / np.array(self.intervals))

    def refined(self) -> Self:
        """The same with halved intervals: it contains this space."""
        return type(self)(self.lower, self.upper, tuple(2 * n for n in self.intervals))

    def prolong(self, coefficients: Floats) -> Floats:
        """The coefficients of a function of this space in the refined one: flat, as all coefficients are."""
        array = coefficients.reshape(self.shape)
        for axis in range(self.dim):
            array = np.moveaxis(_halved(np.moveaxis(array, axis, 0)), 0, axis)
        return np.ascontiguousarray(array).ravel()

    def interpolate(self, quadratic: Jets, centre: Floats) -> Floats:
        """Coefficients of a quadratic function, given by its value (), gradient (dim,) and Hessian at a point."""
        # A cubic B-spline's coefficient for a quadratic f is f − h²f''/6 at the middle of its support.
        axes = [
            low - width + width * np.arange(n) for low, width, n in zip(self.lower, self.width, self.shape, strict=True)
        ]
        away = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, self.dim) - centre
        bend = np.asarray(quadratic.hessian)
        values = quadratic.value + away @ quadratic.gradient + 0.5 * np.einsum("ni,ij,nj->n", away, bend, away)
        return np.asarray(values - self.width**2 @ np.diag(bend) / 6.0)

    def design(self, x: Floats) -> "Design":
        """The basis at points x (n, dim)."""
        return Design(self, x)


def _halved(rows: Floats) -> Floats:
    """One axis, the first one, of coefficients on halved intervals."""
    old = _OLD[0] * rows[:-2] + _OLD[1] * rows[1:-1] + _OLD[2] * rows[2:]
    between = _BETWEEN[0] * rows[:-1] + _BETWEEN[1] * rows[1:]
    result = np.empty((len(old) + len(between), *rows.shape[1:]))
    result[::2], result[1::2] = between, old
    return result


@final
@dataclass(frozen=True)
class SplineFunction:
    """A function of a spline space.

    Attributes:
        space: of splines.
        coefficients: flat.
    """

    space: SplineSpace
    coefficients: Floats

    def jets(self, x: Floats) -> Jets:
        """At points x (n, dim)."""
        return self.space.design(x).jets(self.coefficients)


@final
class Design:
    """The basis functions of a spline space at some points, and their derivatives.

    Args:
        space: of the splines.
        x: (n, dim).
    """

    def __init__(self, space: SplineSpace, x: Floats) -> None:
        self._space = space
        place = np.clip((x - space.lower) / space.width, 0.0, space.intervals)
        first = np.minimum(place.astype(np.int64), np.array(space.intervals) - 1)
        inside = place - first
        # Values, first and second derivatives of the four pieces, side by side.
        scales = [np.repeat(width ** -np.arange(3.0), 4) for width in space.width]
        self._tables = [_powers(s) @ (_TABLES * scale) for s, scale in zip(inside.T, scales, strict=True)]
        strides = np.cumprod((1, *space.shape[:0:-1]))[::-1]
        columns = [(first[:, axis, None] + np.arange(4)) * strides[axis] for axis in range(space.dim)]
        self._columns: Indices = reduce(_outer_sum, columns)

    def values(self, coefficients: Floats) -> Floats:
        """A function at the points, (n,)."""
        return self._contracted(coefficients, 1).reshape(-1)

    def jets(self, coefficients: Floats) -> Jets:
        """A function with its first and second derivatives."""
        dim = self._space.dim
        derivatives = self._contracted(coefficients, 3).reshape(-1, 3**dim)

        def derivative(*axes: int) -> Floats:
            return np.asarray(derivatives[:, np.ravel_multi_index(_orders(dim, *axes), (3,) * dim)])

        hessian = np.empty((len(derivatives), dim, dim))
        for i, j in combinations_with_replacement(range(dim), 2):
            hessian[:, i, j] = hessian[:, j, i] = derivative(i, j)
        return Jets(derivative(), np.stack([derivative(i) for i in range(dim)], axis=1), hessian)

    def _contracted(self, coefficients: Floats, orders: int) -> Floats:
        """A function differentiated less than ``orders`` times along each axis, (n, orders, ..)."""
        found = coefficients[self._columns].reshape(-1, *(4,) * self._space.dim)
        # Axis by axis, the last one first: what has been contracted moves to the front of the axes that are left.
        for table in reversed(self._tables):
            rows = table.reshape(-1, 3, 4)[:, :orders]
            shape = found.shape
            found = found.reshape(len(found), int(np.prod(shape[1:-1])), 4) @ rows.transpose(0, 2, 1)
            found = np.moveaxis(found.reshape(*shape[:-1], orders), -1, 1)
        return found

    def matrix(self, orders: tuple[int, ...] | None = None) -> csr_array:
        """From coefficients to values, or to a derivative, at the points: (n, size)."""
        parts = zip(self._tables, orders or (0,) * self._space.dim, strict=True)
        weights = reduce(_outer_product, [table[:, 4 * order : 4 * order + 4] for table, order in parts])
        count, width = weights.shape
        starts = np.arange(0, count * width + 1, width)
        return csr_array((weights.ravel(), self._columns.ravel(), starts), shape=(count, self._space.size))

    def slopes(self) -> list[csr_array]:
        """``matrix`` of the derivative along each axis."""
        return [self.matrix(_orders(self._space.dim, axis)) for axis in range(self._space.dim)]


def _powers(s: Floats) -> Floats:
    """1, s, s², s³ for s (n,): (n, 4)."""
    squares = s * s
    return np.stack([np.ones_like(s), s, squares, squares * s], axis=1)


def _orders(dim: int, *axes: int) -> tuple[int, ...]:
    """How often to differentiate along each axis."""
    return tuple(axes.count(axis) for axis in range(dim))


def _outer_product(a: Floats, b: Floats) -> Floats:
    return np.asarray((a[:, :, None] * b[:, None, :]).reshape(len(a), a.shape[1] * b.shape[1]))


def _outer_sum(a: Indices, b: Indices) -> Indices:
    return np.asarray((a[:, :, None] + b[:, None, :]).reshape(len(a), a.shape[1] * b.shape[1]))
