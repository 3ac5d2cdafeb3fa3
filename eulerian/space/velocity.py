"""Continuous Lagrange velocities: where the field is evaluated, and how it is seen from the cells."""

from eulerian import parallel  # noqa: F401 - starts MPI before dolfinx
from eulerian.arrays import Floats, Ints

# isort: split
import dolfinx
import numpy as np

from eulerian.space import basis
from eulerian.space.density import DensitySpace
from eulerian.space.ghosts import GhostExchange


class VelocitySpace:
    """Vector fields that are continuous and of degree max(p, 1) on the cells of a density space.

    A velocity is an array (n_nodes, dim) over this rank's nodes, owned ones first; v·n is single-valued on facets.

    Attributes:
        x: (n_nodes, dim) coordinates of the nodes.
        cell_nodes: (n_cells, nn) nodes of owned and ghost cells.
        function_space: the vector-valued DOLFINx space, for output and for comparison with forms.
    """

    def __init__(self, density_space: DensitySpace) -> None:
        """Collective."""
        mesh, dim = density_space.mesh, density_space.dim
        self.density_space = density_space
        self.degree = max(density_space.degree, 1)
        self.function_space = dolfinx.fem.functionspace(mesh, ("Lagrange", self.degree, (dim,)))
        self.x: Floats = np.ascontiguousarray(self.function_space.tabulate_dof_coordinates()[:, :dim])
        self.cell_nodes: Ints = np.ascontiguousarray(
            self.function_space.dofmap.list[: density_space.n_cells], dtype=np.int32
        )
        self.n_nodes = len(self.x)
        self.n_owned_nodes = self.function_space.dofmap.index_map.size_local
        self.ghosts = GhostExchange(self.function_space.dofmap.index_map)

    def at(self, v: Floats, points: Floats) -> Floats:
        """Values (n_owned, m, dim) of a velocity (n_nodes, dim) at reference points (m, dim) of every owned cell."""
        table = basis.lagrange(self.density_space.dim, self.degree, points)
        return np.asarray(np.einsum("qa,caj->cqj", table, v[self._owned_nodes], optimize=True))

    def at_transpose(self, w: Floats, points: Floats) -> Floats:
        """Transpose of ``at``: (n_owned, m, dim) to this rank's contribution (n_nodes, dim)."""
        table = basis.lagrange(self.density_space.dim, self.degree, points)
        return self.scatter(np.einsum("qa,cqj->caj", table, w, optimize=True))

    def gradient_at(self, v: Floats, points: Floats) -> Floats:
        """Gradients (n_owned, m, dim, dim), [i, j] = ∂v_i/∂x_j, at reference points (m, dim)."""
        return np.asarray(
            np.einsum("cqaj,cai->cqij", self._basis_gradients(points), v[self._owned_nodes], optimize=True)
        )

    def gradient_at_transpose(self, w: Floats, points: Floats) -> Floats:
        """Transpose of ``gradient_at``: (n_owned, m, dim, dim) to this rank's contribution (n_nodes, dim)."""
        return self.scatter(np.einsum("cqaj,cqij->cai", self._basis_gradients(points), w, optimize=True))

    def scatter(self, cell_values: Floats) -> Floats:
        """Add up (n_owned, nn, dim) values of cells in their nodes, (n_nodes, dim)."""
        nodes = self._owned_nodes.ravel()
        flat = cell_values.reshape(nodes.size, cell_values.shape[-1])
        columns = [np.bincount(nodes, flat[:, j], minlength=self.n_nodes) for j in range(flat.shape[1])]
        return np.stack(columns, axis=1)

    def all_nodes(self) -> Floats:
        """The nodes of the whole mesh, (N, dim), rank by rank. Collective."""
        return np.concatenate(self.density_space.comm.allgather(self.x[: self.n_owned_nodes]))

    @property
    def _owned_nodes(self) -> Ints:
        return self.cell_nodes[: self.density_space.n_owned]

    def _basis_gradients(self, points: Floats) -> Floats:
        """(n_owned, m, nn, dim) physical gradients of the Lagrange basis."""
        table = basis.lagrange_derivatives(self.density_space.dim, self.degree, points)[1:]
        inverse = self.density_space.geometry.inverse_jacobian[: self.density_space.n_owned]
        return np.asarray(np.einsum("mqa,cmj->cqaj", table, inverse, optimize=True))
