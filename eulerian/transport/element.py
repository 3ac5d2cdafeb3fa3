"""The reference cell of the compiled loops: Lagrange nodes, flux points and limiter points, as tables."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations

import numpy as np

from eulerian.base.arrays import Floats, Ints
from eulerian.density import basis
from eulerian.density.space import DensitySpace
from eulerian.transport.ssp import SSPScheme

# Distances in the reference cell below this are rounding.
_FLAT = 1e-12


@dataclass(frozen=True)
class NodalElement:
    """Densities of degree p and velocities of degree max(p, 1) on a simplex, by their values at Lagrange nodes.

    Nodes are in Basix' order with the cell's vertices counted in their global order (``SimplexGeometry.vertex_order``):
    then both cells of a facet see the same nodes and flux points in the same order, whatever their position.
    """

    dim: int
    degree: int
    facet_degree: int

    @classmethod
    def of(cls, space: DensitySpace) -> "NodalElement":
        """The element of a space."""
        return cls(space.dim, space.degree, space.facet_degree)

    @property
    def velocity_degree(self) -> int:
        """max(p, 1)."""
        return max(self.degree, 1)

    @cached_property
    def nodes(self) -> Floats:
        """Nodes of the density, (nd, dim)."""
        return self._centroid if self.degree == 0 else self.velocity_nodes

    @cached_property
    def velocity_nodes(self) -> Floats:
        """Nodes of the velocity, (nn, dim)."""
        return basis.lagrange_points(self.dim, self.velocity_degree)

    @cached_property
    def modal_to_nodal(self) -> Floats:
        """(nd, nd): values at ``nodes`` from Legendre coefficients."""
        return basis.legendre(self.dim, self.degree, self.nodes)

    def values(self, points: Floats) -> Floats:
        """The density's basis at reference points (m, dim), (m, nd)."""
        return np.ones((len(points), 1)) if self.degree == 0 else basis.lagrange(self.dim, self.degree, points)

    @property
    def n_points(self) -> int:
        """Flux points of a facet."""
        return len(basis.facet_weights(self.dim, self.facet_degree))

    @cached_property
    def n_volume(self) -> int:
        """Numbers per direction that the volume term of a cell needs."""
        return len(self._volume_tables["VOLUME"])

    # -- nodes and the order of vertices ------------------------------------------------------------------------------

    def places(self, order: Ints, nodes: Floats) -> Ints:
        """Which of Basix' nodes of each cell is which of ours, (n_cells, len(nodes)).

        Args:
            order: (n_cells, dim+1), Basix' number of each cell's vertices in our order.
            nodes: ``nodes`` or ``velocity_nodes``.
        """
        degree = self.velocity_degree
        # Nodes are known by whole numbers, their barycentric coordinates times the degree: no rounding to compare.
        lattice = np.rint(degree * np.column_stack([1.0 - nodes.sum(axis=1), nodes])).astype(int)
        number = {tuple(row): index for index, row in enumerate(lattice.tolist())}
        result = np.zeros((len(order), len(nodes)), dtype=np.int32)
        if len(nodes) == 1:
            return result
        for vertices in permutations(range(self.dim + 1)):
            back = np.argsort(vertices)  # our vertex a is Basix' vertices[a]
            rows = np.all(order == np.array(vertices), axis=1)
            result[rows] = [number[tuple(row[back].tolist())] for row in lattice]
        return result

    def facet_nodes(self, nodes: Floats) -> Ints:
        """Nodes on every facet, (dim+1, n), ordered by their barycentric coordinates, so alike for every facet."""
        # Coordinates are multiples of 1/p up to rounding; those on a facet must be 0 exactly to be found.
        barycentric = np.round(np.column_stack([1.0 - nodes.sum(axis=1), nodes]), 9)
        if len(nodes) == 1:
            return np.zeros((self.dim + 1, 1), dtype=np.int32)
        found = []
        for facet in range(self.dim + 1):
            on_facet = np.flatnonzero(barycentric[:, facet] == 0.0)
            others = np.delete(barycentric[on_facet], facet, axis=1)
            found.append(on_facet[np.lexsort(others.T)])
        return np.array(found, dtype=np.int32)

    # -- what the loops are compiled with -----------------------------------------------------------------------------

    def tables(self, limiter_points: Floats, scheme: SSPScheme) -> dict[str, Floats | Ints]:
        """Constants by their names in ``kernels.c``.

        Args:
            limiter_points: (m, dim); a set that no order of the vertices changes.
            scheme: of time.
        """
        mass, volume = self._mass, _reference_volume(self.dim)
        mean = mass.sum(axis=0) / volume
        # A linear function has its minimum at a corner: fewer points to look at, and the same factors.
        at_limiter = self.values(limiter_points if self.degree > 1 else extreme_points(limiter_points))
        edges = self._edges
        return {
            "FACET_NODES": self.facet_nodes(self.nodes),
            "TRACE": self._trace(self.nodes, self.values(self._facet_points)),
            "VELOCITY_FACET_NODES": self.facet_nodes(self.velocity_nodes),
            "VELOCITY_TRACE": self._trace(self.velocity_nodes, self._shape(self._facet_points)),
            "WEIGHTS": basis.facet_weights(self.dim, self.facet_degree),
            "MASS_INVERSE": np.linalg.inv(mass),
            "MASS": mass / volume,
            "MEAN": mean,
            "LIMITER": at_limiter - mean,
            # What represents the value at a point in L²: the limiter's adjoint adds it where a minimum has decided.
            "REPRESENTER": np.vstack([volume * np.linalg.solve(mass, at_limiter.T).T, np.zeros(len(mass))]),
            "EDGES": edges if len(edges) else np.zeros((1, 2), dtype=np.int32),  # C has no empty arrays
            "ALPHA": np.array(scheme.alpha),
            "WEIGHT": np.array(scheme.weights),
            "CURRENT_WEIGHT": scheme.split_weights[0],
            "START_WEIGHT": scheme.split_weights[1],
            **self._volume_tables,
        }

    @property
    def _facet_points(self) -> Floats:
        """Flux points of the last facet, (nq, dim)."""
        return basis.facet_points(self.dim, self.facet_degree, tuple(range(self.dim)))

    def _trace(self, nodes: Floats, table: Floats) -> Floats:
        """Columns of a basis at the flux points of the last facet that belong to its nodes."""
        return np.ascontiguousarray(table[:, self.facet_nodes(nodes)[-1]])

    def _shape(self, points: Floats) -> Floats:
        return basis.lagrange(self.dim, self.velocity_degree, points)

    @cached_property
    def _mass(self) -> Floats:
        """∫ φ_i φ_j over the reference cell."""
        rule = basis.quadrature_rule(self.dim, 2 * self.degree)
        table = self.values(rule.points)
        return np.asarray(np.einsum("q,qi,qj->ij", rule.weights, table, table))

    @cached_property
    def source_tables(self) -> dict[str, Floats]:
        """The source −(m − 1) q div v of the m-th power q of a density, exactly integrated.

        ``DIVERGENCE`` (points, dim, nn) takes the velocity in reference directions to div v at points that determine
        it: one where it is constant in a cell, else the vertices, where a linear function has its extremes.
        ``SOURCE`` (n_source, points) takes it to what the loops need: div v itself where it is constant, for p = 2 its
        values at the points of the volume term, with their weights.
        """
        if self.velocity_degree == 1:
            points, source = self._centroid, np.ones((1, 1))
        else:
            points = basis.reference_vertices(self.dim)
            source = self._volume_rule.weights[:, None] * basis.lagrange(self.dim, 1, self._volume_rule.points)
        slopes = basis.lagrange_derivatives(self.dim, self.velocity_degree, points)[1:]
        return {"DIVERGENCE": np.ascontiguousarray(slopes.swapaxes(0, 1)), "SOURCE": np.ascontiguousarray(source)}

    @property
    def _centroid(self) -> Floats:
        return np.full((1, self.dim), 1.0 / (self.dim + 1))

    @property
    def _edges(self) -> Ints:
        """The vertices at the ends of every edge that has a node, (n, 2)."""
        if self.degree < 2:
            return np.zeros((0, 2), dtype=np.int32)
        middle = np.column_stack([1.0 - self.nodes.sum(axis=1), self.nodes])[self.dim + 1 :]
        return np.array([np.flatnonzero(row > 0.25) for row in middle], dtype=np.int32)

    @property
    def _volume_rule(self) -> basis.Rule:
        # v, φ_j and the derivative of φ_i have the degrees max(p, 1), p and p − 1.
        return basis.quadrature_rule(self.dim, self.velocity_degree + max(2 * self.degree - 1, 0))

    @cached_property
    def _volume_tables(self) -> dict[str, Floats]:
        """The volume term, exactly integrated.

        For p = 1 the test function's gradient is constant and the term needs ∫ v_m φ_j; for p = 2 it is a sum over
        quadrature points.
        """
        rule = self._volume_rule
        shape, values = self._shape(rule.points), self.values(rule.points)
        if self.degree == 0:
            return {"VOLUME": np.zeros((1, shape.shape[1]))}
        if self.degree == 1:
            return {"VOLUME": np.einsum("q,qj,qa->ja", rule.weights, values, shape)}
        slopes = basis.lagrange_derivatives(self.dim, self.degree, rule.points)[1:]
        return {"VOLUME": rule.weights[:, None] * shape, "VALUES": values, "SLOPES": slopes}


def extreme_points(points: Floats) -> Floats:
    """The corners of the convex hull of (m, dim) points: there a linear function has its minimum over all of them.

    In three dimensions nearly all of the limiter's points are corners, so all points are returned.
    """
    dim = points.shape[1]
    if dim == 3:
        return points
    corners = np.array(list(combinations(range(len(points)), dim)))
    first, last = points[corners[:, 0]], points[corners[:, -1]]
    along = last - first
    normals = np.ones_like(along) if dim == 1 else np.column_stack([-along[:, 1], along[:, 0]])
    distances = np.einsum("mnj,mj->mn", points - first[:, None], normals)
    # A line through corners of the hull has all points on one side.
    outside = (distances.max(axis=1) < _FLAT) | (distances.min(axis=1) > -_FLAT)
    return np.asarray(points[np.unique(corners[outside])])


def _reference_volume(dim: int) -> float:
    return float(basis.quadrature_rule(dim, 0).weights.sum())
