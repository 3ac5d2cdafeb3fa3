"""Points that a flow carries through a domain with walls, with the density and the costs along their paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.analysis.walls import Walls
from eulerian.base.arrays import Floats
from eulerian.objective.continuous import FunctionDensity
from eulerian.particles.right_hand_side import LOG_DENSITY, Motion, RightHandSide
from eulerian.particles.runge_kutta import RK4, step

_BLOCK = 2**16  # points at a time


@final
@dataclass(frozen=True)
class Node:
    """Points at a time on their way: x (n, dim), and −∫ div v dt up to there, (n,)."""

    x: Floats
    log_change: Floats


@final
@dataclass(frozen=True)
class Carried:
    """Where points have come to at T, and what they have gathered on the way.

    Attributes:
        x: (n, dim) at T, inside the domain.
        costs: (n,) time integrals by name, as ``RightHandSide`` has them.
        log_change: (n,) −∫₀ᵀ div v dt: log ρ(T, X) = log ρ₀(x) + log_change; None without a Jacobian.
        log_integral: (n,) ∫₀ᵀ of what log_change is at t, or None.
        ratio_integral: (n,) ∫₀ᵀ ρ(t, X)/ρ₀(x) dt, or None.
        touched: (n,) who has ever been held up by a wall.
        nodes: the points at the ends of all half layers, with ``keep_nodes``.
    """

    x: Floats
    costs: dict[str, Floats]
    log_change: Floats | None
    log_integral: Floats | None
    ratio_integral: Floats | None
    touched: NDArray[np.bool_]
    nodes: tuple[Node, ...] = ()


def carry_points(
    rates: RightHandSide,
    theta: Floats,
    x: Floats,
    label: int | None,
    horizon: float,
    steps: int,
    walls: Walls,
    *,
    keep_nodes: bool = False,
) -> Carried:
    """Carry points by the classical Runge–Kutta method, and back to the closest point of the domain after each step.

    The limit of the scheme on the mesh, whose boundary lets nothing through, is this projected flow. Nothing is
    collective.

    Args:
        rates: the velocity and what is integrated along the paths.
        theta: (L, p).
        x: (n, dim) at t = 0, in the domain.
        label: of the points; None where the field does not ask.
        horizon: T.
        steps: in every layer, an even number: integrals of the density are by Simpson's rule on pairs of steps.
        walls: of the domain.
        keep_nodes: keep the points at the ends of all half layers.
    """
    if len(x) > _BLOCK and not keep_nodes:
        blocks = [x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK)]
        return _joined([carry_points(rates, theta, block, label, horizon, steps, walls) for block in blocks])
    dim, h = rates.dim, horizon / (len(theta) * steps)
    y = np.concatenate([x, np.zeros((len(x), len(rates.names)))], axis=1)
    tracked, touched = walls.track(x), np.zeros(len(x), dtype=bool)
    integrals = _Simpson(len(x), h) if rates.log_density else None
    nodes = [Node(x, np.zeros(len(x)))]
    with np.errstate(all="ignore"):  # a far-off θ shows in numbers that are not finite
        for layer, row in enumerate(theta):
            motion = Motion(rates, layer, row, label)
            for count in range(1, steps + 1):
                y = step(RK4, motion, y, h, dim)
                y[:, :dim], held = tracked.projected(np.ascontiguousarray(y[:, :dim]))
                touched |= held
                if integrals is not None:
                    integrals.add(y[:, -1])
                if keep_nodes and count % (steps // 2) == 0:
                    nodes.append(Node(y[:, :dim].copy(), y[:, -1].copy()))
    columns = dict(zip(rates.names, y.T[dim:], strict=True))
    change = columns.pop(LOG_DENSITY, None)
    if integrals is None:
        return Carried(y[:, :dim].copy(), columns, change, None, None, touched)
    return Carried(y[:, :dim].copy(), columns, change, integrals.logarithm, integrals.ratio, touched, tuple(nodes))


@final
@dataclass(frozen=True)
class Pulled:
    """Where points of T come from.

    Attributes:
        x: (n, dim) at t = 0.
        log_change: (n,) −∫₀ᵀ div v dt on their way.
        inside: (n,) who came from the domain: what comes out of a wall carries nothing.
    """

    x: Floats
    log_change: Floats
    inside: NDArray[np.bool_]

    def densities(self, initial: FunctionDensity) -> Floats:
        """Those of all labels (n, K) at T, where the points belong to them, of the initial ones."""
        with np.errstate(all="ignore"):
            found = initial.values(self.x) * np.exp(self.log_change)[:, None]
        # What a far-off velocity has sent to infinity comes from nowhere, and has no density.
        return np.where(self.inside[:, None] & np.isfinite(found), found, 0.0)


def pull_points(
    rates: RightHandSide, theta: Floats, x: Floats, label: int | None, horizon: float, steps: int, walls: Walls
) -> Pulled:
    """Pull points x (n, dim) of T, in the domain, back to t = 0; arguments as for ``carry_points``. Not collective."""
    bare = RightHandSide(rates.field, rates.dim, log_density=True)
    dim, h = bare.dim, horizon / (len(theta) * steps)
    y, inside = np.concatenate([x, np.zeros((len(x), 1))], axis=1), np.ones(len(x), dtype=bool)
    tracked = walls.track(x)
    with np.errstate(all="ignore"):
        for layer in reversed(range(len(theta))):
            motion = Motion(bare, layer, theta[layer], label, -1.0)
            for _ in range(steps):
                y = step(RK4, motion, y, h, dim)
                y[:, :dim], left = tracked.projected(np.ascontiguousarray(y[:, :dim]))
                inside &= ~left
    return Pulled(np.ascontiguousarray(y[:, :dim]), -y[:, dim], inside)


def _joined(parts: Sequence[Carried]) -> Carried:
    """Blocks of points, one behind another."""

    def rows(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    costs = {name: np.concatenate([part.costs[name] for part in parts]) for name in parts[0].costs}
    names = ("log_change", "log_integral", "ratio_integral", "touched")
    return Carried(rows("x"), costs, *map(rows, names))


@final
class _Simpson:
    """∫L dt and ∫exp(L) dt from the values of L = −∫div v at the ends of the steps, of which L(0) = 0 is the first."""

    def __init__(self, n: int, h: float) -> None:
        self.h, self.count = h, 0
        self.last = np.zeros((2, n)) + np.array([[0.0], [1.0]])
        self.middle = self.last
        self.logarithm, self.ratio = np.zeros(n), np.zeros(n)

    def add(self, change: Floats) -> None:
        """One more step has ended."""
        values = np.stack([change, np.exp(change)])
        self.count += 1
        if self.count % 2:
            self.middle = values
            return
        logarithm, ratio = (self.h / 3.0) * (self.last + 4.0 * self.middle + values)
        self.logarithm, self.ratio = self.logarithm + logarithm, self.ratio + ratio
        self.last = values
