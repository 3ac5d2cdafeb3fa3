"""Costs at ends of layers along characteristics: of the points where they are at that time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from eulerian.analysis.point_transport import Stop
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.words import percent
from eulerian.control.control import ControlProblem
from eulerian.control.end_costs import EndCost
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import DensityRule, density_rules

# A squared distance is what is left of much larger integrals: its rules have this tolerance (see ``density_rules``).
FINER = 3e-3


@final
@dataclass(frozen=True)
class TrueEnd:
    """A cost where layers end, of the flow itself.

    Attributes:
        cost: its functional, and what it counts.
        name: of its sums over points, without the weight.
        constant: what no point of ρ₀ carries: ½∫ρ*² of a squared distance.
    """

    cost: EndCost
    name: str
    constant: float

    @property
    def of_density(self) -> bool:
        """Whether it depends on the density's values."""
        return self.cost.functional.loss is None and self.cost.functional.form is None

    def uncarried(self, readout: Floats) -> float:
        """What no point carries, with the readout (r,) of all costs. **Collective**."""
        return self.constant + self.cost.functional.without_mass(readout[self.cost.readout])

    def local(
        self,
        stop: Stop,
        rule: DensityRule,
        labels: Sequence[int],
        readout: Floats,
        others: tuple[Sequence[int], Floats],
    ) -> tuple[float, float, float] | None:
        """This rank's share of it, that of mass at walls, and the sizes of what adds up to the latter.

        None where the density is wanted, and not known, and where all points are wanted together; nothing at walls of
        a loss, which is what it is there too.

        Args:
            stop: the points at that time.
            rule: of the labels whose points they are.
            labels: these.
            readout: (r,) of all costs.
            others: the other labels, and their densities at the points, (n, m), where the functional asks for them.
        """
        functional = self.cost.functional
        if functional.loss is not None:
            losses = functional.loss.value(stop.x, readout[self.cost.readout])[:, labels]
            return float(np.vdot(rule.weights, losses)), 0.0, 0.0
        together = functional.form is not None or functional.sensors is not None or functional.obstacle
        if together or stop.log_change is None:
            return None
        log_density = np.log(rule.density) + stop.log_change[:, None]
        if functional.of_all_labels:
            own, log_density = log_density, np.empty((len(stop.x), len(labels) + len(others[0])))
            log_density[:, labels], log_density[:, others[0]] = own, np.log(others[1])
        distance = functional.density_cost(log_density, functional.exact, stop.x, labels, readout[self.cost.readout])
        assert distance is not None
        # Points without weight count for nothing, whatever is there.
        by_point = np.where(rule.weights > 0.0, rule.weights * distance, 0.0).sum(axis=1)
        at_walls = by_point[stop.touched]
        return float(by_point.sum()), float(at_walls.sum()), float(np.abs(at_walls).sum())


def true_ends(problem: ControlProblem) -> tuple[TrueEnd, ...]:
    """Those of a problem, the terminal cost first. **Collective**."""
    return tuple(
        TrueEnd(cost, f"end {index}", _target_square(problem.density_space, cost))
        for index, cost in enumerate(problem.ends.costs)
    )


def _target_square(space: DensitySpace, cost: EndCost) -> float:
    """½∫ρ*² of a squared distance, else 0. Collective."""
    if not cost.functional.cancelling or cost.functional.exact is None:
        return 0.0
    rule, _ = density_rules(space, cost.functional.exact, range(space.n_labels), FINER)
    return float(parallel.sum_all(space.comm, np.array([0.5 * np.vdot(rule.weights, rule.density)]))[0])


@final
@dataclass(frozen=True)
class TimeCost:
    """A cost at a given time, of the flow itself.

    Attributes:
        time: t.
        weight: with which it is a part of J; 0 where it is none.
        value: of the cost without its weight; NaN where it is not known.
        error: of the value, absolute.
        density_l1: (K,) ‖ρ_h(t) − ρ(t)‖_{L¹} of the mesh's density over the mass of each label; None where the points
            have no density.
    """

    time: float
    weight: float
    value: float
    error: float
    density_l1: Floats | None

    @property
    def document(self) -> dict[str, Any]:
        """An entry of ``verified.at`` in ``result.json``."""
        return {
            "time": self.time,
            "weight": self.weight,
            "value": self.value,
            "error": self.error,
            "density_l1": self.density_l1,
        }

    @property
    def statement(self) -> str:
        """In a sentence."""
        known = f"{self.value:.6g} ± {self.error:.0e}" if math.isfinite(self.value) else "not known"
        part = f"weight {self.weight:g}" if self.weight > 0.0 else "held out: no part of J"
        resolved = "" if self.density_l1 is None else f"; ρ is off by {percent(max(self.density_l1))} in L¹"
        return f"The cost at t = {self.time:.6g} is {known} for the network itself ({part}){resolved}."
