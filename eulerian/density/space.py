"""Discontinuous Galerkin densities in the orthonormal Legendre basis, for K labels at once."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eulerian.base import parallel
from eulerian.base.arrays import Floats

# isort: split
from mpi4py import MPI

import basix
import dolfinx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from eulerian.base.errors import InputError
from eulerian.density import basis
from eulerian.mesh.geometry import SimplexGeometry, sides, simplex_geometry
from eulerian.mesh.ghost_rows import GhostRows
from eulerian.mesh.simplices import Simplices

if TYPE_CHECKING:
    from eulerian.density.density import Density, Projectable

# Below this cell mean a density is treated as empty: its higher modes are dropped (ratios of denormals overflow).
EMPTY = 1e-200

# The smallest density that logarithms tell from zero, relative to the mean density of total mass 1.
FLOOR = 1e-8


@dataclass(frozen=True)
class Quadrature:
    """A cell rule mapped to this rank's owned cells.

    Attributes:
        points: (n_owned, nq, dim) physical points.
        weights: (n_owned, nq), including |det J|.
        basis: (nq, nd) density basis at the points.
        reference: (nq, dim) reference points.
        reference_weights: (nq,).
    """

    points: Floats
    weights: Floats
    basis: Floats
    reference: Floats
    reference_weights: Floats


class DensitySpace:
    """Densities ρ_y, y = 1..K, of degree 0, 1 or 2 on an affine simplex mesh.

    A density is an array (n_cells, nd, K) of modal coefficients: this rank's owned cells, then ghosts. The basis is
    orthonormal on the reference cell, so the mass matrix is ``det`` times the identity and mode 0 carries the mean.

    Args:
        mesh: affine simplices with shared-facet ghosts.
        degree: polynomial degree, 0, 1 or 2.
        labels: K.
        simplices: what the mesh was made of, where all ranks have it: then it can be refined and written.

    Raises:
        InputError: the mesh is not of affine simplices that fill their space, or lacks ghosts, or degree or labels are
            out of range; the same on all ranks.
    """

    def __init__(
        self, mesh: dolfinx.mesh.Mesh, degree: int = 1, labels: int = 1, simplices: Simplices | None = None
    ) -> None:
        """Collective."""
        _require_mesh(mesh)
        if degree not in (0, 1, 2):
            raise InputError("must be 0, 1 or 2", key="degree", value=degree)
        if labels < 1:
            raise InputError("needs at least one label", key="labels", value=labels)
        self.mesh, self.simplices = mesh, simplices
        self.comm = parallel.lasting(mesh.comm)
        self.degree = degree
        self.n_labels = labels
        self.geometry: SimplexGeometry = simplex_geometry(mesh)
        self.dim = self.geometry.dim
        self.n_owned, self.n_cells = self.geometry.n_owned, self.geometry.n_cells
        self.phi0 = float(basis.legendre(self.dim, 0, np.zeros((1, self.dim)))[0, 0])
        self.nd = basis.legendre(self.dim, degree, np.zeros((1, self.dim))).shape[1]
        self.ghosts = GhostRows(mesh.topology.index_map(self.dim))
        self._rules: dict[int, Quadrature] = {}

    def __repr__(self) -> str:
        cells, labels = self.n_cells_global, "1 label" if self.n_labels == 1 else f"{self.n_labels} labels"
        return f"DensitySpace({cells} cells in {self.dim}-D, degree {self.degree}, {labels})"

    # -- where things are -------------------------------------------------------------------------------------------

    @property
    def n_cells_global(self) -> int:
        """C, the number of the mesh's cells, over all ranks."""
        return int(self.mesh.topology.index_map(self.dim).size_global)

    @property
    def objective_degree(self) -> int:
        """Exactness of the rule for terminal losses, 3p (4 for p = 0); its points are among the limiter's."""
        return 3 * self.degree or 4

    @property
    def kinetic_degree(self) -> int:
        """Exactness of the rule for |v|²ρ, v of degree max(p, 1): exact."""
        return 2 * max(self.degree, 1) + self.degree

    @property
    def facet_degree(self) -> int:
        """Exactness of the flux quadrature, 2p + 1 (Cockburn & Shu 1998, doi:10.1006/jcph.1998.5892)."""
        return 2 * self.degree + 1

    @cached_property
    def limiter_points(self) -> Floats:
        """Reference points at which the limiter keeps ρ ≥ 0, (m, dim).

        Every flux and objective quadrature point, and the centroid, which carries the mean's positivity for degree 2
        (see ``TransportOperator.assemble``). Not the vertices: they would cost accuracy (on a Gaussian,
        24 × 24 squares and degree 1, J ends 1.3 % instead of 0.9 % above the optimum) and nothing is evaluated there.
        """
        centroid = basis.reference_vertices(self.dim).mean(axis=0, keepdims=True)
        facets = [basis.facet_points(self.dim, self.facet_degree, side) for side in sides(self.dim)]
        rules = [basis.quadrature_rule(self.dim, n).points for n in {self.objective_degree, self.kinetic_degree}]
        points = np.vstack([centroid, *facets, *rules])
        # Rules share points up to rounding; each should be looked at once.
        _, first = np.unique(np.round(points, 12), axis=0, return_index=True)
        return np.ascontiguousarray(points[np.sort(first)])

    @property
    def vertices(self) -> Floats:
        """Coordinates of the owned cells' vertices, (n_owned, dim+1, dim)."""
        return self.geometry.vertices[: self.n_owned]

    @cached_property
    def bounding_box(self) -> tuple[Floats, Floats]:
        """Opposite corners (dim,) of the domain's bounding box, the same on all ranks. Collective."""
        x = self.vertices.reshape(-1, self.dim)
        low, high = np.empty(self.dim), np.empty(self.dim)
        self.comm.Allreduce(x.min(axis=0, initial=np.inf), low, MPI.MIN)
        self.comm.Allreduce(x.max(axis=0, initial=-np.inf), high, MPI.MAX)
        return low, high

    def quadrature(self, degree: int) -> Quadrature:
        """The rule of the given exactness on this rank's owned cells."""
        if degree not in self._rules:
            rule = basis.quadrature_rule(self.dim, degree)
            points = basis.physical_points(self.vertices, rule.points)
            weights = self.geometry.det[: self.n_owned, None] * rule.weights
            table = basis.legendre(self.dim, self.degree, rule.points)
            self._rules[degree] = Quadrature(points, weights, table, rule.points, rule.weights)
        return self._rules[degree]

    @cached_property
    def floor(self) -> float:
        """δ, a density far below any that matters: 1e-8 of the mean one of mass 1. Collective.

        Functionals with a logarithm take it for the zero of densities.
        """
        return FLOOR / self.volume

    @cached_property
    def volume(self) -> float:
        """Measure of the domain. Collective."""
        return float(parallel.sum_all(self.comm, np.array([self.quadrature(0).weights.sum()]))[0])

    @cached_property
    def modal_to_nodal(self) -> Floats:
        """(nd, nd) matrix from modal coefficients to values at the points of Basix' discontinuous Lagrange element."""
        element = basix.create_element(
            basix.ElementFamily.P,
            basis.CELL_TYPES[self.dim],
            self.degree,
            lagrange_variant=basix.LagrangeVariant.gll_warped if self.degree else basix.LagrangeVariant.unset,
            discontinuous=True,
        )
        return basis.legendre(self.dim, self.degree, np.asarray(element.points))

    # -- making densities --------------------------------------------------------------------------------------------

    def zeros(self) -> Floats:
        """The zero density, (n_cells, nd, K)."""
        return np.zeros((self.n_cells, self.nd, self.n_labels))

    def project(self, what: "Projectable", masses: ArrayLike | None = None, *, key: str = "density") -> "Density":
        """The L² projection of a density, limited to be ≥ 0 and scaled to total mass 1. **Collective**.

        Args:
            what: a shape (``Gaussian``, ``Uniform``, ``Formula``, ``Samples``, ``Image``), a function of points
                x (n, dim) with values (n,) (any multiple of a density), an array of samples (n, dim), a DOLFINx
                function or a UFL expression on this mesh, a list of these (a mixture of equal shares), or a dictionary
                label → one of these; the same on all ranks.
            masses: (K,) > 0, the labels' shares of the mass; by default one share for each thing that is given.
            key: what messages call it.

        Raises:
            InputError: it is none of these, does not fit the mesh or the labels, is negative or not finite somewhere,
                or lies outside the domain; the same on all ranks.
        """
        from eulerian.density.density import Density  # here: that module imports this one

        return Density.of(self, what, masses, key)

    def from_array(self, array: ArrayLike, *, key: str = "density") -> "Density":
        """A mesh function of the coefficients (C, nd, K) of all cells, as ``Density.to_array`` gives them.

        **Collective**. It is taken as it is: neither limited nor scaled.

        Args:
            array: the same on all ranks.
            key: what messages call it.

        Raises:
            InputError: the shape is another one, or a number is not finite; the same on all ranks.
        """
        from eulerian.density.density import Density  # here: that module imports this one

        with parallel.agreed(self.comm):
            gathered = np.asarray(array, dtype=np.float64)
            self.check_array(gathered.shape, key)
            if not np.all(np.isfinite(gathered)):
                raise InputError("holds numbers that are not finite", key=key, remedy="Give finite numbers.")
        return Density(self, gathered[np.asarray(self.mesh.topology.original_cell_index[: self.n_cells])])

    def check_array(self, shape: tuple[int, ...], key: str = "density") -> None:
        """Raise InputError unless an array of this shape may hold the coefficients of all cells. Not collective."""
        wanted = (self.n_cells_global, self.nd, self.n_labels)
        if tuple(shape) != wanted:
            what, remedy = f"coefficients of all cells are an array {wanted}", "Take space.project(…).to_array()."
            raise InputError(what, key=key, value=f"shape {tuple(shape)}", remedy=remedy)

    def all_cells(self, rows: Floats) -> Floats:
        """Rows (n_owned, …) of this rank's cells as (C, …) of all, in the order of the mesh's input, on all ranks.

        **Collective**.
        """
        gathered = np.concatenate(self.comm.allgather(np.ascontiguousarray(rows)))
        return np.ascontiguousarray(gathered[self._input_order])

    @cached_property
    def _input_order(self) -> NDArray[np.intp]:
        """Where the cells of the mesh's input are among those of all ranks, one rank after the other. Collective."""
        numbers = np.asarray(self.mesh.topology.original_cell_index[: self.n_owned])
        return np.argsort(np.concatenate(self.comm.allgather(numbers)))

    def representative(self, derivative: Floats) -> Floats:
        """The mesh function φ that represents a derivative in L², both arrays (C, nd, K). **Collective**.

        ∫φ δρ is the derivative in the direction δρ: Σ derivative · δρ over the coefficients.
        """
        return derivative / self.all_cells(self.geometry.det[: self.n_owned])[:, None, None]

    def limit(self, rho: Floats, points: Floats | None = None) -> None:
        """Scale towards the cell mean, in place, until ρ ≥ 0 at reference points (the limiter's). Ghost cells included.

        Zhang & Shu (2010), doi:10.1016/j.jcp.2009.12.030. This is the readable reference of the compiled limiter.
        """
        if self.degree == 0:
            return
        table = basis.legendre(self.dim, self.degree, self.limiter_points if points is None else points)
        mean = self.phi0 * rho[:, 0]
        lowest = np.einsum("qi,cik->cqk", table[:, 1:], rho[:, 1:], optimize=True).min(axis=1)
        filled = mean >= EMPTY
        limited = filled & (mean + lowest < 0.0)
        factor = np.where(limited, mean / np.where(limited, -lowest, 1.0), np.where(filled, 1.0, 0.0))
        rho[:, 1:] *= factor[:, None]

    def limited_at_nodes(self, rho: Floats) -> Floats:
        """A copy of coefficients (n, nd, K) that is limited at the nodes of VTK's cells, as it is shown to others.

        The scheme limits at quadrature points only. Cell means, and with them masses, stay as they are.
        """
        shown = rho.copy()
        self.limit(shown, basis.vtk_nodes(self.dim, self.degree))
        return shown

    def limit_vjp(self, rho: Floats, g: Floats) -> Floats:
        """The derivative by densities of a function whose derivative by what ``limit`` makes of them is g, likewise.

        Both (n, nd, K), of owned cells. Where a cell is empty its higher modes count for nothing.
        """
        if self.degree == 0:
            return g
        table, mean = basis.legendre(self.dim, self.degree, self.limiter_points), self.phi0 * rho[:, 0]
        values = np.einsum("qi,cik->cqk", table[:, 1:], rho[:, 1:], optimize=True)
        lowest, at, filled = values.min(axis=1), table[values.argmin(axis=1), 1:], mean >= EMPTY
        limited = filled & (mean + lowest < 0.0)
        # Where nothing was limited a factor 1 that does not move.
        depth = np.where(limited, -lowest, 1.0)
        factor = np.where(limited, mean / depth, np.where(filled, 1.0, 0.0))
        by_factor = np.where(limited, np.einsum("cik,cik->ck", g[:, 1:], rho[:, 1:]), 0.0)
        found = g.copy()
        found[:, 0] += self.phi0 * by_factor / depth
        found[:, 1:] *= factor[:, None]
        found[:, 1:] += np.moveaxis(at, 2, 1) * (by_factor * factor / depth)[:, None]
        return found

    def update_ghosts(self, rho: Floats) -> None:
        """Copy ghost cells from their owners, in place. Collective."""
        self.ghosts.update(rho)

    # -- reading densities -------------------------------------------------------------------------------------------

    def evaluate(self, rho: Floats, points: Floats) -> Floats:
        """Values (n_owned, m, K) at reference points (m, dim) of every owned cell."""
        table = basis.legendre(self.dim, self.degree, points)
        return np.asarray(np.einsum("qi,cik->cqk", table, rho[: self.n_owned], optimize=True))

    def vertex_values(self, rho: Floats) -> Floats:
        """Values at the owned cells' vertices, (n_owned, dim+1, K)."""
        return self.evaluate(rho, basis.reference_vertices(self.dim))

    def cell_mass(self, rho: Floats) -> Floats:
        """Mass in each owned cell, (n_owned, K)."""
        return rho[: self.n_owned, 0] * (self.geometry.det[: self.n_owned, None] / self.phi0)

    def mass(self, rho: Floats) -> Floats:
        """∫ρ_y, (K,), the same bits on every rank. Collective."""
        return parallel.sum_all(self.comm, self.cell_mass(rho).sum(axis=0))

    def boundary_mass(self, rho: Floats) -> float:
        """Mass of all labels in the cells that touch the boundary with a facet. Collective."""
        return float(self.boundary_masses(rho).sum())

    def boundary_masses(self, rho: Floats) -> Floats:
        """Mass of every label in the cells that touch the boundary with a facet, (K,). Collective."""
        return parallel.sum_all(self.comm, self.cell_mass(rho)[self.geometry.boundary].sum(axis=0))

    def integrate(self, values: Floats, rule: Quadrature, rho: Floats) -> Floats:
        """∫ f ρ_y for f given as (n_owned, nq, m) at the rule's points; (m, K). Collective."""
        densities = np.einsum("qi,cik->cqk", rule.basis, rho[: self.n_owned], optimize=True)
        return parallel.sum_all(self.comm, np.einsum("cqm,cqk,cq->mk", values, densities, rule.weights, optimize=True))

    def mean_and_covariance(self, rho: Floats) -> tuple[Floats, Floats]:
        """Mean (K, dim) and covariance (K, dim, dim) of each label's normalised density. Collective.

        From centred sums: E[xx] − mean² would lose twice as many digits as coordinates far from the origin have lost.
        """
        rule, dim = self.quadrature(self.degree + 2), self.dim
        low, high = self.bounding_box
        middle = 0.5 * (low + high)
        x = rule.points - middle  # coordinates far from the origin keep their digits
        moments = self.integrate(np.concatenate([np.ones_like(x[..., :1]), x], axis=2), rule, rho).T
        mass, mean = moments[:, 0], moments[:, 1:] / moments[:, :1]
        densities = np.einsum("qi,cik,cq->cqk", rule.basis, rho[: self.n_owned], rule.weights, optimize=True)
        second = np.empty((self.n_labels, dim, dim))
        for label in range(self.n_labels):  # one label at a time: rest is as large as all points
            rest = (x - mean[label]).reshape(-1, dim)
            second[label] = (rest * densities[..., label].reshape(-1, 1)).T @ rest
        return middle + mean, parallel.sum_all(self.comm, second) / mass[:, None, None]

    def extrema(self, rho: Floats) -> tuple[float, float]:
        """Smallest and largest value at the limiter's points, over all labels. Collective."""
        values = self.evaluate(rho, self.limiter_points)
        low = self.comm.allreduce(float(values.min(initial=np.inf)), MPI.MIN)
        high = self.comm.allreduce(float(values.max(initial=-np.inf)), MPI.MAX)
        return low, high


def _require_mesh(mesh: Any) -> None:
    """Refuse what is no mesh of affine simplices with ghosts. **Collective**, if it is a mesh."""
    if not isinstance(mesh, dolfinx.mesh.Mesh):
        remedy = "Give a dolfinx.mesh.Mesh, or make one by box_mesh or read_mesh."
        raise InputError("is no DOLFINx mesh", key="mesh", value=type(mesh).__name__, remedy=remedy)
    topology, geometry = mesh.topology, mesh.geometry
    if topology.cell_name() not in ("interval", "triangle", "tetrahedron") or geometry.cmaps[0].degree != 1:
        remedy = "Give a mesh of straight intervals, triangles or tetrahedra."
        raise InputError("must have affine simplices", key="mesh", value=topology.cell_name(), remedy=remedy)
    if geometry.dim != topology.dim:
        what = f"has cells of dimension {topology.dim} in a space of dimension {geometry.dim}"
        raise InputError(what, key="mesh", remedy="Give it as many coordinates as its cells have dimensions.")
    if geometry.x.dtype != np.float64:
        raise InputError("must have coordinates of double precision", key="mesh", value=str(geometry.x.dtype))
    # The flux across a facet between two ranks needs the cells on both sides of it. Where no facet lies between ranks
    # (few cells, parts that hang together nowhere) there is nothing to need.
    topology.create_entities(topology.dim - 1)
    ghosts = [topology.index_map(dim).num_ghosts for dim in (topology.dim, topology.dim - 1)]
    cells, facets = parallel.sum_all(mesh.comm, np.array(ghosts, dtype=float))
    if cells == 0 and facets > 0:
        remedy = (
            "On two ranks and more it needs ghost_mode=dolfinx.mesh.GhostMode.shared_facet, in create_mesh "
            "partitioner=dolfinx.mesh.create_cell_partitioner(dolfinx.mesh.GhostMode.shared_facet, 2)."
        )
        raise InputError("has no ghost cells", key="mesh", value=f"{mesh.comm.size} ranks", remedy=remedy)
