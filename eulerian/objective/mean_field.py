"""Functionals that are quadratic in the density, on a mesh."""

import numpy as np

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.density.density import Density
from eulerian.density.space import DensitySpace
from eulerian.objective.interactions import QuadraticForm, QuadraticFunctional
from eulerian.objective.terminal import Terminal, TerminalValue, exact_density, on_mesh


class QuadraticTerminal(Terminal):
    """½ (c − c*)ᵀ S (c − c*) of the numbers c_k = ∫f_k ρ, by the quadrature rule of terminal losses.

    That sees kernels as wide as a cell or wider; what a narrower one adds is anybody's guess.

    Args:
        space: the space of ρ.
        functional: as a user hands it to a problem.
        key: what it is called in messages.

    Attributes:
        functional: as given.
        form: the functional of points.

    Raises:
        InputError: a kernel is too narrow for the domain, or the target does not fit the space; the same on all ranks.
    """

    form: QuadraticForm

    def __init__(self, space: DensitySpace, functional: QuadraticFunctional, key: str = "terminal") -> None:
        """Collective."""
        self.functional = functional
        self._space, self._rule = space, space.quadrature(space.objective_degree)
        form = functional.within(*space.bounding_box, key)
        if functional.target is not None:
            density = Density.of(space, functional.target, key=f"{key}.target")
            self.target, self.exact = density.coefficients, exact_density(density)
            x, weights = density.rule(functional.resolution)
            with parallel.agreed(space.comm):
                own = form.at(x).sums(weights)
            form = form.with_target(parallel.sum_all(space.comm, own))
        self.form = form
        self._points = form.at(self._rule.points.reshape(-1, space.dim))

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        rule, space = self._rule, self._space
        values = np.einsum("qi,cik->cqk", rule.basis, rho[: space.n_owned], optimize=True)
        masses = (rule.weights[:, :, None] * values).reshape(-1, space.n_labels)
        c = parallel.sum_all(space.comm, self._points.sums(masses))
        potential = self._points.potential(self.form.dual(c)).reshape(*rule.weights.shape, -1)
        vector = np.einsum("cq,qi,cqk->cik", rule.weights, rule.basis, potential, optimize=True)
        # Labels that act together have one potential.
        by_label = np.broadcast_to(vector, (*vector.shape[:2], space.n_labels))
        return TerminalValue(self.form.value(c), by_label, readout)


@on_mesh.register
def _(
    cost: QuadraticFunctional, space: DensitySpace, initial_entropy: float | None = None, key: str = "terminal"
) -> Terminal:
    del initial_entropy
    return QuadraticTerminal(space, cost, key)
