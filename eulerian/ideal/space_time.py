"""The discrete space-time of the convex problem: vertices of the mesh, L + 1 instants and the L slabs between them."""

import math
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING

from mpi4py import MPI

import dolfinx
import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats, Ints
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.mesh.ghost_rows import GhostRows
from eulerian.mesh.point_location import barycentric_gradients

if TYPE_CHECKING:
    from scipy import sparse

_CONSISTENT = 0.75  # share of the consistent mass matrix, see ``mass_matrix``


class SpaceTime:
    """Potentials at vertices and instants, densities at vertices and on slabs.

    A potential φ is continuous and piecewise linear in space and time: an array (n_nodes, L + 1). A density is given by
    its values at the vertices and constant on a slab, (n_nodes, L); vertex i stands for the volume M_i = ∫φ_i, so that
    the mass is that of the piecewise linear function with these values. Arrays hold all vertices that this rank sees,
    owned ones first, with the same bits on all ranks that see them.

    Args:
        space: the space of ρ; only its mesh and its initial density are used.
        layers: L, number of slabs.
        horizon: T.

    Attributes:
        cells: (n_owned,) numbers of this rank's owned cells that belong to it: all, but in a part of the domain.
        nodes: (n_owned, dim+1) vertices of the owned cells.
        cell_nodes: (n_cells, dim+1) the same with ghost cells.
        x: (n_nodes, dim) coordinates of the vertices.
        numbers: (n_nodes,) global numbers of the vertices; rank by rank the owned ones are consecutive.
        n_owned_nodes: number of owned vertices.
        n_global: number of vertices of the mesh.
        volumes: (n_owned,) of the owned cells.
        gradients: (n_owned, dim+1, dim) of the barycentric coordinates.
        masses: (n_nodes,) M_i.
        own_masses: (n_nodes,) what this rank's cells contribute to it; sums over the mesh are taken with these.
        times: (L + 1,) the instants.
        tau: length of a slab.
    """

    def __init__(self, space: DensitySpace, layers: int, horizon: float) -> None:
        """Collective."""
        self.space, self.comm, self.dim = space, space.comm, space.dim
        self.layers, self.horizon, self.tau = layers, horizon, horizon / layers
        self.times: Floats = np.linspace(0.0, horizon, layers + 1)
        vertices = dolfinx.fem.functionspace(space.mesh, ("Lagrange", 1))
        index_map = vertices.dofmap.index_map
        self.x: Floats = np.ascontiguousarray(vertices.tabulate_dof_coordinates()[:, : space.dim])
        self.n_nodes, self.n_owned_nodes, self.n_global = len(self.x), index_map.size_local, index_map.size_global
        self.numbers: Ints = index_map.local_to_global(np.arange(self.n_nodes, dtype=np.int32)).astype(np.int32)
        self.cell_nodes: Ints = np.ascontiguousarray(vertices.dofmap.list[: space.n_cells], dtype=np.int32)
        self.nodes: Ints = np.ascontiguousarray(self.cell_nodes[: space.n_owned])
        self._ghosts, self._owners = GhostRows(index_map), np.asarray(index_map.owners, dtype=np.int32)
        self.cells: Ints = np.arange(space.n_owned, dtype=np.int32)
        inverse = space.geometry.inverse_jacobian[: space.n_owned]
        self.volumes: Floats = space.geometry.det[: space.n_owned] / math.factorial(space.dim)
        self.gradients: Floats = np.ascontiguousarray(barycentric_gradients(inverse))
        self.own_masses: Floats = self.share(self.volumes)
        self.masses: Floats = self.own_masses.copy()
        self.accumulate(self.masses)

    def restricted(self, nodes: Ints) -> "SpaceTime":
        """The same on a part of the domain that shares no vertex with the rest. Collective.

        Args:
            nodes: this rank's vertices in it, ascending.
        """
        part = copy(self)
        # Cached on the undivided domain.
        for name in ("volume", "cell_size", "_mass_matrix"):
            part.__dict__.pop(name, None)
        inside = np.zeros(self.n_nodes, dtype=bool)
        inside[nodes] = True
        local = (np.cumsum(inside) - 1).astype(np.int32)
        part.n_nodes, part.n_owned_nodes = len(nodes), int(inside[: self.n_owned_nodes].sum())
        counts = self.comm.allgather(part.n_owned_nodes)
        first, part.n_global = sum(counts[: self.comm.rank]), sum(counts)
        numbers = (first + local).astype(float)  # right for the owned ones, their owners know the others
        self._ghosts.update(numbers)
        part.numbers = numbers[nodes].astype(np.int32)
        part._owners = self._owners[nodes[part.n_owned_nodes :] - self.n_owned_nodes]
        ghosts = part.numbers[part.n_owned_nodes :].astype(np.int64)
        index_map = dolfinx.common.IndexMap(self.comm, part.n_owned_nodes, ghosts, part._owners, 0)
        part._ghosts = GhostRows(index_map)
        cells, owned = inside[self.cell_nodes[:, 0]], inside[self.nodes[:, 0]]
        part.cells, part.x = self.cells[owned], np.ascontiguousarray(self.x[nodes])
        part.cell_nodes = np.ascontiguousarray(local[self.cell_nodes[cells]])
        part.nodes = np.ascontiguousarray(local[self.nodes[owned]])
        part.volumes, part.gradients = self.volumes[owned], np.ascontiguousarray(self.gradients[owned])
        part.masses, part.own_masses = self.masses[nodes], self.own_masses[nodes]
        return part

    # -- sums --------------------------------------------------------------------------------------------------------

    @cached_property
    def volume(self) -> float:
        """Of the domain. Collective."""
        return self.sum(self.volumes)

    @cached_property
    def cell_size(self) -> float:
        """Mean volume of a cell to the power 1/d. Collective."""
        cells = self.comm.allreduce(len(self.volumes), MPI.SUM)
        return float((self.volume / cells) ** (1.0 / self.dim))

    def sum(self, values: Floats) -> float:
        """Of the entries of local arrays over all ranks. Collective."""
        return float(parallel.sum_all(self.comm, np.array([values.sum()]))[0])

    def integrate(self, values: Floats) -> float:
        """Σ M_i f_i of vertex values (n_nodes,). Collective."""
        seen = self.own_masses > 0.0  # not those of ghost cells only, where 0·∞ would be no number
        return self.sum(self.own_masses[seen] * values[seen])

    def max(self, values: Floats) -> float:
        """Of vertex values over all ranks. Collective."""
        return float(self.comm.allreduce(float(np.max(values, initial=-np.inf)), MPI.MAX))

    def max_columns(self, values: Floats) -> Floats:
        """Of vertex values (n_nodes, n) over all ranks, column by column: (n,). Collective."""
        result = np.empty(values.shape[1])
        self.comm.Allreduce(np.max(values, axis=0, initial=-np.inf), result, MPI.MAX)
        return result

    def accumulate(self, rows: Floats) -> None:
        """Add up every rank's contributions to the vertices, in place: (n_nodes, ...), contiguous. Collective."""
        self._ghosts.accumulate(rows)

    # -- between cells and vertices -----------------------------------------------------------------------------------

    def share(self, values: Floats) -> Floats:
        """Share values (n_owned, ...) of the owned cells among their vertices, this rank's part (n_nodes, ...)."""
        # Column by column, for bincount takes one weight an entry; it adds in the order of the cells.
        flat = values.reshape(len(values), math.prod(values.shape[1:])) / (self.dim + 1)
        nodes = self.nodes.ravel()
        columns = [np.bincount(nodes, np.repeat(c, self.dim + 1), minlength=self.n_nodes) for c in flat.T]
        sums = np.stack(columns, axis=1).reshape(self.n_nodes, *values.shape[1:])
        return np.ascontiguousarray(sums, dtype=float)  # without cells bincount gives integers

    def smooth(self, values: Floats) -> Floats:
        """Vertex values (n_nodes, ...) replaced by means over the cells around; integrals are kept. Collective."""
        shape = (-1, *(1,) * (values.ndim - 1))
        sums = self.share(self.volumes.reshape(shape) * values[self.nodes].mean(axis=1))
        self.accumulate(sums)
        return sums / self.masses.reshape(shape)

    def falls(self, potential: Floats) -> tuple[Floats, Floats]:
        """−∂_tφ of φ (n_nodes, L + 1), and the same blurred over vertices: (n_nodes, L) each. Collective."""
        plain = np.diff(potential) / -self.tau
        return plain, self.blurred(plain)

    @cached_property
    def _mass_matrix(self) -> "sparse.csr_array":
        """What this rank's cells contribute to it."""
        return mass_matrix(self.nodes, self.volumes, self.n_nodes)

    def blurred(self, values: Floats) -> Floats:
        """Values (n_nodes, n) at the vertices, shared with the neighbours as ``mass_matrix`` does. Collective."""
        sums = self._mass_matrix @ values
        self.accumulate(sums)
        return np.asarray(sums / self.masses[:, None])

    def load(self, rho: Floats, label: int) -> Floats:
        """∫φ_i dρ_y for the hat functions φ_i, exact: (n_nodes,) for ρ (n_cells, nd, K). Collective."""
        space = self.space
        rule = space.quadrature(space.objective_degree)  # its points are the limiter's, so that no load is negative
        hats = basis.lagrange(self.dim, 1, rule.reference)
        density = rho[self.cells, :, label] @ rule.basis.T
        values = np.einsum("cq,cq,qi->ci", rule.weights[self.cells], density, hats, optimize=True)
        loads = np.bincount(self.nodes.ravel(), values.ravel(), minlength=self.n_nodes).astype(float)
        self.accumulate(loads)
        return loads

    def total(self, loads: Floats) -> float:
        """Sum of vertex loads (n_nodes,) over the mesh. Collective."""
        return self.sum(loads[: self.n_owned_nodes])

    def vertex_gradients(self, potential: Floats) -> Floats:
        """∇φ at the vertices, the mean over the cells around, by their volumes: (n_nodes, dim, ...). Collective."""
        shape = potential.shape[1:]
        gradient = np.einsum("cid,ci...->cd...", self.gradients, potential[self.nodes], optimize=True)
        weight = self.volumes.reshape(-1, 1, *(1,) * len(shape))
        sums = self.share(weight * gradient)
        self.accumulate(sums)
        return np.asarray(sums / self.masses.reshape(-1, 1, *(1,) * len(shape)))

    def of_owners(self, values: Floats) -> Floats:
        """Vertex values (n_nodes, ...) as their owners know them. Collective.

        Formulas may differ in the last bit from rank to rank, because coordinates do, and arrays' beginnings and ends.
        """
        return self.gather_vertices(values)[self.numbers]

    def gather_vertices(self, values: Floats) -> Floats:
        """All vertices' values (N, ...) on every rank, in global numbering, from (n_nodes, ...). Collective."""
        return np.concatenate(self.comm.allgather(np.ascontiguousarray(values[: self.n_owned_nodes])))


def mass_matrix(cells: Ints, volumes: Floats, size: int) -> "sparse.csr_array":
    """¾ of the mass matrix of piecewise linear functions and ¼ of the lumped one, (size, size).

    The mean of |∇φ|² over the cells around a vertex is above |∇φ|² there by the variance of ∇φ, which costs an error of
    second order. Where the velocity is an affine function of the place, an increment ∂_tφ that is blurred by this
    matrix over M_i makes it good: altogether on a line, up to a share of the order of a tenth on usual triangles.

    Args:
        cells: (n, dim+1) vertices of the cells.
        volumes: (n,).
        size: number of vertices.
    """
    from scipy import sparse  # takes its time to load: only where it is wanted

    corners = cells.shape[1]
    consistent = (np.ones((corners, corners)) + np.eye(corners)) / (corners * (corners + 1))
    element = _CONSISTENT * consistent + (1.0 - _CONSISTENT) * np.eye(corners) / corners
    entries = volumes[:, None, None] * element
    rows = np.broadcast_to(cells[:, :, None], entries.shape)
    columns = np.broadcast_to(cells[:, None, :], entries.shape)
    return sparse.coo_array((entries.ravel(), (rows.ravel(), columns.ravel())), shape=(size, size)).tocsr()
