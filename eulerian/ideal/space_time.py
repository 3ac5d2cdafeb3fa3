"""The discrete space-time of the convex problem: potentials at vertices and times, densities on cells and slabs."""

import math
from functools import cached_property

from eulerian import parallel
from eulerian.arrays import Floats, Ints

# isort: split
from mpi4py import MPI

import dolfinx
import numpy as np

from eulerian.space import basis
from eulerian.space.density import DensitySpace


class SpaceTime:
    """Vertices of the mesh times L + 1 instants for potentials, cells times L slabs for densities.

    A potential φ is continuous and piecewise linear in space and in time: an array (n_nodes, L + 1) over the vertices of
    this rank's owned cells. A density is constant on every cell and slab, (n_owned, L).

    Args:
        space: the space of ρ; only its mesh and its initial density are used.
        layers: L, number of slabs.
        horizon: T.

    Attributes:
        nodes: (n_owned, dim+1) local vertex numbers of the owned cells.
        cell_numbers: (n_cells, dim+1) global vertex numbers of owned and ghost cells.
        numbers: (n_nodes,) global numbers of the local vertices.
        n_global: number of vertices of the mesh.
        volumes: (n_owned,) of the owned cells.
        gradients: (n_owned, dim+1, dim) of the barycentric coordinates.
        times: (L + 1,) the instants.
        tau: length of a slab.
    """

    def __init__(self, space: DensitySpace, layers: int, horizon: float) -> None:
        """Collective."""
        self.space, self.comm, self.dim = space, space.comm, space.dim
        self.layers, self.horizon, self.tau = layers, horizon, horizon / layers
        self.times: Floats = np.linspace(0.0, horizon, layers + 1)
        dofmap = dolfinx.fem.functionspace(space.mesh, ("Lagrange", 1)).dofmap
        local = dofmap.list[: space.n_cells]
        numbers = dofmap.index_map.local_to_global(local.ravel().astype(np.int32)).reshape(local.shape)
        self.cell_numbers: Ints = numbers.astype(np.int32)
        self.n_global: int = dofmap.index_map.size_global
        owned = self.cell_numbers[: space.n_owned]
        found, inverse = np.unique(owned, return_inverse=True)
        self.numbers: Ints = found.astype(np.int32)
        self.nodes: Ints = np.ascontiguousarray(inverse.reshape(owned.shape), dtype=np.int32)
        self.n_nodes = len(self.numbers)
        inverse_jacobian = space.geometry.inverse_jacobian[: space.n_owned]
        self.volumes: Floats = space.geometry.det[: space.n_owned] / math.factorial(space.dim)
        self.gradients: Floats = np.ascontiguousarray(
            np.concatenate([-inverse_jacobian.sum(axis=1, keepdims=True), inverse_jacobian], axis=1)
        )

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

    def load(self, rho: Floats, label: int) -> Floats:
        """∫φ_i dρ_y, exact for the hat functions φ_i: this rank's contribution (n_nodes,) for ρ (n_cells, nd, K)."""
        space = self.space
        rule = space.quadrature(space.degree + 1)
        hats = basis.lagrange(self.dim, 1, rule.reference)
        density = rho[: space.n_owned, :, label] @ rule.basis.T
        values = np.einsum("cq,cq,qi->ci", rule.weights, density, hats, optimize=True)
        return self._add_up(values)

    def share(self, masses: Floats) -> Floats:
        """Share masses (n_owned,) of the cells among their vertices, (n_nodes,)."""
        return self._add_up(np.repeat(masses / (self.dim + 1), self.dim + 1))

    def _add_up(self, values: Floats) -> Floats:
        return np.bincount(self.nodes.ravel(), values.ravel(), minlength=self.n_nodes)

    def cell_means(self, rho: Floats) -> Floats:
        """Mean densities (n_owned, K) of ρ (n_cells, nd, K)."""
        return np.asarray(rho[: self.space.n_owned, 0] * self.space.phi0)

    def mean(self, potential: Floats) -> Floats:
        """Cell means (n_owned, ...) of vertex values (n_nodes, ...)."""
        return np.asarray(potential[self.nodes].mean(axis=1))

    def everywhere(self, local: Floats) -> Floats:
        """Values of all vertices (N, ...) on every rank from this rank's (n_nodes, ...). Collective."""
        result = np.full((self.n_global, *local.shape[1:]), -np.inf)
        result[self.numbers] = local
        self.comm.Allreduce(MPI.IN_PLACE, result, MPI.MAX)  # all copies of a vertex are equal
        return result

    def vertex_gradients(self, potential: Floats) -> Floats:
        """∇φ at all vertices of the mesh, the mean over the cells around, by their volumes. Collective.

        Args:
            potential: (n_nodes, ...) vertex values.

        Returns:
            (N, dim, ...), the same on every rank.
        """
        shape = potential.shape[1:]
        gradient = np.einsum("cid,ci...->cd...", self.gradients, potential[self.nodes], optimize=True)
        sums = np.zeros((self.n_global, 1 + self.dim, *shape))
        weight = self.volumes.reshape(-1, *(1,) * len(shape))
        owned = self.cell_numbers[: self.space.n_owned]
        for corner in range(self.dim + 1):
            np.add.at(sums[:, 0], owned[:, corner], weight)
            np.add.at(sums[:, 1:], owned[:, corner], weight[:, None] * gradient)
        sums = parallel.sum_all(self.comm, sums)
        return np.asarray(sums[:, 1:] / sums[:, :1])
