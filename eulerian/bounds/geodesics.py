"""Shortest paths in a polygon with holes: they are straight from bend to bend, and bend around reflex corners only.

Visibility by angular sweeps: Asano 1985, Trans. IEICE E68, 557-559; shortest paths by the graph of bends that see each
other, of which only those lines count along which a taut path may go on: Rohnert 1986,
doi:10.1016/0020-0190(86)90045-1.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

from mpi4py import MPI

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import ComputationError
from eulerian.base.jit import Library
from eulerian.bounds.polygon import Indices, Polygon

LIBRARY = Library(Path(__file__).with_name("geodesics.c"), "cloud_t")
at = LIBRARY.pointer

type Mask = NDArray[np.bool_]

_SLACK = 1e-3  # of the inset: rounding
_APERTURE = 1e-6  # sine: more lines than the taut ones do no harm
_BLOCK = 2**20  # numbers in the lists of sectors that are made at a time


class Ways(NamedTuple):
    """Shortest ways from points to the bends.

    Attributes:
        lengths: (m, r), infinite where there is none.
        first: (m, r) the first bend on the way, -1 where there is none.
    """

    lengths: Floats
    first: Indices


@final
class Geodesics:
    """Lengths of shortest paths. Everything but making it is local.

    Points may lie on walls, and up to rounding outside.

    Args:
        polygon: the domain.
        comm: who loads the compiled code.
    """

    def __init__(self, polygon: Polygon, comm: MPI.Comm) -> None:
        """Collective."""
        self.polygon = polygon
        self.functions = LIBRARY.load(comm)
        reflex = polygon.reflex
        sides = np.concatenate([polygon.along[polygon.preceding[reflex]], polygon.along[reflex]], axis=1)
        # The struct holds pointers only: these arrays must live as long as it does.
        self._kept: dict[str, NDArray[Any]] = {
            "corners": np.ascontiguousarray(polygon.corners),
            "following": polygon.following,
            "preceding": polygon.preceding,
            "bends": np.ascontiguousarray(polygon.bends),
            "moved": np.ascontiguousarray(polygon.moved_bends),
            "sides": np.ascontiguousarray(sides),
        }
        self.struct = LIBRARY.ffi.new(
            "walls_t *",
            {name: at(array) for name, array in self._kept.items()}
            | {"n": len(polygon.corners), "r": len(reflex), "inset": polygon.inset, "aperture": _APERTURE}
            | {"slack": _SLACK * polygon.inset},
        )
        self._keep_views()

    @property
    def n_bends(self) -> int:
        """R."""
        return len(self.polygon.reflex)

    def _keep_views(self) -> None:
        """What the bends see."""
        n, places = len(self.polygon.corners) + 1, self._kept["moved"]
        limits, edges, counts = [np.zeros(0)], [np.zeros(0, dtype=np.int32)], [np.zeros(1, dtype=np.int32)]
        step = max(1, _BLOCK // n)
        for start in range(0, len(places), step):
            some = np.ascontiguousarray(places[start : start + step])
            lows, seen = np.empty((len(some), n)), np.empty((len(some), n), dtype=np.int32)
            number = np.empty(len(some), dtype=np.int32)
            _require(self.functions.views(self.struct, len(some), at(some), at(lows), at(seen), at(number)))
            used = np.arange(n) < number[:, None]
            limits.append(lows[used])
            edges.append(seen[used])
            counts.append(number)
        self._kept["starts"] = np.cumsum(np.concatenate(counts)).astype(np.int32)
        self._kept["limits"], self._kept["edges"] = np.concatenate(limits), np.concatenate(edges)
        for name in ("starts", "limits", "edges"):
            setattr(self.struct, name, at(self._kept[name]))

    @cached_property
    def _between(self) -> tuple[Floats, Indices]:
        """Lengths of shortest paths from bend to bend, (r, r), and the bend before the last one on each, (r, r)."""
        from scipy.sparse import csgraph, csr_array  # takes its time to load: only where it is wanted

        lines = self.legs(self.polygon.bends, self._kept["moved"])
        lines = np.maximum(lines, lines.T)  # taut at both ends
        np.fill_diagonal(lines, np.inf)
        graph = csr_array(np.where(np.isfinite(lines), lines, 0.0))
        lengths, before = csgraph.dijkstra(graph, return_predecessors=True)
        return np.ascontiguousarray(lengths), before.astype(np.int32)

    @property
    def between_bends(self) -> Floats:
        """Lengths of shortest paths from bend to bend, (r, r)."""
        return self._between[0]

    def inside(self, x: Floats) -> tuple[Mask, Floats]:
        """Whether points (m, 2) are in the domain, walls included, (m,); the points, moved off the walls, (m, 2)."""
        x = np.ascontiguousarray(x)
        found, moved = np.empty(len(x), dtype=np.uint8), np.empty_like(x)
        self.functions.inside(self.struct, len(x), at(x), at(moved), at(found))
        return found.astype(bool), moved

    def see(self, p: Floats, q: Floats) -> Mask:
        """Whether points p and q (m, 2), moved off the walls, see each other, pair by pair; (m,)."""
        p, q = np.ascontiguousarray(p), np.ascontiguousarray(q)
        found = np.empty(len(p), dtype=np.uint8)
        self.functions.pairs(self.struct, len(p), at(p), at(q), at(found))
        return found.astype(bool)

    def legs(self, x: Floats, moved: Floats) -> Floats:
        """Straight lines from points (m, 2), given also moved off the walls, to the bends, (m, r).

        Infinite where a wall is between, or no shortest path would bend there.
        """
        x, moved = np.ascontiguousarray(x), np.ascontiguousarray(moved)
        lengths = np.empty((len(x), self.n_bends))
        self.functions.legs(self.struct, len(x), at(x), at(moved), at(lengths))
        return lengths

    def ways(self, x: Floats, moved: Floats) -> Ways:
        """Shortest ways from points (m, 2) to the bends."""
        first = self.legs(x, moved)
        lengths, over = np.empty_like(first), np.empty(first.shape, dtype=np.int32)
        self.functions.ways(self.struct, len(x), at(first), at(self.between_bends), at(lengths), at(over))
        return Ways(lengths, over)

    def last_bends(self, ways: Ways, who: NDArray[np.integer], z: Floats, moved: Floats) -> tuple[Floats, Indices]:
        """The shortest way of row ``who`` (m,) to z (m, 2) over some bend: its length (m,) and last bend (m,).

        Infinite and -1 where there is none.
        """
        z, moved, rows = np.ascontiguousarray(z), np.ascontiguousarray(moved), who.astype(np.int32)
        lengths, bends = np.empty(len(z)), np.empty(len(z), dtype=np.int32)
        self.functions.last_bends(
            self.struct, len(z), at(rows), at(ways.lengths), at(z), at(moved), at(lengths), at(bends)
        )
        return lengths, bends

    def distances(self, x: Floats, z: Floats) -> Floats:
        """Lengths of shortest paths from points x (m, 2) to points z (k, 2), (m, k); infinite where there are none."""
        (_, from_x), (_, from_z) = self.inside(x), self.inside(z)
        m, k = len(x), len(z)
        who, to = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
        over, _ = self.last_bends(self.ways(x, from_x), who, z[to], from_z[to])
        straight = np.where(self.see(from_x[who], from_z[to]), np.linalg.norm(x[who] - z[to], axis=1), np.inf)
        return np.minimum(straight, over).reshape(m, k)

    def bends_between(self, first: NDArray[np.integer], last: NDArray[np.integer]) -> list[list[int]]:
        """The bends on shortest paths from bends ``first`` to bends ``last``, both included; none for -1."""
        before, found = self._between[1], []
        for start, stop in zip(first.tolist(), last.tolist(), strict=True):
            chain = [] if stop < 0 else [stop]
            while chain and chain[-1] != start:
                chain.append(int(before[start, chain[-1]]))
            found.append(chain[::-1])
        return found


def _require(failed: int) -> None:
    if failed:
        raise ComputationError("no memory is left for the lines of sight")
