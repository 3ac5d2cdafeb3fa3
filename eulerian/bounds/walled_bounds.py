"""A lower bound for distances from a target density in planar domains with walls: the convex solver's potential at T.

Any function φ_T bounds the value of the continuous problem by ∫φ^c dμ_0 − F*(φ_T), with
φ^c(x) = min_z {φ_T(z) + α/2 d(x, z)²} and the lengths d of shortest paths in the domain: the formula of Hopf and Lax
with walls. Nothing is improved here: the potential is the solver's, smoothed between the vertices.
"""

from typing import final

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.bounds.bracket import ContinuousBounds
from eulerian.bounds.hopf_lax import hopf_lax
from eulerian.ideal.final_costs import domain_rules
from eulerian.ideal.flow import ConvexFlow
from eulerian.ideal.functionals import LinearFunctional
from eulerian.ideal.poisson import GatheredMesh
from eulerian.ideal.problem import IdealProblem
from eulerian.mesh.cell_walk import CellWalk

_SQUARES = 128  # along each axis
_TOLERANCE = 1e-3  # of the quadrature of φ^c


def walled_bounds(problem: IdealProblem, flow: ConvexFlow) -> ContinuousBounds:
    """The bound of a convex solution's potential. **Collective**.

    Args:
        problem: in the plane, with a target and without running costs of the density.
        flow: its convex solution.

    Raises:
        InputError: the domain is no polygon.
    """
    potential = _FinalPotential(flow)
    exact = hopf_lax(problem.with_functional(LinearFunctional(potential)), _TOLERANCE)
    paid, error = 0.0, exact.error
    for label, mass in enumerate(problem.initial.mass):
        if mass > 0.0:
            fine, coarse = (_conjugate(problem, potential, label, mass, which) for which in range(2))
            paid, error = paid + fine, error + abs(fine - coarse)
    lower = exact.value - paid
    return ContinuousBounds(lower, np.inf, error, "transform", True, abs(lower))


def _conjugate(problem: IdealProblem, potential: "_FinalPotential", label: int, mass: float, which: int) -> float:
    """F* of a label by the fine rule (0) or the coarse one (1). Collective."""
    target = problem.functional.exact
    assert target is not None
    rule = domain_rules(problem.space, problem.initial, target, label, np.inf)[which]
    return problem.functional.on_domain(rule, label, mass).conjugate(potential(rule.x)[:, label]).value


@final
class _FinalPotential:
    """φ_T between the vertices: on each cell the quadratic with the values and the slopes' differences at its corners.

    It is continuous, and φ_T itself where that is quadratic. Making one is collective, asking it is not.
    """

    def __init__(self, flow: ConvexFlow) -> None:
        grid = flow.grid
        final = flow.potential[:, -1]
        self._x = grid.gather_vertices(grid.x)
        self._walk = CellWalk(self._x, GatheredMesh(grid).cells)
        # A cell near every square of a grid, where walks to points in it begin.
        self._low, high = self._x.min(axis=0), self._x.max(axis=0)
        self._width = (high - self._low) / _SQUARES
        middles = np.indices((_SQUARES,) * grid.dim).reshape(grid.dim, -1).T + 0.5
        self._near = self._walk.enter(self._low + self._width * middles)[1]
        # Constants cancel; without them less is lost to rounding.
        values = grid.gather_vertices(final)
        self._values = values - values.min(axis=0)
        self._slopes = grid.gather_vertices(grid.vertex_gradients(final))

    def __call__(self, x: Floats) -> Floats:
        """φ_T (n, K) at points x (n, dim) of the domain."""
        if not len(x):
            return np.zeros((0, self._values.shape[1]))
        squares = np.clip(((x - self._low) / self._width).astype(np.int64), 0, _SQUARES - 1)
        start = self._near[np.ravel_multi_index(tuple(squares.T), (_SQUARES,) * x.shape[1])]
        _, cells, weights = self._walk.move(x, start)
        corners = self._walk.cells[cells]
        result = np.einsum("ni,nik->nk", weights, self._values[corners])
        for i in range(corners.shape[1]):
            for j in range(i):
                along = self._x[corners[:, j]] - self._x[corners[:, i]]
                bend = self._slopes[corners[:, j]] - self._slopes[corners[:, i]]
                share = 0.5 * weights[:, i] * weights[:, j]
                result -= share[:, None] * np.einsum("ndk,nd->nk", bend, along)
        return np.asarray(result)
