"""One label of the convex problem: what the splitting method has found, made feasible."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.ideal.advection import Advection
from eulerian.ideal.continuity import FeasibleFlow, MomentumProblem
from eulerian.ideal.functionals import Functional
from eulerian.ideal.last_step import LastStep
from eulerian.ideal.space_time import SpaceTime
from eulerian.ideal.splitting import Check, Parts, Splitting

_CARRIED = (0.5, 0.1, 0.0, 1.0)  # shares of the carried density that are tried for a certificate
_LOWERINGS = 2  # steps of Newton's method: the second leaves rounding


class LabelSolution:
    """The flow of one label on its way to a certificate.

    Args:
        splitting: the method that finds it.
        last_step: finds the best final density, for a linear loss.

    Attributes:
        done: it has converged, certified.
        check: of the last step that was looked at.
        certify_from: iteration before which no other certificate is tried.
        flow: feasible, or None until it is certified.
    """

    def __init__(self, splitting: Splitting, last_step: LastStep | None) -> None:
        self.splitting, self._last_step = splitting, last_step
        self.done = False
        self.check = Check({}, -np.inf, np.inf, np.inf)
        self.certify_from = 0
        self.flow: FeasibleFlow | None = None
        self._potential: Floats | None = None
        self.source, self.mass = splitting.source, splitting.mass

    @cached_property
    def stay(self) -> Parts:
        """What it costs if nothing moves, where that is allowed. Collective."""
        grid = self.splitting.grid
        rho = self.source / grid.masses
        return self.splitting.price(np.repeat(rho[:, None], grid.layers, axis=1), rho)

    def potential(self) -> Floats:
        """The feasible one of the certificate, (n_nodes, L + 1)."""
        assert self._potential is not None
        return self._potential

    @property
    def parts(self) -> Parts:
        """Costs by name: certified, or an estimate until then."""
        return self.check.parts if self.flow is None else self.flow.parts

    def lower(self, advection: Advection) -> None:
        """Make the last potential feasible, and a better bound than with one constant per slab. Collective.

        That constant is the worst violation anywhere, and costs it times all mass. Carried along the paths a violation
        costs only what passes there: next to nothing where the worst ones are, in places without mass.
        """
        splitting = self.splitting
        phi = splitting.end_capped()
        self._potential, dual = splitting.feasible_potential(phi)
        for _ in range(_LOWERINGS):
            fall = advection.gather_backwards(phi, splitting.violation(phi))
            if fall is None:
                break
            phi = phi - fall
            feasible, value = splitting.feasible_potential(phi)
            if value > dual:
                self._potential, dual = feasible, value
        self.check = replace(self.check, dual=dual)

    def certify(self, momenta: MomentumProblem, advection: Advection, enough: Callable[[], bool]) -> None:
        """Make the last flow feasible; of some ways to do so take the first one that is good enough, or the best.

        The method's own densities are poor where there is next to nothing, those carried by its velocity are not; but
        these have mass where it does not belong, which some terminal functionals make dear. Collective.
        """
        splitting = self.splitting
        density, final = splitting.density, splitting.final_density()
        fixed = None if splitting.functional.fixed is None else final * splitting.grid.masses
        carried = advection.carry(splitting.phi, splitting.source, fixed)
        self.flow = None
        # Without a carried density there is nothing to blend.
        for share in _CARRIED if carried is not None else (0.0,):
            slabs, end = density, final
            if carried is not None:
                slabs, end = (1.0 - share) * density + share * carried[0], (1.0 - share) * final + share * carried[1]
            flow = momenta.cheapest(slabs, splitting.source, end, splitting.mass, splitting.price, self._last_step)
            if self.flow is None or flow.cost < self.flow.cost:
                self.flow = flow
            if enough():
                break


class IdleLabel:
    """A label of which a part of the domain holds nothing: there is nothing to be moved and nothing to be found.

    Args:
        grid: of the part.
        functional: F.
        source: ∫φ_i dρ_0, (n_nodes,), next to nothing.
        label: y.

    Attributes:
        check: primal and dual are F(0).
        flow: of no mass.
    """

    done = True
    mass = 0.0

    def __init__(self, grid: SpaceTime, functional: Functional, source: Floats, label: int) -> None:
        """Collective."""
        self.source, self._shape = np.zeros_like(source), (grid.n_nodes, grid.layers)
        cost = functional.at_vertices(grid, label, self.source).value(self.source)
        self.parts: Parts = {"terminal": cost}
        self.check = Check(self.parts, cost, 0.0, 0.0)
        self.flow = FeasibleFlow(self.parts, np.zeros(self._shape), np.zeros(grid.n_nodes))

    def potential(self) -> Floats:
        """0."""
        return np.zeros((self._shape[0], self._shape[1] + 1))
