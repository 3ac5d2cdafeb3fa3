"""Verification by characteristics: the true J of a flow part by part, and how far the mesh's density is from the true.

The quadrature points of the exact ρ₀ are pushed through the network's own flow with the density along their paths.
Every part of J is a sum over them, and for equal masses so is the distance of the mesh's density ρ_h to the true one,
‖ρ_h(T) − ρ(T)‖_{L¹} = 2 Σ_i w_i (1 − ρ_h(T, X_i)/ρ(T, X_i))⁺: no mesh at T is needed, and no filament is missed.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, final

from eulerian import parallel
from eulerian.analysis.label_meetings import LabelPath, meetings
from eulerian.analysis.point_transport import Carried, carry_points
from eulerian.arrays import Floats
from eulerian.control import ControlProblem
from eulerian.errors import RejectedEvaluation
from eulerian.fields.free import Free
from eulerian.fields.layered import LayeredField
from eulerian.objective.continuous import ContinuousData
from eulerian.objective.losses import COORDINATES
from eulerian.objective.terminal import KullbackLeiblerLoss, SquaredDistanceLoss
from eulerian.particles.rates import FormulaPotential, Rates
from eulerian.reduced import PARTS
from eulerian.space.density_rule import DensityRule, density_rules
from eulerian.space.nodal_field import NodalField
from eulerian.space.point_values import PointValues
from eulerian.space.walls import Walls, walls_of
from eulerian.space.whole import WholeDensity

# isort: split
import numpy as np
from numpy.typing import ArrayLike

STEPS = 4
"""Runge–Kutta steps in every layer."""

# Shares of the mass that has touched a wall, where it has no density: above the first one functionals of the density's
# values are those of the rest of the mass, above the second one they have no value at all.
FEW_TOUCHED, MOST_TOUCHED = 1e-3, 0.05

DENSITY, OBJECTIVE, NATS = 0.05, 0.01, 0.005
"""Up to which errors a run counts as resolved: of ρ(T) in L¹, of J relative to its parts, of J with a logarithm."""


@final
@dataclass(frozen=True)
class Verification:
    """What a flow is worth by itself, whatever a mesh says. Dimensionless; NaN for what is not known.

    Attributes:
        objective: J by part, "total" among them.
        mesh: J of the mesh, "total" among its parts.
        own_error: of the total, from a coarser rule with half as many steps: on the safe side; relative to |J|.
        density_l1: (K,) ‖ρ_h(T) − ρ(T)‖_{L¹} over the mass of each label, at most 2; None if not known.
        touched_mass: share of the mass that a wall has ever held up.
        seconds: what all this took.
        logarithmic: J has an entropy of ρ(T): its errors are told in nats, not relative to J.
        reason: why something is not known, in words; empty where all is.
    """

    objective: Mapping[str, float]
    mesh: Mapping[str, float]
    own_error: float
    density_l1: Floats | None
    touched_mass: float
    seconds: float
    logarithmic: bool = False
    reason: str = ""

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
        """Whether errors are within tolerances; None where the density's is not known and J's is no reason to deny it.

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
        }

    @property
    def statement(self) -> str:
        """J of the network beside that of the mesh, and how far ρ(T) is resolved, in a sentence or two."""
        total, mesh = self.objective["total"], self.mesh["total"]
        found = []
        if math.isfinite(total):
            apart = f"{mesh - total:+.2g} nats" if self.logarithmic else f"{100 * self.relative_error:+.2g} %"
            error = self.own_error * abs(total)
            found.append(f"J = {total:.6g} ± {error:.0e} for the network itself; the mesh said {mesh:.6g} ({apart}).")
        if self.density_l1 is not None:
            worst = int(np.argmax(self.density_l1))
            whose = "" if len(self.density_l1) == 1 else f" of label {worst}" if self.density_l1[worst] > 0.0 else ""
            found.append(f"ρ(T){whose} is resolved to {100 * self.density_l1[worst]:.2g} % in L¹.")
        if self.touched_mass > FEW_TOUCHED and not self.reason:
            found.append(f"{100 * self.touched_mass:.2g} % of the mass has touched a wall.")
        if self.reason:
            found.append(f"{self.reason[0].upper()}{self.reason[1:]}.")
        return " ".join(found)


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

    flow: "_Flow"
    carried: tuple[tuple[list[int], DensityRule, Carried], ...]
    fine: Mapping[str, float]
    coarse: Mapping[str, float]
    seconds: float

    @classmethod
    def of(cls, problem: ControlProblem, theta: ArrayLike, *, steps: int = STEPS) -> Self:
        """Carry the points of the exact ρ₀, placed by the problem's mesh; as for ``verify``. **Collective**."""
        started = time.perf_counter()
        flow = _Flow.of(problem, theta)
        fine, coarse = _Sums(), _Sums()
        found = []
        paths: list[LabelPath] = []
        for labels in problem.groups:
            rules = density_rules(problem.density_space, flow.data.initial, labels)
            for sums, rule, count in zip((fine, coarse), rules, (steps, steps // 2), strict=True):
                with parallel.agreed(problem.comm, "the field"):
                    carried = flow.carried(rule, labels, count, keep_nodes=sums is coarse and flow.labels_meet)
                    sums.add(flow.local_parts(rule, labels, carried))
                if sums is fine:
                    found.append((labels, rule, carried))
                if carried.nodes[1:]:
                    paths.append(LabelPath(labels[0], rule, carried.nodes))
        for name, value, doubt in flow.of_meetings(paths, problem.comm):
            fine.add({name: value, _UNCERTAIN: doubt})
            coarse.add({name: value})
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
        values = PointValues(problem.density_space)
        distance = np.zeros(problem.density_space.n_labels)
        for labels, rule, carried in self.carried:
            if carried.log_change is not None:
                found = values.values(problem.final_density, carried.x)[:, labels]
                distance[labels] = _missed(rule, carried, found)
        distance = parallel.sum_all(problem.comm, distance) / self.flow.data.initial.mass
        seconds = self.seconds + time.perf_counter() - started
        return self.flow.verification(problem, dict(self.fine), dict(self.coarse), distance, seconds)


def _missed(rule: DensityRule, carried: Carried, found: Floats) -> Floats:
    """2 Σ w (1 − ρ_h/ρ)⁺ (k,) over this rank's points, with ρ_h (n, k) there; what sticks to a wall is missed."""
    assert carried.log_change is not None
    with np.errstate(all="ignore"):
        density = rule.density * np.exp(carried.log_change)[:, None]
        share = np.maximum(1.0 - np.maximum(found, 0.0) / density, 0.0)
    share = np.where(np.isfinite(share), share, 1.0)
    return np.asarray(2.0 * np.sum(rule.weights * share, axis=0))


@final
@dataclass
class _Sums:
    """Sums over points of this rank, by name; the names are the same on all ranks."""

    values: dict[str, float] = field(default_factory=dict)

    def add(self, more: Mapping[str, float]) -> None:
        for name, value in more.items():
            self.values[name] = self.values.get(name, 0.0) + value

    def total(self, comm: Any) -> dict[str, float]:
        """Over all ranks. Collective."""
        return dict(
            zip(self.values, parallel.sum_all(comm, np.array(list(self.values.values()))).tolist(), strict=True)
        )


@final
@dataclass(frozen=True)
class _OnMesh:
    """A density of a mesh as a function, where nobody knows what it is a projection of."""

    whole: WholeDensity

    @property
    def mass(self) -> Floats:
        return self.whole.mass

    def values(self, x: Floats) -> Floats:
        return np.maximum(self.whole.values(x), 0.0)

    def log_values(self, x: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.values(x)))


_TOUCHED, _UNCERTAIN, _AT_WALLS = "touched", "uncertain", "at walls: "


@final
@dataclass(frozen=True)
class _Flow:
    """The flow of a problem at θ, and what J is made of along it.

    Attributes:
        data: the continuous problem's.
        rates: what is integrated along the paths.
        theta: (L, p).
        readout: (r,).
        horizon: T.
        walls: of the domain.
        terminal: the functional.
        floor: δ in log(ρ* + δ), as the mesh's relative entropy has it.
        target_square: ½∫ρ*², for the squared distance.
    """

    data: ContinuousData
    rates: Rates
    theta: Floats
    readout: Floats
    horizon: float
    walls: Walls
    terminal: Any
    floor: float
    target_square: float
    label_dependent: bool
    jacobian: float

    @classmethod
    def of(cls, problem: ControlProblem, theta: ArrayLike) -> "_Flow":
        """Collective."""
        space, layered, cost = problem.density_space, problem.layered, problem.costs.velocity
        if isinstance(layered.field, Free):
            between = NodalField.gather(problem.velocity_space, layered.field)
            layered = LayeredField(between, layered.times, label_dependent=layered.label_dependent)
        data = problem.continuous or _data_of_mesh(problem)
        has_jacobian = layered.has("jacobian")
        potential = None
        if data.potential is not None:
            potential = FormulaPotential(data.potential, COORDINATES[: space.dim])
        rates = Rates(
            layered,
            space.dim,
            cost.kinetic,
            cost.jacobian if has_jacobian else 0.0,
            potential,
            log_density=has_jacobian,
        )
        square = 0.0
        if isinstance(problem.terminal, SquaredDistanceLoss):
            assert data.target is not None
            rule, _ = density_rules(space, data.target, range(space.n_labels))
            local = np.array([0.5 * np.vdot(rule.weights, rule.density)])
            square = float(parallel.sum_all(space.comm, local)[0])
        return cls(
            data,
            rates,
            *problem.split(theta),
            problem.horizon,
            walls_of(space),
            problem.terminal,
            space.floor,
            square,
            layered.label_dependent,
            cost.jacobian,
        )

    @property
    def labels_meet(self) -> bool:
        """Whether costs of the total density need that of labels that have moved by themselves."""
        several = self.label_dependent and len(self.data.initial.mass) > 1
        return several and self.rates.log_density and bool(self.costs_of_density)

    @property
    def costs_of_density(self) -> tuple[str, ...]:
        """Names of the running costs of the total density."""
        return tuple(name for name in ("congestion", "entropy") if getattr(self.data, name) > 0.0)

    def carried(self, rule: DensityRule, labels: Sequence[int], steps: int, *, keep_nodes: bool = False) -> Carried:
        """The points of a rule at T."""
        label = labels[0] if self.label_dependent else None
        return carry_points(
            self.rates, self.theta, rule.x, label, self.horizon, steps, self.walls, keep_nodes=keep_nodes
        )

    def of_meetings(self, paths: Sequence[LabelPath], comm: Any) -> list[tuple[str, float, float]]:
        """Costs of the total density that labels add to one another: name, this rank's share, and doubt. Collective.

        Both points of a pair of labels see ∫∫ρ_aρ_b: what they disagree about is the error.
        """
        if not paths:
            return []
        met = meetings(self.rates, self.theta, self.horizon, self.walls, self.data.initial, paths, comm)
        weights = {"congestion": 0.5 * self.data.congestion, "entropy": self.data.entropy}
        seen = np.array([each.density for each in met])
        doubt = 0.0
        if len(met) == 2:
            both = parallel.sum_all(comm, seen)
            doubt = float(abs(both[0] - both[1])) * weights["congestion"] / comm.size
        logarithm = math.fsum(each.logarithm for each in met)
        values = {"congestion": weights["congestion"] * float(seen.sum()), "entropy": weights["entropy"] * logarithm}
        return [(name, values[name], doubt if name == "congestion" else 0.0) for name in self.costs_of_density]

    def local_parts(self, rule: DensityRule, labels: Sequence[int], carried: Carried) -> dict[str, float]:
        """This rank's share of J's parts for some labels, of the mass that has touched walls, and what is in doubt.

        What points at walls add to functionals of the density's values may be anything.
        """
        mass = rule.weights.sum(axis=1)
        parts = {"terminal": 0.0, **{name: float(mass @ cost) for name, cost in carried.costs.items()}}
        parts[_TOUCHED], parts[_UNCERTAIN] = float(mass @ carried.touched), 0.0
        if self.terminal.loss is not None:
            losses = self.terminal.loss.value(carried.x, self.readout)[:, labels]
            parts["terminal"] = float(np.vdot(rule.weights, losses))
        if carried.log_change is None:
            return parts
        for name, by_point in self._of_density(rule, labels, carried).items():
            parts[name] = float(by_point.sum())
            parts[_AT_WALLS + name] = float(by_point[carried.touched].sum())
            parts[_UNCERTAIN] += float(np.abs(by_point[carried.touched]).sum())
        return parts

    def _of_density(self, rule: DensityRule, labels: Sequence[int], carried: Carried) -> dict[str, Floats]:
        """Parts that depend on the density's values, point by point (n,)."""
        assert carried.log_change is not None
        assert carried.log_integral is not None
        assert carried.ratio_integral is not None
        found: dict[str, Floats] = {}
        with np.errstate(all="ignore"):
            log_density = np.log(rule.density) + carried.log_change[:, None]
            if isinstance(self.terminal, KullbackLeiblerLoss):
                found["terminal"] = _weighted(rule, log_density - self._log_target(carried.x)[:, labels])
            elif isinstance(self.terminal, SquaredDistanceLoss):
                assert self.data.target is not None
                target = self.data.target.values(carried.x)[:, labels]
                found["terminal"] = _weighted(rule, 0.5 * np.exp(log_density) - target)
            total, mass = rule.density.sum(axis=1), rule.weights.sum(axis=1)
            if self.data.congestion > 0.0:
                found["congestion"] = 0.5 * self.data.congestion * mass * total * carried.ratio_integral
            if self.data.entropy > 0.0:
                mean = self.horizon * np.log(total) + carried.log_integral
                found["entropy"] = self.data.entropy * np.where(mass > 0.0, mass * mean, 0.0)
        return found

    def _log_target(self, x: Floats) -> Floats:
        """Log of ρ* + δ, (n, K)."""
        assert self.data.target is not None
        return np.logaddexp(self.data.target.log_values(x), math.log(self.floor))

    def verification(
        self,
        problem: ControlProblem,
        fine: dict[str, float],
        coarse: dict[str, float],
        distance: Floats,
        seconds: float,
    ) -> Verification:
        """What the sums over all points tell."""
        mesh = problem.parts
        unknown, reasons = self._unknown(fine[_TOUCHED])
        for sums in (fine, coarse):
            sums["parameters"] = mesh["parameters"]
            if fine[_TOUCHED] > FEW_TOUCHED:
                for name in PARTS:
                    sums[name] = sums.get(name, 0.0) - sums.get(_AT_WALLS + name, 0.0)
            sums["terminal"] += self.target_square
        parts = {name: math.nan if name in unknown else fine.get(name, 0.0) for name in PARTS}
        total = math.fsum(parts.values())
        doubt = fine[_UNCERTAIN] if math.isfinite(total) else math.nan
        error = abs(total - math.fsum(coarse.get(name, 0.0) for name in PARTS)) + doubt
        return Verification(
            {"total": total, **parts},
            {"total": math.fsum(mesh.values()), **mesh},
            error / abs(total) if total else math.nan,
            distance if self.rates.log_density else None,
            fine[_TOUCHED],
            seconds,
            isinstance(self.terminal, KullbackLeiblerLoss),
            "; ".join(reasons),
        )

    def _unknown(self, touched: float) -> tuple[set[str], list[str]]:
        """Parts that have no value, and why."""
        of_density = {"terminal"} if self.terminal.loss is None else set()
        of_density |= set(self.costs_of_density)
        unknown: set[str] = set()
        reasons: list[str] = []
        if not self.rates.log_density:
            unknown |= of_density | ({"jacobian"} if self.jacobian > 0.0 else set())
            lost = ", ".join(["ρ(T)", *sorted(unknown)])
            why = "the field has no method jacobian, without which no density follows its points"
            reasons.append(f"what is not known: {lost}, because {why}")
        elif touched > FEW_TOUCHED and of_density:
            names, share = ", ".join(sorted(of_density)), f"{100 * touched:.2g} % of the mass"
            why = "what a wall holds up has no density"
            if touched > MOST_TOUCHED:
                unknown |= of_density
                reasons.append(f"what is not known: {names}, because {share} has touched a wall, and {why}")
            else:
                reasons.append(f"without the {share} that has touched a wall: {names}, because {why}")
        return unknown, reasons


def _weighted(rule: DensityRule, values: Floats) -> Floats:
    """Σ_k w·values (n,); points without weight count for nothing, whatever is there."""
    return np.asarray(np.where(rule.weights > 0.0, rule.weights * values, 0.0).sum(axis=1))


def _data_of_mesh(problem: ControlProblem) -> ContinuousData:
    """Collective."""
    space, target = problem.density_space, getattr(problem.terminal, "target", None)
    initial = _OnMesh(WholeDensity.gather(space, problem.initial_density))
    return ContinuousData(initial, None if target is None else _OnMesh(WholeDensity.gather(space, target)))
