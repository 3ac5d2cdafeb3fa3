"""Functionals of a user's own of the density's values: integrated over the domain, or at points of the user's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base import parallel
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.density import basis
from eulerian.density.space import DensitySpace, Quadrature
from eulerian.mesh.point_location import CellFinder
from eulerian.objective.continuous import FunctionDensity
from eulerian.objective.distances import UserFunctional
from eulerian.objective.framework import FrameworkFunction
from eulerian.objective.functional import Terminal, TerminalValue
from eulerian.objective.point_loss import numbers

_EXACT = 8
"""Exactness of the rule for what a functional is where no mass is, in a verification."""


@final
@dataclass(frozen=True)
class DensityLoss(UserFunctional):
    """∫f(x, ρ(x)) dx.

    Attributes:
        function: f of points (n, dim) and densities (n, K).
    """

    kind = "density_loss"

    function: FrameworkFunction

    def on_mesh(self, space: DensitySpace, key: str) -> "DensityIntegral":
        """See ``UserFunctional``."""
        return DensityIntegral(space, self.function.called(key))


@final
@dataclass(frozen=True, eq=False)
class SensorLoss(UserFunctional):
    """f(ρ(x_1), …, ρ(x_m)).

    Attributes:
        function: f of values (m, K), as its only row.
        points: (m, dim), the same on all ranks.

    Raises:
        InputError: they are no rows of finite numbers.
    """

    kind = "sensor_loss"

    function: FrameworkFunction
    points: ArrayLike = field(repr=False)

    def __post_init__(self) -> None:
        points = numbers(self.points, "points")
        if points.ndim != 2 or not points.size or not np.all(np.isfinite(points)):
            what, remedy = f"an array of shape {points.shape}", "Give points (m, dim), of finite numbers."
            raise InputError(what, key="points", remedy=remedy)
        object.__setattr__(self, "points", points)

    def on_mesh(self, space: DensitySpace, key: str) -> "SensorValues":
        """See ``UserFunctional``."""
        return SensorValues(space, self.function.called(key), np.asarray(self.points))


class _OfValues(Terminal):
    """What both share."""

    title = "a function of densities"

    def __init__(self, space: DensitySpace, function: FrameworkFunction) -> None:
        self._space, self._function = space, function

    def initial_readout(self) -> Floats:
        """Where the parameters of f start, (r,)."""
        return self._function.start.copy()

    def _own(self, readout: Floats) -> Floats:
        """Its parameters: those of other costs may follow them."""
        return readout[: self._function.start.size]


@final
class DensityIntegral(_OfValues):
    """∫f(x, ρ(x)) dx by the quadrature of the terminal cost. Values below zero, which are rounding, count as zero.

    Args:
        space: of ρ.
        function: f, with its name in messages.

    Raises:
        InputError: f is not finite somewhere in the domain, where there is no mass or a mean density; on all ranks.
    """

    of_all_labels = True

    def __init__(self, space: DensitySpace, function: FrameworkFunction) -> None:
        """Collective."""
        super().__init__(space, function)
        shape, start = (len(self._points), space.n_labels), function.start
        mean = 1.0 / (space.n_labels * space.volume)
        with parallel.agreed(space.comm), np.errstate(all="ignore"):
            function.check_rows([np.linspace(0.1, 0.4, 2 * space.dim).reshape(2, -1), np.full((2, shape[1]), 0.5)])
            zero, rho = np.zeros(shape), np.full(shape, mean)
            values, _, slopes = function.pull_back(start, [self._points, zero], np.ones(len(zero)))
            where = "where the density is zero"
            self._require_finite(values, f"the function is not finite {where}")
            self._require_finite(slopes[1].sum(axis=1), f"the function has no finite derivative {where}")
            self._require_finite(function.value(start, [self._points, rho]), "the function is not finite in the domain")
        self.cancelling = bool(space.comm.allreduce(bool(np.any(values != 0.0))))

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). Collective."""
        space, rule = self._space, self._rule
        found = space.evaluate(rho, rule.reference).reshape(-1, space.n_labels)
        weights = rule.weights.ravel()
        with parallel.agreed(space.comm), np.errstate(all="ignore"):
            rows = [self._points, np.maximum(found, 0.0)]
            values, by_readout, (_, slope) = self._function.pull_back(readout, rows, weights)
        slope = np.where(found < 0.0, 0.0, slope).reshape(*rule.weights.shape, space.n_labels)
        vector = np.einsum("qi,cqk->cik", rule.basis, slope, optimize=True)
        total = parallel.sum_all(space.comm, np.concatenate([[weights @ values], by_readout]))
        return TerminalValue(float(total[0]), np.asarray(vector), total[1:])

    def density_cost(
        self,
        log_density: Floats,
        target: FunctionDensity | None,  # noqa: ARG002 - for distances
        x: Floats,
        labels: Sequence[int],
        readout: Floats,
    ) -> Floats | None:
        """(f(x, ρ) − f(x, 0))/Σ_yρ_y, (n, k): all labels share it."""
        rho = np.exp(log_density)
        own, zero = self._own(readout), np.zeros(rho.shape)
        change = self._function.value(own, [x, rho]) - self._function.value(own, [x, zero])
        return np.asarray(np.repeat((change / rho.sum(axis=1))[:, None], len(labels), axis=1))

    def without_mass(self, readout: Floats) -> float:
        """∫f(x, 0) dx. Collective."""
        if not self.cancelling:
            return 0.0
        rule = self._space.quadrature(_EXACT)
        x = rule.points.reshape(-1, self._space.dim)
        with parallel.agreed(self._space.comm):
            values = self._function.value(self._own(readout), [x, np.zeros((len(x), self._space.n_labels))])
        return float(parallel.sum_all(self._space.comm, np.array([rule.weights.ravel() @ values]))[0])

    @property
    def _rule(self) -> Quadrature:
        return self._space.quadrature(self._space.objective_degree)

    @cached_property
    def _points(self) -> Floats:
        return self._rule.points.reshape(-1, self._space.dim)

    def _require_finite(self, values: Floats, what: str) -> None:
        bad = ~np.isfinite(values)
        if np.any(bad):
            where = f"a non-finite value at {self._points[bad][0].tolist()}"
            remedy = "Add a floor to the density, like log(rho + 1e-8), or take xlogy for rho log rho."
            raise InputError(what, key=self._function.key, value=where, remedy=remedy)


@final
class SensorValues(_OfValues):
    """f(ρ(x_1), …, ρ(x_m)): every point belongs to the cells that hold it, and takes the mean of their values.

    Args:
        space: of ρ.
        function: f, with its name in messages.
        points: (m, dim), the same on all ranks.

    Attributes:
        sensors: the points.

    Raises:
        InputError: points are of another dimension, or outside the domain; the same on all ranks.
    """

    sensors: Floats

    def __init__(self, space: DensitySpace, function: FrameworkFunction, points: Floats) -> None:
        """Collective."""
        super().__init__(space, function)
        key = f"{function.key}.points"
        if points.shape[1] != space.dim:
            what = f"have {points.shape[1]} coordinates, but the domain has dimension {space.dim}"
            raise InputError(what, key=key, remedy=f"Give {space.dim}.")
        self.sensors = points
        with parallel.agreed(space.comm):
            rows, cells, weights = _holders(space, points)
        count = parallel.sum_all(space.comm, np.bincount(rows, minlength=len(points)).astype(float))
        outside = np.flatnonzero(count == 0.0)
        if len(outside):
            what, where = f"{len(outside)} of {len(points)} lie outside the domain", points[outside[0]].tolist()
            raise InputError(what, key=key, value=f"the first one at {where}", remedy="Leave them out.")
        # A cell on another rank that holds a point is as good: so no number depends on the partition.
        self._rows, self._cells = rows, cells
        self._table = basis.legendre(space.dim, space.degree, weights[:, 1:]) / count[rows, None]

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). Collective."""
        space = self._space
        local = np.zeros((len(self.sensors), space.n_labels))
        np.add.at(local, self._rows, np.einsum("si,sik->sk", self._table, rho[self._cells]))
        values = parallel.sum_all(space.comm, local)

        def work() -> tuple[float, Floats, Floats]:
            with np.errstate(all="ignore"):
                found, by_readout, (slope,) = self._function.pull_back(readout, [values[None]], np.ones(1))
            return float(found[0]), by_readout, slope[0]

        # On one rank for all: to the last bit the same.
        value, by_readout, slope = parallel.on_root(space.comm, work)
        vector = np.zeros((space.n_owned, space.nd, space.n_labels))
        np.add.at(vector, self._cells, self._table[:, :, None] * slope[self._rows, None, :])
        return TerminalValue(value, vector, by_readout)

    def of_sensors(self, values: Floats, readout: Floats) -> float:
        """F of densities (m, K) at the sensors."""
        return float(self._function.value(self._own(readout), [values[None]])[0])


def _holders(space: DensitySpace, points: Floats) -> tuple[np.ndarray, np.ndarray, Floats]:
    """All of this rank's cells that hold points: rows of the points, cells, and barycentric coordinates there."""
    if not space.n_owned:
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros((0, space.dim + 1))
    return CellFinder(space.vertices).find_all(points)
