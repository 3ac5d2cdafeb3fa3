"""Densities carried by the velocity −∇φ/λ of a potential, in the scheme that the optimal ones satisfy exactly."""

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from eulerian.base.arrays import Floats
from eulerian.ideal.poisson import GatheredMesh
from eulerian.ideal.space_time import SpaceTime

_TOLERANCE = 1e-11
_ROUGH = 1e-6  # what is added up backwards improves a potential, and need not be exact
_LARGEST_LOSS = 0.1  # share of negative mass beyond which the potential is of no use yet


class Advection:
    """At every instant (M − C)ρ₊ = (M + C)ρ₋, C_ij = τ/2 Σ_K |K|/(d+1) v_K·∇φ_i: the continuity equation for m = ρv.

    M is the mass matrix (``GatheredMesh.blur``).

    The optimality conditions of the convex problem contain this equation. It is implicit and central: it keeps the
    mass, works where ρ is tiny, and can give negative values, which are cut off.

    Args:
        grid: the space-time.
        gathered: its mesh on every rank.
        kinetic: λ.
    """

    def __init__(self, grid: SpaceTime, gathered: GatheredMesh, kinetic: float) -> None:
        self._grid, self._gathered, self._kinetic = grid, gathered, kinetic

    def carry(self, potential: Floats, source: Floats, target: Floats | None) -> tuple[Floats, Floats] | None:
        """Densities on the slabs and at T for a potential (n_nodes, L + 1), or None if they are of no use. Collective.

        Args:
            potential: φ.
            source: ∫φ_i dρ_0 (n_nodes,).
            target: ∫φ_i dρ_T where it is fixed: then the flows forward from ρ_0 and backward from ρ_T are blended.

        Returns:
            (n_nodes, L) and (n_nodes,), not negative, of the source's mass.
        """
        grid = self._grid
        phi, begin = grid.gather_vertices(potential), grid.gather_vertices(source)
        operators = [self._operator(phi[:, instant]) for instant in range(grid.layers + 1)]
        slabs = self._slabs(operators, begin)
        if slabs is None:
            return None
        # From the middle of the last slab to T it is half a step.
        end = (self._gathered.blur @ slabs[:, -1] + operators[-1] @ slabs[:, -1]) / self._gathered.masses
        if target is not None:
            goal = grid.gather_vertices(target)
            # Carried forward only, errors would pile up at T, where the density is prescribed.
            back = self._slabs([-operator for operator in reversed(operators)], goal)
            if back is None:
                return None
            share = (np.arange(grid.layers) + 0.5) / grid.layers
            slabs, end = (1.0 - share) * slabs + share * back[:, ::-1], goal / self._gathered.masses
        mass = float(begin.sum())
        return self._cut(slabs, mass)[grid.numbers], self._cut(end[:, None], mass)[grid.numbers, 0]

    def gather_backwards(self, potential: Floats, rate: Floats) -> Floats | None:
        """What a rate adds up to from t to T along the paths of a potential's velocity, or None. Collective.

        It is the adjoint of ``carry``, and the derivative of −∂_tφ + |∇φ|²/(2λ), where it has the rate, is that of φ.

        Args:
            potential: φ, (n_nodes, L + 1).
            rate: at the vertices and on the slabs, (n_nodes, L).

        Returns:
            (n_nodes, L + 1), 0 at T.
        """
        grid, masses, blur = self._grid, self._gathered.masses, self._gathered.blur
        phi, rates = grid.gather_vertices(potential), grid.gather_vertices(rate)
        sums = np.zeros_like(phi)
        after = self._operator(phi[:, -1]).T.tocsr()
        for slab in reversed(range(grid.layers)):
            before = self._operator(phi[:, slab]).T.tocsr()
            right = grid.tau * masses * rates[:, slab] + blur @ sums[:, slab + 1] + after @ sums[:, slab + 1]
            found = self._solve(blur - before, right, _ROUGH)
            if found is None:
                return None
            sums[:, slab], after = found, before
        return sums[grid.numbers]

    def _operator(self, phi: Floats) -> sparse.csr_array:
        """C at one instant."""
        gathered, corners = self._gathered, self._grid.dim + 1
        slope = np.einsum("cid,ci->cd", gathered.gradients, phi[gathered.cells])
        flow = np.einsum("cid,cd->ci", gathered.gradients, slope)
        # v = −∇φ/λ, and the vertices of a cell share its volume.
        weight = -0.5 * self._grid.tau / (corners * self._kinetic) * gathered.volumes
        elements = np.repeat((weight[:, None] * flow)[:, :, None], corners, axis=2)
        return gathered.pattern.assemble(elements)

    def _slabs(self, operators: list[sparse.csr_array], begin: Floats) -> Floats | None:
        """Densities step by step, (N, L); None if they are of no use."""
        blur, slabs = self._gathered.blur, np.empty((len(begin), len(operators) - 1))
        right = begin
        for slab, operator in enumerate(operators[:-1]):
            if slab > 0:
                right = blur @ slabs[:, slab - 1] + operator @ slabs[:, slab - 1]
            found = self._solve(blur - operator, right, _TOLERANCE)
            if found is None:
                return None
            slabs[:, slab] = found
        # The central scheme may go negative a little; a lot says that the potential is far off.
        negative = -float(np.min(self._gathered.masses @ np.minimum(slabs, 0.0)))
        return slabs if negative < _LARGEST_LOSS * begin.sum() else None

    def _cut(self, rho: Floats, mass: float) -> Floats:
        """Without negative values, of the given mass."""
        positive = np.maximum(rho, 0.0)
        return positive * (mass / (self._gathered.masses @ positive))

    def _solve(self, matrix: sparse.csr_array, right: Floats, tolerance: float) -> Floats | None:
        """By GMRES, which needs few iterations for short slabs, else, or on a line, by a factorisation."""
        scale = 1.0 / matrix.diagonal()  # Jacobi's preconditioner
        if not np.all(np.isfinite(scale)):
            return None
        found, failure = right, 1
        if self._grid.dim > 1:
            preconditioner = sparse.diags_array(scale)
            found, failure = linalg.gmres(matrix, right, rtol=tolerance, restart=40, maxiter=3, M=preconditioner)
        if failure:
            try:
                found = linalg.splu(matrix.tocsc()).solve(right)
            except RuntimeError:  # singular
                return None
        return np.asarray(found) if np.all(np.isfinite(found)) else None
