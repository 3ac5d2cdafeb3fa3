"""The parts of J along characteristics: sums over points that the flow itself has carried."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.analysis.label_meetings import LabelPath, meetings
from eulerian.analysis.point_transport import Carried, carry_points, pull_points
from eulerian.analysis.walls import Walls, walls_of
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.control.control import ControlProblem
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import TOLERANCE, DensityRule, density_rules
from eulerian.objective.continuous import ContinuousData
from eulerian.objective.terminal import Terminal
from eulerian.particles.right_hand_side import RightHandSide
from eulerian.transport.nodal_interpolant import anywhere

# Shares of the mass that has touched a wall, where it has no density: above the first one functionals of the density's
# values are those of the rest of the mass, above the second one they have no value at all.
FEW_TOUCHED, MOST_TOUCHED = 1e-3, 0.05

# A squared distance is what is left of much larger integrals: its rules have this tolerance (see ``density_rules``).
_FINER = 3e-3

# What is summed up beside J's parts: mass that has touched walls, what its points add to functionals of the density's
# values in absolute terms, and, in front of a part's name, what they add to that part.
TOUCHED, UNCERTAIN, AT_WALLS = "touched", "uncertain", "at walls: "


@final
@dataclass
class PointSums:
    """Sums over points of this rank, by name; the names are the same on all ranks."""

    values: dict[str, float] = field(default_factory=dict)

    def add(self, more: Mapping[str, float]) -> None:
        """Add to some of the sums."""
        for name, value in more.items():
            self.values[name] = self.values.get(name, 0.0) + value

    def total(self, comm: Any) -> dict[str, float]:
        """Over all ranks. Collective."""
        return dict(
            zip(self.values, parallel.sum_all(comm, np.array(list(self.values.values()))).tolist(), strict=True)
        )


@final
@dataclass(frozen=True)
class CharacteristicCosts:
    """The flow of a problem at θ, and what J is made of along it.

    Attributes:
        data: the continuous problem's.
        rates: what is integrated along the paths.
        theta: (L, p).
        readout: (r,).
        horizon: T.
        walls: of the domain.
        terminal: the functional.
        target_square: ½∫ρ*², for the squared distance.
    """

    data: ContinuousData
    rates: RightHandSide
    theta: Floats
    readout: Floats
    horizon: float
    walls: Walls
    terminal: Terminal
    target_square: float
    label_dependent: bool
    of_gradient: tuple[str, ...]

    @classmethod
    def of(cls, problem: ControlProblem, theta: ArrayLike) -> "CharacteristicCosts":
        """Collective."""
        space, terms = problem.density_space, problem.costs.velocity_terms
        layered = anywhere(problem.layered, problem.velocity_space)
        data, has_jacobian = problem.continuous, layered.has("jacobian")
        of_gradient = tuple(term.name for term, _ in terms if term.of_gradient)
        known = tuple((term, weight) for term, weight in terms if has_jacobian or not term.of_gradient)
        rows, readout = problem.split(theta)
        potential = None if data.potential is None else data.potential.at(readout)
        rates = RightHandSide(layered, space.dim, known, potential, log_density=has_jacobian)
        square = 0.0
        if problem.terminal.cancelling and data.target is not None:
            rule, _ = density_rules(space, data.target, range(space.n_labels), _FINER)
            local = np.array([0.5 * np.vdot(rule.weights, rule.density)])
            square = float(parallel.sum_all(space.comm, local)[0])
        return cls(
            data,
            rates,
            rows,
            readout,
            problem.horizon,
            walls_of(space),
            problem.terminal,
            square,
            layered.label_dependent,
            of_gradient,
        )

    def rules(self, space: DensitySpace, labels: Sequence[int]) -> tuple[DensityRule, DensityRule]:
        """For integrals against ρ₀ of some labels, and a coarser one. Collective."""
        tolerance = _FINER if self.terminal.cancelling else TOLERANCE
        return density_rules(space, self.data.initial, labels, tolerance)

    @property
    def labels_meet(self) -> bool:
        """Whether costs of the total density need that of labels that have moved by themselves."""
        several = self.label_dependent and len(self.data.initial.mass) > 1
        return several and self.rates.log_density and bool(self.costs_of_density)

    @property
    def needs_density(self) -> bool:
        """Whether J needs the density along the paths, and so the field's Jacobian."""
        return self.terminal.loss is None or bool(self.costs_of_density)

    @property
    def without_density(self) -> Self:
        """The same where J has no use for the density, which then is not computed: that takes half of the time."""
        return self if self.needs_density else replace(self, rates=replace(self.rates, log_density=False))

    def at(self, theta: Floats, readout: Floats) -> Self:
        """The same for another θ (L, p) and readout (r,)."""
        given = self.data.potential
        rates = self.rates if given is None else replace(self.rates, potential=given.at(readout))
        return replace(self, theta=theta, readout=readout, rates=rates)

    @property
    def costs_of_density(self) -> tuple[str, ...]:
        """Names of the running costs of the total density."""
        return tuple(self.data.weights)

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
        given = self.data.weights
        weights = {"congestion": 0.5 * given.get("congestion", 0.0), "entropy": given.get("entropy", 0.0)}
        seen = np.array([each.density for each in met])
        doubt = 0.0
        if len(met) == 2:
            both = parallel.sum_all(comm, seen)
            # Shared out: it is the same on all ranks, and sums over them follow.
            doubt = float(abs(both[0] - both[1])) * weights["congestion"] / comm.size
        logarithm = math.fsum(each.logarithm for each in met)
        values = {"congestion": weights["congestion"] * float(seen.sum()), "entropy": weights["entropy"] * logarithm}
        return [(name, values[name], doubt if name == "congestion" else 0.0) for name in given if name in values]

    def local_parts(self, rule: DensityRule, labels: Sequence[int], carried: Carried, steps: int) -> dict[str, float]:
        """This rank's share of J's parts for some labels, of the mass that has touched walls, and what is in doubt.

        What points at walls add to functionals of the density's values may be anything.

        Args:
            rule: the points of these labels.
            labels: these.
            carried: the points at T.
            steps: in every layer.
        """
        mass = rule.weights.sum(axis=1)
        parts = {"terminal": 0.0, **{name: float(mass @ cost) for name, cost in carried.costs.items()}}
        parts[TOUCHED], parts[UNCERTAIN] = float(mass @ carried.touched), 0.0
        if self.terminal.loss is not None:
            losses = self.terminal.loss.value(carried.x, self.readout)[:, labels]
            parts["terminal"] = float(np.vdot(rule.weights, losses))
        if carried.log_change is None:
            return parts
        for name, by_point in self._of_density(rule, labels, carried, steps).items():
            parts[name] = float(by_point.sum())
            parts[AT_WALLS + name] = float(by_point[carried.touched].sum())
            parts[UNCERTAIN] += float(np.abs(by_point[carried.touched]).sum())
        return parts

    def of_sensors(self, steps: int, comm: Any) -> dict[str, float]:
        """This rank's share of a terminal cost of the densities at some points, which are pulled back. **Collective**.

        Args:
            steps: in every layer.
            comm: who shares the points.
        """
        points = self.terminal.sensors
        if points is None or not self.rates.log_density:
            return {}
        with parallel.agreed(comm, "the field"):
            mine = np.array_split(np.arange(len(points)), comm.size)[comm.rank]
            found = self._densities(np.ascontiguousarray(points[mine]), steps)
        values = np.concatenate(comm.allgather(found))
        with parallel.agreed(comm):
            # Shared out: it is the same on all ranks, and sums over them follow.
            return {"terminal": self.terminal.of_sensors(values, self.readout) / comm.size}

    def uncarried(self) -> float:
        """What of the terminal cost no point of ρ₀ carries, the same on all ranks. **Collective**."""
        return self.target_square + self.terminal.without_mass(self.readout)

    def _densities(self, x: Floats, steps: int, labels: Sequence[int] | None = None) -> Floats:
        """ρ(T, x) of some labels, or of all, (n, k), at points x (n, dim)."""
        count = len(self.data.initial.mass)
        wanted = range(count) if labels is None else labels
        if not self.label_dependent:
            pulled = pull_points(self.rates, self.theta, x, None, self.horizon, steps, self.walls)
            return pulled.densities(self.data.initial)[:, wanted]
        found = np.zeros((len(x), len(wanted)))
        for column, label in enumerate(wanted):
            pulled = pull_points(self.rates, self.theta, x, label, self.horizon, steps, self.walls)
            found[:, column] = pulled.densities(self.data.initial)[:, label]
        return found

    def _log_densities(self, rule: DensityRule, labels: Sequence[int], carried: Carried, steps: int) -> Floats:
        """Of all labels (n, K) at the points of some of them at T."""
        assert carried.log_change is not None
        own = np.log(rule.density) + carried.log_change[:, None]
        others = [label for label in range(len(self.data.initial.mass)) if label not in labels]
        if not others:
            return own
        found = np.empty((len(own), len(labels) + len(others)))
        found[:, labels] = own
        found[:, others] = np.log(self._densities(carried.x, steps, others))
        return found

    def _of_density(self, rule: DensityRule, labels: Sequence[int], carried: Carried, steps: int) -> dict[str, Floats]:
        """Parts that depend on the density's values, point by point (n,)."""
        assert carried.log_change is not None
        assert carried.log_integral is not None
        assert carried.ratio_integral is not None
        found: dict[str, Floats] = {}
        with np.errstate(all="ignore"):
            terminal, target = self.terminal, self.data.target
            if terminal.of_all_labels:
                log_density = self._log_densities(rule, labels, carried, steps)
            else:
                log_density = np.log(rule.density) + carried.log_change[:, None]
            distance = terminal.density_cost(log_density, target, carried.x, labels, self.readout)
            if distance is not None:
                found["terminal"] = _weighted(rule, distance)
            total, mass = rule.density.sum(axis=1), rule.weights.sum(axis=1)
            weights = self.data.weights
            if "congestion" in weights:
                found["congestion"] = 0.5 * weights["congestion"] * mass * total * carried.ratio_integral
            if "entropy" in weights:
                mean = self.horizon * np.log(total) + carried.log_integral
                found["entropy"] = weights["entropy"] * np.where(mass > 0.0, mass * mean, 0.0)
        return found

    def unknown(self, touched: float) -> tuple[set[str], list[str]]:
        """Parts that have no value, and why."""
        of_density = {"terminal"} if self.terminal.loss is None else set()
        of_density |= set(self.costs_of_density)
        unknown = set(self.costs_of_density) - {"congestion", "entropy"}
        reasons = [f"what is not known: {name}, of which there is no formula along paths" for name in sorted(unknown)]
        if self.terminal.obstacle:
            unknown.add("terminal")
            reasons.append(f"what is not known: terminal, because {self.terminal.obstacle}")
        if not self.rates.log_density:
            unknown |= of_density | set(self.of_gradient)
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
