"""A field without a network: the velocity of every node is a parameter."""

from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.fields.base import check_dimension, check_sizes, checked, label_block
from eulerian.fields.frame import Chart, Frame
from eulerian.fields.node_lookup import NodeIndex, Numbers


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
    _index: NodeIndex = field(init=False, repr=False)

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
        return theta if self.chart is None else self.chart.absolute(theta)

    @property
    def chart(self) -> Chart | None:
        """From θ to numbers relative to the frame."""
        return None if self.frame is None else Chart(self.frame, self.dim, 0, self.frame.velocity)

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
        for axis in range(self.dim):
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
