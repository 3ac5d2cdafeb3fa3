"""Polygons with holes, made of the boundary of a triangle mesh."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density.space import DensitySpace

_STRAIGHT = 1e-9  # sine of a bend that is none
_INSET = 1e-9  # of the diameter
_LEAST_EDGE = 1e-3  # of an edge may be the inset

type Indices = NDArray[np.int32]


@final
@dataclass(frozen=True)
class Polygon:
    """A polygonal domain, with holes or without, of one part or several.

    Attributes:
        corners: (n, 2) of the boundary, the domain on the left of the edges.
        following: (n,) the next corner along the boundary.
    """

    corners: Floats
    following: Indices

    @classmethod
    def of_edges(cls, begin: Floats, end: Floats) -> Self:
        """From the edges of a boundary, (m, 2) and (m, 2), the domain on their left; vertices of straight walls go.

        Raises:
            InputError: two parts of the boundary meet in a vertex.
        """
        x, inverse = np.unique(np.concatenate([begin, end]), axis=0, return_inverse=True)
        first, last = inverse.reshape(2, -1)
        after, before = (np.full(len(x), -1) for _ in range(2))
        after[first], before[last] = last, first
        if len(np.unique(first)) < len(first) or np.any(after < 0) or np.any(before < 0):
            raise InputError(
                "shortest paths around walls need a boundary whose parts do not touch",
                key="domain",
                value="a mesh where two parts of the boundary meet in a vertex",
                remedy="Leave a gap between them, or close it.",
            )
        back, forth = x - x[before], x[after] - x
        bend = cross(back, forth) / np.linalg.norm(back, axis=1) / np.linalg.norm(forth, axis=1)
        turned = np.sum(back * forth, axis=1) < 0.0
        kept = (np.abs(bend) > _STRAIGHT) | turned
        skip = np.flatnonzero(~kept[after])
        while len(skip):
            after[skip] = after[after[skip]]
            skip = np.flatnonzero(~kept[after])
        number = np.cumsum(kept) - 1
        return cls(np.ascontiguousarray(x[kept]), number[after[kept]].astype(np.int32))

    @classmethod
    def of_space(cls, space: DensitySpace) -> Self:
        """The domain of a space in the plane, the same on all ranks. **Collective**.

        Raises:
            InputError: two parts of the boundary meet in a vertex; on all ranks.
        """
        cells, opposite = np.nonzero(space.geometry.neighbours[: space.n_owned] < 0)
        corners = space.vertices[cells]
        rows = np.arange(len(cells))
        begin, end, third = (corners[rows, (opposite + shift) % 3] for shift in (1, 2, 0))
        left = (cross(end - begin, third - begin) > 0.0)[:, None]
        edges = np.concatenate([np.where(left, begin, end), np.where(left, end, begin)], axis=1)
        gathered = parallel.gather_rows(space.comm, edges)
        everything = edges[:0] if gathered is None else gathered
        return parallel.on_root(space.comm, lambda: cls.of_edges(everything[:, :2], everything[:, 2:]))

    @cached_property
    def preceding(self) -> Indices:
        """(n,) the corner before along the boundary."""
        before = np.empty_like(self.following)
        before[self.following] = np.arange(len(before), dtype=np.int32)
        return before

    @property
    def ends(self) -> Floats:
        """Where the edge that starts at each corner ends, (n, 2)."""
        return self.corners[self.following]

    @cached_property
    def lengths(self) -> Floats:
        """Of the edges, (n,)."""
        return np.asarray(np.linalg.norm(self.ends - self.corners, axis=1))

    @cached_property
    def along(self) -> Floats:
        """Unit vectors along the edges, (n, 2)."""
        return (self.ends - self.corners) / self.lengths[:, None]

    @cached_property
    def diameter(self) -> float:
        """Diagonal of the bounding box."""
        return float(np.linalg.norm(np.ptp(self.corners, axis=0)))

    @cached_property
    def inset(self) -> float:
        """What places on walls are moved inside by before anybody looks at them: no sight line grazes an edge then."""
        return min(_INSET * self.diameter, _LEAST_EDGE * float(self.lengths.min()))

    @cached_property
    def reflex(self) -> Indices:
        """(r,) the corners around which shortest paths can bend."""
        return np.flatnonzero(cross(self.along[self.preceding], self.along) < 0.0).astype(np.int32)

    @property
    def bends(self) -> Floats:
        """Where they are, (r, 2)."""
        return self.corners[self.reflex]

    @cached_property
    def moved_bends(self) -> Floats:
        """The same, moved off the walls along the bisector, (r, 2)."""
        before, after = self.along[self.preceding[self.reflex]], self.along[self.reflex]
        normals = np.stack([-(before + after)[:, 1], (before + after)[:, 0]], axis=1)
        # Both lie on the bisector; together they never vanish, not even at the tip of a needle.
        away = normals + before - after
        return np.asarray(self.bends + self.inset * away / np.linalg.norm(away, axis=1, keepdims=True))

    def walls(self, spacing: float) -> tuple[Floats, Indices, Floats]:
        """Points of all edges, both ends included.

        Args:
            spacing: between points, at most.

        Returns:
            Points (w, 2), their edges (w,), and where on these they are, (w,) from 0 to 1.
        """
        counts = np.ceil(self.lengths / spacing).astype(np.int64) + 1
        edges = np.repeat(np.arange(len(counts)), counts)
        step = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
        shares = step / (counts[edges] - 1)
        return self.at(edges, shares), edges.astype(np.int32), shares

    def at(self, edges: NDArray[np.integer], shares: Floats) -> Floats:
        """Points (w, 2) of edges (w,) at shares (w,) of their lengths."""
        return np.asarray((1.0 - shares[:, None]) * self.corners[edges] + shares[:, None] * self.ends[edges])


def cross(a: Floats, b: Floats) -> Floats:
    """Third component of the cross product of vectors (..., 2)."""
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
