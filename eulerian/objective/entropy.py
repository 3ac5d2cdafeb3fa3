"""What a flow does to ∫ρ log ρ, as functionals that are linear in the density that is transported.

Along an exact flow d/dt ∫ρ log ρ = −∫ρ div v + ∮ρ (v·n)⁺ ds: where v points out of a wall, the mass that it presses
there is compressed. Numerical diffusion lowers ∫ρ_h log ρ_h, so an optimiser that is charged for that is paid for
diffusion; it has nothing to gain from it here. This is how normalising flows take their likelihood (Chen, Rubanova,
Bettencourt & Duvenaud 2018, doi:10.48550/arXiv.1806.07366).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats, Ints
from eulerian.density import basis
from eulerian.density.space import Quadrature
from eulerian.transport.velocity_space import VelocitySpace


@dataclass(frozen=True)
class _Walls:
    """The facets at the boundary.

    Attributes:
        cells: (m,) owned cells.
        nodes: (m, nn) of the velocity.
        normals: (m, dim) outward, of unit length.
        measures: (m, nq) quadrature weights times the facets' measures.
        shape: (m, nq, nn) the velocity's basis at the quadrature points.
        basis: (m, nq, nd) the density's.
    """

    cells: NDArray[np.intp]
    nodes: Ints
    normals: Floats
    measures: Floats
    shape: Floats
    basis: Floats

    def normal_velocity(self, v: Floats) -> Floats:
        """v·n, (m, nq)."""
        at_nodes = np.sum(v[self.nodes] * self.normals[:, None], axis=2)
        return np.asarray(self.shape @ at_nodes[..., None])[..., 0]

    def density(self, rho: Floats) -> Floats:
        """(m, nq), of the coefficients (n_owned, nd)."""
        return np.asarray(self.basis @ rho[self.cells][..., None])[..., 0]


@final
@dataclass(frozen=True)
class EntropyBalance:
    """d/dt ∫ρ log ρ of densities that move with one velocity, and its derivative.

    The divergence is that of the finite-element velocity, which the transport sees: with a network's own the errors of
    the two cancel less. (s)⁺ is ½(s + √(s² + δ²)), as in the upwind flux.

    Attributes:
        space: of the velocities.
        smoothing: δ, in units of velocity.
    """

    space: VelocitySpace
    smoothing: float

    def rate(self, v: Floats) -> Floats:
        """The vector (n_owned, nd) whose product with ρ's coefficients is d/dt ∫ρ log ρ, for v (n_nodes, dim)."""
        rule, walls = self._rule, self._walls
        vector = -(rule.weights * self.space.divergence_at(v, rule.reference)) @ rule.basis
        pressed = walls.measures * self._outward(walls.normal_velocity(v))[0]
        np.add.at(vector, walls.cells, (pressed[:, None] @ walls.basis)[:, 0])  # a cell may have several
        return np.asarray(vector)

    def velocity_gradient(self, v: Floats, occupation: Floats) -> Floats:
        """This rank's contribution (n_nodes, dim) to d/dv of ⟨rate(v), occupation⟩, occupation (n_owned, nd)."""
        rule, walls = self._rule, self._walls
        mass = rule.weights * (occupation @ rule.basis.T)
        gradient = self.space.divergence_at_transpose(-mass, rule.reference)
        pressed = walls.measures * self._outward(walls.normal_velocity(v))[1] * walls.density(occupation)
        # Neighbouring facets share nodes, and an indexed += would count only one of them.
        np.add.at(gradient, walls.nodes, (pressed[:, None] @ walls.shape)[:, 0, :, None] * walls.normals[:, None])
        return gradient

    def _outward(self, s: Floats) -> tuple[Floats, Floats]:
        """(s)⁺ and its derivative."""
        # Smooth as the upwind flux: with a kink J's gradient would jump where v·n = 0.
        magnitude = np.sqrt(s**2 + self.smoothing**2)
        # Without smoothing the derivative at the kink is ½, the mean of both sides.
        sign = np.divide(s, magnitude, out=np.zeros_like(s), where=magnitude > 0.0)
        return 0.5 * (s + magnitude), 0.5 * (1.0 + sign)

    @property
    def _rule(self) -> Quadrature:
        """Exact: div v is of degree max(p, 1) − 1."""
        density = self.space.density_space
        return density.quadrature(max(density.degree, 1) - 1 + density.degree)

    @cached_property
    def _walls(self) -> _Walls:
        density, dim = self.space.density_space, self.space.density_space.dim
        geometry, n = density.geometry, density.n_owned
        weights, found = basis.facet_weights(dim, density.facet_degree), []
        for facet in range(dim + 1):
            cells = np.flatnonzero(geometry.neighbours[:n, facet] < 0)
            corners = tuple(vertex for vertex in range(dim + 1) if vertex != facet)
            points = basis.facet_points(dim, density.facet_degree, corners)
            areas = geometry.facet_normals[cells, facet] * geometry.det[cells, None]
            measures = np.linalg.norm(areas, axis=1)
            # Facets opposite the same vertex have one rule on the reference cell.
            tables = basis.lagrange(dim, self.space.degree, points), basis.legendre(dim, density.degree, points)
            found.append(
                (
                    cells,
                    self.space.cell_nodes[cells],
                    areas / measures[:, None],
                    measures[:, None] * weights,
                    *(np.broadcast_to(table, (len(cells), *table.shape)) for table in tables),
                )
            )
        return _Walls(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
