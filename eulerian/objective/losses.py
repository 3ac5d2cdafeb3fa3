"""Losses ℓ(x, y) at points, with their derivatives; meshes integrate them against densities, particles take means."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike

from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.formula import COORDINATES, Expression
from eulerian.objective.point_functions import called, central_differences
from eulerian.objective.point_loss import PointLoss as PointLoss  # exported beside the losses, too
from eulerian.objective.point_loss import are_labels, numbers, require_axes, require_one_each
from eulerian.objective.ufl_objects import refuse_ufl


@final
@dataclass(frozen=True)
class QuadraticLoss(PointLoss):
    """weight/2 |x − target_y|².

    Attributes:
        targets: (dim,) for all labels, or (K, dim) one for each; bound they are (K, dim).
        weight: dimensionless.
    """

    non_negative = True

    targets: Floats
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", numbers(self.targets, "targets"))

    @property
    def goals(self) -> Floats:
        """The targets."""
        return self.targets

    @property
    def curvature(self) -> float:
        """The weight."""
        return self.weight

    def check_labels(self, n_labels: int, key: str = "terminal") -> None:
        """One target for all, or one for each."""
        if self.targets.ndim > 1:
            require_one_each(self.targets, n_labels, f"{key}.targets")

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:
        name = "target" if self.targets.ndim == 1 else "targets"
        require_axes(self.targets, dim, f"{key}.{name}")
        return replace(self, targets=np.array(np.broadcast_to(self.targets, (n_labels, dim))))

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, K)."""
        # Axis by axis: (n, K, dim) numbers at a time would leave the cache.
        away = sum((column[:, None] - target) ** 2 for column, target in zip(x.T, self.targets.T, strict=True))
        return np.asarray(0.5 * self.weight * away)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, K, dim)."""
        return self.weight * (x[:, None, :] - self.targets)


@final
@dataclass(frozen=True)
class LogisticLoss(PointLoss):
    """log(1 + exp(−s (direction·x + offset))), s = −1 for label 0 and +1 for label 1.

    Attributes:
        direction: (dim,).
        offset: of the separating plane.
    """

    of_classes = True
    non_negative = True

    direction: Floats
    offset: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", numbers(self.direction, "direction"))

    def check_labels(self, n_labels: int, key: str = "terminal") -> None:
        """Two of them."""
        if n_labels != 2:
            remedy = "Use cross_entropy, or label the initial densities 0 and 1."
            what = f"needs two labels, but there {are_labels(n_labels)}"
            raise InputError(what, key=f"{key}.kind", value="logistic", remedy=remedy)

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:  # noqa: ARG002 - checked
        require_axes(self.direction, dim, f"{key}.direction")
        return self

    def _margins(self, x: Floats) -> Floats:
        return np.asarray((x @ self.direction + self.offset)[:, None] * np.array([-1.0, 1.0]))

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, 2)."""
        return np.asarray(np.logaddexp(0.0, -self._margins(x)))

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, 2, dim)."""
        # exp(−log(1 + eᵐ)) is 1/(1 + eᵐ) without an overflow for large margins m.
        slope = -np.exp(-np.logaddexp(0.0, self._margins(x))) * np.array([-1.0, 1.0])
        return np.asarray(slope[..., None] * self.direction)


@final
@dataclass(frozen=True)
class FormulaLoss(PointLoss):
    """A formula in the coordinates x, y, z and ``label``, like "(x**2 - 1)**2/4".

    Attributes:
        text: the formula.
        dim: space dimension, once bound.
        n_labels: K, once bound.
    """

    text: str
    dim: int = 0
    n_labels: int = 0
    _expression: Expression | None = field(default=None, repr=False)

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:
        expression = Expression.parse(self.text, (*COORDINATES[:dim], "label"), f"{key}.value")
        return replace(self, dim=dim, n_labels=n_labels, _expression=expression)

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, K)."""
        assert self._expression is not None
        return np.stack([self._expression(self._at(x, y)) for y in range(self.n_labels)], axis=1)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, K, dim)."""
        assert self._expression is not None
        names = COORDINATES[: self.dim]
        slopes = [self._expression.gradient(self._at(x, y), names)[1] for y in range(self.n_labels)]
        return np.stack([np.stack(slope, axis=1) for slope in slopes], axis=1)

    def _at(self, x: Floats, label: int) -> dict[str, Floats | float]:
        return {**dict(zip(COORDINATES, x.T, strict=False)), "label": float(label)}


@final
@dataclass(frozen=True)
class FunctionLoss(PointLoss):
    """Any function ℓ(x) or ℓ(x, label) of points x (n, dim), with values (n,).

    It is passed the label where it takes a second positional argument. Its derivative in space is needed on particles
    only: by default it is taken by differences of fourth order, right to about 1e-12 relative to ℓ where ℓ varies over
    ``length`` (see ``central_differences``); give ``derivative`` where that is not enough.

    Attributes:
        function: ℓ.
        derivative: ∂ℓ/∂x (n, dim), called with the same arguments; or None.
        length: over which ℓ varies, in units of x.
    """

    function: Callable[..., ArrayLike]
    derivative: Callable[..., ArrayLike] | None = None
    length: float = 1.0
    n_labels: int = 0
    _labelled: bool = False
    _key: str = "terminal"

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:  # noqa: ARG002 - it fits any dimension
        refuse_ufl(self.function, key)
        return replace(self, n_labels=n_labels, _labelled=takes_label(self.function, key), _key=key)

    def value(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """ℓ, (n, K)."""
        columns = [self._of_label(x, *more) for more in self._labels]
        return np.repeat(columns[0][:, None], self.n_labels, axis=1) if not self._labelled else np.stack(columns, 1)

    def gradient(self, x: Floats, readout: Floats) -> Floats:  # noqa: ARG002 - the protocol's argument
        """∂ℓ/∂x, (n, K, dim)."""
        slopes = [self._slope(x, *more) for more in self._labels]
        return np.repeat(slopes[0][:, None], self.n_labels, axis=1) if not self._labelled else np.stack(slopes, 1)

    @property
    def _labels(self) -> list[tuple[int, ...]]:
        """What the function is called with besides points: nothing once, or each label."""
        return [(label,) for label in range(self.n_labels)] if self._labelled else [()]

    def _of_label(self, x: Floats, *label: int) -> Floats:
        return called(self.function, x, (len(x),), self._key, *label)

    def _slope(self, x: Floats, *label: int) -> Floats:
        if self.derivative is not None:
            return called(self.derivative, x, x.shape, f"{self._key}.derivative", *label)
        return central_differences(lambda y: self._of_label(y, *label), x, self.length)


@final
@dataclass(frozen=True)
class CrossEntropyLoss(PointLoss):
    """−log softmax(W x + b)_y, a linear readout of the end points.

    Attributes:
        weights: W (K, dim), fixed or where training starts; zero where it is missing.
        bias: b (K,), likewise.
        trained: (W row by row, b) is the readout.
    """

    of_classes = True
    affine_readout = True
    non_negative = True

    weights: Floats | None = None
    bias: Floats | None = None
    trained: bool = False

    def __post_init__(self) -> None:
        for name in ("weights", "bias"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else numbers(given, name))

    def check_labels(self, n_labels: int, key: str = "terminal") -> None:
        """At least two, with a row and an entry for each."""
        if n_labels < 2:
            remedy = "Label the initial densities 0, 1, …"
            what = f"needs at least two labels, but there {are_labels(n_labels)}"
            raise InputError(what, key=f"{key}.kind", value="cross_entropy", remedy=remedy)
        for name in ("weights", "bias"):
            given = getattr(self, name)
            if given is not None:
                require_one_each(given, n_labels, f"{key}.{name}")

    def _bound(self, dim: int, n_labels: int, key: str) -> Self:
        weights = np.zeros((n_labels, dim)) if self.weights is None else self.weights
        require_axes(weights, dim, f"{key}.weights")
        return replace(self, weights=weights, bias=np.zeros(n_labels) if self.bias is None else self.bias)

    @property
    def n_readout(self) -> int:
        """K·dim + K if trained, else 0."""
        return self.initial_readout().size

    def initial_readout(self) -> Floats:
        """(W row by row, b), or nothing."""
        if not self.trained:
            return np.zeros(0)
        assert self.weights is not None
        assert self.bias is not None
        return np.concatenate([self.weights.ravel(), self.bias])

    def _matrices(self, readout: Floats) -> tuple[Floats, Floats]:
        assert self.weights is not None
        assert self.bias is not None
        if not self.trained:
            return self.weights, self.bias
        # Parameters of other costs may follow.
        own = readout[: self.n_readout]
        return own[: self.weights.size].reshape(self.weights.shape), own[self.weights.size :]

    def value(self, x: Floats, readout: Floats) -> Floats:
        """ℓ, (n, K)."""
        weights, bias = self._matrices(readout)
        return -log_softmax(x @ weights.T + bias)

    def gradient(self, x: Floats, readout: Floats) -> Floats:
        """∂ℓ/∂x, (n, K, dim): Σ_j softmax_j W_j − W_y."""
        weights, bias = self._matrices(readout)
        # exp(log softmax): the probabilities, without an overflow of large scores.
        mean = np.exp(log_softmax(x @ weights.T + bias)) @ weights
        return mean[:, None, :] - weights

    def readout_vjp(self, x: Floats, readout: Floats, w: Floats) -> Floats:
        """Gradient (r,) with respect to the readout of Σ w_ny ℓ(x_n, y), w (n, K)."""
        if not self.trained:
            return np.zeros(0)
        weights, bias = self._matrices(readout)
        # Σ_y w_y (softmax − e_y): the derivative by the scores, then one product with the points.
        logits = np.exp(log_softmax(x @ weights.T + bias)) * w.sum(axis=1, keepdims=True) - w
        return np.concatenate([(logits.T @ x).ravel(), logits.sum(axis=0)])


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities (n, K) of logits (n, K), safe for large ones."""
    # A constant added to all scores changes nothing, and the largest exponent is then 0.
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def as_loss(what: Any, key: str = "terminal") -> PointLoss:
    """A loss as it is, the text of a formula or a function of points (and label) as one.

    Raises:
        InputError: it is nothing of this.
    """
    if hasattr(what, "bind"):
        loss: PointLoss = what
        return loss
    refuse_ufl(what, key)
    if isinstance(what, str):
        return FormulaLoss(what)
    if callable(what):
        return FunctionLoss(what)
    raise InputError(
        "is nothing that can be a terminal cost",
        key=key,
        value=type(what).__name__,
        remedy="Give a loss (QuadraticLoss, …), KullbackLeibler(target), SquaredDistance(target), or a function of "
        "points (n, dim), and of a label if you like, that returns (n,).",
    )


def takes_label(function: Callable[..., Any], key: str, names: tuple[str, ...] = ("x",)) -> bool:
    """Whether a function has one more positional argument without a default than these, or one that is called label.

    Args:
        function: of a user's.
        key: what it is called in messages.
        names: of the arguments that it is called with in any case.

    Raises:
        InputError: it cannot be called with these arguments, or with these and a label.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled code may not say
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    # A default is a parameter of the user's own, unless it is called label.
    needed = [p for p in positional if p.default is p.empty or p.name == "label"]
    # Keyword-only parameters are never passed, so those without a default make the call impossible.
    keywords = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    count, room = len(names), len(positional)
    enough = room >= count or any(p.kind == p.VAR_POSITIONAL for p in parameters)
    if len(needed) > count + 1 or keywords or not enough:
        call = ", ".join(names)
        what = f"cannot be called as f({call}) or f({call}, label): its arguments are {list(parameters)}"
        raise InputError(what, key=key, remedy="Wrap it.")
    return len(needed) == count + 1
