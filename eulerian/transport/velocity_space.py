"""Continuous Lagrange velocities: where the field is evaluated, and how it is seen from the cells."""

from functools import cached_property

import dolfinx
import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats, Ints
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.ghost_rows import GhostRows


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
        self.ghosts = GhostRows(self.function_space.dofmap.index_map)
        self._tabulated: dict[bytes, Floats] = {}

    # Arrays of cells and points are stored component by component, which keeps sums and products over the short axes of
    # components and nodes out of the innermost loops; what is returned has the components last.

    def at(self, v: Floats, points: Floats) -> Floats:
        """Values (n_owned, m, dim) of a velocity (n_nodes, dim) at reference points (m, dim) of every owned cell."""
        return np.moveaxis(self._on_cells(v) @ self._tables(points)[0].T, 0, 2)

    def at_transpose(self, w: Floats, points: Floats) -> Floats:
        """Transpose of ``at``: (n_owned, m, dim) to this rank's contribution (n_nodes, dim)."""
        return self._sum_up(np.moveaxis(w, 2, 0) @ self._tables(points)[0])

    def gradient_at(self, v: Floats, points: Floats) -> Floats:
        """Gradients (n_owned, m, dim, dim), [i, j] = ∂v_i/∂x_j, at reference points (m, dim)."""
        nodal = self._on_cells(v)
        gradient = sum(
            (nodal @ table.T)[:, None] * slope[:, :, None]
            for table, slope in zip(self._tables(points)[1:], self._slopes, strict=True)
        )
        return np.moveaxis(np.asarray(gradient), (0, 1), (2, 3))

    def gradient_at_transpose(self, w: Floats, points: Floats) -> Floats:
        """Transpose of ``gradient_at``: (n_owned, m, dim, dim) to this rank's contribution (n_nodes, dim)."""
        stress = np.moveaxis(w, (2, 3), (0, 1))
        nodal = sum(
            (stress * slope[:, :, None]).sum(axis=1) @ table
            for table, slope in zip(self._tables(points)[1:], self._slopes, strict=True)
        )
        return self._sum_up(np.asarray(nodal))

    def divergence_at(self, v: Floats, points: Floats) -> Floats:
        """Divergence (n_owned, m) of a velocity (n_nodes, dim) at reference points (m, dim)."""
        nodal = self._on_cells(v)
        return np.asarray(
            sum(
                np.einsum("jcn,jc->cn", nodal, slope) @ table.T
                for table, slope in zip(self._tables(points)[1:], self._slopes, strict=True)
            )
        )

    def divergence_at_transpose(self, w: Floats, points: Floats) -> Floats:
        """Transpose of ``divergence_at``: (n_owned, m) to this rank's contribution (n_nodes, dim)."""
        nodal = sum(
            (w @ table) * slope[:, :, None] for table, slope in zip(self._tables(points)[1:], self._slopes, strict=True)
        )
        return self._sum_up(np.asarray(nodal))

    def scatter(self, cell_values: Floats) -> Floats:
        """Add up (n_owned, nn, dim) values of cells in their nodes, (n_nodes, dim)."""
        return self._sum_up(np.moveaxis(cell_values, 2, 0))

    def all_nodes(self) -> Floats:
        """The nodes of all ranks, (N, dim), rank by rank. Collective."""
        return np.concatenate(self.density_space.comm.allgather(self.x[: self.n_owned_nodes]))

    @cached_property
    def _owned_nodes(self) -> NDArray[np.intp]:
        """(n_owned, nn) in the type that NumPy takes and counts by."""
        return self.cell_nodes[: self.density_space.n_owned].astype(np.intp)

    @cached_property
    def _slopes(self) -> Floats:
        """(dim, dim, n_owned): entry [m, j] is the derivative of reference coordinate m by x_j."""
        inverse = self.density_space.geometry.inverse_jacobian[: self.density_space.n_owned]
        return np.ascontiguousarray(np.moveaxis(inverse, 0, 2))

    def _tables(self, points: Floats) -> Floats:
        """(1 + dim, m, nn): the Lagrange basis at reference points and its derivatives there, tabulated once."""
        key = points.tobytes()  # callers make their rules anew, with the same numbers
        if key not in self._tabulated:
            self._tabulated[key] = basis.lagrange_derivatives(self.density_space.dim, self.degree, points)
        return self._tabulated[key]

    def _on_cells(self, v: Floats) -> Floats:
        """The velocity at the nodes of every owned cell, (dim, n_owned, nn)."""
        return v.T.take(self._owned_nodes, axis=1)

    def _sum_up(self, cell_values: Floats) -> Floats:
        """Add up (dim, n_owned, nn) values of cells in their nodes, (n_nodes, dim)."""
        nodes = self._owned_nodes.ravel()
        # bincount adds in the order of the cells, as np.add.at does, without its overhead for every entry.
        columns = [np.bincount(nodes, values.ravel(), minlength=self.n_nodes) for values in cell_values]
        return np.stack(columns, axis=1)


def velocity_nodes(space: DensitySpace) -> Floats:
    """All nodes (N, dim) of velocities on a space's mesh, the same on all ranks: what ``Nodal`` takes. Collective."""
    return VelocitySpace(space).all_nodes()
