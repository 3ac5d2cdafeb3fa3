"""Losses ℓ(x, y) as functions of the points alone."""

from collections.abc import Callable

import numpy as np

from eulerian.base.arrays import Floats
from eulerian.base.formula import Expression
from eulerian.objective.losses import CrossEntropyLoss, FormulaLoss, LogisticLoss, PointLoss, QuadraticLoss

type Loss = Callable[[Floats], Floats]


def plain(loss: PointLoss) -> Loss:
    """x (n, dim) ↦ ℓ (n, K)."""
    return lambda x: loss.value(x, np.zeros(0))


def quadratic(targets: Floats, weight: float) -> Loss:
    return plain(QuadraticLoss(targets, weight))


def logistic(direction: Floats, offset: float) -> Loss:
    return plain(LogisticLoss(direction, offset))


def cross_entropy(weights: Floats, bias: Floats) -> Loss:
    return plain(CrossEntropyLoss(weights, bias, trained=False))


def formula(expression: Expression, n_labels: int) -> Loss:
    return plain(FormulaLoss(expression.text).bind(3, n_labels))
