"""The upwind discontinuous Galerkin operator of the continuity equation, its transpose and its velocity derivative.

Powers q = ρ^m of a density move by ∂_t q + div(v q) = −(m − 1) q div v, which is linear in q: integrals of q converge
as fast as those of ρ do, where a power of the computed ρ lacks what numerical diffusion has taken from its peaks.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.jit import Library
from eulerian.density.space import EMPTY, DensitySpace
from eulerian.mesh.point_location import barycentric_gradients
from eulerian.transport.ghost_exchange import GhostExchange, mpi_functions
from eulerian.transport.power import Power
from eulerian.transport.simd_layout import NodalLayout, aligned, in_blocks
from eulerian.transport.ssp import SSPScheme
from eulerian.transport.velocity_space import VelocitySpace

_LIBRARY = Library(Path(__file__).with_name("kernels.c"), "scheme_t")
ffi, pointer = _LIBRARY.ffi, _LIBRARY.pointer

# Derivatives by the coefficients of the flux, of the volume term and of what powers gain at walls, as
# ``TransportOperator.accumulator`` makes them.
type Accumulated = tuple[Floats, Floats, Floats]


class TransportOperator:
    """B(v) = M⁻¹A(v), with ∂_t ρ = B(v)ρ for a velocity v that is constant in time.

    ⟨w, A(v)ρ⟩ = Σ_K ∫_K ρ v·∇w − Σ_F ∫_F [w] ½(s{{ρ}} + |s|_δ [ρ]), s = v·n, {{ρ}} = ρ⁻ + ρ⁺, [ρ] = ρ⁻ − ρ⁺ along n,
    |s|_δ = √(s² + δ²). Boundary facets carry no flux. The law of the transpose is ⟨λ, Bρ⟩ = ⟨Bᵀλ, ρ⟩ over owned cells
    of all ranks; of the derivative, ⟨g, w⟩ = d/dτ ⟨λ, B(v + τw)ρ⟩ at τ = 0 for g = velocity_gradient(λ, ρ).

    For the m-th power of a density, −(m − 1) Σ_K ∫_K div v q w is added. What walls add is no part of B, for it comes
    from the density: (m − 1) ∫ ½(s + |s|_δ) ρ̄^m w over the boundary, ρ̄ the cells' means, since in the limit of a wall,
    which stops the flow, div v has the mass −(v·n)⁺ there and compresses what arrives. ``Stepper`` takes both together.

    The matrix is never stored: the loops keep, per cell, what flows in and out of its flux points and the velocity in
    its interior (``kernels.c``), 18 numbers for p = 1 on triangles where the blocks would be 36.

    Args:
        density_space: the space of ρ.
        velocity_space: the space of v.
        columns: how many densities one product moves.
        delta: δ, in units of velocity.
        power: whose power the columns are; None for densities themselves.
        empty: mean of a cell below which steps set it to zero (as what they compute there may underflow).

    Attributes:
        layout: how the loops hold densities.
        method: how time steps are taken, which their largest length depends on.
        n_walls: facets of this rank's cells at the boundary.
        velocity: the last one that was assembled.
        rate: its rate on this rank.
    """

    def __init__(
        self,
        density_space: DensitySpace,
        velocity_space: VelocitySpace,
        columns: int = 1,
        delta: float = 0.0,
        *,
        power: Power | None = None,
        empty: float = EMPTY,
    ) -> None:
        """Collective (compiles the kernels on first use)."""
        assert power is None or power.columns == columns
        self.density_space, self.velocity_space, self.columns = density_space, velocity_space, columns
        self.delta, self.power, self.empty = delta, power, empty
        self.method = SSPScheme.of(density_space.dim, density_space.degree)
        self.layout = NodalLayout(density_space, columns)
        self.kernels = _load(density_space, self.layout, self.exponent)
        arrays = self._arrays()
        self._ghosts = GhostExchange(self.layout, arrays["neighbours"])
        if self._ghosts.n_requests:
            buffers = ("send", "receive", "send_buffer", "receive_buffer")
            arrays |= {name: getattr(self._ghosts, name) for name in buffers}
        self._kept = arrays  # the struct holds pointers only
        self.scheme = self._struct(arrays)
        self.velocity: Floats | None = None
        self.rate = 0.0

    def assemble(self, v: Floats) -> float:
        """Set B to B(v), v (n_nodes, dim) with ghosts. Collective.

        Returns:
            The largest rate r over all cells: time steps up to 1/r are stable and keep cell means positive, given
            densities that are positive at the limiter's points. Not finite if v is not.

        The mean of a polynomial of degree p on a simplex is (1 − b) times the mean of its facets' means plus b times
        its value in the centroid, b = 0 for p = 1 and 2/(dim + 2) for p = 2: exact with positive weights, so the mean
        outweighs what flows out of a facet point in an Euler step Δt/c (see ``SSPScheme``) for
        Δt/c |F|/|K| ½(s + |s|_δ) ≤ (1 − b)/(dim + 1). The argument is that of Zhang, Xia & Shu (2012),
        doi:10.1007/s10915-011-9472-8, with a cheaper decomposition.
        """
        return float(self.density_space.comm.allreduce(self.set_velocity(v), MPI.MAX))

    def set_velocity(self, v: Floats) -> float:
        """``assemble``, with the rate over this rank's cells only; not collective."""
        self.velocity = np.ascontiguousarray(v)  # v itself where it can be: steppers of layers compare identities
        rate = self.kernels.assemble(self.scheme, pointer(self.velocity))
        self.rate = float(np.inf if np.isnan(rate) else rate)  # a maximum over ranks may lose a NaN
        return self.rate

    def apply(self, rho: Floats) -> Floats:
        """Bρ on owned cells, ghost rows zero; ρ (n_cells, nd, columns) with ghosts up to date."""
        result = self.layout.zeros()
        self.kernels.apply(self.scheme, pointer(self.layout.pack(rho)), pointer(result))
        return self.layout.unpack(result)

    def apply_transpose(self, lam: Floats) -> Floats:
        """Bᵀλ on owned cells, ghost rows zero; λ (n_cells, nd, columns) with ghosts up to date."""
        result, zero = self.layout.zeros(), self.layout.zeros()
        by_out, by_volume, _ = self.accumulator()
        packed = self.layout.pack_derivative(lam)
        self.kernels.apply_vjp(
            self.scheme, pointer(packed), pointer(zero), pointer(result), pointer(by_out), pointer(by_volume)
        )
        return self.layout.unpack_derivative(result)

    def count_zeros(self, on: bool) -> None:
        """Whether adjoint steps carry the derivative through cells that are zero, and small means stay as they are.

        Off, as it is at first, what is next to nothing counts as nothing, and nothing depends on it.
        """
        self.scheme.empty, self.scheme.through_zeros = EMPTY if on else self.empty, on

    def accumulator(self) -> Accumulated:
        """Zero derivatives by what ``assemble`` computes, for ``contract``."""
        layout, dim, element = self.layout, self.density_space.dim, self.layout.element
        shapes = (dim + 1, element.n_points, layout.sums), (self._n_volume, layout.sums)
        by_out, by_volume = (aligned((layout.n_batches, *shape)) for shape in shapes)
        return by_out, by_volume, aligned((self.n_walls, element.n_points))

    def contract(self, accumulated: Accumulated) -> Floats:
        """This rank's contribution (n_nodes, dim) to the derivative by v, for derivatives that were summed up."""
        assert self.velocity is not None, "assemble comes first"
        gradient = np.zeros_like(self.velocity)
        self.kernels.contract(self.scheme, pointer(self.velocity), *map(pointer, accumulated), pointer(gradient))
        return gradient

    def velocity_gradient(self, lam: Floats, rho: Floats) -> Floats:
        """This rank's contribution (n_nodes, dim) to d/dv ⟨λ, B(v)ρ⟩; ranks add up to the gradient.

        λ and ρ are (n_cells, nd, columns) with ghosts up to date.
        """
        sums, layout = self.accumulator(), self.layout
        arrays = layout.pack_derivative(lam), layout.pack(rho), layout.zeros(), *sums[:2]
        self.kernels.apply_vjp(self.scheme, *map(pointer, arrays))
        return self.contract(sums)

    @property
    def exponent(self) -> int:
        """m; 1 for densities themselves."""
        return 1 if self.power is None else self.power.exponent

    @cached_property
    def n_walls(self) -> int:
        """Facets of this rank's cells at the domain's boundary."""
        return int(np.count_nonzero(self.density_space.geometry.neighbours[: self.density_space.n_owned] < 0))

    @property
    def exchanges(self) -> int:
        """Ghost exchanges that the compiled loops have started so far."""
        return int(self.scheme.exchanges)

    # -- inner workings ----------------------------------------------------------------------------------------------

    @property
    def _n_volume(self) -> int:
        """Numbers per cell of the volume term and of the source."""
        element = self.layout.element
        return element.dim * element.n_volume + (len(element.source_tables["SOURCE"]) if self.power else 0)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything that ``scheme_t`` points to, by its names; facets and directions in the order of the vertices."""
        space, layout, geometry = self.density_space, self.layout, self.density_space.geometry
        n, order, element = space.n_owned, space.geometry.vertex_order[: space.n_owned], self.layout.element
        batches = layout.n_batches + 1  # the loops read eight numbers where fewer are needed
        inverse = geometry.inverse_jacobian[:n]
        # The vertices' global order picks the reference directions among them.
        gradients = barycentric_gradients(inverse)
        places = element.places(order, element.velocity_nodes)
        # Normals are zero at the boundary, so nothing flows through it and the loops need no branch.
        inner = np.take_along_axis(geometry.neighbours[:n], order, axis=1) >= 0
        outward = np.take_along_axis(geometry.facet_normals[:n], order[:, :, None], axis=1)
        normals = inner[:, :, None] * outward
        cells, facets = np.nonzero(~inner)
        begin, around, at_ghosts = layout.around()
        at_walls = np.zeros(layout.n_batches, dtype=np.uint8)
        at_walls[cells // layout.cells] = 1
        return {
            "neighbours": layout.across(),
            "cell_nodes": in_blocks(np.take_along_axis(self.velocity_space.cell_nodes[:n], places, axis=1)),
            "inverse": in_blocks(np.take_along_axis(gradients, order[:, 1:, None], axis=1)),
            "normals": in_blocks(normals),
            "sizes": in_blocks(np.linalg.norm(normals, axis=2)),
            "det": in_blocks(geometry.det[:n]),
            "in": aligned((batches, space.dim + 1, element.n_points, layout.cells)),
            "out": aligned((batches, space.dim + 1, element.n_points, layout.cells)),
            "volume": aligned((batches, self._n_volume, layout.cells)),
            "wall_cells": cells.astype(np.int32),
            "wall_facets": facets.astype(np.int32),
            "wall_normals": np.ascontiguousarray(outward[cells, facets]),
            "at_walls": at_walls,
            "at_ghosts": at_ghosts,
            "around_begin": begin,
            "around": around,
            "start_flags": np.zeros((layout.n_batches, layout.groups), dtype=np.uint8),
            "forcing": aligned(layout.owned_shape),
            "gain": aligned((len(cells), element.n_points)),
            **({} if self.power is None else {"summed": np.ascontiguousarray(self.power.summed, dtype=np.uint8)}),
        }

    def _struct(self, arrays: dict[str, np.ndarray]) -> Any:
        space, ghosts = self.density_space, self._ghosts
        scheme = ffi.new("scheme_t *")
        for name, array in arrays.items():
            setattr(scheme, name, pointer(array))
        scheme.n_owned, scheme.n_batches = space.n_owned, self.layout.n_batches
        scheme.size = int(np.prod(self.layout.shape))
        scheme.delta, scheme.empty = self.delta, self.empty
        scheme.stability, scheme.coefficient = self.method.stability, self.method.coefficient
        scheme.n_walls, scheme.n_columns = self.n_walls, self.columns
        if self.power is not None:
            source = self.power.density
            scheme.n_sources, scheme.source_size = source.columns, int(np.prod(source.shape))
            scheme.source_width, scheme.source_groups = source.width, source.groups
        scheme.n_requests = ghosts.n_requests
        if ghosts.n_requests:
            scheme.n_send, scheme.n_receive = len(ghosts.send), len(ghosts.receive)
            scheme.requests, scheme.statuses = ffi.from_buffer(ghosts.requests), ffi.from_buffer(ghosts.statuses)
            # By address: C is compiled without the headers of whichever MPI this is.
            start, wait = mpi_functions()
            scheme.start_all = ffi.cast("int (*)(int, void *)", start)
            scheme.wait_all = ffi.cast("int (*)(int, void *, void *)", wait)
        return scheme


def _load(space: DensitySpace, layout: NodalLayout, power: int) -> Any:
    """The compiled loops of a space. Collective."""
    tables = layout.element.tables(space.limiter_points, SSPScheme.of(space.dim, space.degree))
    source = layout.element.source_tables if power > 1 else {}
    # Sizes are known to the compiler, which unrolls the short loops over them.
    return _LIBRARY.load(
        space.comm,
        tables | source,
        DIM=space.dim,
        DEGREE=space.degree,
        POWER=power,
        GROUPS=layout.groups,
        WIDTH=layout.width,
        ND=space.nd,
        NN=tables["VOLUME"].shape[1],
        FN=tables["FACET_NODES"].shape[1],
        FV=tables["VELOCITY_FACET_NODES"].shape[1],
        NQ=len(tables["WEIGHTS"]),
        NV=len(tables["VOLUME"]),
        NL=len(tables["LIMITER"]),
        STAGES=len(tables["ALPHA"]),
        **({"NS": len(source["SOURCE"]), "ND_DIV": len(source["DIVERGENCE"])} if source else {}),
    )


def flux_smoothing(density_space: DensitySpace, horizon: float, fraction: float) -> float:
    """δ as a fraction of the speed that crosses the domain's largest extent once per horizon. Collective.

    It must be well below the speeds of interest (it acts like a diffusion of relative size δ/|v| in the upwind jump)
    and well above rounding: at v = 0 every facet sits at the minimum of |s|_δ, whose curvature is 1/δ.
    """
    low, high = density_space.bounding_box
    return fraction * float((high - low).max()) / horizon
