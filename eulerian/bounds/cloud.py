"""Places that paths may lead to: the points of a grid inside a polygon, and points of its walls, with their losses."""

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.bounds.geodesics import LIBRARY, Geodesics, at
from eulerian.bounds.polygon import Indices

_BLOCK = 8  # grid points along the side of a block
_PAIRS = 2**22  # a point and a bend, at a time


@final
@dataclass(frozen=True)
class Places:
    """Points z, and what the walls make of them.

    Attributes:
        z: (c, 2).
        moved: (c, 2) moved off the walls.
        edges: (c,) wall that each is on, -1 for none.
        shares: (c,) where on it, from 0 to 1.
        spacing: of neighbours.
    """

    z: Floats
    moved: Floats
    edges: Indices
    shares: Floats
    spacing: float

    def where(self, rows: NDArray[np.bool_], spacing: float) -> "Places":
        """Some of them, with another spacing."""
        return Places(self.z[rows], self.moved[rows], self.edges[rows], self.shares[rows], spacing)


@final
class Envelopes:
    """For every bend p the places z behind it that minimise ℓ(z) + α/2 (s + |z − p|)² for some s ≥ 0, among given ones.

    Without αs²/2 that is ℓ + α/2 r² + αrs, r = |z − p|: affine in s, so the minimum over z is concave, and the places
    are the corners of a lower convex hull.

    Args:
        geodesics: of the domain.
        places: the places, m labels' losses being those of ``losses`` (K, c).
        stiffness: α.
    """

    def __init__(self, geodesics: Geodesics, places: Places, losses: Floats, stiffness: float) -> None:
        self._stiffness = stiffness
        behind = _behind(geodesics, places)
        self._hulls = [[self._hull(geodesics, *one, loss) for one in behind] for loss in losses]

    def _hull(self, geodesics: Geodesics, who: Indices, r: Floats, loss: Floats) -> tuple[Indices, Floats, Floats]:
        cost = np.ascontiguousarray(loss[who] + 0.5 * self._stiffness * r**2)
        kept = np.empty(len(who), dtype=np.int32)
        kept = kept[: geodesics.functions.envelope(len(who), at(r), at(cost), at(kept))]
        return who[kept], r[kept], cost[kept]

    def best(self, label: int, ways: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """The least costs (m, r) over each bend, for ways (m, r) there, and the places (m, r); +∞ and -1 for none."""
        costs, places = np.full(ways.shape, np.inf), np.full(ways.shape, -1, dtype=np.int64)
        for bend, (who, r, cost) in enumerate(self._hulls[label]):
            rows = np.flatnonzero(np.isfinite(ways[:, bend]))
            if not len(who) or not len(rows):
                continue
            slope = self._stiffness * ways[rows, bend]
            falls = (cost[:-1] - cost[1:]) / np.diff(r)  # descending
            number = np.searchsorted(-falls, -slope)
            costs[rows, bend] = cost[number] + slope * r[number] + 0.5 * slope * ways[rows, bend]
            places[rows, bend] = who[number]
        return costs, places


def _behind(geodesics: Geodesics, places: Places) -> list[tuple[Indices, Floats]]:
    """The places that each bend leads to, and their distances, ascending."""
    r = geodesics.n_bends
    step = max(1, _PAIRS // max(r, 1))
    parts = []
    for start in range(0, len(places.z) if r else 0, step):
        block = slice(start, start + step)
        legs = geodesics.legs(places.z[block], places.moved[block])
        which, bend = np.nonzero(np.isfinite(legs))
        parts.append((bend, which + start, legs[which, bend]))
    if not parts:
        return [(np.zeros(0, dtype=np.int32), np.zeros(0))] * r
    bend, which, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((lengths, bend))
    ends = np.searchsorted(bend[order], np.arange(r + 1))
    some = [order[low:high] for low, high in pairwise(ends)]
    return [(which[one].astype(np.int32), np.ascontiguousarray(lengths[one])) for one in some]


@final
class Cloud:
    """Places in blocks, of which the best ones that a point sees are looked for.

    Args:
        places: as they come.
        losses: (c,).
        gains: (c,) by how much the loss may be less near by.
        stiffness: α.
    """

    def __init__(self, places: Places, losses: Floats, gains: Floats, stiffness: float) -> None:
        size = _BLOCK * places.spacing
        cells = np.floor((places.z - places.z.min(axis=0)) / size).astype(np.int64)
        key = cells[:, 0] * (cells[:, 1].max(initial=0) + 1) + cells[:, 1]
        self._order = np.argsort(key, kind="stable")
        _, first = np.unique(key[self._order], return_index=True)
        z, costs, gains = places.moved[self._order], losses[self._order], gains[self._order]
        boxes = np.concatenate([np.minimum.reduceat(z, first), np.maximum.reduceat(z, first)], axis=1)
        self._kept = {
            "first": np.append(first, len(z)).astype(np.int32),
            "boxes": boxes,
            "least": np.minimum.reduceat(costs - gains, first),
            "z": z,
            "losses": costs,
            "gains": gains,
        }
        self._struct = LIBRARY.ffi.new(
            "cloud_t *",
            {name: at(array) for name, array in self._kept.items()}
            | {"blocks": len(first), "stiffness": stiffness, "spacing": places.spacing},
        )

    def nearest(self, geodesics: Geodesics, moved: Floats, bounds: Floats, most: int) -> NDArray[np.int64]:
        """The best visible places for points (m, 2), if better than bounds (m,) as it seems: (m, most), -1 for none."""
        moved, bounds = np.ascontiguousarray(moved), np.ascontiguousarray(bounds)
        found = np.empty((len(moved), most), dtype=np.int32)
        failed = geodesics.functions.nearest(
            geodesics.struct, self._struct, len(moved), at(moved), at(bounds), most, at(found)
        )
        if failed:
            raise MemoryError
        return np.where(found >= 0, self._order[found], -1)
