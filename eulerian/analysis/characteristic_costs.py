"""The parts of J along characteristics: sums over points that the flow itself has carried."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.analysis.characteristic_crowds import Crowds, Seen
from eulerian.analysis.characteristic_ends import FINER, TimeCost, TrueEnd, true_ends
from eulerian.analysis.label_meetings import LabelPath, meetings
from eulerian.analysis.point_transport import Carried, carry_points, pull_points
from eulerian.analysis.walls import Walls, walls_of
from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.words import percent
from eulerian.control.control import ControlProblem
from eulerian.density.space import DensitySpace
from eulerian.density.weighted_rule import TOLERANCE, DensityRule, density_rules
from eulerian.objective.continuous import ContinuousData
from eulerian.objective.interactions import QuadraticForm
from eulerian.particles.right_hand_side import RightHandSide
from eulerian.transport.nodal_interpolant import anywhere

# Shares of the mass that has touched a wall, where it has no density: above the first one functionals of the density's
# values are those of the rest of the mass, above the second one they have no value at all.
FEW_TOUCHED, MOST_TOUCHED = 1e-3, 0.05

# What is summed up beside J's parts: mass that has touched walls, what its points add to functionals of the density's
# values in absolute terms, and, in front of a part's name, what they add to that part.
TOUCHED, UNCERTAIN, AT_WALLS = "touched", "uncertain", "at walls: "

# In front of the name of a cost where a layer ends: mass that has touched walls until then.
TOUCHED_BY = "touched by "


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
        ends: the costs where layers end, the terminal one first.
        label_dependent: every label has a velocity of its own.
        of_gradient: names of the costs of ∇v.
        together: running costs of the density as a whole, by part of J.
        unseen: parts of J of which nothing is known along paths.
    """

    data: ContinuousData
    rates: RightHandSide
    theta: Floats
    readout: Floats
    horizon: float
    walls: Walls
    ends: tuple[TrueEnd, ...]
    label_dependent: bool
    of_gradient: tuple[str, ...]
    together: Mapping[str, QuadraticForm]
    unseen: tuple[str, ...]

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
        return cls(
            data,
            rates,
            rows,
            readout,
            problem.horizon,
            walls_of(space),
            true_ends(problem),
            layered.label_dependent,
            of_gradient,
            {name: each.form for name, each in problem.running.functionals.items() if each.form is not None},
            tuple(name for name, each in problem.running.functionals.items() if each.form is None),
        )

    def rules(self, space: DensitySpace, labels: Sequence[int]) -> tuple[DensityRule, DensityRule]:
        """For integrals against ρ₀ of some labels, and a coarser one. Collective."""
        tolerance = FINER if any(end.cost.functional.cancelling for end in self.ends) else TOLERANCE
        return density_rules(space, self.data.initial, labels, tolerance)

    @property
    def labels_meet(self) -> bool:
        """Whether costs of the total density need that of labels that have moved by themselves."""
        several = self.label_dependent and len(self.data.initial.mass) > 1
        return several and self.rates.log_density and bool(self.costs_of_density)

    @property
    def needs_density(self) -> bool:
        """Whether J needs the density along the paths, and so the field's Jacobian."""
        return any(end.of_density for end in self.charged) or bool(self.costs_of_density)

    @property
    def charged(self) -> tuple[TrueEnd, ...]:
        """The costs where layers end that are parts of J."""
        return tuple(end for end in self.ends if end.cost.at.weight > 0.0)

    def constant(self) -> dict[str, float]:
        """What no point carries of J's parts, the same on all ranks. **Collective**."""
        found: dict[str, float] = {}
        for end in self.charged:
            more = end.cost.at.weight * end.uncarried(self.readout)
            found[end.cost.at.part] = found.get(end.cost.at.part, 0.0) + more
        return found

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

    def crowds(self, steps: int) -> Crowds:
        """Functionals of the density as a whole, for points that take so many steps in a layer."""
        ends = {
            end.name: (end.cost.at.layer, end.cost.functional.form)
            for end in self.ends
            if end.cost.functional.form is not None
        }
        return Crowds(ends, self.together, len(self.data.initial.mass), (self.horizon, len(self.theta), steps))

    def of_crowds(self, crowds: Crowds, comm: Any) -> dict[str, float]:
        """This rank's share of what they cost: parts of J, and costs where layers end by themselves. Collective."""
        # One rank tells what all ranks know.
        values = {name: value if comm.rank == 0 else 0.0 for name, value in crowds.values(comm).items()}
        parts = dict(values)
        for end in self.charged:
            if end.name in values:
                part = end.cost.at.part
                parts[part] = parts.get(part, 0.0) + end.cost.at.weight * values[end.name]
        return parts | {f"{AT_WALLS}{end.name}": 0.0 for end in self.ends if end.name in values}

    def carried(
        self,
        rule: DensityRule,
        labels: Sequence[int],
        steps: int,
        seen: Seen | None = None,
        *,
        keep_nodes: bool = False,
    ) -> Carried:
        """The points of a rule at T."""
        label = labels[0] if self.label_dependent else None
        stops = {end.cost.at.layer for end in self.ends} - {len(self.theta)}
        return carry_points(
            self.rates,
            self.theta,
            rule.x,
            label,
            self.horizon,
            steps,
            self.walls,
            stops=stops,
            keep_nodes=keep_nodes,
            seen=seen,
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

    def of_sensors(self, steps: int, comm: Any) -> dict[str, float]:
        """This rank's share of costs of the densities at some points, which are pulled back. **Collective**.

        Args:
            steps: in every layer.
            comm: who shares the points.
        """
        found: dict[str, float] = {}
        for end in self.ends:
            at, functional = end.cost.at, end.cost.functional
            if functional.sensors is None or not self.rates.log_density:
                continue
            with parallel.agreed(comm, "the field"):
                mine = np.array_split(functional.sensors, comm.size)[comm.rank]
                densities = self._densities(np.ascontiguousarray(mine), at.layer, steps, range(len(self.mass)))
            values = np.concatenate(comm.allgather(densities))
            with parallel.agreed(comm):
                value = functional.of_sensors(values, self.readout[end.cost.readout])
            # Shared out: it is the same on all ranks, and sums over them follow.
            found[end.name], found[AT_WALLS + end.name] = value / comm.size, 0.0
            if at.weight > 0.0:
                found[at.part] = found.get(at.part, 0.0) + at.weight * value / comm.size
        return found

    @property
    def mass(self) -> Floats:
        """Of the labels, (K,)."""
        return self.data.initial.mass

    def _densities(self, x: Floats, layer: int, steps: int, labels: Sequence[int]) -> Floats:
        """ρ of some labels (n, k) at points x (n, dim) where a number of layers has passed."""
        found = np.zeros((len(x), len(labels)))
        for column, label in enumerate(labels):
            if column == 0 or self.label_dependent:
                own = label if self.label_dependent else None
                pulled = pull_points(self.rates, self.theta, x, own, (self.horizon, layer, steps), self.walls)
                densities = pulled.densities(self.data.initial)
            found[:, column] = densities[:, label]
        return found

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
        self._add_ends(parts, rule, labels, carried, steps)
        if carried.log_change is None:
            return parts
        for name, by_point in self._of_density(rule, carried).items():
            parts[name] = float(by_point.sum())
            parts[AT_WALLS + name] = float(by_point[carried.touched].sum())
            parts[UNCERTAIN] += float(np.abs(by_point[carried.touched]).sum())
        return parts

    def _add_ends(
        self, parts: dict[str, float], rule: DensityRule, labels: Sequence[int], carried: Carried, steps: int
    ) -> None:
        """Add the costs where layers end, as parts of J and by themselves."""
        others = [label for label in range(len(self.mass)) if label not in labels]
        for end in self.ends:
            at, stop = end.cost.at, carried.after(end.cost.at.layer)
            with np.errstate(all="ignore"):
                theirs = np.zeros((len(stop.x), 0))
                if others and end.cost.functional.of_all_labels and self.rates.log_density:
                    theirs = self._densities(stop.x, at.layer, steps, others)
                found = end.local(stop, rule, labels, self.readout, (others, theirs))
            parts[TOUCHED_BY + end.name] = float(rule.weights.sum(axis=1) @ stop.touched)
            if found is None:
                continue
            value, at_walls, sizes = found
            parts[end.name], parts[AT_WALLS + end.name] = value, at_walls
            if at.weight > 0.0:
                for name, more in ((at.part, value), (AT_WALLS + at.part, at_walls), (UNCERTAIN, sizes)):
                    parts[name] = parts.get(name, 0.0) + at.weight * more

    def time_costs(
        self, fine: Mapping[str, float], coarse: Mapping[str, float], distances: Mapping[int, Floats]
    ) -> tuple[TimeCost, ...]:
        """What sums over all points tell of the costs at given times.

        Args:
            fine: over the points of a rule, by name.
            coarse: over those of a coarser one.
            distances: (K,) L¹ distances of the mesh's density, by the number of layers; of none where points have none.
        """

        def value(end: TrueEnd, sums: Mapping[str, float]) -> float:
            touched = sums[TOUCHED_BY + end.name]
            if end.name not in sums or (end.of_density and touched > MOST_TOUCHED):
                return math.nan
            return (
                end.uncarried(self.readout)
                + sums[end.name]
                - (sums[AT_WALLS + end.name] if touched > FEW_TOUCHED else 0.0)
            )

        layer_time, found = self.horizon / len(self.theta), []
        for end in self.ends[1:]:
            at, known = end.cost.at, value(end, fine)
            error = abs(known - value(end, coarse))
            found.append(TimeCost(at.layer * layer_time, at.weight, known, error, distances.get(at.layer)))
        return tuple(found)

    def _of_density(self, rule: DensityRule, carried: Carried) -> dict[str, Floats]:
        """Parts that depend on the density's values, point by point (n,)."""
        assert carried.log_change is not None
        assert carried.log_integral is not None
        assert carried.ratio_integral is not None
        found: dict[str, Floats] = {}
        with np.errstate(all="ignore"):
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
        of_density = {end.cost.at.part for end in self.charged if end.of_density} | set(self.costs_of_density)
        unknown = set(self.costs_of_density) - {"congestion", "entropy"} | set(self.unseen)
        lost: dict[str, list[str]] = {}  # what is not known, by the reason
        if unknown:
            lost["of which there is no formula along paths"] = sorted(unknown)
        for end in self.charged:
            if end.cost.functional.obstacle and end.cost.at.part not in unknown:
                unknown.add(end.cost.at.part)
                lost.setdefault(f"because {end.cost.functional.obstacle}", []).append(end.cost.at.part)
        reasons, known = [], sorted(of_density - unknown)
        if not self.rates.log_density:
            why = "the field has no method jacobian, without which no density follows its points"
            lost[f"because {why}"] = ["ρ(T)", *sorted({*known, *self.of_gradient} - unknown)]
            unknown |= of_density | set(self.of_gradient)
        elif touched > FEW_TOUCHED and known:
            share, why = f"{percent(touched)} of the mass", "what a wall holds up has no density"
            if touched > MOST_TOUCHED:
                unknown |= of_density
                lost[f"because {share} has touched a wall, and {why}"] = known
            else:
                reasons.append(f"without the {share} that has touched a wall: {', '.join(known)}, because {why}")
        if lost:
            each = [f"{', '.join(names)}, {why}" for why, names in lost.items()]
            reasons.insert(0, f"what is not known: {'; '.join(each)}")
        return unknown, reasons
