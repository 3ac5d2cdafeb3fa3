"""Terminal losses Σ_y ∫ℓ(x, y) ρ_y(T, x) dx, and their derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from eulerian import config, parallel
from eulerian.arrays import Floats
from eulerian.errors import InputError

# isort: split
import numpy as np

from eulerian.expression import Expression
from eulerian.space.density import DensitySpace

COORDINATES = ("x", "y", "z")


@dataclass(frozen=True)
class TerminalValue:
    """A terminal functional F(ρ(T), readout) and its derivatives.

    Attributes:
        value: F, the same on all ranks.
        density: (n_owned, nd, K) derivative by the coefficients of ρ(T).
        readout: (r,) derivative by the readout, the same on all ranks.
    """

    value: float
    density: Floats
    readout: Floats


class Terminal(Protocol):
    """A functional of the final density, possibly with parameters of its own (a trained readout)."""

    @property
    def n_readout(self) -> int:
        """Number r of trained parameters."""
        ...

    def initial_readout(self) -> Floats:
        """Where the trained parameters start, (r,)."""
        ...

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (r,). Collective."""
        ...

    def losses(self, x: Floats, readout: Floats) -> Floats:
        """ℓ(x, y) at points (n, dim) for every label, (n, K)."""
        ...


class LinearLoss:
    """∫ℓρ_T for a fixed loss: quadrature turns it into one inner product.

    Args:
        space: the space of ρ.
        loss: x (n, dim) ↦ ℓ (n, K).

    Raises:
        InputError: ℓ is not finite somewhere in the domain; the same on all ranks.
    """

    n_readout = 0

    def __init__(self, space: DensitySpace, loss: Callable[[Floats], Floats]) -> None:
        """Collective."""
        rule = space.quadrature(space.objective_degree)
        with parallel.agreed(space.comm), np.errstate(all="ignore"):
            values = loss(rule.points.reshape(-1, space.dim)).reshape(*rule.weights.shape, space.n_labels)
            if not np.all(np.isfinite(values)):
                where = rule.points[~np.isfinite(values).all(axis=2)][0]
                raise InputError(
                    "the loss is not finite everywhere in the domain",
                    key="objective.terminal",
                    value=f"a non-finite value at {where.tolist()}",
                    remedy="Use a formula that is defined on the whole domain",
                )
        self._space, self._loss = space, loss
        self._vector: Floats = np.einsum("cq,qi,cqk->cik", rule.weights, rule.basis, values, optimize=True)

    def initial_readout(self) -> Floats:
        """Nothing to train."""
        return np.zeros(0)

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:  # noqa: ARG002 - the protocol's argument
        """Value and derivatives at ρ (n_cells, nd, K). Collective."""
        local = float(np.vdot(self._vector, rho[: self._space.n_owned]))
        return TerminalValue(float(parallel.sum_all(self._space.comm, np.array([local]))[0]), self._vector, np.zeros(0))

    def losses(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ(x, y) at points (n, dim) for every label, (n, K)."""
        return self._loss(x)


class TrainedCrossEntropy:
    """∫ −log softmax(Wx + b)_y ρ_y(T) with (W row by row, b) trained together with the network.

    Args:
        space: the space of ρ.
        weights: where W (K, dim) starts.
        bias: where b (K,) starts.
    """

    def __init__(self, space: DensitySpace, weights: Floats, bias: Floats) -> None:
        self._space = space
        self._start = np.concatenate([weights.ravel(), bias])
        self._rule = space.quadrature(space.objective_degree)
        self.n_readout = self._start.size

    def initial_readout(self) -> Floats:
        """(W row by row, b)."""
        return self._start.copy()

    def evaluate(self, rho: Floats, readout: Floats) -> TerminalValue:
        """Value and derivatives at ρ (n_cells, nd, K) and readout (K·dim + K,). Collective."""
        space, rule = self._space, self._rule
        n_labels = space.n_labels
        x = rule.points.reshape(-1, space.dim)
        losses = self.losses(x, readout)
        at_points = losses.reshape(*rule.weights.shape, n_labels)
        vector = np.einsum("cq,qi,cqk->cik", rule.weights, rule.basis, at_points, optimize=True)
        mass = np.einsum("cq,qi,cik->cqk", rule.weights, rule.basis, rho[: space.n_owned], optimize=True)
        mass = mass.reshape(-1, n_labels)
        logits = np.exp(-losses) * mass.sum(axis=1, keepdims=True) - mass
        local = np.concatenate([[np.vdot(vector, rho[: space.n_owned])], (logits.T @ x).ravel(), logits.sum(axis=0)])
        total = parallel.sum_all(space.comm, local)
        return TerminalValue(float(total[0]), vector, total[1:])

    def losses(self, x: Floats, readout: Floats) -> Floats:
        """ℓ(x, y) at points (n, dim) for every label, (n, K)."""
        size = self._space.n_labels * self._space.dim
        return cross_entropy(readout[:size].reshape(self._space.n_labels, -1), readout[size:])(x)


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities (n, K) of logits (n, K), safe for large ones."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def quadratic(targets: Floats, weight: float) -> Callable[[Floats], Floats]:
    """ℓ(x, y) = weight/2 |x − target_y|², targets (K, dim)."""
    return lambda x: 0.5 * weight * np.sum((x[:, None, :] - targets) ** 2, axis=2)


def logistic(direction: Floats, offset: float) -> Callable[[Floats], Floats]:
    """ℓ(x, y) = log(1 + exp(−s(direction·x + offset))), s = −1 for label 0 and +1 for label 1."""
    signs = np.array([-1.0, 1.0])
    return lambda x: np.logaddexp(0.0, -signs * (x @ direction + offset)[:, None])


def formula(expression: Expression, n_labels: int) -> Callable[[Floats], Floats]:
    """ℓ(x, y) from a formula in the coordinates and ``label``."""

    def loss(x: Floats) -> Floats:
        coordinates = dict(zip(COORDINATES, x.T, strict=False))
        columns = [np.broadcast_to(expression({**coordinates, "label": float(y)}), len(x)) for y in range(n_labels)]
        return np.stack(columns, axis=1)

    return loss


def cross_entropy(weights: Floats, bias: Floats) -> Callable[[Floats], Floats]:
    """ℓ(x, y) = −log softmax(Wx + b)_y, W (K, dim) and b (K,)."""
    return lambda x: -log_softmax(x @ weights.T + bias)


def build_terminal(terminal: config.LossTerminal, space: DensitySpace) -> Terminal:
    """The terminal loss that the configuration describes. Collective.

    Raises:
        InputError: it does not fit the number of labels or the domain; the same on all ranks.
    """
    n_labels, dim = space.n_labels, space.dim
    match terminal:
        case config.QuadraticTerminal():
            targets = terminal.targets if terminal.targets is not None else (terminal.target,) * n_labels
            return LinearLoss(space, quadratic(np.array(targets, dtype=float), terminal.weight))
        case config.ExpressionTerminal():
            names = (*COORDINATES[:dim], "label")
            expression = Expression.parse(terminal.value, names, "objective.terminal.value")
            return LinearLoss(space, formula(expression, n_labels))
        case config.LogisticTerminal():
            return LinearLoss(space, logistic(np.array(terminal.direction, dtype=float), terminal.offset))
        case config.CrossEntropyTerminal():
            weights = np.zeros((n_labels, dim)) if terminal.weights is None else np.array(terminal.weights, dtype=float)
            bias = np.zeros(n_labels) if terminal.bias is None else np.array(terminal.bias, dtype=float)
            if terminal.trainable:
                return TrainedCrossEntropy(space, weights, bias)
            return LinearLoss(space, cross_entropy(weights, bias))
