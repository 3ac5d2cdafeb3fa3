"""Shapes of densities as functions of x: what a quadrature needs to know of them, and nothing of meshes. NumPy only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.formula import COORDINATES, Expression
from eulerian.base.quasirandom import even_points
from eulerian.density.shape import Shape, logarithm

_TAIL = 12.0  # standard deviations beyond which a normal density is taken for zero: exp(-72)
_KERNEL_TAIL = 9.0  # bandwidths beyond which a sample may be left out: exp(-40)
_CERTAIN = 10.0  # a sum of kernels above exp(-10) does not miss those that are left out
_POINTS, _PAIRS = 512, 500_000  # points, and point-sample pairs, at a time: small enough for the cache


@dataclass(frozen=True, init=False)
class Gaussian(Shape):
    """The normal density.

    Args:
        mean: (d,), or a number in one dimension.
        covariance: (d, d), symmetric and positive definite.
        std: instead of a covariance: the standard deviation along every axis, a number or (d,).

    Raises:
        InputError: the sizes do not fit, or the covariance is not positive definite.
    """

    mean: Floats
    covariance: Floats
    mass: ClassVar[float] = 1.0

    def __init__(self, mean: ArrayLike, covariance: ArrayLike | None = None, *, std: ArrayLike | None = None) -> None:
        centre = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        if (std is None) == (covariance is None):
            raise InputError("needs either std or covariance", key="Gaussian", remedy="Give one of the two.")
        if covariance is None:
            matrix = np.eye(len(centre)) * np.asarray(std, dtype=np.float64) ** 2
        else:
            matrix = np.atleast_2d(np.asarray(covariance, dtype=np.float64))
        if centre.ndim != 1 or matrix.shape != (len(centre),) * 2:
            what = f"a mean of shape {centre.shape} and a covariance of shape {matrix.shape} do not fit together"
            raise InputError(what, key="Gaussian", remedy="Give (d,) and (d, d).")
        object.__setattr__(self, "mean", centre)
        object.__setattr__(self, "covariance", matrix)
        try:
            _ = self._root
        except np.linalg.LinAlgError:
            what, remedy = "the covariance is not positive definite", "Give a std > 0, or a valid covariance."
            raise InputError(what, key="Gaussian", value=matrix.tolist(), remedy=remedy) from None

    @property
    def dim(self) -> int:
        """Space dimension."""
        return len(self.mean)

    @cached_property
    def _root(self) -> Floats:
        return np.asarray(np.linalg.cholesky(self.covariance))

    @cached_property
    def _precision(self) -> Floats:
        return np.asarray(np.linalg.inv(self.covariance))

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

    def log_and_gradient(self, x: Floats) -> tuple[Floats, Floats]:
        """Logarithms (n,) and their gradients (n, d) at points x (n, d)."""
        return self.log_values(x), (self.mean - x) @ self._precision

    def equal_mass_points(self, count: int) -> Floats:
        """Points (count, d) of equal mass."""
        return np.asarray(self.mean + _even_normal(count, len(self.mean)) @ self._root.T)


@dataclass(frozen=True, init=False)
class Uniform(Shape):
    """The constant density on the box from ``lower`` (d,) to ``upper`` (d,)."""

    lower: Floats
    upper: Floats
    mass: ClassVar[float] = 1.0
    scale: ClassVar[float] = 0.0
    hint: ClassVar[str] = ' A density that is the same everywhere is kind = "expression", value = "1".'

    def __init__(self, lower: ArrayLike, upper: ArrayLike) -> None:
        low, high = (np.atleast_1d(np.asarray(corner, dtype=np.float64)) for corner in (lower, upper))
        if low.shape != high.shape or not np.all(low < high):
            what, remedy = "upper must be above lower along every axis", "Give two corners (d,)."
            raise InputError(what, key="Uniform", value=[low.tolist(), high.tolist()], remedy=remedy)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    @property
    def dim(self) -> int:
        """Space dimension."""
        return len(self.lower)

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""
        inside = np.all((x >= self.lower) & (x <= self.upper), axis=1)
        return inside / np.prod(self.upper - self.lower)

    def equal_mass_points(self, count: int) -> Floats:
        """Points (count, d) of equal mass."""
        return np.asarray(self.lower + even_points(count, len(self.lower)) * (self.upper - self.lower))


class _Everywhere(Shape):
    """What shapes of unknown extent and mass share."""

    mass: ClassVar[None] = None
    scale: ClassVar[float] = 0.0
    lower: ClassVar[Floats] = np.array(-np.inf)
    upper: ClassVar[Floats] = np.array(np.inf)

    def equal_mass_points(self, count: int) -> Floats:  # noqa: ARG002 - the protocol's argument
        """None: outside the domain it may have no mass, or any."""
        return np.empty((0, 1))


@dataclass(frozen=True, init=False)
class Formula(_Everywhere):
    """A formula in x, y, z, as text (see ``eulerian.base.formula``).

    Raises:
        InputError: it cannot be read.
    """

    expression: Expression

    def __init__(self, formula: str | Expression, variables: Sequence[str] = COORDINATES, key: str = "Formula") -> None:
        parsed = Expression.parse(formula, tuple(variables), key) if isinstance(formula, str) else formula
        object.__setattr__(self, "expression", parsed)

    def check(self, dim: int, key: str) -> None:
        """Look whether the formula is one in the first ``dim`` coordinates.

        Raises:
            InputError: it is not.
        """
        Expression.parse(self.expression.text, COORDINATES[:dim], key)

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""
        return self.expression(dict(zip(COORDINATES, x.T, strict=False)))

    def log_and_gradient(self, x: Floats) -> tuple[Floats, Floats]:
        """Logarithms (n,) and their gradients (n, d) at points x (n, d); not finite where the formula is not > 0."""
        names = COORDINATES[: x.shape[1]]
        value, slopes = self.expression.gradient(dict(zip(names, x.T, strict=True)), names)
        with np.errstate(all="ignore"):
            return logarithm(value), np.stack(slopes, axis=1) / value[:, None]


@dataclass(frozen=True)
class FunctionShape(_Everywhere):
    """Any function of points x (n, d) with values (n,), NumPy arrays both."""

    function: Callable[[Floats], ArrayLike]

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d).

        Raises:
            InputError: they are no n numbers.
        """
        found = np.asarray(self.function(x), dtype=np.float64)
        if found.shape not in ((), (len(x),), (len(x), 1)):
            what = f"gives an array of shape {found.shape} for {len(x)} points"
            raise InputError(what, key="density", value=self.function, remedy="Give one number per point, (n,).")
        return np.broadcast_to(found.ravel() if found.ndim else found, len(x))


class MeshShape(_Everywhere):
    """A function that is a polynomial in every cell of a mesh.

    Args:
        dim: space dimension.
        function: of points (n, d), with values (n,).
        modes: (n_owned, nd) its coefficients in the cells of this rank.
    """

    scale: ClassVar[float] = np.inf  # no quadrature needs to be finer than the cells

    def __init__(self, dim: int, function: Callable[[Floats], Floats], modes: Floats) -> None:
        self._dim, self.function, self.modes = dim, function, modes

    @property
    def dim(self) -> int:
        """Space dimension."""
        return self._dim

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""
        return self.function(x)


@dataclass(frozen=True, init=False)
class Samples(Shape):
    """The kernel estimate of samples: the mean of normal densities about them.

    Samples are left out where their kernels have fallen to exp(-40). Silverman (1986), Density Estimation for
    Statistics and Data Analysis, chapter 4.

    Args:
        points: (n, d), or (n,) in one dimension.
        bandwidth: standard deviation of the kernels along all axes, or (d,), or "scott" for Scott's rule.

    Attributes:
        samples: (n, d).
        bandwidth: (d,).

    Raises:
        InputError: there are no points, or they are not finite, or the bandwidth is not positive.
    """

    samples: Floats
    bandwidth: Floats
    mass: ClassVar[float] = 1.0

    def __init__(
        self, points: ArrayLike, bandwidth: ArrayLike | Literal["scott"] = "scott", *, key: str = "Samples"
    ) -> None:
        x = np.asarray(points, dtype=np.float64)
        x = x[:, None] if x.ndim == 1 else x
        if x.ndim != 2 or not x.size or not np.all(np.isfinite(x)):
            what, remedy = f"needs finite points, but has an array of shape {x.shape}", "Give an array (n, d)."
            raise InputError(what, key=key, remedy=remedy)
        width = scott_bandwidth(x, key) if isinstance(bandwidth, str) else np.asarray(bandwidth, dtype=np.float64)
        width = np.full(x.shape[1], float(width)) if width.ndim == 0 else width
        if width.shape != (x.shape[1],) or not np.all(width > 0.0):
            what = f"needs a bandwidth > 0, one number or {x.shape[1]}"
            raise InputError(what, key=key, value=np.asarray(bandwidth).tolist())
        object.__setattr__(self, "samples", x)
        object.__setattr__(self, "bandwidth", width)

    @property
    def dim(self) -> int:
        """Space dimension."""
        return int(self.samples.shape[1])

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
        result = logarithm(values)
        # Left-out samples count for exp(-40) each: nothing beside a sum of more than exp(-10).
        far = np.flatnonzero(values * self._norm < np.exp(-_CERTAIN))
        white, centres = self._in_bandwidths(x[far])
        step = max(_PAIRS // len(centres), 1)
        for start in range(0, len(far), step):
            exponents = -0.5 * cdist(white[start : start + step], centres, "sqeuclidean")
            peak = exponents.max(axis=1)
            total = np.exp(exponents - peak[:, None]).sum(axis=1)
            result[far[start : start + step]] = peak + np.log(total) - np.log(self._norm)
        return result

    def log_and_gradient(self, x: Floats) -> tuple[Floats, Floats]:
        """Logarithms (n,) and their gradients (n, d) at points x (n, d); memory stays bounded.

        No sample is left out, however far: the gradient of a far tail leads back to the nearest ones.
        """
        from scipy.spatial.distance import cdist

        white, centres = self._in_bandwidths(x)
        values, gradients = np.empty(len(x)), np.empty_like(x)
        step = max(_PAIRS // len(centres), 1)
        for start in range(0, len(x), step):
            block = slice(start, start + step)
            exponents = cdist(white[block], centres, "sqeuclidean")
            exponents *= -0.5
            peak = exponents.max(axis=1, keepdims=True)
            np.exp(np.subtract(exponents, peak, out=exponents), out=exponents)
            total = exponents.sum(axis=1)
            values[block] = peak[:, 0] + np.log(total) - np.log(self._norm)
            gradients[block] = (exponents @ centres / total[:, None] - white[block]) / self.bandwidth
        return values, gradients

    @property
    def _norm(self) -> float:
        """By which the sum of the kernels exp(-r²/2) is divided."""
        n, d = self.samples.shape
        return float(n * np.prod(self.bandwidth) * (2 * np.pi) ** (d / 2))

    def _in_bandwidths(self, x: Floats) -> tuple[Floats, Floats]:
        """Points (n, d) and samples (m, d) in units of the bandwidth, from the samples' mean."""
        middle = self.samples.mean(axis=0)  # far from the origin bandwidths would be lost in rounding
        return (x - middle) / self.bandwidth, (self.samples - middle) / self.bandwidth

    def equal_mass_points(self, count: int) -> Floats:
        """Points (m, d) of equal mass: several about every sample, or one about each of a part of them."""
        chosen = self.samples[:: max(1, len(self.samples) // count)]
        chosen = np.repeat(chosen, max(1, count // len(chosen)), axis=0)
        return np.asarray(chosen + _even_normal(*chosen.shape) * self.bandwidth)


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


def _even_normal(count: int, d: int) -> Floats:
    """Points (count, d) of equal mass of the standard normal density."""
    quantile = NormalDist().inv_cdf  # SciPy's takes long to load
    cube = np.clip(even_points(count, d), 1e-12, 1 - 1e-12)  # the quantiles of 0 and 1 are infinite
    return np.array([quantile(value) for value in cube.ravel().tolist()]).reshape(count, d)
