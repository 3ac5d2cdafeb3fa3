"""Losses ℓ(x, y) at points, with their derivatives; meshes integrate them against densities, particles take means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eulerian.app import config
from eulerian.base.arrays import Floats
from eulerian.base.formula import Expression

COORDINATES = ("x", "y", "z")


class PointLoss(Protocol):
    """ℓ(x, y), possibly with parameters of its own (a trained readout r). Points x are (n, dim), dimensionless."""

    @property
    def n_readout(self) -> int:
        """Number of trained parameters."""
        ...

    @property
    def is_classification(self) -> bool:
        """Whether ℓ is minus the logarithm of a class probability."""
        ...

    @property
    def target_points(self) -> Floats | None:
        """Where ℓ is least for every label, (K, dim); None where that is no point, or not known."""
        ...

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        ...

    def value(self, x: Floats, readout: Floats) -> Floats:
        """ℓ at points for every label, (n, K)."""
        ...

    def gradient(self, x: Floats, readout: Floats) -> Floats:
        """Derivative in space for every label, (n, K, dim)."""
        ...

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:
        """Gradient (r,) with respect to the readout of Σ w_ny ℓ(x_n, y), w (n, K)."""
        ...


class _Untrained:
    """What losses without a readout share."""

    n_readout = 0
    is_classification = False

    @property
    def target_points(self) -> Floats | None:
        """None that are known."""
        return None

    def initial_readout(self) -> Floats:
        """Nothing to train."""
        return np.zeros(0)

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:  # noqa: ARG002 - the protocol's arguments
        """Nothing to train."""
        return np.zeros(0)


@dataclass(frozen=True)
class QuadraticLoss(_Untrained):
    """weight/2 |x − target_y|².

    Attributes:
        targets: (K, dim).
        weight: dimensionless.
    """

    targets: Floats
    weight: float

    @property
    def target_points(self) -> Floats:
        """(K, dim)."""
        return self.targets

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, K)."""
        away = sum((column[:, None] - target) ** 2 for column, target in zip(x.T, self.targets.T, strict=True))
        return np.asarray(0.5 * self.weight * away)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, K, dim)."""
        return self.weight * (x[:, None, :] - self.targets)


@dataclass(frozen=True)
class LogisticLoss(_Untrained):
    """log(1 + exp(−s (direction·x + offset))), s = −1 for label 0 and +1 for label 1.

    Attributes:
        direction: (dim,).
        offset: of the separating plane.
    """

    direction: Floats
    offset: float

    is_classification = True

    def _margins(self, x: Floats) -> Floats:
        return np.asarray((x @ self.direction + self.offset)[:, None] * np.array([-1.0, 1.0]))

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, 2)."""
        return np.asarray(np.logaddexp(0.0, -self._margins(x)))

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, 2, dim)."""
        slope = -np.exp(-np.logaddexp(0.0, self._margins(x))) * np.array([-1.0, 1.0])
        return np.asarray(slope[..., None] * self.direction)


@dataclass(frozen=True)
class FormulaLoss(_Untrained):
    """A formula in the coordinates and ``label``.

    Attributes:
        expression: the formula.
        dim: space dimension.
        n_labels: K.
    """

    expression: Expression
    dim: int
    n_labels: int

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, K)."""
        columns = [np.broadcast_to(self.expression(self._at(x, y)), len(x)) for y in range(self.n_labels)]
        return np.stack(columns, axis=1)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, K, dim)."""
        slopes = [self.expression.gradient(self._at(x, y), COORDINATES[: self.dim])[1] for y in range(self.n_labels)]
        return np.stack([np.stack([np.broadcast_to(d, len(x)) for d in slope], axis=1) for slope in slopes], axis=1)

    def _at(self, x: Floats, label: int) -> dict[str, Floats | float]:
        return {**dict(zip(COORDINATES, x.T, strict=False)), "label": float(label)}


@dataclass(frozen=True)
class CrossEntropyLoss:
    """−log softmax(W x + b)_y, a linear readout of the end points.

    Attributes:
        weights: W (K, dim), fixed or where training starts.
        bias: b (K,), likewise.
        trained: (W row by row, b) is the readout.
    """

    weights: Floats
    bias: Floats
    trained: bool

    is_classification = True
    target_points = None

    @property
    def n_readout(self) -> int:
        """K·dim + K if trained, else 0."""
        return self.weights.size + self.bias.size if self.trained else 0

    def initial_readout(self) -> Floats:
        """(W row by row, b), or nothing."""
        return np.concatenate([self.weights.ravel(), self.bias]) if self.trained else np.zeros(0)

    def _matrices(self, readout: Floats) -> tuple[Floats, Floats]:
        if not self.trained:
            return self.weights, self.bias
        return readout[: self.weights.size].reshape(self.weights.shape), readout[self.weights.size :]

    def value(self, x: Floats, readout: Floats) -> Floats:
        """ℓ, (n, K)."""
        weights, bias = self._matrices(readout)
        return -log_softmax(x @ weights.T + bias)

    def gradient(self, x: Floats, readout: Floats) -> Floats:
        """∂ℓ/∂x, (n, K, dim): Σ_j softmax_j W_j − W_y."""
        weights, bias = self._matrices(readout)
        mean = np.exp(log_softmax(x @ weights.T + bias)) @ weights
        return mean[:, None, :] - weights

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:
        """Gradient (r,) with respect to the readout of Σ w_ny ℓ(x_n, y), w (n, K)."""
        if not self.trained:
            return np.zeros(0)
        weights, bias = self._matrices(readout)
        logits = np.exp(log_softmax(x @ weights.T + bias)) * w.sum(axis=1, keepdims=True) - w
        return np.concatenate([(logits.T @ x).ravel(), logits.sum(axis=0)])


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities (n, K) of logits (n, K), safe for large ones."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def build_loss(terminal: config.LossTerminal, dim: int, n_labels: int) -> PointLoss:
    """The loss that the configuration describes, which fits ``dim`` and ``n_labels`` (``config.check_*``)."""
    match terminal:
        case config.QuadraticTerminal():
            targets: Sequence[object] = terminal.targets or (terminal.target,) * n_labels
            return QuadraticLoss(np.array(targets, dtype=float), terminal.weight)
        case config.ExpressionTerminal():
            names = (*COORDINATES[:dim], "label")
            return FormulaLoss(Expression.parse(terminal.value, names, "objective.terminal.value"), dim, n_labels)
        case config.LogisticTerminal():
            return LogisticLoss(np.array(terminal.direction, dtype=float), terminal.offset)
        case config.CrossEntropyTerminal():
            weights = np.zeros((n_labels, dim)) if terminal.weights is None else np.array(terminal.weights, dtype=float)
            bias = np.zeros(n_labels) if terminal.bias is None else np.array(terminal.bias, dtype=float)
            return CrossEntropyLoss(weights, bias, terminal.trainable)
