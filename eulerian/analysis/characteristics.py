"""Verification by characteristics: the true J of a flow part by part, and how far the mesh's density is from the true.

The quadrature points of the exact ρ₀ are pushed through the network's own flow with the density along their paths.
Every part of J is a sum over them, and for equal masses so is the distance of the mesh's density ρ_h to the true one,
‖ρ_h(T) − ρ(T)‖_{L¹} = 2 Σ_i w_i (1 − ρ_h(T, X_i)/ρ(T, X_i))⁺: no mesh at T is needed, and no filament is missed.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.analysis.characteristic_costs import (
    AT_WALLS,
    FEW_TOUCHED,
    MOST_TOUCHED,
    TOUCHED,
    UNCERTAIN,
    CharacteristicCosts,
    PointSums,
)
from eulerian.analysis.characteristic_ends import TimeCost
from eulerian.analysis.label_meetings import LabelPath
from eulerian.analysis.point_transport import Carried, Stop
from eulerian.analysis.tolerances import DENSITY, NATS, OBJECTIVE
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import EulerianError, RejectedEvaluation
from eulerian.base.words import percent
from eulerian.control.control import ControlProblem
from eulerian.density.point_values import PointValues
from eulerian.density.weighted_rule import DensityRule
from eulerian.objective.parts import part_names

STEPS = 4
"""Runge–Kutta steps in every layer."""


@final
@dataclass(frozen=True, repr=False)
class Verification:
    """J and ρ(T) of a flow itself, beside those of a mesh. Dimensionless; NaN for what has no value.

    Attributes:
        objective: J by part, "total" among them.
        mesh: J of the mesh, "total" among its parts.
        own_error: of the total, from a coarser rule with half as many steps: on the safe side; relative to |J|.
        density_l1: (K,) ‖ρ_h(T) − ρ(T)‖_{L¹} over the mass of each label, at most 2; None where points have none.
        touched_mass: share of the mass that a wall has ever held up.
        seconds: what all this took.
        logarithmic: J has an entropy of ρ(T): its errors are in nats, not relative to J.
        reason: why something has no value, in words; empty where all has one.
        at: the costs at given times, in their order.
    """

    objective: Mapping[str, float]
    mesh: Mapping[str, float]
    own_error: float
    density_l1: Floats | None
    touched_mass: float
    seconds: float
    logarithmic: bool = False
    reason: str = ""
    at: tuple[TimeCost, ...] = ()

    @property
    def relative_error(self) -> float:
        """J_h/J − 1."""
        total = self.objective["total"]
        return self.mesh["total"] / total - 1.0 if total else math.nan

    @property
    def error(self) -> float:
        """|J_h − J|, in nats where J has an entropy of ρ(T), else relative to the sum of the parts' absolute values."""
        size = math.fsum(abs(value) for name, value in self.objective.items() if name != "total")
        apart = abs(self.mesh["total"] - self.objective["total"])
        return apart if self.logarithmic else apart / size if size else apart

    def resolved(self, density: float = DENSITY, objective: float = OBJECTIVE, nats: float = NATS) -> bool | None:
        """Whether errors are within tolerances; None where J is, and the density has no value.

        Args:
            density: of ρ(T) in L¹, relative to the mass, for every label.
            objective: of J relative to its parts.
            nats: of J where it has an entropy of ρ(T), absolute.
        """
        if self.error > (nats if self.logarithmic else objective):
            return False
        if self.density_l1 is None:
            return None
        return bool(np.all(self.density_l1 <= density))

    def __repr__(self) -> str:
        return f"Verification({' '.join(self.statement.split())})"

    @property
    def wall_remark(self) -> str:
        """Why no mesh resolves the density of what walls hold up, in a sentence; empty where that is little."""
        if not self.touched_mass > MOST_TOUCHED:
            return ""
        share = f"{percent(self.touched_mass)} of the mass has touched a wall"
        return f"{share}, where mass piles up and a density has no limit: take a larger domain"

    @property
    def document(self) -> dict[str, Any]:
        """The key ``verified`` of ``result.json``."""
        return {
            "objective": dict(self.objective),
            "relative_error": self.relative_error,
            "own_error": self.own_error,
            "density_l1": self.density_l1,
            "touched_mass": self.touched_mass,
            "seconds": self.seconds,
            "reason": self.reason or None,
            "at": [each.document for each in self.at],
        }

    @property
    def statement(self) -> str:
        """J of the network beside that of the mesh, and how far ρ(T) is resolved, in a sentence or two."""
        total, mesh = self.objective["total"], self.mesh["total"]
        found = []
        if math.isfinite(total):
            apart = f"{mesh - total:+.2g} nats" if self.logarithmic else percent(self.relative_error, "+")
            error = self.own_error * abs(total)
            found.append(f"J = {total:.6g} ± {error:.0e} for the network itself; the mesh said {mesh:.6g} ({apart}).")
        if self.density_l1 is not None:
            worst = int(np.argmax(self.density_l1))
            whose = "" if len(self.density_l1) == 1 else f" of label {worst}" if self.density_l1[worst] > 0.0 else ""
            found.append(f"ρ(T){whose} is off by {percent(self.density_l1[worst])} in L¹.")
        if self.touched_mass > FEW_TOUCHED and not self.reason:
            found.append(f"{percent(self.touched_mass)} of the mass has touched a wall.")
        if self.reason:
            found.append(f"{self.reason[0].upper()}{self.reason[1:]}.")
        return "\n".join([" ".join(found), *(each.statement for each in self.at)])


def verify(problem: ControlProblem, theta: ArrayLike, *, steps: int = STEPS) -> Verification:
    """Verify J and ρ(T) at θ by the characteristics of the field itself. **Collective**.

    Parts that the field or the walls leave without a value are NaN, and ``reason`` says why: without the method
    ``jacobian`` a field has no density along its paths, and mass that sticks to a wall has none either.

    Args:
        problem: J on a mesh; afterwards its last evaluation is that at θ.
        theta: where.
        steps: Runge–Kutta steps in every layer, a multiple of 4.

    Raises:
        RejectedEvaluation: J cannot be evaluated at θ.
        ComputationError: the field fails where the mesh did not ask it.
    """
    return Characteristics.of(problem, theta, steps=steps).verify(problem, theta)


@final
@dataclass(frozen=True)
class Characteristics:
    """Points that the flow of one θ has carried, and J of that flow: what any mesh can be held against.

    Attributes:
        flow: of θ.
        carried: by group of labels: these, the rule whose points they are, and where they have come to.
        fine: sums over the points by part of J.
        coarse: the same of the coarser rule.
        seconds: what they took.
    """

    flow: CharacteristicCosts
    carried: tuple[tuple[list[int], DensityRule, Carried], ...]
    fine: Mapping[str, float]
    coarse: Mapping[str, float]
    seconds: float

    @classmethod
    def of(cls, problem: ControlProblem, theta: ArrayLike, *, steps: int = STEPS) -> Self:
        """Carry the points of the exact ρ₀, placed by the problem's mesh; as for ``verify``. **Collective**."""
        started = time.perf_counter()
        flow = CharacteristicCosts.of(problem, theta)
        fine, coarse = PointSums(), PointSums()
        found = []
        paths: list[LabelPath] = []
        counts = steps, steps // 2
        crowds = [flow.crowds(count) for count in counts]
        for labels in problem.groups:
            rules = flow.rules(problem.density_space, labels)
            for sums, rule, count, crowd in zip((fine, coarse), rules, counts, crowds, strict=True):
                with parallel.agreed(problem.comm, "the field"):
                    seen = crowd.watch(rule.weights, labels)
                    # Meetings by the coarser rule: each of its points is pulled back from every half layer.
                    carried = flow.carried(rule, labels, count, seen, keep_nodes=sums is coarse and flow.labels_meet)
                    sums.add(flow.local_parts(rule, labels, carried, count))
                if sums is fine:
                    found.append((labels, rule, carried))
                if carried.nodes[1:]:
                    paths.append(LabelPath(labels[0], rule, carried.nodes))
        for name, value, doubt in flow.of_meetings(paths, problem.comm):
            fine.add({name: value, UNCERTAIN: doubt})
            coarse.add({name: value})
        for sums, count, crowd in zip((fine, coarse), counts, crowds, strict=True):
            sums.add(flow.of_crowds(crowd, problem.comm))
            sums.add(flow.of_sensors(count, problem.comm))
        totals = fine.total(problem.comm), coarse.total(problem.comm)
        return cls(flow, tuple(found), totals[0], totals[1], time.perf_counter() - started)

    def verify(self, problem: ControlProblem, theta: ArrayLike) -> Verification:
        """Hold a problem on some mesh against them. **Collective**.

        Args:
            problem: of the same flow; afterwards its last evaluation is that at θ.
            theta: of the flow, in the problem's shape.

        Raises:
            RejectedEvaluation: J cannot be evaluated at θ there.
        """
        started = time.perf_counter()
        if not math.isfinite(problem.value(theta)):
            raise RejectedEvaluation(problem.rejection or "J cannot be evaluated at θ")
        layers = {end.cost.at.layer for end in self.flow.ends} if self.flow.rates.log_density else set()
        distances = {layer: self._distance(problem, layer) for layer in sorted(layers)}
        seconds = self.seconds + time.perf_counter() - started
        return _verification(problem, self.flow, dict(self.fine), dict(self.coarse), distances, seconds)

    def _distance(self, problem: ControlProblem, layer: int) -> Floats:
        """‖ρ_h − ρ‖_{L¹} (K,) where a number of layers has passed, relative to the masses. Collective."""
        values, density = PointValues(problem.density_space), problem.density_at(layer)
        distance = np.zeros(problem.density_space.n_labels)
        for labels, rule, carried in self.carried:
            stop = carried.after(layer)
            distance[labels] = _missed(rule, stop, values.values(density, stop.x)[:, labels])
        return parallel.sum_all(problem.comm, distance) / self.flow.data.initial.mass


def _missed(rule: DensityRule, stop: Stop, found: Floats) -> Floats:
    """2 Σ w (1 − ρ_h/ρ)⁺ (k,) over this rank's points, with ρ_h (n, k) there; what sticks to a wall is missed."""
    assert stop.log_change is not None
    with np.errstate(all="ignore"):
        density = rule.density * np.exp(stop.log_change)[:, None]
        share = np.maximum(1.0 - np.maximum(found, 0.0) / density, 0.0)
    share = np.where(np.isfinite(share), share, 1.0)  # ρ is infinite, or has underflowed, where mass sticks
    return np.asarray(2.0 * np.sum(rule.weights * share, axis=0))


def _verification(
    problem: ControlProblem,
    flow: CharacteristicCosts,
    fine: dict[str, float],
    coarse: dict[str, float],
    distances: dict[int, Floats],
    seconds: float,
) -> Verification:
    """What the sums over all points tell."""
    at = flow.time_costs(fine, coarse, distances)
    mesh, touched = problem.parts, fine[TOUCHED]
    unknown, reasons = flow.unknown(touched)
    constant = flow.constant()
    for sums in (fine, coarse):
        sums["parameters"] = mesh["parameters"]
        if touched > FEW_TOUCHED:
            for name in part_names():
                sums[name] = sums.get(name, 0.0) - sums.get(AT_WALLS + name, 0.0)
        for name, more in constant.items():
            sums[name] = sums.get(name, 0.0) + more
    parts = {name: math.nan if name in unknown else fine.get(name, 0.0) for name in part_names()}
    total = math.fsum(parts.values())
    doubt = fine[UNCERTAIN] if math.isfinite(total) else math.nan
    error = abs(total - math.fsum(coarse.get(name, 0.0) for name in part_names())) + doubt
    return Verification(
        {"total": total, **parts},
        {"total": math.fsum(mesh.values()), **mesh},
        error / abs(total) if total else math.nan,
        distances.get(problem.n_layers),
        touched,
        seconds,
        problem.ends.logarithmic,
        "; ".join(reasons),
        at,
    )


@final
class TrueObjective:
    """J of the flow itself at one θ after another, by the coarser rule alone: a quarter of the time of ``verify``.

    The points are the same at every θ, so that most of their error cancels where two values are compared.

    Args:
        problem: J on a mesh; it is not evaluated.

    Attributes:
        obstacle: why J has no value at any θ, in words; None where it may have one.
    """

    def __init__(self, problem: ControlProblem) -> None:
        """Collective."""
        self._problem = problem
        flow = CharacteristicCosts.of(problem, problem.initial_theta)
        unknown, reasons = flow.unknown(0.0)
        self.obstacle = "; ".join(reasons) if unknown else None
        self._flow = flow.without_density
        self._rules: list[DensityRule] = []

    def value(self, theta: ArrayLike) -> tuple[float, str]:
        """J at θ; or NaN, and why there is none, the same on all ranks. **Collective**.

        J is not known where the field fails, or where walls hold up mass whose density it depends on: what is left out
        at one θ is not what is left out at another.
        """
        flow = self._flow.at(*self._problem.split(theta))
        try:
            found = self._sums(flow)
        except EulerianError as error:
            return math.nan, str(error)
        if flow.needs_density and found[TOUCHED] > FEW_TOUCHED:
            return math.nan, f"{percent(found[TOUCHED])} of the mass has touched a wall, and has no density there"
        parts = math.fsum(found.get(name, 0.0) for name in part_names())
        return parts + math.fsum(flow.constant().values()) + self._problem.parameter_cost(theta), ""

    def _sums(self, flow: CharacteristicCosts) -> dict[str, float]:
        """What the points add up to. **Collective**.

        Raises:
            ComputationError: the field fails.
        """
        problem = self._problem
        if not self._rules:
            self._rules = [flow.rules(problem.density_space, labels)[1] for labels in problem.groups]
        sums, crowds = PointSums(), flow.crowds(STEPS // 2)
        paths: list[LabelPath] = []
        for labels, rule in zip(problem.groups, self._rules, strict=True):
            with parallel.agreed(problem.comm, "the field"):
                seen = crowds.watch(rule.weights, labels)
                carried = flow.carried(rule, labels, STEPS // 2, seen, keep_nodes=flow.labels_meet)
                sums.add(flow.local_parts(rule, labels, carried, STEPS // 2))
            if carried.nodes[1:]:
                paths.append(LabelPath(labels[0], rule, carried.nodes))
        for name, value, _ in flow.of_meetings(paths, problem.comm):
            sums.add({name: value})
        sums.add(flow.of_crowds(crowds, problem.comm))
        sums.add(flow.of_sensors(STEPS // 2, problem.comm))
        return sums.total(problem.comm)
