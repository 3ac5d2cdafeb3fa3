"""Points that a flow carries through a domain with walls, with the density and the costs along their paths."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
class Stop:
    """Points where a layer ends.

    Attributes:
        x: (n, dim), inside the domain.
        log_change: (n,) −∫ div v dt up to there; None without a Jacobian.
        touched: (n,) who has been held up by a wall until then.
    """

    x: Floats
    log_change: Floats | None
    touched: NDArray[np.bool_]


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
        stops: the points at ends of layers before T, by the number of layers.
        nodes: the points at the ends of all half layers, with ``keep_nodes``.
    """

    x: Floats
    costs: dict[str, Floats]
    log_change: Floats | None
    log_integral: Floats | None
    ratio_integral: Floats | None
    touched: NDArray[np.bool_]
    stops: Mapping[int, Stop] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    def after(self, layers: int) -> Stop:
        """The points where so many layers have passed: those at a stop, else those at T."""
        return self.stops.get(layers, Stop(self.x, self.log_change, self.touched))


def carry_points(
    rates: RightHandSide,
    theta: Floats,
    x: Floats,
    label: int | None,
    horizon: float,
    steps: int,
    walls: Walls,
    *,
    stops: Collection[int] = (),
    keep_nodes: bool = False,
    seen: Callable[[int, int, Floats], None] | None = None,
    first: int = 0,
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
        stops: keep the points where so many layers have passed, each less than L.
        keep_nodes: keep the points at the ends of all half layers.
        seen: is told at the start and after every step how many steps have passed, the number of the first point, and
            where the points are.
        first: that number.
    """
    if len(x) > _BLOCK and not keep_nodes:
        blocks = [(start, x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return _joined(
            [
                carry_points(rates, theta, block, label, horizon, steps, walls, stops=stops, seen=seen, first=start)
                for start, block in blocks
            ]
        )
    dim, h = rates.dim, horizon / (len(theta) * steps)
    y = np.concatenate([x, np.zeros((len(x), len(rates.names)))], axis=1)
    tracked, touched = walls.track(x), np.zeros(len(x), dtype=bool)
    integrals = _Simpson(len(x), h) if rates.log_density else None
    nodes, kept = [Node(x, np.zeros(len(x)))], dict[int, Stop]()
    if seen is not None:
        seen(0, first, x)
    with np.errstate(all="ignore"):  # a far-off θ shows in numbers that are not finite
        for layer, row in enumerate(theta):
            motion = Motion(rates, layer, row, label)
            for count in range(1, steps + 1):
                y = step(RK4, motion, y, h, dim)
                y[:, :dim], held = tracked.projected(np.ascontiguousarray(y[:, :dim]))
                touched |= held
                if integrals is not None:
                    integrals.add(y[:, -1])
                if seen is not None:
                    seen(layer * steps + count, first, y[:, :dim].copy())
                if keep_nodes and count % (steps // 2) == 0:
                    nodes.append(Node(y[:, :dim].copy(), y[:, -1].copy()))
            if layer + 1 in stops:
                change = y[:, -1].copy() if rates.log_density else None
                kept[layer + 1] = Stop(y[:, :dim].copy(), change, touched.copy())
    columns = dict(zip(rates.names, y.T[dim:], strict=True))
    change = columns.pop(LOG_DENSITY, None)
    if integrals is None:
        return Carried(y[:, :dim].copy(), columns, change, None, None, touched, kept)
    along = integrals.logarithm, integrals.ratio
    return Carried(y[:, :dim].copy(), columns, change, *along, touched, kept, tuple(nodes))


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
    rates: RightHandSide, theta: Floats, x: Floats, label: int | None, time: tuple[float, int, int], walls: Walls
) -> Pulled:
    """Pull points back to t = 0. Not collective.

    Args:
        rates: the velocity.
        theta: (L, p).
        x: (n, dim) in the domain.
        label: of the points; None where the field does not ask.
        time: T, how many layers have passed, and the steps in every layer.
        walls: of the domain.
    """
    horizon, layers, steps = time
    bare = RightHandSide(rates.field, rates.dim, log_density=True)
    dim, h = bare.dim, horizon / (len(theta) * steps)
    y, inside = np.concatenate([x, np.zeros((len(x), 1))], axis=1), np.ones(len(x), dtype=bool)
    tracked = walls.track(x)
    with np.errstate(all="ignore"):
        for layer in reversed(range(layers)):
            motion = Motion(bare, layer, theta[layer], label, -1.0)
            for _ in range(steps):
                y = step(RK4, motion, y, h, dim)
                y[:, :dim], left = tracked.projected(np.ascontiguousarray(y[:, :dim]))
                inside &= ~left
    return Pulled(np.ascontiguousarray(y[:, :dim]), -y[:, dim], inside)


def _joined(parts: Sequence[Carried]) -> Carried:
    """Blocks of points, one behind another."""

    def rows(name: str, parts: Sequence[Carried | Stop] = parts) -> Any:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else np.concatenate(columns)

    def stop(layers: int) -> Stop:
        all_there = [part.stops[layers] for part in parts]
        return Stop(*(rows(name, all_there) for name in ("x", "log_change", "touched")))

    costs = {name: np.concatenate([part.costs[name] for part in parts]) for name in parts[0].costs}
    names = ("x", "log_change", "log_integral", "ratio_integral", "touched")
    x, log_change, logarithm, ratio, touched = map(rows, names)
    stops = {layers: stop(layers) for layers in parts[0].stops}
    return Carried(x, costs, log_change, logarithm, ratio, touched, stops)


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
