"""The idealised problem, what its solvers report on their way, and the paths that they find. Quick to load."""

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.control.statistics import mesh_sizes
from eulerian.density.density import Density
from eulerian.density.gathered import GatheredDensity
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import PointDensity
from eulerian.ideal.functionals import Functional, functional_of, projected_again
from eulerian.ideal.running_cost import Potential, RunningCost, running_cost
from eulerian.objective import parts
from eulerian.objective.interactions import InteractionEnergy

PARTS = tuple(part.name for part in parts.PARTS if part.of_any_flow)

LEAST_SLABS = 16  # the error in time wants more of them than a field of few layers has

LABEL_BY_LABEL = (
    "congestion and entropy are counted label by label: a lower bound, in general not attained, of their cost for the "
    "density of all labels together"
)


@final
class IdealProblem:
    """min F(ρ_T) + λ/2 ∫∫|v|²ρ + ∫∫g(x, ρ) over all velocities, one per label, summed over the labels.

    g = Vρ + γ/2 ρ² + σρ log ρ. Congestion and entropy of the density of all labels together cost at least the sum of
    what they cost label by label, because g is convex and vanishes at 0: then the value is a lower bound, in general
    not attained.

    For example, the best that any flow can do that moves a Gaussian density to a point (``hopf_lax`` has the exact
    value 0.565, ``solve_convex`` brackets that of the discrete problem)::

        import eulerian as eu

        space = eu.DensitySpace(eu.box_mesh([-3.0, -3.0], [3.0, 3.0], [32, 32]))
        rho0 = space.project(eu.Gaussian([-0.5, 0.3], std=0.5))
        problem = eu.IdealProblem(space, rho0, eu.QuadraticLoss([1.0, -0.5]), kinetic=0.5)
        exact = eu.hopf_lax(problem).value
        solution = eu.solve_convex(problem, gap_tolerance=1e-2)
        print(solution.dual, exact, solution.primal)

    Making one is **collective**.

    Args:
        space: of the densities.
        rho0: ρ_0, a density of the space, its coefficients (n_cells, nd, K), or whatever ``space.project`` takes.
        terminal: F: whatever ``functional_of`` takes.
        kinetic: λ ≥ 0.
        horizon: T > 0.
        slabs: L, time slabs of the convex solver.
        potential: V, a formula in x, y, z or a function of points (n, dim).
        congestion: γ ≥ 0.
        entropy: σ ≥ 0.
        interaction: refused where there is one.
        initial: what ρ_0 on the mesh stands for, where ``rho0`` does not know that itself.

    Attributes:
        space, kinetic, horizon, slabs: as given.
        density: ρ_0.
        rho0: (n_cells, nd, K) its coefficients.
        functional: F.
        running: g, or None for 0.

    Raises:
        InputError: a number is out of range; F does not fit the space; there is an interaction; the same on all ranks.
    """

    def __init__(
        self,
        space: DensitySpace,
        rho0: Any,
        terminal: Any,
        kinetic: float,
        horizon: float = 1.0,
        slabs: int = LEAST_SLABS,
        *,
        potential: Potential | None = None,
        congestion: float = 0.0,
        entropy: float = 0.0,
        interaction: Any = None,
        initial: PointDensity | None = None,
    ) -> None:
        if interaction is not None:
            raise InputError(InteractionEnergy.no_bound, key="interaction", value=interaction)
        _require_ranges(kinetic, horizon, slabs)
        self.space, self.kinetic, self.horizon, self.slabs = space, kinetic, horizon, slabs
        self.running: RunningCost | None = running_cost(space.dim, potential, congestion, entropy)
        self.density = _density(space, rho0)
        self.rho0, self._exact = self.density.coefficients, initial or self.density.exact
        self.functional: Functional = functional_of(terminal, space)

    @cached_property
    def initial(self) -> PointDensity:
        """ρ_0 itself where that is known, else the mesh's, at any points. **Collective** the first time."""
        return self._exact or GatheredDensity.gather(self.space, self.rho0)

    def on(self, space: DensitySpace) -> "IdealProblem":
        """The same problem with the densities of another space on the same domain. **Collective**.

        Raises:
            InputError: what a density on the mesh stands for is not known.
        """
        other = copy(self)
        other.space, other.density = space, projected_again(self._exact, space, "rho0")
        other.rho0 = other.density.coefficients
        other.functional = self.functional.on(space)
        return other

    def with_functional(self, functional: Functional) -> "IdealProblem":
        """The same problem with another F."""
        other = copy(self)
        other.functional = functional
        return other

    @property
    def has_statistics(self) -> bool:
        """Whether there is an evaluation at a θ: never."""
        return False

    def describe(self) -> dict[str, Any]:
        """Its sizes, by the keys of ``result.json``. **Collective**."""
        return {"mesh": mesh_sizes(self.space), "time": {"layers": self.slabs, "horizon": self.horizon}}

    @property
    def couples_labels(self) -> bool:
        """Whether the labels one by one cost less than all together."""
        return self.space.n_labels > 1 and self.running is not None and self.running.couples_labels


def _density(space: DensitySpace, rho0: Any) -> Density:
    """Collective."""
    if isinstance(rho0, np.ndarray) and rho0.ndim == 3:  # two axes are those of samples
        return Density(space, rho0)
    return space.project(rho0, key="rho0")


def _require_ranges(kinetic: float, horizon: float, slabs: int) -> None:
    if not (kinetic >= 0.0 and np.isfinite(kinetic)):
        raise InputError("must be a number ≥ 0", key="kinetic", value=kinetic)
    if not (horizon > 0.0 and np.isfinite(horizon)):
        raise InputError("must be a number > 0", key="horizon", value=horizon)
    if slabs < 1:
        raise InputError("must be at least 1", key="slabs", value=slabs)


@dataclass(frozen=True)
class GapRecord:
    """One line of the gap's history, summed over the labels.

    Attributes:
        iteration: of the splitting method.
        primal: cost of the iterate where that is ``feasible``, else an estimate, which may lie below ``dual``.
        dual: value of the feasible potential.
        gap: primal − dual; NaN where the primal value is an estimate.
        relative_gap: gap over the size of the value (see ``solve_convex``); likewise.
        residual: larger one of the relative primal and dual residuals, the largest over the labels.
        seconds: since the start.
        feasible: the continuity equation holds exactly, as in the last record; else up to ``residual``.
    """

    iteration: int
    primal: float
    dual: float
    gap: float
    relative_gap: float
    residual: float
    seconds: float
    feasible: bool = True


class PathBundle(NamedTuple):
    """Points on their way.

    Attributes:
        times: (n,).
        paths: (m, n, dim).
        labels: (m,) label of each path.
    """

    times: Floats
    paths: Floats
    labels: NDArray[np.int64]
