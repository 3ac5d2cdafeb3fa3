"""Shapes of initial densities as functions of x: what a quadrature needs to know of them, and nothing of meshes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eulerian.arrays import Floats
from eulerian.errors import InputError
from eulerian.expression import Expression

_TAIL = 12.0  # standard deviations beyond which a normal density is taken for zero: exp(-72)
_KERNEL_TAIL = 9.0  # bandwidths beyond which a sample may be left out: exp(-40)
_POINTS, _PAIRS = 512, 500_000  # points, and point-sample pairs, at a time: small enough for the cache


if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Kinds that Pillow decodes by itself; others are handed to other programs, or are no pictures of points.
_PICTURES = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP")
_MOST_PIXELS = 2**25  # 5800 × 5800, finer than any mesh that fits into memory


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
        # Solved by hand, point by point: a matrix solver's rounding depends on how many points it is given.
        root, rest = self._root, x - self.mean
        white = np.empty_like(rest)
        for i in range(rest.shape[1]):
            white[:, i] = (rest[:, i] - white[:, :i] @ root[i, :i]) / root[i, i]
        log_norm = np.log(np.diag(root)).sum() + 0.5 * rest.shape[1] * np.log(2 * np.pi)
        return np.asarray(np.exp(-0.5 * (white**2).sum(axis=1) - log_norm))


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

        middle = self.samples.mean(axis=0)  # far from the origin bandwidths would be lost in rounding
        white, centres = (x - middle) / self.bandwidth, (self.samples - middle) / self.bandwidth
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
        norm = len(centres) * np.prod(self.bandwidth) * (2 * np.pi) ** (x.shape[1] / 2)
        return np.asarray(result / norm)


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


def read_darkness(path: Path, key: str) -> Floats:
    """Read a picture as darkness from 0 (white or transparent) to 1 (black), (rows, columns). Not collective.

    Raises:
        InputError: the file is missing or not a picture.
    """
    import warnings

    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings(), _opened(path, key) as picture:
            warnings.simplefilter("ignore")
            if picture.mode[0] in "IF":  # more than 8 bits of grey
                grey = np.asarray(picture, dtype=np.float64)
                return 1 - grey / max(grey.max(), 65535.0 if "16" in picture.mode else 0.0, 1e-300)
            colour = picture.convert("RGBA")
            paper = Pillow.new("RGBA", colour.size, "white")
            return 1 - np.asarray(Pillow.alpha_composite(paper, colour).convert("L"), dtype=np.float64) / 255
    except InputError:
        raise
    except Exception as error:  # a broken picture may make its decoder raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = f"Give a complete picture: {', '.join(_PICTURES)}."
        raise InputError(f"cannot read the picture: {reason}", key=key, value=str(path), remedy=remedy) from error


def _opened(path: Path, key: str) -> "ImageFile":
    """A picture of which no more than the header has been read.

    Raises:
        InputError: its pixels are more than memory can hold, or than a picture of a density needs.
    """
    from PIL import Image as Pillow

    with Pillow.open(path, formats=_PICTURES) as whole:
        whole.verify()  # a decoder may be content with less than all
    picture = Pillow.open(path, formats=_PICTURES)
    rows, columns = picture.size[::-1]
    if rows * columns > _MOST_PIXELS:
        what, remedy = f"has {columns} × {rows} pixels, more than {_MOST_PIXELS:.2g}", "Make the picture smaller."
        raise InputError(what, key=key, value=str(path), remedy=remedy)
    return picture
