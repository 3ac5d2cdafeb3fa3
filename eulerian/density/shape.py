"""What the shape of a density is: what a quadrature, particles and figures may ask it, and nothing of meshes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError


class DensityShape(Protocol):
    """A function ≥ 0, zero outside the box from ``lower`` to ``upper``, with features no finer than ``scale``.

    What it integrates to does not matter: where it becomes a density, it is scaled to its share of the mass. Lengths
    are in the units of the mesh.

    Attributes:
        hint: what else to say to somebody most of whose mass lies outside the domain.
    """

    hint: ClassVar[str]

    @property
    def dim(self) -> int | None:
        """Space dimension; None for one that fits any."""

    @property
    def lower(self) -> Floats:
        """(d,) corner of the box, or () for all axes."""

    @property
    def upper(self) -> Floats:
        """(d,) corner of the box, or () for all axes."""

    @property
    def scale(self) -> float:
        """Length below which the function is smooth; 0 for jumps."""

    @property
    def mass(self) -> float | None:
        """Integral over all space, where that is known."""

    @property
    def samples(self) -> Floats | None:
        """(n, d) data that it is an estimate from."""

    @property
    def modes(self) -> Floats | None:
        """(n_owned, nd) its coefficients on the mesh, where it is a function on it."""

    def check(self, dim: int, key: str) -> None:
        """Look whether the shape fits points of a dimension.

        Raises:
            InputError: it does not.
        """

    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, d), far tails included; −∞ where the function is zero."""

    def log_and_gradient(self, x: Floats) -> tuple[Floats, Floats]:
        """Logarithms (n,) and their gradients (n, d) at points x (n, d).

        Raises:
            InputError: the function has none: it is zero on whole regions, or its derivative is not known.
        """

    def equal_mass_points(self, count: int) -> Floats:
        """About ``count`` points (m, d) of equal mass that stand for the function; none where its mass is unknown.

        They are always the same, and shares of mass are theirs up to a few in ``count``.
        """


@dataclass(frozen=True)
class LabelledShape:
    """One term of a mixture.

    Attributes:
        shape: of the term.
        label: the label it belongs to, from 0.
        weight: its share of the mass, before all shares are scaled to a sum of 1.
        key: what messages call it.
        name: of its class, where data name classes.
    """

    shape: DensityShape
    label: int = 0
    weight: float = 1.0
    key: str = "density"
    name: str = ""


class Shape(ABC):
    """What most shapes share."""

    hint: ClassVar[str] = ""
    samples: Floats | None = None
    modes: Floats | None = None

    @property
    def dim(self) -> int | None:
        """Space dimension; None for one that fits any."""
        return None

    @abstractmethod
    def values(self, x: Floats) -> Floats:
        """Values (n,) at points x (n, d)."""

    def log_values(self, x: Floats) -> Floats:
        """Logarithms (n,) at points x (n, d)."""
        return logarithm(np.broadcast_to(self.values(x), len(x)))

    def check(self, dim: int, key: str) -> None:
        """Look whether the shape fits points of a dimension.

        Raises:
            InputError: it does not.
        """
        if self.dim is not None and self.dim != dim:
            what = f"is a shape of dimension {self.dim}, but the mesh has dimension {dim}"
            raise InputError(what, key=key, value=type(self).__name__, remedy=f"Give it {dim} coordinates.")

    def log_and_gradient(self, x: Floats) -> tuple[Floats, Floats]:  # noqa: ARG002 - for those that have one
        """None.

        Raises:
            InputError: always.
        """
        what, remedy = "its logarithm has no gradient that is known", "Take a Gaussian, Samples or a Formula."
        raise InputError(what, key="density", value=type(self).__name__, remedy=remedy)


def logarithm(values: Floats) -> Floats:
    """Log of values (n,), −∞ where they are not positive."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0)))
