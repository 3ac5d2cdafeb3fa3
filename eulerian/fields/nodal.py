"""A field without a network: the velocity of every node is a parameter."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import check_dimension, check_sizes, checked, label_block
from eulerian.fields.frame import AffineUnits, Frame

type Numbers = NDArray[np.int64]

TOLERANCE = 1e-9
"""Two coordinates are the same when they differ by less than this fraction of the nodes' extent."""


@dataclass(frozen=True, eq=False)
class Nodal:
    """v(node_i) = θ_i: the idealised problem on one mesh, a lower bound for every network there.

    θ = (v(node_0), v(node_1), …); a label-dependent field has one such block per label. The field knows no velocity
    between its nodes: points must be nodes, up to rounding.

    Attributes:
        nodes: (N, dim) in lexicographic order, x first. Nodes given in another order are sorted and repeated ones
            merged, so that θ means the same on any number of ranks.
        n_labels: number K of labels that the field distinguishes; 0 for a label-independent field.
        zero_init: start from v = 0, else from independent normal numbers of standard deviation 0.1.
        frame: of the domain: random starts are drawn, and descents are made, in its units; None for those of the user.
    """

    at_nodes_only: ClassVar[bool] = True  # for those who need velocities elsewhere

    nodes: Floats
    n_labels: int = field(default=0, kw_only=True)
    zero_init: bool = field(default=True, kw_only=True)
    frame: Frame | None = field(default=None, kw_only=True)
    _index: "NodeIndex" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_sizes(n_labels=self.n_labels)
        nodes = checked("nodes", self.nodes, (None, np.shape(self.nodes)[-1] if np.ndim(self.nodes) else 1))
        if nodes.size == 0 or not np.all(np.isfinite(nodes)):
            raise InputError("a free field needs at least one node, with finite coordinates", key="nodes")
        index = NodeIndex(nodes)
        object.__setattr__(self, "nodes", index.nodes)
        object.__setattr__(self, "_index", index)

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.nodes.shape[1])

    def n_params(self, dim: int, /) -> int:
        """N·dim for each label."""
        check_dimension(self.dim, dim)
        return self.nodes.size * max(self.n_labels, 1)

    def init(self, rng: np.random.Generator, /) -> Floats:
        """Zero or, in units of the frame, small random θ (p,)."""
        p = self.n_params(self.dim)
        theta = np.zeros(p) if self.zero_init else 0.1 * rng.standard_normal(p)
        return theta if self.units is None else self.units.absolute(theta)

    def in_box(self, lower: Sequence[float], upper: Sequence[float], horizon: float) -> Self:
        """The same field, whose random starts and descents are in units of a domain's box."""
        same = copy.copy(self)  # ``replace`` would sort the nodes once more
        object.__setattr__(same, "frame", Frame.of_box(lower, upper, horizon))
        return same

    @property
    def units(self) -> AffineUnits | None:
        """From θ to numbers relative to the frame."""
        return None if self.frame is None else AffineUnits(self.frame, self.dim, 0, self.frame.velocity)

    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Velocities (n, dim) at the nodes x (n, dim).

        Raises:
            InputError: a point is not a node.
        """
        index = self._find(x)
        theta = checked("theta", theta, (self.n_params(self.dim),))
        velocities: Floats = theta.reshape(-1, *self.nodes.shape)[label_block(label, self.n_labels)]
        return velocities[index]

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n, θ), w (n, dim): w added up at the nodes.

        Raises:
            InputError: a point is not a node.
        """
        index = self._find(x)
        w = checked("w", w, (len(index), self.dim))
        gradient = np.zeros_like(checked("theta", theta, (self.n_params(self.dim),)))
        block = gradient.reshape(-1, *self.nodes.shape)[label_block(label, self.n_labels)]
        for axis in range(self.dim):  # faster than np.add.at, and a point set may hold a node several times
            block[:, axis] = np.bincount(index, weights=w[:, axis], minlength=len(block))
        return gradient

    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> NoReturn:  # noqa: ARG002
        """Refused: nodal values have no derivative in space.

        Raises:
            InputError: always.
        """
        raise _no_jacobian()

    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> NoReturn:  # noqa: ARG002
        """Refused, as the Jacobian is.

        Raises:
            InputError: always.
        """
        raise _no_jacobian()

    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> NoReturn:  # noqa: ARG002
        """Refused, as the Jacobian is.

        Raises:
            InputError: always.
        """
        raise _no_jacobian()

    def _find(self, x: Floats) -> Numbers:
        return self._index.find(checked("x", x, (None, self.dim)))


def _no_jacobian() -> InputError:
    return InputError(
        "a free field is a list of nodal velocities and has no Jacobian in space",
        key="field.kind",
        value="free",
        remedy="Take a network (kind = 'mlp' or 'linear').",
    )


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
