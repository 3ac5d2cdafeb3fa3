"""Relative entropy of particles: KL(ρ(T) | ρ*) = E[log ρ(T, x(T)) − log ρ*(x(T))] by the change of variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.special import logsumexp

from eulerian.base.arrays import Floats
from eulerian.base.formula import Expression

_PAIRS = 500_000  # point-sample pairs at a time: small enough for the cache


class LogShape(Protocol):
    """The logarithm of a positive function, with its gradient."""

    def log(self, x: Floats, /) -> tuple[Floats, Floats]:
        """Values (n,) and gradients (n, dim) at points x (n, dim)."""
        ...


@dataclass(frozen=True)
class LogGaussian:
    """The normal density.

    Attributes:
        mean: (dim,).
        covariance: (dim, dim).
    """

    mean: Floats
    covariance: Floats

    @cached_property
    def _precision(self) -> Floats:
        return np.asarray(np.linalg.inv(self.covariance))

    def log(self, x: Floats, /) -> tuple[Floats, Floats]:
        """Values (n,) and gradients (n, dim) at points x (n, dim)."""
        rest = x - self.mean
        pull = -rest @ self._precision
        _, log_det = np.linalg.slogdet(2.0 * np.pi * self.covariance)
        return 0.5 * np.einsum("ni,ni->n", rest, pull) - 0.5 * log_det, pull


@dataclass(frozen=True)
class LogKernels:
    """The mean of normal densities about samples, far tails included (Silverman 1986).

    Attributes:
        samples: (m, dim).
        bandwidth: (dim,) standard deviations along the axes.
    """

    samples: Floats
    bandwidth: Floats

    def log(self, x: Floats, /) -> tuple[Floats, Floats]:
        """Values (n,) and gradients (n, dim) at points x (n, dim); memory stays bounded."""
        from scipy.spatial.distance import cdist

        middle = self.samples.mean(axis=0)  # far from the origin bandwidths would be lost in rounding
        white, centres = (x - middle) / self.bandwidth, (self.samples - middle) / self.bandwidth
        values, gradients = np.empty(len(x)), np.empty_like(x)
        size = max(_PAIRS // len(centres), 1)
        for start in range(0, len(x), size):
            block = slice(start, start + size)
            exponents = cdist(white[block], centres, "sqeuclidean")
            exponents *= -0.5
            peak = exponents.max(axis=1, keepdims=True)
            np.exp(np.subtract(exponents, peak, out=exponents), out=exponents)
            total = exponents.sum(axis=1)
            values[block] = peak[:, 0] + np.log(total)
            gradients[block] = (exponents @ centres / total[:, None] - white[block]) / self.bandwidth
        norm = len(centres) * np.prod(self.bandwidth) * (2.0 * np.pi) ** (x.shape[1] / 2.0)
        return values - np.log(norm), gradients


@dataclass(frozen=True)
class LogFormula:
    """A formula in the coordinates over its mass; where it is not positive the value is not finite.

    Attributes:
        expression: the formula.
        names: (dim,) of the coordinates.
        mass: its integral.
    """

    expression: Expression
    names: Sequence[str]
    mass: float

    def log(self, x: Floats, /) -> tuple[Floats, Floats]:
        """Values (n,) and gradients (n, dim) at points x (n, dim)."""
        value, slopes = self.expression.gradient(dict(zip(self.names, x.T, strict=True)), self.names)
        with np.errstate(all="ignore"):
            return np.log(value / self.mass), np.stack(slopes, axis=1) / value[:, None]


@dataclass(frozen=True)
class Component:
    """One term of a mixture.

    Attributes:
        shape: of mass 1.
        share: > 0 of the total mass of all labels.
        label: its own.
    """

    shape: LogShape
    share: float
    label: int


@dataclass(frozen=True)
class KlLoss:
    """The part −log ρ*_y(x) of the relative entropy: a point loss; particles add log ρ_y(T, x), which they carry.

    Summed over the labels, KL = Σ_y ∫ρ_y log(ρ_y/ρ*_y), with ρ* on all of R^d: particles know no walls.

    Attributes:
        components: of ρ*; every label has one.
        n_labels: K.
    """

    components: tuple[Component, ...]
    n_labels: int
    n_readout = 0

    def initial_readout(self) -> Floats:
        """Nothing to train."""
        return np.zeros(0)

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:  # noqa: ARG002 - the protocol's arguments
        """Nothing to train."""
        return np.zeros(0)

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """−log ρ*_y at points for every label, (n, K)."""
        return -np.stack([self._log(x, label)[0] for label in range(self.n_labels)], axis=1)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """Derivative in space for every label, (n, K, dim)."""
        return -np.stack([self._log(x, label)[1] for label in range(self.n_labels)], axis=1)

    def _log(self, x: Floats, label: int) -> tuple[Floats, Floats]:
        """The logarithm of a mixture (n,), and its gradient (n, dim): the mean of the terms' by their shares of ρ*."""
        own = [component for component in self.components if component.label == label]
        found = [component.shape.log(x) for component in own]
        if len(own) == 1:
            return found[0][0] + np.log(own[0].share), found[0][1]
        logs = np.stack([values + np.log(term.share) for (values, _), term in zip(found, own, strict=True)])
        with np.errstate(all="ignore"):
            total = np.asarray(logsumexp(logs, axis=0))
            parts = np.exp(logs - total)
        slopes = np.stack([slope for _, slope in found])
        return total, np.einsum("mn,mni->ni", parts, np.where(parts[..., None] > 0.0, slopes, 0.0))
