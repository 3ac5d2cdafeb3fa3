"""The upwind discontinuous Galerkin operator of the continuity equation, its transpose and its velocity derivative."""

from eulerian import parallel  # noqa: F401 - starts MPI before PETSc
from eulerian.arrays import Floats

# isort: split
from mpi4py import MPI

import numpy as np

from eulerian.space import basis
from eulerian.space.density import EMPTY, DensitySpace
from eulerian.space.geometry import sides
from eulerian.space.velocity import VelocitySpace
from eulerian.transport.kernels import ffi, load_kernels, pointer

# Time steps are stable while step × outflow rate of every cell (∫_∂K (v·n)⁺ / |K|) stays below 1 / STABILITY[degree],
# with the Runge-Kutta method of order degree + 1: 2 degree + 1, Cockburn & Shu (2001), doi:10.1023/A:1012873910884.
STABILITY = (1.0, 3.0, 5.0)


class TransportOperator:
    """B(v) = M⁻¹A(v), with ∂_t ρ = B(v)ρ for a velocity v that is constant in time.

    ⟨w, A(v)ρ⟩ = Σ_K ∫_K ρ v·∇w − Σ_F ∫_F [w] ½(s{{ρ}} + |s|_δ [ρ]), s = v·n, {{ρ}} = ρ⁻ + ρ⁺, [ρ] = ρ⁻ − ρ⁺ along n,
    |s|_δ = √(s² + δ²). Boundary facets carry no flux. The law of the transpose is ⟨λ, Bρ⟩ = ⟨Bᵀλ, ρ⟩ over owned cells
    of all ranks; of the derivative, ⟨g, w⟩ = d/dτ ⟨λ, B(v + τw)ρ⟩ at τ = 0 for g = velocity_gradient(λ, ρ).

    Densities are (n_cells, nd, columns) with ghost cells up to date on input; only owned cells are written.

    Args:
        density_space: the space of ρ.
        velocity_space: the space of v.
        columns: how many densities one product moves.
        delta: δ, in units of velocity.
    """

    def __init__(
        self, density_space: DensitySpace, velocity_space: VelocitySpace, columns: int = 1, delta: float = 0.0
    ) -> None:
        """Collective (compiles the kernels on first use)."""
        self.density_space, self.velocity_space, self.columns = density_space, velocity_space, columns
        space = density_space
        self._tables = _tables(space, velocity_space)
        self.kernels = load_kernels(
            space.comm,
            DIM=space.dim,
            DEGREE=space.degree,
            ND=space.nd,
            NN=velocity_space.cell_nodes.shape[1],
            NQ=len(self._tables["weights"]),
            NS=len(sides(space.dim)),
            NL=len(self._tables["limiter"]),
            K=columns,
        )
        self.scheme = ffi.new("scheme_t *")
        self.scheme.n_owned, self.scheme.n_cells = space.n_owned, space.n_cells
        for name, table in self._tables.items():
            setattr(self.scheme, name, pointer(table))
        self.scheme.phi0, self.scheme.delta, self.scheme.empty = space.phi0, delta, EMPTY
        self.scheme.stability = STABILITY[space.degree]
        self.blocks: Floats = np.empty((space.n_cells, space.dim + 2, space.nd, space.nd))
        self.velocity: Floats | None = None
        self.rate = 0.0

    def assemble(self, v: Floats) -> float:
        """Set B to B(v), v (n_nodes, dim) with ghosts. Collective.

        Returns:
            The largest rate r over all cells: time steps up to 1/r are stable and keep cell means positive, given
            densities that are positive at the limiter's points. Not finite if v is not.

        The mean of a polynomial of degree p on a simplex is (1 − b) times the mean of its facets' means plus b times
        its value in the centroid, b = 0 for p = 1 and 2/(dim + 2) for p = 2: exact with positive weights, so the mean
        outweighs what flows out of a facet point for Δt |F|/|K| ½(s + |s|_δ) ≤ (1 − b)/(dim + 1). The argument is
        that of Zhang, Xia & Shu (2012), doi:10.1007/s10915-011-9472-8, with a cheaper decomposition.
        """
        self.velocity = np.ascontiguousarray(v)
        rate = self.kernels.assemble(self.scheme, pointer(self.velocity), pointer(self.blocks))
        if np.isnan(rate):
            rate = np.inf
        self.rate = float(self.density_space.comm.allreduce(rate, MPI.MAX))
        return self.rate

    def apply(self, rho: Floats) -> Floats:
        """Bρ on owned cells (ghost rows zero)."""
        out = np.zeros_like(rho)
        self.kernels.apply(self.scheme, pointer(self.blocks), pointer(rho), pointer(out))
        return out

    def apply_transpose(self, lam: Floats) -> Floats:
        """Bᵀλ on owned cells (ghost rows zero)."""
        out = np.zeros_like(lam)
        self.kernels.apply_transpose(self.scheme, pointer(self.blocks), pointer(lam), pointer(out))
        return out

    def accumulator(self) -> Floats:
        """Zero S for ``contract``: λ⊗ρ on the sparsity of B, (n_owned, dim+2, nd, nd)."""
        return np.zeros((self.density_space.n_owned, *self.blocks.shape[1:]))

    def contract(self, accumulated: Floats) -> Floats:
        """This rank's contribution (n_nodes, dim) to d/dv Σ S:B(v), for S summed up from λ⊗ρ."""
        assert self.velocity is not None, "assemble comes first"
        gradient = np.zeros_like(self.velocity)
        self.kernels.contract(self.scheme, pointer(self.velocity), pointer(accumulated), pointer(gradient))
        return gradient

    def velocity_gradient(self, lam: Floats, rho: Floats) -> Floats:
        """This rank's contribution (n_nodes, dim) to d/dv ⟨λ, B(v)ρ⟩; ranks add up to the gradient."""
        ones, n = self.accumulator(), self.density_space.n_owned
        ones[:, 0] = np.einsum("cik,cjk->cij", lam[:n], rho[:n], optimize=True)
        neighbours = self._tables["neighbours"][:n]
        for facet in range(neighbours.shape[1]):
            inside = neighbours[:, facet] >= 0
            across = rho[neighbours[inside, facet]]
            ones[inside, 1 + facet] = np.einsum("cik,cjk->cij", lam[:n][inside], across, optimize=True)
        return self.contract(ones)

    def coordinate_entries(self) -> tuple[np.ndarray, np.ndarray, Floats]:
        """B as global (row, column, value) triplets of the owned rows, for one column: dof = cell·nd + mode.

        For comparison with assembled forms and with other time steppers; the products above do not need it.
        """
        space = self.density_space
        cells = space.mesh.topology.index_map(space.dim)
        number = cells.local_to_global(np.arange(space.n_cells, dtype=np.int32))
        modes = np.arange(space.nd)
        rows, columns, values = [], [], []
        neighbours = np.column_stack([np.arange(space.n_cells), self._tables["neighbours"]])[: space.n_owned]
        for slot in range(space.dim + 2):
            inside = np.flatnonzero(neighbours[:, slot] >= 0)
            shape = (len(inside), space.nd, space.nd)
            row = number[inside, None, None] * space.nd + modes[:, None]
            column = number[neighbours[inside, slot]][:, None, None] * space.nd + modes
            rows.append(np.broadcast_to(row, shape).ravel())
            columns.append(np.broadcast_to(column, shape).ravel())
            values.append(self.blocks[inside, slot].ravel())
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)


def _tables(space: DensitySpace, velocity_space: VelocitySpace) -> dict[str, np.ndarray]:
    """Everything that ``scheme_t`` points to, by its names."""
    dim, degree = space.dim, space.degree
    points = np.concatenate([basis.facet_points(dim, space.facet_degree, side) for side in sides(dim)])
    per_side = (len(sides(dim)), len(points) // len(sides(dim)), -1)
    limiter = basis.legendre(dim, degree, space.limiter_points)
    return {
        "cell_nodes": velocity_space.cell_nodes,
        "neighbours": space.geometry.neighbours,
        "nb_facets": space.geometry.neighbour_facets,
        "orientation": space.geometry.orientation,
        "inverse": space.geometry.inverse_jacobian,
        "normals": space.geometry.facet_normals,
        "volume": _volume_table(space, velocity_space),
        "phi": basis.legendre(dim, degree, points).reshape(per_side),
        "lagrange": basis.lagrange(dim, velocity_space.degree, points).reshape(per_side),
        "weights": basis.facet_weights(dim, space.facet_degree),
        "limiter": limiter,
        "bound": np.abs(limiter).max(axis=0),
    }


def _volume_table(space: DensitySpace, velocity_space: VelocitySpace) -> Floats:
    """Reference integrals of N_a φ_j ∂_m φ_i, as (nn, dim, nd, nd) with [a, m, i, j]."""
    rule = basis.quadrature_rule(space.dim, velocity_space.degree + 2 * space.degree)
    phi = basis.legendre_derivatives(space.dim, space.degree, rule.points)
    shape = basis.lagrange(space.dim, velocity_space.degree, rule.points)
    table = np.einsum("q,qa,qj,mqi->amij", rule.weights, shape, phi[0], phi[1:], optimize=True)
    return np.ascontiguousarray(table)


def flux_smoothing(density_space: DensitySpace, horizon: float, fraction: float) -> float:
    """δ as a fraction of the speed that crosses the domain's largest extent once per horizon. Collective.

    It must be well below the speeds of interest (it acts like a diffusion of relative size δ/|v| in the upwind jump)
    and well above rounding: at v = 0 every facet sits at the minimum of |s|_δ, whose curvature is 1/δ.
    """
    low, high = density_space.bounding_box
    return fraction * float((high - low).max()) / horizon
