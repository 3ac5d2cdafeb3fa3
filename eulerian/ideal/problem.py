"""The idealised problem, and what its solvers tell on their way. Quick to load: the solvers stand on SciPy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eulerian.base.arrays import Floats
from eulerian.control.statistics import mesh_sizes
from eulerian.density.space import DensitySpace
from eulerian.objective import parts

if TYPE_CHECKING:
    from eulerian.ideal.functionals import Functional
    from eulerian.ideal.running_cost import RunningCost

PARTS = tuple(part.name for part in parts.PARTS if part.of_any_flow)

LABEL_BY_LABEL = (
    "congestion and entropy are counted label by label: a lower bound, in general not attained, of their cost for the "
    "density of all labels together"
)


@dataclass(frozen=True)
class IdealProblem:
    """min F(ρ_T) + λ/2 ∫∫|v|²ρ + ∫∫g(x, ρ) over all velocities, one per label, summed over the labels.

    Congestion and entropy of the density of all labels together cost at least the sum of what they cost label by label,
    because g is convex and vanishes at 0: then the value is a lower bound, in general not attained.

    Attributes:
        space: of ρ.
        rho: (n_cells, nd, K) initial density.
        functional: F.
        kinetic: λ > 0.
        horizon: T > 0.
        layers: L, time slabs.
        running: g, None for 0.
    """

    space: DensitySpace
    rho: Floats
    functional: "Functional"
    kinetic: float
    horizon: float
    layers: int
    running: "RunningCost | None" = None

    @property
    def has_statistics(self) -> bool:
        """Whether there is an evaluation at a θ: never."""
        return False

    def describe(self) -> dict[str, Any]:
        """Its sizes, by the keys of ``result.json``. **Collective**."""
        return {"mesh": mesh_sizes(self.space), "time": {"layers": self.layers, "horizon": self.horizon}}

    @property
    def couples_labels(self) -> bool:
        """Whether the labels one by one cost less than all together."""
        return self.space.n_labels > 1 and self.running is not None and self.running.couples_labels


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
