"""What a loss at points is: the protocol that every kind fulfils, and how it is held against a problem."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError


class PointLoss(ABC):
    """ℓ(x, y), possibly with parameters of its own (a trained readout r). Points x are (n, dim), dimensionless.

    A loss is made without knowing the dimension and the labels; ``bind`` completes it, and only then it is evaluated.

    Attributes:
        of_classes: whether exp(−ℓ(x, y)) is the probability of class y at x.
        affine_readout: whether its trained parameters are W row by row and b of an affine map x ↦ W x + b.
        adds_log_density: whether log ρ(T) of a particle belongs to the cost of its end too (see ``particles.kl``).
        non_negative: whether ℓ ≥ 0 everywhere, as far as that is known.
        needs_entropy, needs_squares: what some distances start from (see ``distances.DensityFunctional``), and no loss.
    """

    of_classes: ClassVar[bool] = False
    affine_readout: ClassVar[bool] = False
    adds_log_density: ClassVar[bool] = False
    non_negative: ClassVar[bool] = False
    needs_entropy: ClassVar[bool] = False
    needs_squares: ClassVar[bool] = False

    @property
    def n_readout(self) -> int:
        """Number of trained parameters."""
        return 0

    @property
    def goals(self) -> Floats | None:
        """(K, dim) the target points of a loss that is a distance from points, else None."""
        return None

    @property
    def curvature(self) -> float | None:
        """κ of a loss that is κ/2 |x − goal|², else None."""
        return None

    def check_labels(self, n_labels: int, key: str = "terminal") -> None:  # noqa: B027 - many losses fit any
        """Hold the loss against the number of labels.

        Raises:
            InputError: it is for another one.
        """

    def bind(self, dim: int, n_labels: int, key: str = "terminal") -> Self:
        """The loss in a space, for labels; what is missing in it is completed.

        Args:
            dim: of space.
            n_labels: K.
            key: what the loss is called in messages.

        Raises:
            InputError: it does not fit.
        """
        self.check_labels(n_labels, key)
        return self._bound(dim, n_labels, key)

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:  # noqa: ARG002 - for losses that fit any
        return self

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        return np.zeros(0)

    @abstractmethod
    def value(self, x: Floats, readout: Floats) -> Floats:
        """ℓ at points for every label, (n, K)."""

    @abstractmethod
    def gradient(self, x: Floats, readout: Floats) -> Floats:
        """Derivative in space for every label, (n, K, dim)."""

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:  # noqa: ARG002 - of trained losses
        """Gradient (r,) with respect to the readout of Σ w_ny ℓ(x_n, y), w (n, K)."""
        return np.zeros(0)


def numbers(values: ArrayLike, name: str) -> Floats:
    """Finite or not, but numbers.

    Raises:
        InputError: they are none, or are not all of one length.
    """
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("must be numbers, in rows of one length", key=f"terminal.{name}", value=values) from None


def require_axes(values: Floats, dim: int, key: str) -> None:
    """Raise InputError unless the last axis has one number per axis of space."""
    found = values.shape[-1] if values.ndim else 0
    if found != dim or values.ndim > 2:
        noun = entries(found, "column" if values.ndim == 2 else "entry")
        what = f"has {noun}, but the domain has dimension {dim}"
        raise InputError(what, key=key, value=values.tolist(), remedy=f"Give {dim}.")


def require_one_each(values: Floats, n_labels: int, key: str) -> None:
    """Raise InputError unless there is one row or number per label."""
    if len(values) != n_labels:
        what = f"has {entries(len(values))}, but there {are_labels(n_labels)}"
        raise InputError(what, key=key, value=values.tolist(), remedy="Give one per label.")


def entries(count: int, noun: str = "entry") -> str:
    """A number of entries or columns in words."""
    plural = {"entry": "entries", "column": "columns"}[noun]
    return f"{count} {noun if count == 1 else plural}"


def are_labels(n_labels: int) -> str:
    """How many labels there are, in words."""
    return "is 1 label" if n_labels == 1 else f"are {n_labels} labels"
