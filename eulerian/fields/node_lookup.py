"""Find nodes by their coordinates, whatever the last digits are."""

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError

type Numbers = NDArray[np.int64]

TOLERANCE = 1e-9
"""Two coordinates are the same when they differ by less than this fraction of the nodes' extent."""


class NodeIndex:
    """The distinct points of a set, in lexicographic order, and the way back from coordinates to their numbers.

    Along each axis, coordinates with gaps below twice the tolerance form a group; a node is named by its groups.
    Rounding to a grid would not do: two copies of a node may round to different sides.

    Args:
        points: (n, dim), any order, repetitions allowed.

    Attributes:
        nodes: (N, dim), sorted by the first coordinate, then by the second, …
    """

    def __init__(self, points: Floats) -> None:
        # Far from the origin the coordinates themselves carry fewer digits than the tolerance asks for.
        digits = 8.0 * np.finfo(float).eps * float(np.abs(points).max())
        self._tolerance = max(TOLERANCE * float(np.ptp(points, axis=0).max()), digits, float(np.finfo(float).tiny))
        self._groups: list[tuple[Floats, Floats]] = []
        self._names: list[Numbers] = []
        number = np.zeros(len(points), dtype=np.int64)
        for coordinates in points.T:
            starts, ends = _groups(coordinates, self._tolerance)
            name = number * len(starts) + np.searchsorted(starts, coordinates, side="right") - 1
            # Numbering after every axis keeps the names small, and keeps their order lexicographic.
            names, number = np.unique(name, return_inverse=True)
            self._groups.append((starts, ends))
            self._names.append(names)
        _, first = np.unique(number, return_index=True)
        self.nodes = points[first]
        self.nodes.flags.writeable = False
        self._remembered: list[tuple[Floats, Numbers]] = []

    def find(self, x: Floats) -> Numbers:
        """Node numbers (n,) of the points x (n, dim). The last few point sets are remembered.

        Raises:
            InputError: a point is not a node.
        """
        for points, numbers in self._remembered:
            # Comparing all coordinates is much cheaper than searching, and right also when x was changed in place.
            if np.array_equal(points, x):
                return numbers
        numbers = self._search(x)
        self._remembered = [(x.copy(), numbers), *self._remembered[:3]]
        return numbers

    def _search(self, x: Floats) -> Numbers:
        number = np.zeros(len(x), dtype=np.int64)
        found = np.ones(len(x), dtype=bool)
        for coordinates, (starts, ends), names in zip(x.T, self._groups, self._names, strict=True):
            group = np.maximum(np.searchsorted(starts, coordinates + self._tolerance, side="right") - 1, 0)
            found &= (coordinates >= starts[group] - self._tolerance) & (coordinates <= ends[group] + self._tolerance)
            name = number * len(starts) + group
            number = np.minimum(np.searchsorted(names, name), len(names) - 1)
            found &= names[number] == name
        if not np.all(found):
            raise self._not_a_node(x[~found])
        return number

    def _not_a_node(self, strangers: Floats) -> InputError:
        point = strangers[0]
        distances = np.linalg.norm(self.nodes - point, axis=1)
        nearest = int(np.argmin(distances))
        return InputError(
            f"{len(strangers)} points are not among the {len(self.nodes)} nodes of this field; the first is "
            f"{point.tolist()}, its nearest node {self.nodes[nearest].tolist()} is {distances[nearest]:.3g} away",
            key="x",
            remedy="A free field has velocities at the nodes of its own mesh only; for other points take a network.",
        )


def _groups(coordinates: Floats, tolerance: float) -> tuple[Floats, Floats]:
    """First and last coordinate of every group, in increasing order."""
    ordered = np.sort(coordinates)
    gap = np.diff(ordered) > 2.0 * tolerance
    return ordered[np.append(True, gap)], ordered[np.append(gap, True)]
