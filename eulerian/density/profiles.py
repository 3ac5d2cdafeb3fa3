"""Shapes of initial densities as functions of x: what a quadrature needs to know of them, and nothing of meshes."""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Protocol

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.formula import Expression
from eulerian.base.quasirandom import even_points

_TAIL = 12.0  # standard deviations beyond which a normal density is taken for zero: exp(-72)
_KERNEL_TAIL = 9.0  # bandwidths beyond which a sample may be left out: exp(-40)
_CERTAIN = 10.0  # a sum of kernels above exp(-10) does not miss those that are left out
_POINTS, _PAIRS = 512, 500_000  # points, and point-sample pairs, at a time: small enough for the cache


class Profile(Protocol):
    """A function ≥ 0, zero outside the box from ``lower`` to ``upper``, with features no finer than ``scale``.

    ``mass`` is its integral over all space where that is known, else None. Lengths are dimensionless.
    """

    @property
    def lower(self) -> Floats:
        """(d,) corner of the box."""

    @property
    def upper(self) -> Floats:
        """(d,) corner of the box."""

    @property
    def scale(self) -> float:
        """Length below which the function is smooth; 0 for jumps."""

    @property
    def mass(self) -> float | None:
        """Integral over all space."""

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) of the function at points x (n, d), far tails included; −∞ where it is zero."""

    def points(self, count: int) -> Floats:
        """About ``count`` points (m, d) of equal mass that stand for the function; none where it is known nowhere else.

        They are always the same, and shares of mass are theirs up to a few in ``count``.
        """


@dataclass(frozen=True)
class Gaussian:
    """The normal density with ``mean`` (d,) and ``covariance`` (d, d)."""

    mean: Floats
    covariance: Floats
    mass: float = 1.0

    @cached_property
    def _root(self) -> Floats:
        return np.asarray(np.linalg.cholesky(self.covariance))

    @property
    def lower(self) -> Floats:
        """(d,) where the tail ends."""
        return self.mean - _TAIL * np.sqrt(np.diag(self.covariance))

    @property
    def upper(self) -> Floats:
        """(d,) where the tail ends."""
        return self.mean + _TAIL * np.sqrt(np.diag(self.covariance))

    @property
    def scale(self) -> float:
        """The least standard deviation of all directions."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance)[0]))

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""
        return np.asarray(np.exp(self.log_values(x)))

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, d)."""
        # Solved by hand, point by point: a matrix solver's rounding depends on how many points it is given.
        root, rest = self._root, x - self.mean
        white = np.empty_like(rest)
        for i in range(rest.shape[1]):
            white[:, i] = (rest[:, i] - white[:, :i] @ root[i, :i]) / root[i, i]
        log_norm = np.log(np.diag(root)).sum() + 0.5 * rest.shape[1] * np.log(2 * np.pi)
        return np.asarray(-0.5 * (white**2).sum(axis=1) - log_norm)

    def points(self, count: int) -> Floats:
        """Points (count, d) of equal mass."""
        return np.asarray(self.mean + _even_normal(count, len(self.mean)) @ self._root.T)


@dataclass(frozen=True)
class Uniform:
    """The constant density on a box."""

    lower: Floats
    upper: Floats
    mass: float = 1.0
    scale: float = 0.0

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""
        inside = np.all((x >= self.lower) & (x <= self.upper), axis=1)
        return inside / np.prod(self.upper - self.lower)

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, d)."""
        return _logarithm(self.values(x))

    def points(self, count: int) -> Floats:
        """Points (count, d) of equal mass."""
        return np.asarray(self.lower + even_points(count, len(self.lower)) * (self.upper - self.lower))


@dataclass(frozen=True)
class Formula:
    """A formula in x, y, z."""

    expression: Expression
    dim: int
    mass: None = None
    scale: float = 0.0

    @property
    def lower(self) -> Floats:
        """Nowhere."""
        return np.full(self.dim, -np.inf)

    @property
    def upper(self) -> Floats:
        """Nowhere."""
        return np.full(self.dim, np.inf)

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""
        return self.expression(dict(zip("xyz", x.T, strict=False)))

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, d)."""
        return _logarithm(np.broadcast_to(self.values(x), len(x)))

    def points(self, count: int) -> Floats:  # noqa: ARG002 - the protocol's argument
        """None: a formula may have no mass, or any, where it is not asked for."""
        return np.empty((0, self.dim))


@dataclass(frozen=True)
class KernelEstimate:
    """The mean of normal densities about samples, which may be left out where they have fallen to exp(-40).

    Silverman (1986), Density Estimation for Statistics and Data Analysis, chapter 4.

    Attributes:
        samples: (n, d).
        bandwidth: (d,) standard deviations along the axes.
        mass: 1.
    """

    samples: Floats
    bandwidth: Floats
    mass: float = 1.0

    @property
    def lower(self) -> Floats:
        """(d,) where the tails end."""
        return np.asarray(self.samples.min(axis=0) - _KERNEL_TAIL * self.bandwidth)

    @property
    def upper(self) -> Floats:
        """(d,) where the tails end."""
        return np.asarray(self.samples.max(axis=0) + _KERNEL_TAIL * self.bandwidth)

    @property
    def scale(self) -> float:
        """The least bandwidth."""
        return float(self.bandwidth.min())

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d); memory stays bounded, whatever the number of points and samples."""
        from scipy.spatial.distance import cdist

        white, centres = self._in_bandwidths(x)
        result = np.zeros(len(x))
        step = int(np.clip(_PAIRS // len(centres), 16, _POINTS))
        for start in range(0, len(x), step):
            block = white[start : start + step]
            # Points come cell by cell, so a block is a small region: most samples are too far away to matter.
            gap = np.maximum(block.min(axis=0) - centres, centres - block.max(axis=0))
            near = centres[(np.maximum(gap, 0) ** 2).sum(axis=1) <= _KERNEL_TAIL**2]
            kernels = cdist(block, near, "sqeuclidean")
            kernels *= -0.5
            np.exp(kernels, out=kernels)
            result[start : start + step] = kernels.sum(axis=1)
        return np.asarray(result / self._norm)

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, d): where all samples are far, none of them is left out."""
        from scipy.spatial.distance import cdist

        values = self.values(x)
        result = _logarithm(values)
        # Left-out samples count for exp(-40) each: nothing beside what is known to a part of exp(-10) of a kernel.
        far = np.flatnonzero(values * self._norm < np.exp(-_CERTAIN))
        white, centres = self._in_bandwidths(x[far])
        step = max(_PAIRS // len(centres), 1)
        for start in range(0, len(far), step):
            exponents = -0.5 * cdist(white[start : start + step], centres, "sqeuclidean")
            peak = exponents.max(axis=1)
            total = np.exp(exponents - peak[:, None]).sum(axis=1)
            result[far[start : start + step]] = peak + np.log(total) - np.log(self._norm)
        return result

    @property
    def _norm(self) -> float:
        """By which the sum of the kernels exp(-r²/2) is divided."""
        n, d = self.samples.shape
        return float(n * np.prod(self.bandwidth) * (2 * np.pi) ** (d / 2))

    def _in_bandwidths(self, x: Floats) -> tuple[Floats, Floats]:
        """Points (n, d) and samples (m, d) in units of the bandwidth, from the samples' mean."""
        middle = self.samples.mean(axis=0)  # far from the origin bandwidths would be lost in rounding
        return (x - middle) / self.bandwidth, (self.samples - middle) / self.bandwidth

    def points(self, count: int) -> Floats:
        """Points (m, d) of equal mass: some about every sample, or one about every so manieth."""
        chosen = self.samples[:: max(1, len(self.samples) // count)]
        chosen = np.repeat(chosen, max(1, count // len(chosen)), axis=0)
        return np.asarray(chosen + _even_normal(*chosen.shape) * self.bandwidth)


@dataclass(frozen=True)
class Image:
    """A picture on a rectangle: ``darkness`` (rows from the top, columns) ≥ 0, bilinear between the pixels' centres."""

    darkness: Floats
    lower: Floats
    upper: Floats
    mass: None = None

    @property
    def scale(self) -> float:
        """The size of a pixel."""
        return float(((self.upper - self.lower) / self.darkness.shape[::-1]).min())

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, 2)."""
        rows, columns = self.darkness.shape
        unit = (x - self.lower) / (self.upper - self.lower)
        across = np.clip(unit[:, 0] * columns - 0.5, 0, columns - 1)
        down = np.clip((1 - unit[:, 1]) * rows - 0.5, 0, rows - 1)
        j, i = across.astype(np.int64), down.astype(np.int64)
        right, below = np.minimum(j + 1, columns - 1), np.minimum(i + 1, rows - 1)
        s, t = across - j, down - i
        upper = (1 - s) * self.darkness[i, j] + s * self.darkness[i, right]
        lower = (1 - s) * self.darkness[below, j] + s * self.darkness[below, right]
        inside = np.all((unit >= 0) & (unit <= 1), axis=1)
        return np.where(inside, (1 - t) * upper + t * lower, 0.0)

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, 2)."""
        return _logarithm(self.values(x))

    def points(self, count: int) -> Floats:
        """Points (count, 2) of equal mass, each in a pixel; none of a white picture."""
        mass = np.cumsum(np.maximum(self.darkness, 0.0))
        if not mass[-1] > 0:
            return np.empty((0, 2))
        pixels = np.searchsorted(mass, (np.arange(count) + 0.5) * (mass[-1] / count))
        down, across = np.divmod(np.minimum(pixels, len(mass) - 1), self.darkness.shape[1])
        rest = even_points(count, 2)
        unit = np.column_stack([across + rest[:, 0], self.darkness.shape[0] - down - rest[:, 1]])
        return np.asarray(self.lower + unit / self.darkness.shape[::-1] * (self.upper - self.lower))


def scott_bandwidth(samples: Floats, key: str) -> Floats:
    """Scott's rule, n^(-1/(d+4)) times the standard deviation along each axis: (d,).

    Scott (1992), Multivariate Density Estimation, equation 6.44.

    Raises:
        InputError: too few different samples to have standard deviations.
    """
    n, d = samples.shape
    deviation = samples.std(axis=0, ddof=1) if n > 1 else np.zeros(d)
    if not np.all(deviation > 0):
        what = f"Scott's rule needs samples that differ along every axis, but a class of {n} has no spread"
        raise InputError(what, key=key, value="scott", remedy="Give the bandwidth as a number.")
    return np.asarray(deviation * n ** (-1 / (d + 4)))


def _logarithm(values: Floats) -> Floats:
    """Log of values (n,), −∞ where they are not positive."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0)))


def _even_normal(count: int, d: int) -> Floats:
    """Points (count, d) of equal mass of the standard normal density."""
    quantile = NormalDist().inv_cdf  # SciPy's takes long to load
    cube = np.clip(even_points(count, d), 1e-12, 1 - 1e-12)
    return np.array([quantile(value) for value in cube.ravel().tolist()]).reshape(count, d)
