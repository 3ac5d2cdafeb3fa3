"""A free field's velocity between its nodes: the finite-element function with these coefficients."""

from typing import cast, final

import basix
import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.density import basis
from eulerian.fields.base import checked, label_block
from eulerian.fields.nodal import Nodal
from eulerian.fields.piecewise import PiecewiseField
from eulerian.mesh.point_location import CellFinder, Cells
from eulerian.transport.velocity_space import VelocitySpace

type Numbers = NDArray[np.int64]


@final
class NodalField:
    """v(x, θ) = Σ_a φ_a(x) θ_a with the Lagrange basis of a mesh, anywhere in space: a ``VectorField``.

    Outside the mesh the velocity is that of a near point of it, and counts as constant. The Jacobian jumps between
    cells. Not collective: every rank holds the cells of all.

    Args:
        free: the field at the nodes.
        finder: of the mesh' cells.
        vertices: (C, dim+1, dim) of the cells.
        numbers: (C, nn) the field's number of each node of each cell, in the order of the basis.
        degree: of the basis.
    """

    def __init__(self, free: Nodal, finder: CellFinder, vertices: Floats, numbers: Numbers, degree: int) -> None:
        self.free, self._finder, self._numbers, self._degree = free, finder, numbers, degree
        self._inverse: Floats = np.linalg.inv(np.swapaxes(vertices[:, 1:] - vertices[:, :1], 1, 2))
        self._last: tuple[Floats, tuple[Cells, Floats]] | None = None

    @classmethod
    def gather(cls, velocity_space: VelocitySpace, free: Nodal) -> "NodalField":
        """Bring the mesh to all ranks, in an order that does not depend on their number. **Collective**."""
        space = velocity_space.density_space
        cells = np.asarray(space.mesh.topology.original_cell_index[: space.n_owned])
        # By the cells' numbers in the input: sums over nodes then have one order, however the mesh is cut.
        order = np.argsort(np.concatenate(space.comm.allgather(cells)))
        points = velocity_space.x[velocity_space.cell_nodes[: space.n_owned]]
        nodes = np.concatenate(space.comm.allgather(points))[order]
        vertices = np.concatenate(space.comm.allgather(space.vertices))[order]
        numbers = node_numbers(free, nodes.reshape(-1, space.dim)).reshape(nodes.shape[:2])
        return cls(free, CellFinder(vertices), vertices, numbers, velocity_space.degree)

    def n_params(self, dim: int, /) -> int:
        """As for the free field."""
        return self.free.n_params(dim)

    def init(self, rng: np.random.Generator, /) -> Floats:
        """As for the free field."""
        return self.free.init(rng)

    def value(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Velocities (n, dim) at points x (n, dim)."""
        cells, table = self._basis(x)
        velocities = self._velocities(theta, label)[self._numbers[cells]]
        return np.asarray(np.einsum("na,nai->ni", table, velocities, optimize=True))

    def vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n · v(x_n), w (n, dim)."""
        cells, table = self._basis(x)
        return self._scattered(theta, cells, table[:, :, None] * w[:, None, :], label)

    def jacobian(self, theta: Floats, x: Floats, label: int | None = None) -> Floats:
        """Derivatives (n, dim, dim), [n, i, j] = ∂v_i/∂x_j, of the cell that holds the point; zero outside the mesh."""
        cells, gradients = self._gradients(x)
        velocities = self._velocities(theta, label)[self._numbers[cells]]
        return np.asarray(np.einsum("naj,nai->nij", gradients, velocities, optimize=True))

    def jacobian_vjp(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradient (p,) of Σ_n w_n : ∇v(x_n), w (n, dim, dim)."""
        cells, gradients = self._gradients(x)
        return self._scattered(theta, cells, np.einsum("naj,nij->nai", gradients, w), label)

    def jacobian_vjp_x(self, theta: Floats, x: Floats, w: Floats, label: int | None = None) -> Floats:
        """Gradients (n, dim) with respect to x_n of w_n : ∇v(x_n), w (n, dim, dim), inside the cell; zero outside."""
        cells, weights = self._found(x)
        dim = self.free.dim
        rows = np.array([[_second(dim, i, j) for j in range(dim)] for i in range(dim)])
        table = basis.lagrange_derivatives(dim, self._degree, weights[:, 1:], 2)[rows]
        inverse, inside = self._inverse[cells], self._finder.holds(x, cells)
        hessians = np.einsum("lmna,nlj,nmk,n->najk", table, inverse, inverse, inside, optimize=True)
        velocities = self._velocities(theta, label)[self._numbers[cells]]
        return np.asarray(np.einsum("najk,nij,nai->nk", hessians, w, velocities, optimize=True))

    # -- inner workings ---------------------------------------------------------------------------------------------

    def _velocities(self, theta: Floats, label: int | None) -> Floats:
        theta = checked("theta", theta, (self.n_params(self.free.dim),))
        velocities: Floats = theta.reshape(-1, *self.free.nodes.shape)[label_block(label, self.free.n_labels)]
        return velocities

    def _scattered(self, theta: Floats, cells: Cells, values: Floats, label: int | None) -> Floats:
        """Values (n, nn, dim) at the nodes of cells (n,), added up in θ's layout."""
        gradient = np.zeros_like(theta)
        np.add.at(self._velocities(gradient, label), self._numbers[cells], values)  # points of one cell share nodes
        return gradient

    def _found(self, x: Floats) -> tuple[Cells, Floats]:
        """Cells and barycentric coordinates; value and Jacobian ask for the same, the next call for near ones."""
        x = checked("x", x, (None, self.free.dim))
        if self._last is None or not np.array_equal(self._last[0], x):
            guess = self._last[1][0] if self._last is not None and len(self._last[0]) == len(x) else None
            self._last = (x.copy(), self._finder.nearest(x, guess))  # a copy, for the caller may overwrite x
        return self._last[1]

    def _basis(self, x: Floats) -> tuple[Cells, Floats]:
        cells, weights = self._found(x)
        return cells, basis.lagrange(self.free.dim, self._degree, weights[:, 1:])

    def _gradients(self, x: Floats) -> tuple[Cells, Floats]:
        """Cells (n,) and the basis' derivatives in space (n, nn, dim) there."""
        cells, weights = self._found(x)
        table = basis.lagrange_derivatives(self.free.dim, self._degree, weights[:, 1:])[1:]
        # Outside, where the velocity is that of the nearest point, it counts as constant.
        inside = self._finder.holds(x, cells)
        return cells, np.einsum("mna,nmj,n->naj", table, self._inverse[cells], inside, optimize=True)


def node_numbers(free: Nodal, x: Floats) -> Numbers:
    """The field's numbers (n,) of nodes x (n, dim)."""
    # The field alone knows its order: where every parameter is its own number, the velocity at a node tells that.
    theta = np.arange(free.n_params(free.dim), dtype=np.float64)
    first = free.value(theta, x, 0 if free.n_labels else None)[:, 0]
    return np.rint(first / free.dim).astype(np.int64)


def _second(dim: int, i: int, j: int) -> int:
    """Where Basix puts the derivative by the reference coordinates i and j."""
    orders = [0] * dim
    orders[i] += 1
    orders[j] += 1
    return int(basix.index(*orders))


def anywhere(layered: PiecewiseField, velocity_space: VelocitySpace) -> PiecewiseField:
    """A field that has values at any point: itself, or a nodal field's function on its mesh. **Collective**."""
    if not layered.at_nodes_only:
        return layered
    between = NodalField.gather(velocity_space, cast("Nodal", layered.field))
    return PiecewiseField(between, layered.times, label_dependent=layered.label_dependent)
