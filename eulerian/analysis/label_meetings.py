"""Labels that move by velocities of their own: the density of the others where the points of one of them are.

Costs of the total density need it. A point of label a at time t is pulled back through the flow of label b to t = 0,
where ρ_b is given: ρ_b(t, x) = ρ_{0,b}(x₀) exp(−∫ div v_b dt). What comes out of a wall carries nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mpi4py import MPI

import numpy as np

from eulerian.analysis.point_transport import Node
from eulerian.analysis.walls import Walls
from eulerian.base.arrays import Floats
from eulerian.base.parallel import agreed
from eulerian.density.weighted_rule import DensityRule
from eulerian.objective.continuous import FunctionDensity
from eulerian.particles.right_hand_side import Motion, RightHandSide
from eulerian.particles.runge_kutta import RK4, step

_LEAST = 1e-6  # weight of points that are pulled back: lighter ones add next to nothing
_MARGIN = 0.02  # of its size, about the box that a label's points fill: points are no support


@final
@dataclass(frozen=True)
class LabelPath:
    """One label's points on their way.

    Attributes:
        label: theirs.
        rule: with weights and densities (n, 1) at t = 0.
        nodes: where they are at the ends of all half layers, 2L + 1 of them.
    """

    label: int
    rule: DensityRule
    nodes: Sequence[Node]


@final
@dataclass(frozen=True)
class Meetings:
    """This rank's share of what a label's points see of the others.

    Attributes:
        density: Σ_i w_i ∫ρ_others(t, X_i) dt.
        logarithm: Σ_i w_i ∫log(1 + ρ_others/ρ_own) dt.
    """

    density: float
    logarithm: float


def meetings(
    rates: RightHandSide,
    theta: Floats,
    horizon: float,
    walls: Walls,
    initial: FunctionDensity,
    paths: Sequence[LabelPath],
    comm: MPI.Comm,
) -> list[Meetings]:
    """What the points of each label see of the others. **Collective**.

    Args:
        rates: of the flow, whose field depends on the label.
        theta: (L, p).
        horizon: T.
        walls: of the domain.
        initial: ρ₀.
        paths: of all labels.
        comm: who shares the points.
    """
    bare = RightHandSide(rates.field, rates.dim, log_density=True)
    boxes = [_boxes(path, comm) for path in paths]
    found = []
    with agreed(comm, "the field"), np.errstate(all="ignore"):
        weights = _simpson(2 * len(theta) + 1, horizon)
        for path in paths:
            own = np.log(path.rule.density[:, 0])
            others = [np.zeros(len(own)) for _ in path.nodes]
            for other, box in zip(paths, boxes, strict=True):
                if other.label != path.label:
                    _add_density(bare, theta, horizon, walls, initial, path, other.label, box, others)
            mass, density, logarithm = path.rule.weights[:, 0], 0.0, 0.0
            for weight, node, values in zip(weights, path.nodes, others, strict=True):
                density += weight * float(mass @ values)
                logarithm += weight * float(mass @ np.log1p(values / np.exp(own + node.log_change)))
            found.append(Meetings(density, logarithm))
    return found


def _boxes(path: LabelPath, comm: MPI.Comm) -> Floats:
    """The box (nodes, 2, dim) that a label fills at each node, over all ranks. Collective."""
    low = np.array([node.x.min(axis=0, initial=np.inf) for node in path.nodes])
    high = np.array([node.x.max(axis=0, initial=-np.inf) for node in path.nodes])
    comm.Allreduce(MPI.IN_PLACE, low, MPI.MIN)
    comm.Allreduce(MPI.IN_PLACE, high, MPI.MAX)
    margin = _MARGIN * (high - low)
    return np.stack([low - margin, high + margin], axis=1)


def _add_density(
    rates: RightHandSide,
    theta: Floats,
    horizon: float,
    walls: Walls,
    initial: FunctionDensity,
    path: LabelPath,
    label: int,
    boxes: Floats,
    others: list[Floats],
) -> None:
    """Add the density of a label at the points of another one, node by node, in place.

    All nodes are pulled back together, each from its own time on: from the last half layer to the first.
    """
    dim, h = rates.dim, horizon / (2 * len(theta))
    y, origin = np.empty((0, rates.width)), []
    alive = np.empty(0, dtype=bool)
    tracked = walls.track(y[:, :dim])
    for number in reversed(range(len(path.nodes))):
        x = path.nodes[number].x
        near = np.all((x >= boxes[number, 0]) & (x <= boxes[number, 1]), axis=1)
        rows = np.flatnonzero(near & (path.rule.weights[:, 0] > _LEAST))
        origin.append((number, rows))
        y = np.concatenate([y, np.concatenate([x[rows], np.zeros((len(rows), 1))], axis=1)])
        alive = np.concatenate([alive, np.ones(len(rows), dtype=bool)])
        tracked = tracked.joined(x[rows])
        if number == 0 or not len(y):
            continue
        y = step(RK4, Motion(rates, (number - 1) // 2, theta[(number - 1) // 2], label, -1.0), y, h, dim)
        y[:, :dim], left = tracked.projected(np.ascontiguousarray(y[:, :dim]))
        alive &= ~left
    values = np.where(alive, initial.values(y[:, :dim])[:, label] * np.exp(-y[:, dim]), 0.0)
    start = 0
    for number, rows in origin:
        # What a far-off velocity has sent to infinity comes from nowhere, and has no density.
        others[number][rows] += np.nan_to_num(values[start : start + len(rows)], posinf=0.0)
        start += len(rows)


def _simpson(n: int, horizon: float) -> Floats:
    """Weights (n,) of Simpson's rule in every layer, whose middle is a node; n is odd."""
    weights = np.zeros(n)
    for start in range(0, n - 2, 2):
        weights[start : start + 3] += np.array([1.0, 4.0, 1.0]) / 6.0
    return np.asarray(weights * (2.0 * horizon / (n - 1)))
